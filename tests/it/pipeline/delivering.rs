//! Deliveries when nothing fails, and requests that are rejected.

use std::sync::atomic::Ordering;
use std::time::Duration;

use voice_otp::call::Call;
use voice_otp::call::CallStatus;
use voice_otp::call::failure::Class;
use voice_otp::engine::{DeadLetterReason, Disposition};
use voice_otp::ports::{Directory as _, Ledger as _};
use voice_otp::settings::Draft;
use voice_otp::speech::Part;
use voice_otp_schemas::TenantId;
use voice_otp_schemas::reason::ReasonCode;

use super::test_bench::{TestBench, status_names, steps};
use crate::memory::sample::{Request, account, draft, key, number, verified};
use crate::memory::{Answer, CallEnd, CallTimeline};

#[tokio::test(start_paused = true)]
async fn a_request_is_accepted_placed_and_delivered() {
    let bench = TestBench::new();
    let worker = bench.worker("one").await;
    worker
        .accept(&[Request::new("acme", "a").to(7).code("A1b2")])
        .await;
    let statuses = bench.until_final("a").await;
    assert_eq!(
        status_names(&statuses),
        ["accepted", "placed", "ringing", "answered", "delivered"]
    );
    assert_eq!(
        statuses.iter().map(|data| data.attempt).collect::<Vec<_>>(),
        [0, 1, 1, 1, 1]
    );
    assert!(statuses[0].due_at.is_some() && statuses[0].call_sid.is_none());
    assert!(
        statuses[1..]
            .iter()
            .all(|data| data.call_sid == statuses[1].call_sid && data.call_sid.is_some())
    );
    let last = &statuses[4];
    assert_eq!(
        (last.call_duration_s, last.test, last.to_masked.as_deref()),
        (Some(30), false, Some("+1415*****07"))
    );
    assert!(
        last.timings.placed_ms < last.timings.answered_ms
            && last.timings.answered_ms < last.timings.ended_ms
    );
    assert_eq!(last.context.entries()["flow"], "login");

    let posts = bench.telephony.posts();
    assert_eq!(posts.len(), 1);
    assert_eq!(
        (posts[0].to.expose(), posts[0].from.expose()),
        (number(7).as_str(), "+12025550123")
    );
    assert_eq!(posts[0].account, account(1));
    let script = posts[0]
        .script
        .as_ref()
        .expect("the script is part of the POST");
    let read: String = script
        .parts
        .iter()
        .filter_map(|part| {
            if let Part::Symbol(word) = part {
                Some(word.as_str())
            } else {
                None
            }
        })
        .collect();
    assert_eq!(read, "AoneBtwo".repeat(3));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(
        bench.ledger.outbox_len(),
        0,
        "published events are deleted from the outbox"
    );
    assert_eq!(
        worker.engine.deliveries_owned(),
        0,
        "finished deliveries are released"
    );
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn every_outcome_of_a_call_becomes_the_final_status() {
    let bench = TestBench::new();
    let worker = bench.worker("one").await;
    let outcomes = [
        (
            CallEnd::Unanswered(CallStatus::Busy),
            "busy",
            Some(ReasonCode::Busy),
        ),
        (
            CallEnd::Unanswered(CallStatus::NoAnswer),
            "no_answer",
            Some(ReasonCode::NoAnswer),
        ),
        (
            CallEnd::Unanswered(CallStatus::Failed),
            "failed",
            Some(ReasonCode::CarrierFailed),
        ),
        (
            CallEnd::Unanswered(CallStatus::Canceled),
            "cancelled",
            Some(ReasonCode::CanceledAtProvider),
        ),
        (
            CallEnd::Answered(Duration::from_secs(2)),
            "hung_up",
            Some(ReasonCode::HungUp),
        ),
        (
            CallEnd::Answered(Duration::from_secs(40)),
            "delivered",
            None,
        ),
    ];
    for (n, (end, word, reason)) in (1..).zip(outcomes) {
        bench.telephony.answers(
            &number(n),
            &[Answer::Accepts(CallTimeline {
                end,
                ..CallTimeline::default()
            })],
        );
        worker.accept(&[Request::new("acme", word).to(n)]).await;
        let statuses = bench.until_final(word).await;
        assert_eq!(status_names(&statuses).last(), Some(&word));
        assert_eq!(
            statuses
                .last()
                .unwrap()
                .reason
                .as_ref()
                .map(|reason| reason.code),
            reason
        );
    }
    assert_eq!(bench.telephony.posts().len(), outcomes.len());
}

#[tokio::test(start_paused = true)]
async fn a_duplicate_places_no_call_and_different_content_is_dead_lettered() {
    let bench = TestBench::new();
    let worker = bench.worker("one").await;
    let request = Request::new("acme", "a");
    let (same, other) = (
        request.incoming(bench.now()),
        request.clone().code("111111").incoming(bench.now()),
    );
    let group = [request.incoming(bench.now()), same];
    assert_eq!(
        worker.process(&group).await,
        [Disposition::Acknowledge, Disposition::Acknowledge]
    );
    let conflict = Disposition::DeadLetter(DeadLetterReason::ConflictingDuplicate);
    assert_eq!(
        worker.process(std::slice::from_ref(&other)).await,
        [conflict]
    );
    bench.until_final("a").await;
    worker.accept(&[request]).await;
    assert_eq!(worker.process(&[other]).await, [conflict]);
    tokio::time::sleep(Duration::from_mins(2)).await;
    assert_eq!(bench.telephony.posts().len(), 1);
    assert_eq!(
        bench.statuses(&key("acme", "a")).len(),
        5,
        "a duplicate publishes nothing, before the final status or after"
    );
}

#[tokio::test(start_paused = true)]
async fn in_test_mode_no_call_is_placed() {
    let bench = TestBench::new();
    bench.directory.save(
        "acme",
        &Draft {
            test_mode: true,
            ..draft(1, 1.0)
        },
    );
    let worker = bench.worker("one").await;
    worker.accept(&[Request::new("acme", "a")]).await;
    let statuses = bench.until_final("a").await;
    assert_eq!(status_names(&statuses), ["accepted", "delivered"]);
    assert!(
        statuses
            .iter()
            .all(|data| data.test && data.call_sid.is_none())
    );
    assert!(bench.telephony.posts().is_empty());
}

#[tokio::test(start_paused = true)]
async fn requests_that_cannot_be_accepted_are_rejected_at_once_with_a_reason() {
    let bench = TestBench::new();
    bench.directory.save(
        "silent",
        &Draft {
            enabled: false,
            ..draft(2, 1.0)
        },
    );
    bench.directory.save(
        "spanish",
        &Draft {
            allowed_countries: vec!["ES".to_owned()],
            ..draft(3, 1.0)
        },
    );
    let worker = bench.worker("one").await;
    let cases = [
        (
            Request::new("ghost", "a"),
            "rejected",
            ReasonCode::UnknownTenant,
        ),
        (
            Request::new("silent", "a"),
            "rejected",
            ReasonCode::VoiceDisabled,
        ),
        (
            Request::new("spanish", "a"),
            "rejected",
            ReasonCode::DestinationNotAllowed,
        ),
        (
            Request::new("acme", "short").code("12"),
            "rejected",
            ReasonCode::InvalidRequest,
        ),
        (
            Request::new("acme", "long").expires_in(Duration::from_hours(2)),
            "rejected",
            ReasonCode::InvalidRequest,
        ),
        (
            Request::new("acme", "late").expires_in(Duration::from_secs(29)),
            "expired",
            ReasonCode::ExpiredOnArrival,
        ),
    ];
    let start = bench.now();
    for (request, word, code) in cases {
        worker.accept(std::slice::from_ref(&request)).await;
        let statuses = bench.until_final_of(&request.key()).await;
        assert_eq!(status_names(&statuses), [word]);
        assert_eq!(
            statuses[0].reason.as_ref().map(|reason| reason.code),
            Some(code)
        );
    }
    assert!(bench.now() < start + Duration::from_secs(1));
    assert!(bench.telephony.posts().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_tenants_credentials_are_verified_by_its_first_call() {
    let bench = TestBench::new();
    let unverified = bench.directory.save("bell", &draft(2, 1.0));
    let worker = bench.worker("one").await;
    bench
        .telephony
        .answers(&number(1), &[Answer::Fails(Class::Transient)]);
    worker
        .accept(&[Request::new("bell", "a"), Request::new("bell", "b").to(2)])
        .await;
    for id in ["a", "b"] {
        assert_eq!(
            steps(&bench.until_final_of(&key("bell", id)).await).last(),
            Some(&"delivered")
        );
    }
    let settings = bench.directory.current(&unverified.tenant_id).unwrap();
    assert_eq!(
        settings.pace_key,
        account(2).as_str(),
        "it uses the account's shared rate limit"
    );
    assert_eq!(bench.telephony.posts().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn settings_that_changed_without_a_notice_are_read_again() {
    let bench = TestBench::new();
    let worker = bench.worker_with_directory("one").await;
    let acme = TenantId::parse("acme").unwrap();
    bench
        .directory
        .settings(std::slice::from_ref(&acme))
        .await
        .unwrap();
    bench.directory.save_without_notice(
        "acme",
        &Draft {
            from: "+12025550199".to_owned(),
            ..draft(1, 1.0)
        },
    );
    worker.accept(&[Request::new("acme", "a")]).await;
    bench.until_final("a").await;
    assert_eq!(bench.telephony.posts()[0].from.expose(), "+12025550199");
}

#[tokio::test(start_paused = true)]
async fn a_deleted_tenant_gets_no_more_calls() {
    let bench = TestBench::new();
    let worker = bench.worker_with_directory("one").await;
    worker
        .accept(&[Request::new("acme", "a"), Request::new("acme", "b").to(2)])
        .await;
    bench.until_status("a", "placed").await;
    bench.directory.delete(&TenantId::parse("acme").unwrap());
    let statuses = bench.until_final("b").await;
    assert_eq!(status_names(&statuses), ["accepted", "rejected"]);
    assert_eq!(
        statuses[1].reason.as_ref().unwrap().code,
        ReasonCode::UnknownTenant
    );
    assert_eq!(bench.telephony.posts().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_callback_may_arrive_before_the_answer_to_the_post() {
    let bench = TestBench::new();
    bench.telephony.set_latency(Duration::from_secs(3));
    let worker = bench.worker("one").await;
    worker.accept(&[Request::new("acme", "a")]).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let attempt = bench.telephony.posts()[0].attempt_id;
    let ringing: Call = bench.telephony.calls().remove(0);
    assert_eq!(ringing.status, CallStatus::Ringing);
    for _ in 0..2 {
        let found = bench
            .ledger
            .find_attempt(attempt)
            .await
            .unwrap()
            .expect("the attempt is known");
        worker
            .engine
            .apply_call_update(found, attempt, &ringing)
            .await;
    }
    let statuses = bench.until_final("a").await;
    assert_eq!(
        status_names(&statuses),
        ["accepted", "placed", "ringing", "answered", "delivered"]
    );
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
async fn an_entered_code_is_recorded_and_changes_nothing_else() {
    let bench = TestBench::new();
    let worker = bench.worker("one").await;
    worker.accept(&[Request::new("acme", "a")]).await;
    let group = [
        verified("acme", "a", bench.now()),
        verified("acme", "unknown", bench.now()),
    ];
    assert_eq!(
        worker.process(&group).await,
        [Disposition::Acknowledge, Disposition::Acknowledge]
    );
    assert_eq!(
        status_names(&bench.until_final("a").await).last(),
        Some(&"delivered")
    );
}
