//! Taking back what has not been heard yet.

use std::sync::atomic::Ordering;
use std::time::Duration;

use voice_otp::engine::Disposition;
use voice_otp::progress::CallStatus;
use voice_otp_schemas::reason::ReasonCode;
use voice_otp_schemas::status::StatusData;

use super::bench::{Bench, Worker, steps, words};
use crate::memory::sample::{Ask, cancelled, cancelled_user, key, number};
use crate::memory::{Answer, Life};

async fn cancel(bench: &Bench, worker: &Worker, id: &str) {
    let done = worker.take_in(&[cancelled("acme", id, bench.now())]).await;
    assert_eq!(done, [Disposition::Done]);
}

fn check_withdrawn(told: &[StatusData]) {
    let last = told.last().unwrap();
    assert_eq!(last.status.as_str(), "cancelled");
    assert_eq!(
        last.reason.as_ref().unwrap().code,
        ReasonCode::CancelledByRequest
    );
}

#[tokio::test(start_paused = true)]
async fn what_waits_is_cancelled_at_once_and_never_placed() {
    let bench = Bench::new();
    let worker = bench.worker("one").await;
    worker
        .take(&[Ask::new("acme", "a"), Ask::new("acme", "b").calling(2)])
        .await;
    cancel(&bench, &worker, "b").await;
    let told = bench.ended("b").await;
    assert_eq!(words(&told), ["accepted", "cancelled"]);
    check_withdrawn(&told);
    bench.ended("a").await;
    cancel(&bench, &worker, "b").await;
    assert_eq!(bench.caller.calls_to(&number(2)), 0);
    assert_eq!(bench.told(&key("acme", "b")).len(), 2, "twice is once");
}

#[tokio::test(start_paused = true)]
async fn another_worker_may_cancel_what_this_one_holds() {
    let bench = Bench::new();
    let (first, second) = (bench.worker("one").await, bench.worker("two").await);
    first
        .take(&[Ask::new("acme", "a"), Ask::new("acme", "b").calling(2)])
        .await;
    cancel(&bench, &second, "b").await;
    check_withdrawn(&bench.ended("b").await);
    bench.until_told("a", "ringing").await;
    cancel(&bench, &second, "a").await;
    check_withdrawn(&bench.ended("a").await);
    assert_eq!(bench.caller.posts().len(), 1);
    assert_eq!(bench.caller.calls()[0].status, CallStatus::Canceled);
}

#[tokio::test(start_paused = true)]
async fn what_a_user_waits_for_is_cancelled() {
    let bench = Bench::new();
    let worker = bench.worker("one").await;
    let asks = [("a", "june"), ("b", "jane")];
    let asks: Vec<Ask> = (1..)
        .zip(asks)
        .map(|(n, (id, user))| Ask::new("acme", id).calling(n).of_user(user))
        .collect();
    worker.take(&asks).await;
    assert_eq!(
        worker
            .take_in(&[cancelled_user("acme", "jane", bench.now())])
            .await,
        [Disposition::Done]
    );
    check_withdrawn(&bench.ended("b").await);
    assert_eq!(steps(&bench.ended("a").await).last(), Some(&"delivered"));
}

#[tokio::test(start_paused = true)]
async fn a_cancellation_that_comes_before_its_request_counts_and_a_repeat_of_it_says_nothing() {
    let bench = Bench::new();
    let worker = bench.worker("one").await;
    cancel(&bench, &worker, "early").await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    let ask = Ask::new("acme", "early");
    worker.take(std::slice::from_ref(&ask)).await;
    let told = bench.ended("early").await;
    assert_eq!(words(&told), ["cancelled"]);
    check_withdrawn(&told);
    worker.take(&[ask.clone(), ask]).await;
    tokio::time::sleep(Duration::from_mins(1)).await;
    assert_eq!(
        (bench.caller.posts().len(), bench.sink.events().len()),
        (0, 1)
    );
}

#[tokio::test(start_paused = true)]
async fn a_ringing_call_is_hung_up() {
    let bench = Bench::new();
    let worker = bench.worker("one").await;
    worker.take(&[Ask::new("acme", "a")]).await;
    bench.until_told("a", "ringing").await;
    cancel(&bench, &worker, "a").await;
    let told = bench.ended("a").await;
    assert_eq!(words(&told), ["accepted", "placed", "ringing", "cancelled"]);
    check_withdrawn(&told);
    assert_eq!(bench.caller.calls()[0].status, CallStatus::Canceled);
    assert_eq!(worker.engine.counts().strays.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn an_answered_call_keeps_its_own_ending() {
    let bench = Bench::new();
    let worker = bench.worker("one").await;
    worker.take(&[Ask::new("acme", "a")]).await;
    bench.until_told("a", "answered").await;
    cancel(&bench, &worker, "a").await;
    assert_eq!(
        words(&bench.ended("a").await),
        ["accepted", "placed", "ringing", "answered", "delivered"]
    );
}

#[tokio::test(start_paused = true)]
async fn while_a_post_is_in_flight_nothing_final_is_said() {
    let bench = Bench::new();
    bench.caller.set_latency(Duration::from_secs(3));
    let worker = bench.worker("one").await;
    worker.take(&[Ask::new("acme", "a")]).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    cancel(&bench, &worker, "a").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(words(&bench.told(&key("acme", "a"))), ["accepted"]);
    let told = bench.ended("a").await;
    assert_eq!(words(&told), ["accepted", "placed", "cancelled"]);
    check_withdrawn(&told);
    assert_eq!(bench.caller.calls()[0].status, CallStatus::Canceled);
    assert_eq!(bench.caller.posts().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_call_of_unknown_outcome_is_found_and_hung_up() {
    let bench = Bench::new();
    let rings_long = Life {
        rings: Duration::from_mins(1),
        ..Life::default()
    };
    bench
        .caller
        .answers(&number(1), &[Answer::TakesUnheard(rings_long)]);
    let worker = bench.worker("one").await;
    worker.take(&[Ask::new("acme", "a")]).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    cancel(&bench, &worker, "a").await;
    let told = bench.ended("a").await;
    assert_eq!(steps(&told), ["accepted", "placed", "ringing", "cancelled"]);
    check_withdrawn(&told);
    assert_eq!(bench.caller.calls()[0].status, CallStatus::Canceled);
}

#[tokio::test(start_paused = true)]
async fn a_call_of_unknown_outcome_that_was_not_made_is_cancelled_once_that_is_known() {
    let bench = Bench::new();
    bench.caller.always(&number(1), Answer::Loses);
    let worker = bench.worker("one").await;
    worker.take(&[Ask::new("acme", "a")]).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    cancel(&bench, &worker, "a").await;
    let told = bench.ended("a").await;
    assert_eq!(steps(&told), ["accepted", "cancelled"]);
    check_withdrawn(&told);
    assert_eq!(bench.caller.posts().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_known_can_be_cancelled_without_harm() {
    let bench = Bench::new();
    let worker = bench.worker("one").await;
    cancel(&bench, &worker, "never-heard-of").await;
    assert_eq!(
        worker
            .take_in(&[cancelled_user("acme", "nobody", bench.now())])
            .await,
        [Disposition::Done]
    );
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(bench.sink.events().is_empty());
}
