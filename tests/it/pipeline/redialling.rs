//! Calls that reached nobody are placed again, as the tenant wants it, inside the code's life.

use std::sync::atomic::Ordering;
use std::time::Duration;

use voice_otp::engine::News;
use voice_otp::policy::{Again, Outcome};
use voice_otp::ports::Ledger as _;
use voice_otp::progress::CallStatus;
use voice_otp_schemas::reason::ReasonCode;

use super::bench::{Bench, steps};
use crate::memory::sample::{Ask, cancelled, draft, key, number, verified};
use crate::memory::{Answer, Life, Then};

const AFTER_S: u64 = 20;

fn ends(status: CallStatus) -> Answer {
    Answer::Takes(Life {
        then: Then::Ends(status),
        ..Life::default()
    })
}

/// A bench whose tenant calls again so often after this outcome.
fn redialling(outcome: Outcome, times: u32) -> Bench {
    let bench = Bench::new();
    let mut draft = draft(1, 1.0);
    draft.redial.set(
        outcome,
        Again {
            times,
            after_s: AFTER_S,
        },
    );
    let settings = bench.directory.save("acme", &draft);
    bench.directory.prove(&settings);
    bench
}

#[tokio::test(start_paused = true)]
async fn a_busy_line_is_called_again_a_while_later_as_an_attempt_of_its_own() {
    let bench = redialling(Outcome::Busy, 2);
    bench.caller.answers(
        &number(1),
        &[ends(CallStatus::Busy), Answer::Takes(Life::default())],
    );
    let worker = bench.worker("one").await;
    worker.take(&[Ask::new("acme", "a")]).await;
    let told = bench.ended("a").await;
    let all: Vec<&str> = told.iter().map(|data| data.status.as_str()).collect();
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
    let deferred = &told[3];
    assert_eq!(
        (deferred.attempt, deferred.reason.as_ref().unwrap().code),
        (1, ReasonCode::Redial)
    );
    assert!(deferred.due_at.is_some() && deferred.call_sid == told[1].call_sid);
    let last = told.last().unwrap();
    assert_eq!(last.attempt, 2);
    assert_ne!(last.call_sid, told[1].call_sid);
    let times = bench.post_times();
    let apart = (times[1] - times[0]).to_std().unwrap();
    assert!(apart >= Duration::from_secs(AFTER_S), "{apart:?}");
    assert!(last.timings.placed_ms > told[1].timings.placed_ms);
}

#[tokio::test(start_paused = true)]
async fn it_is_called_again_as_often_as_the_policy_says_and_then_it_is_over() {
    let bench = redialling(Outcome::NoAnswer, 2);
    bench.caller.always(&number(1), ends(CallStatus::NoAnswer));
    let worker = bench.worker("one").await;
    worker
        .take(&[Ask::new("acme", "a").living(Duration::from_mins(10))])
        .await;
    let told = bench.ended("a").await;
    assert_eq!(
        told.iter()
            .filter(|data| data.status.as_str() == "deferred")
            .count(),
        2
    );
    let last = told.last().unwrap();
    assert_eq!((last.status.as_str(), last.attempt), ("no_answer", 3));
    assert_eq!(bench.caller.posts().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn only_what_the_policy_names_is_called_again() {
    let bench = redialling(Outcome::NoAnswer, 2);
    bench.caller.always(&number(1), ends(CallStatus::Busy));
    let worker = bench.worker("one").await;
    worker.take(&[Ask::new("acme", "a")]).await;
    assert_eq!(steps(&bench.ended("a").await).last(), Some(&"busy"));
    assert_eq!(bench.caller.posts().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn nobody_is_called_again_when_the_code_would_have_expired() {
    let bench = redialling(Outcome::Busy, 5);
    bench.caller.always(&number(1), ends(CallStatus::Busy));
    let worker = bench.worker("one").await;
    // Half a minute is kept for the last ring and reading, so that there is time for one more call and not for two.
    worker
        .take(&[Ask::new("acme", "a").living(Duration::from_secs(80))])
        .await;
    let told = bench.ended("a").await;
    assert_eq!(
        (
            told.last().unwrap().status.as_str(),
            bench.caller.posts().len()
        ),
        ("busy", 2)
    );
    assert!(bench.post_times()[1] < bench.post_times()[0] + Duration::from_secs(50));
}

#[tokio::test(start_paused = true)]
async fn late_news_of_the_ended_call_changes_nothing_and_hangs_nothing_up() {
    let bench = redialling(Outcome::Busy, 1);
    bench.caller.answers(&number(1), &[ends(CallStatus::Busy)]);
    let worker = bench.worker("one").await;
    worker.take(&[Ask::new("acme", "a")]).await;
    bench.until_told("a", "deferred").await;
    let (attempt, mut call) = bench.caller.calls_of_attempts().remove(0);
    for status in [
        CallStatus::Ringing,
        CallStatus::InProgress,
        CallStatus::Busy,
    ] {
        call.status = status;
        let found = bench.ledger.find_attempt(attempt).await.unwrap().unwrap();
        assert!(found.over);
        assert_eq!(worker.engine.news(found, attempt, &call).await, News::Taken);
    }
    let told = bench.ended("a").await;
    assert_eq!(told.last().unwrap().status.as_str(), "delivered");
    assert_eq!(worker.engine.counts().strays.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn who_takes_it_back_before_the_next_call_is_not_called_again() {
    let bench = redialling(Outcome::Busy, 1);
    bench.caller.always(&number(1), ends(CallStatus::Busy));
    let worker = bench.worker("one").await;
    worker.take(&[Ask::new("acme", "a")]).await;
    bench.until_told("a", "deferred").await;
    worker.take_in(&[cancelled("acme", "a", bench.now())]).await;
    assert_eq!(
        bench.ended("a").await.last().unwrap().status.as_str(),
        "cancelled"
    );
    tokio::time::sleep(Duration::from_mins(2)).await;
    assert_eq!(bench.caller.posts().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn who_has_entered_the_code_is_not_called_again() {
    let bench = redialling(Outcome::Busy, 1);
    bench.caller.always(&number(1), ends(CallStatus::Busy));
    let worker = bench.worker("one").await;
    worker.take(&[Ask::new("acme", "a")]).await;
    bench.until_told("a", "deferred").await;
    worker.take_in(&[verified("acme", "a", bench.now())]).await;
    let told = bench.ended("a").await;
    let last = told.last().unwrap();
    assert_eq!(
        (last.status.as_str(), last.reason.as_ref().unwrap().code),
        ("cancelled", ReasonCode::Verified)
    );
    assert_eq!(bench.caller.posts().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_dies_between_two_calls_leaves_the_second_to_another() {
    let bench = redialling(Outcome::Busy, 1);
    bench.caller.answers(&number(1), &[ends(CallStatus::Busy)]);
    let one = bench.worker("one").await;
    one.take(&[Ask::new("acme", "a")]).await;
    bench.until_told("a", "deferred").await;
    one.kill().await;
    let _two = bench.worker("two").await;
    let told = bench.ended_with_repeats(&key("acme", "a")).await;
    assert_eq!(told.last().unwrap().status.as_str(), "delivered");
    assert_eq!(bench.caller.posts().len(), 2);
}
