//! What happens when a placement doesn't go well.

use std::time::Duration;

use voice_otp::failure::{Class, Fault};
use voice_otp::progress::CallStatus;
use voice_otp_schemas::Timestamp;
use voice_otp_schemas::reason::ReasonCode;

use super::bench::{Bench, steps, words};
use crate::memory::sample::{Ask, number};
use crate::memory::{Answer, Life};

/// The pauses between POSTs.
fn gaps(times: &[Timestamp]) -> Vec<Duration> {
    times
        .windows(2)
        .map(|pair| (pair[1] - pair[0]).to_std().unwrap())
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_throttled_call_is_snoozed_and_keeps_its_attempt() {
    let bench = Bench::new();
    let wait = Duration::from_secs(7);
    bench
        .caller
        .answers(&number(1), &[Answer::Fails(Class::Throttled(Some(wait)))]);
    let worker = bench.worker("one").await;
    worker.take(&[Ask::new("acme", "a")]).await;
    let told = bench.ended("a").await;
    assert_eq!(
        words(&told),
        [
            "accepted",
            "deferred",
            "placed",
            "ringing",
            "answered",
            "delivered"
        ]
    );
    let reason = told[1].reason.as_ref().unwrap();
    assert_eq!(reason.code, ReasonCode::Throttled);
    assert!(reason.retry_at.is_some() && told[1].due_at == reason.retry_at);
    assert_eq!(told[2].attempt, 1, "waiting spends nothing");
    let posts = bench.caller.posts();
    assert_eq!(posts.len(), 2);
    assert!(posts[1].at - posts[0].at >= chrono::TimeDelta::from_std(wait).unwrap());
    assert_ne!(
        posts[0].attempt_id, posts[1].attempt_id,
        "every POST has an id of its own"
    );
}

#[tokio::test(start_paused = true)]
async fn a_call_may_be_throttled_more_often_than_it_has_attempts() {
    let bench = Bench::new();
    bench
        .caller
        .answers(&number(1), &[Answer::Fails(Class::Throttled(None)); 6]);
    let worker = bench.worker("one").await;
    worker.take(&[Ask::new("acme", "a")]).await;
    let told = bench.ended("a").await;
    assert_eq!(
        steps(&told),
        ["accepted", "placed", "ringing", "answered", "delivered"]
    );
    assert_eq!(told.last().unwrap().attempt, 1);
    let gaps = gaps(&bench.post_times());
    assert_eq!(gaps.len(), 6);
    assert!(
        gaps.iter().all(|gap| *gap > Duration::from_millis(900)),
        "every POST takes a slot: {gaps:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_congested_account_spends_an_attempt_and_an_unreachable_twilio_none() {
    let bench = Bench::new();
    bench.caller.answers(
        &number(1),
        &[
            Answer::Fails(Class::Transient),
            Answer::Fails(Class::Congested),
        ],
    );
    let worker = bench.worker("one").await;
    worker.take(&[Ask::new("acme", "a")]).await;
    let told = bench.ended("a").await;
    assert_eq!(
        steps(&told),
        ["accepted", "placed", "ringing", "answered", "delivered"]
    );
    assert_eq!(told.last().unwrap().attempt, 2);
}

#[tokio::test(start_paused = true)]
async fn an_unreachable_twilio_is_tried_as_long_as_the_code_lives() {
    let bench = Bench::new();
    bench
        .caller
        .always(&number(1), Answer::Fails(Class::Transient));
    let worker = bench.worker("one").await;
    worker.take(&[Ask::new("acme", "a")]).await;
    let told = bench.ended("a").await;
    let last = told.last().unwrap();
    assert_eq!(
        (last.attempt, last.reason.as_ref().unwrap().code),
        (0, ReasonCode::ExpiredWaiting)
    );
    let posts = bench.post_times();
    assert!(posts.len() > 6, "{} tries", posts.len());
    assert!(
        posts
            .iter()
            .all(|at| *at <= posts[0] + Duration::from_secs(150)),
        "none later than the lead allows"
    );
}

#[tokio::test(start_paused = true)]
async fn a_congested_account_is_tried_until_the_attempts_are_spent() {
    let bench = Bench::new();
    bench
        .caller
        .always(&number(1), Answer::Fails(Class::Congested));
    let worker = bench.worker("one").await;
    worker.take(&[Ask::new("acme", "a")]).await;
    let told = bench.ended("a").await;
    assert_eq!(steps(&told), ["accepted", "failed"]);
    let last = told.last().unwrap();
    assert_eq!(
        (last.attempt, last.reason.as_ref().unwrap().code),
        (3, ReasonCode::ProviderTrouble)
    );
    let gaps = gaps(&bench.post_times());
    assert_eq!(gaps.len(), 2);
    assert!(
        gaps.iter().all(|gap| *gap > Duration::from_millis(900)),
        "every POST takes a slot: {gaps:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_permanent_failure_ends_at_once_and_says_whose_fault() {
    let bench = Bench::new();
    let worker = bench.worker("one").await;
    let faults = [
        (Fault::Credentials, ReasonCode::TenantCredentials),
        (Fault::Tenant, ReasonCode::TenantConfiguration),
        (Fault::Destination, ReasonCode::DestinationInvalid),
        (Fault::Blocked, ReasonCode::DestinationBlocked),
        (Fault::Ours, ReasonCode::RequestRefused),
    ];
    for (n, (fault, code)) in (1..).zip(faults) {
        bench
            .caller
            .always(&number(n), Answer::Fails(Class::Permanent(fault)));
        // Each a tenant of its own: what is said of one's credentials ends what it asks for afterwards.
        let tenant = format!("tenant{n}");
        bench.tenant(&tenant, n, 1.0);
        let ask = Ask::new(&tenant, "a").calling(n);
        worker.take(std::slice::from_ref(&ask)).await;
        let told = bench.ended_of(&ask.key()).await;
        assert_eq!(words(&told), ["accepted", "failed"]);
        assert_eq!(told[1].reason.as_ref().unwrap().code, code);
        assert_eq!(bench.caller.posts().len(), usize::try_from(n).unwrap());
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_posted_after_the_last_moment_whatever_goes_wrong() {
    let four_seconds = Some(Duration::from_secs(4));
    for answer in [
        Answer::Fails(Class::Transient),
        Answer::Fails(Class::Congested),
        Answer::Fails(Class::Throttled(None)),
        Answer::Fails(Class::Throttled(four_seconds)),
        Answer::Loses,
    ] {
        let mut bench = Bench::new();
        bench.tuning.attempts = 1_000;
        bench.caller.always(&number(1), answer);
        let worker = bench.worker("one").await;
        let place_by = bench.now() + Duration::from_secs(30);
        worker
            .take(&[Ask::new("acme", "a").living(Duration::from_mins(1))])
            .await;
        let told = bench.ended("a").await;
        assert_eq!(words(&told).last(), Some(&"expired"), "{answer:?}");
        assert!(
            told.last().unwrap().timings.ended_ms.unwrap() < 60_000,
            "known before the code is worth nothing"
        );
        tokio::time::sleep(Duration::from_mins(5)).await;
        let times = bench.post_times();
        assert!(times.len() > 1, "{answer:?}");
        let slack = Duration::from_millis(5);
        assert!(
            times.iter().all(|at| *at <= place_by + slack),
            "{answer:?}: {:?} after {place_by}",
            times.last()
        );
        worker.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_twilio_holds_for_too_long_is_cancelled_and_expires() {
    let bench = Bench::new();
    let held = Life {
        queued: Duration::from_hours(1),
        ..Life::default()
    };
    bench.caller.answers(&number(1), &[Answer::Takes(held)]);
    let worker = bench.worker("one").await;
    let start = bench.now();
    worker
        .take(&[Ask::new("acme", "a").living(Duration::from_mins(1))])
        .await;
    let told = bench.ended("a").await;
    assert_eq!(words(&told), ["accepted", "placed", "expired"]);
    assert_eq!(
        told[2].reason.as_ref().unwrap().code,
        ReasonCode::ProviderQueue
    );
    assert_eq!(bench.caller.calls()[0].status, CallStatus::Canceled);
    assert!(
        bench.now() < start + Duration::from_secs(35),
        "right after the last moment for a POST"
    );
}
