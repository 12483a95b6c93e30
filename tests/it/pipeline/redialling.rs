//! Redials: after a call that reached no one, another is placed by the tenant's policy, before the
//! code expires.

use std::sync::atomic::Ordering;
use std::time::Duration;

use voice_otp::call::CallStatus;
use voice_otp::call::failure::Class;
use voice_otp::engine::UpdateOutcome;
use voice_otp::ports::Ledger as _;
use voice_otp::settings::policy::{RedialOutcome, RedialRule};
use voice_otp_schemas::reason::ReasonCode;

use super::test_bench::{TestBench, steps};
use crate::memory::sample::{Request, cancelled, draft, key, number, verified};
use crate::memory::{Answer, CallEnd, CallTimeline};

const AFTER_S: u64 = 20;

fn ends(status: CallStatus) -> Answer {
    Answer::Accepts(CallTimeline {
        end: CallEnd::Unanswered(status),
        ..CallTimeline::default()
    })
}

/// A bench whose tenant redials this many times after an outcome.
fn bench_with_redials(outcome: RedialOutcome, times: u32) -> TestBench {
    let bench = TestBench::new();
    let mut draft = draft(1, 1.0);
    draft.redial.set(
        outcome,
        RedialRule {
            times,
            after_s: AFTER_S,
        },
    );
    let settings = bench.directory.save("acme", &draft);
    bench.directory.verify_credentials(&settings);
    bench
}

#[tokio::test(start_paused = true)]
async fn a_busy_line_is_redialled_later_as_an_attempt_of_its_own() {
    let bench = bench_with_redials(RedialOutcome::Busy, 2);
    bench.telephony.answers(
        &number(1),
        &[
            ends(CallStatus::Busy),
            Answer::Accepts(CallTimeline::default()),
        ],
    );
    let worker = bench.worker("one").await;
    worker.accept(&[Request::new("acme", "a")]).await;
    let statuses = bench.until_final("a").await;
    let all: Vec<&str> = statuses.iter().map(|data| data.status.as_str()).collect();
    assert_eq!(
        all,
        [
            "accepted",
            "placed",
            "ringing",
            "deferred",
            "placed",
            "ringing",
            "answered",
            "delivered"
        ]
    );
    let deferred = &statuses[3];
    assert_eq!(
        (deferred.attempt, deferred.reason.as_ref().unwrap().code),
        (1, ReasonCode::Redial)
    );
    assert!(deferred.due_at.is_some() && deferred.call_sid == statuses[1].call_sid);
    let last = statuses.last().unwrap();
    assert_eq!(last.attempt, 2);
    assert_ne!(last.call_sid, statuses[1].call_sid);
    let times = bench.post_times();
    let apart = (times[1] - times[0]).to_std().unwrap();
    assert!(apart >= Duration::from_secs(AFTER_S), "{apart:?}");
    assert!(last.timings.placed_ms > statuses[1].timings.placed_ms);
}

#[tokio::test(start_paused = true)]
async fn redials_stop_at_the_policys_limit() {
    let bench = bench_with_redials(RedialOutcome::NoAnswer, 2);
    bench
        .telephony
        .always(&number(1), ends(CallStatus::NoAnswer));
    let worker = bench.worker("one").await;
    worker
        .accept(&[Request::new("acme", "a").expires_in(Duration::from_mins(10))])
        .await;
    let statuses = bench.until_final("a").await;
    assert_eq!(
        statuses
            .iter()
            .filter(|data| data.status.as_str() == "deferred")
            .count(),
        2
    );
    let last = statuses.last().unwrap();
    assert_eq!((last.status.as_str(), last.attempt), ("no_answer", 3));
    assert_eq!(bench.telephony.posts().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn only_the_outcomes_that_the_policy_names_are_redialled() {
    let bench = bench_with_redials(RedialOutcome::NoAnswer, 2);
    bench.telephony.always(&number(1), ends(CallStatus::Busy));
    let worker = bench.worker("one").await;
    worker.accept(&[Request::new("acme", "a")]).await;
    assert_eq!(steps(&bench.until_final("a").await).last(), Some(&"busy"));
    assert_eq!(bench.telephony.posts().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn no_redial_is_placed_after_the_codes_deadline() {
    let bench = bench_with_redials(RedialOutcome::Busy, 5);
    bench.telephony.always(&number(1), ends(CallStatus::Busy));
    let worker = bench.worker("one").await;
    // The latest-start margin of 30 s leaves time for one more call, and not for two.
    worker
        .accept(&[Request::new("acme", "a").expires_in(Duration::from_secs(80))])
        .await;
    let statuses = bench.until_final("a").await;
    assert_eq!(
        (
            statuses.last().unwrap().status.as_str(),
            bench.telephony.posts().len()
        ),
        ("busy", 2)
    );
    assert!(bench.post_times()[1] < bench.post_times()[0] + Duration::from_secs(50));
}

#[tokio::test(start_paused = true)]
async fn late_callbacks_of_an_ended_call_change_nothing_and_hang_up_nothing() {
    let bench = bench_with_redials(RedialOutcome::Busy, 1);
    bench
        .telephony
        .answers(&number(1), &[ends(CallStatus::Busy)]);
    let worker = bench.worker("one").await;
    worker.accept(&[Request::new("acme", "a")]).await;
    bench.until_status("a", "deferred").await;
    let (attempt, mut call) = bench.telephony.calls_of_attempts().remove(0);
    for status in [
        CallStatus::Ringing,
        CallStatus::InProgress,
        CallStatus::Busy,
    ] {
        call.status = status;
        let found = bench.ledger.find_attempt(attempt).await.unwrap().unwrap();
        assert!(found.ended);
        assert_eq!(
            worker.engine.apply_call_update(found, attempt, &call).await,
            UpdateOutcome::Applied
        );
    }
    let statuses = bench.until_final("a").await;
    assert_eq!(statuses.last().unwrap().status.as_str(), "delivered");
    assert_eq!(
        worker
            .engine
            .counts()
            .orphaned_calls
            .load(Ordering::Relaxed),
        0
    );
}

#[tokio::test(start_paused = true)]
async fn a_delivery_cancelled_before_its_redial_is_not_called_again() {
    let bench = bench_with_redials(RedialOutcome::Busy, 1);
    bench.telephony.always(&number(1), ends(CallStatus::Busy));
    let worker = bench.worker("one").await;
    worker.accept(&[Request::new("acme", "a")]).await;
    bench.until_status("a", "deferred").await;
    worker.process(&[cancelled("acme", "a", bench.now())]).await;
    assert_eq!(
        bench.until_final("a").await.last().unwrap().status.as_str(),
        "cancelled"
    );
    tokio::time::sleep(Duration::from_mins(2)).await;
    assert_eq!(bench.telephony.posts().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_user_who_has_entered_the_code_is_not_called_again() {
    let bench = bench_with_redials(RedialOutcome::Busy, 1);
    bench.telephony.always(&number(1), ends(CallStatus::Busy));
    let worker = bench.worker("one").await;
    worker.accept(&[Request::new("acme", "a")]).await;
    bench.until_status("a", "deferred").await;
    worker.process(&[verified("acme", "a", bench.now())]).await;
    let statuses = bench.until_final("a").await;
    let last = statuses.last().unwrap();
    assert_eq!(
        (last.status.as_str(), last.reason.as_ref().unwrap().code),
        ("cancelled", ReasonCode::Verified)
    );
    assert_eq!(bench.telephony.posts().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_code_entered_while_a_redial_is_tried_stops_the_next_try() {
    let bench = bench_with_redials(RedialOutcome::Busy, 1);
    bench.telephony.answers(
        &number(1),
        &[ends(CallStatus::Busy), Answer::Fails(Class::Transient)],
    );
    let worker = bench.worker("one").await;
    worker.accept(&[Request::new("acme", "a")]).await;
    bench.until_status("a", "deferred").await;
    bench.telephony.set_latency(Duration::from_secs(5));
    while bench.telephony.posts().len() < 2 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // The redial isn't waiting now, so there is nothing to cancel.
    worker.process(&[verified("acme", "a", bench.now())]).await;
    let statuses = bench.until_final("a").await;
    let last = statuses.last().unwrap();
    assert_eq!(
        (last.status.as_str(), last.reason.as_ref().unwrap().code),
        ("cancelled", ReasonCode::Verified)
    );
    assert_eq!(bench.telephony.posts().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn the_redial_of_a_killed_worker_is_placed_by_another() {
    let bench = bench_with_redials(RedialOutcome::Busy, 1);
    bench
        .telephony
        .answers(&number(1), &[ends(CallStatus::Busy)]);
    let one = bench.worker("one").await;
    one.accept(&[Request::new("acme", "a")]).await;
    bench.until_status("a", "deferred").await;
    one.kill().await;
    let _two = bench.worker("two").await;
    let statuses = bench.until_final_with_duplicates(&key("acme", "a")).await;
    assert_eq!(statuses.last().unwrap().status.as_str(), "delivered");
    assert_eq!(bench.telephony.posts().len(), 2);
}
