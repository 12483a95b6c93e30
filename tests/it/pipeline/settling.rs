//! A POST whose outcome is unknown: Twilio is asked before anything else is tried.

use std::sync::atomic::Ordering;
use std::time::Duration;

use voice_otp::failure::Class;
use voice_otp_schemas::reason::ReasonCode;

use super::bench::{Bench, steps};
use crate::memory::sample::{Ask, number};
use crate::memory::{Answer, Life};

#[tokio::test(start_paused = true)]
async fn a_call_that_was_made_all_the_same_is_adopted() {
    let bench = Bench::new();
    bench
        .caller
        .answers(&number(1), &[Answer::TakesUnheard(Life::default())]);
    let worker = bench.worker("one").await;
    worker.take(&[Ask::new("acme", "a")]).await;
    let told = bench.ended("a").await;
    assert_eq!(
        steps(&told),
        ["accepted", "placed", "ringing", "answered", "delivered"]
    );
    let settling = told
        .iter()
        .find_map(|data| data.reason.as_ref())
        .expect("it was deferred");
    assert_eq!(settling.code, ReasonCode::Settling);
    let last = told.last().unwrap();
    assert_eq!(
        (last.attempt, last.call_sid.as_deref()),
        (1, Some(bench.caller.calls()[0].sid.as_str()))
    );
    assert_eq!(bench.caller.posts().len(), 1);
    assert_eq!(worker.engine.counts().strays.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_listed_late_is_still_found_before_another_is_placed() {
    let bench = Bench::new();
    bench.caller.set_list_lag(Duration::from_secs(11));
    bench
        .caller
        .answers(&number(1), &[Answer::TakesUnheard(Life::default())]);
    let worker = bench.worker("one").await;
    worker.take(&[Ask::new("acme", "a")]).await;
    assert_eq!(steps(&bench.ended("a").await).last(), Some(&"delivered"));
    assert_eq!(
        (
            bench.caller.posts().len(),
            bench.caller.calls_to(&number(1))
        ),
        (1, 1)
    );
}

#[tokio::test(start_paused = true)]
async fn a_call_that_was_not_made_is_placed_again_only_once_its_absence_counts() {
    let bench = Bench::new();
    bench.caller.answers(&number(1), &[Answer::Loses]);
    let worker = bench.worker("one").await;
    worker.take(&[Ask::new("acme", "a")]).await;
    let told = bench.ended("a").await;
    assert_eq!(
        steps(&told),
        ["accepted", "placed", "ringing", "answered", "delivered"]
    );
    assert_eq!(told.last().unwrap().attempt, 2, "the lost one is spent");
    let times = bench.post_times();
    assert_eq!(times.len(), 2);
    // The answer was waited for two seconds; from then on the list's lag counts.
    let wait = (times[1] - times[0]).to_std().unwrap();
    assert!(wait >= Duration::from_secs(12), "{wait:?}");
    assert!(wait < Duration::from_secs(15), "{wait:?}");
}

#[tokio::test(start_paused = true)]
async fn outcomes_that_stay_unknown_spend_the_attempts() {
    let bench = Bench::new();
    bench.caller.always(&number(1), Answer::Loses);
    let worker = bench.worker("one").await;
    worker.take(&[Ask::new("acme", "a")]).await;
    let told = bench.ended("a").await;
    assert_eq!(steps(&told), ["accepted", "failed"]);
    let last = told.last().unwrap();
    assert_eq!(
        (last.attempt, last.reason.as_ref().unwrap().code),
        (3, ReasonCode::ProviderTrouble)
    );
    assert_eq!(bench.caller.posts().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn somebody_elses_call_on_the_same_line_is_not_adopted() {
    let bench = Bench::new();
    // The first delivery's call is known; the second's POST is lost, and made none.
    bench
        .caller
        .answers(&number(1), &[Answer::Takes(Life::default()), Answer::Loses]);
    let worker = bench.worker("one").await;
    worker
        .take(&[Ask::new("acme", "a"), Ask::new("acme", "b")])
        .await;
    for id in ["a", "b"] {
        assert_eq!(steps(&bench.ended(id).await).last(), Some(&"delivered"));
    }
    assert_eq!(
        (
            bench.caller.posts().len(),
            bench.caller.calls_to(&number(1))
        ),
        (3, 2)
    );
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_believed_and_not_looked_up() {
    let bench = Bench::new();
    bench
        .caller
        .answers(&number(1), &[Answer::Fails(Class::Transient)]);
    let worker = bench.worker("one").await;
    worker.take(&[Ask::new("acme", "a")]).await;
    bench.ended("a").await;
    let times = bench.post_times();
    assert!(times[1] - times[0] < chrono::TimeDelta::seconds(3));
}
