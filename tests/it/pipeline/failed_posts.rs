//! Attempts whose POST fails.

use std::time::Duration;

use voice_otp::call::CallStatus;
use voice_otp::call::failure::{Class, Fault};
use voice_otp_schemas::Timestamp;
use voice_otp_schemas::reason::ReasonCode;

use super::test_bench::{TestBench, status_names, steps};
use crate::memory::sample::{Request, number};
use crate::memory::{Answer, CallTimeline};

/// The intervals between POSTs.
fn gaps(times: &[Timestamp]) -> Vec<Duration> {
    times
        .windows(2)
        .map(|pair| (pair[1] - pair[0]).to_std().unwrap())
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_throttled_call_is_snoozed_and_keeps_its_attempt() {
    let bench = TestBench::new();
    let wait = Duration::from_secs(7);
    bench
        .telephony
        .answers(&number(1), &[Answer::Fails(Class::Throttled(Some(wait)))]);
    let worker = bench.worker("one").await;
    worker.accept(&[Request::new("acme", "a")]).await;
    let statuses = bench.until_final("a").await;
    assert_eq!(
        status_names(&statuses),
        [
            "accepted",
            "deferred",
            "placed",
            "ringing",
            "answered",
            "delivered"
        ]
    );
    let reason = statuses[1].reason.as_ref().unwrap();
    assert_eq!(reason.code, ReasonCode::Throttled);
    assert!(reason.retry_at.is_some() && statuses[1].due_at == reason.retry_at);
    assert_eq!(statuses[2].attempt, 1, "a throttled attempt doesn't count");
    let posts = bench.telephony.posts();
    assert_eq!(posts.len(), 2);
    assert!(posts[1].at - posts[0].at >= chrono::TimeDelta::from_std(wait).unwrap());
    assert_ne!(
        posts[0].attempt_id, posts[1].attempt_id,
        "every POST has its own attempt id"
    );
}

#[tokio::test(start_paused = true)]
async fn a_call_may_be_throttled_more_often_than_it_has_attempts() {
    let bench = TestBench::new();
    bench
        .telephony
        .answers(&number(1), &[Answer::Fails(Class::Throttled(None)); 6]);
    let worker = bench.worker("one").await;
    worker.accept(&[Request::new("acme", "a")]).await;
    let statuses = bench.until_final("a").await;
    assert_eq!(
        steps(&statuses),
        ["accepted", "placed", "ringing", "answered", "delivered"]
    );
    assert_eq!(statuses.last().unwrap().attempt, 1);
    let gaps = gaps(&bench.post_times());
    assert_eq!(gaps.len(), 6);
    assert!(
        gaps.iter().all(|gap| *gap > Duration::from_millis(900)),
        "every POST takes a slot: {gaps:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_congested_account_uses_up_an_attempt_and_an_unreachable_twilio_none() {
    let bench = TestBench::new();
    bench.telephony.answers(
        &number(1),
        &[
            Answer::Fails(Class::Transient),
            Answer::Fails(Class::Congested),
        ],
    );
    let worker = bench.worker("one").await;
    worker.accept(&[Request::new("acme", "a")]).await;
    let statuses = bench.until_final("a").await;
    assert_eq!(
        steps(&statuses),
        ["accepted", "placed", "ringing", "answered", "delivered"]
    );
    assert_eq!(statuses.last().unwrap().attempt, 2);
}

#[tokio::test(start_paused = true)]
async fn an_unreachable_twilio_is_retried_until_the_deadline() {
    let bench = TestBench::new();
    bench
        .telephony
        .always(&number(1), Answer::Fails(Class::Transient));
    let worker = bench.worker("one").await;
    worker.accept(&[Request::new("acme", "a")]).await;
    let statuses = bench.until_final("a").await;
    let last = statuses.last().unwrap();
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
        "none after the deadline"
    );
}

#[tokio::test(start_paused = true)]
async fn a_congested_account_is_retried_until_the_attempts_are_used_up() {
    let bench = TestBench::new();
    bench
        .telephony
        .always(&number(1), Answer::Fails(Class::Congested));
    let worker = bench.worker("one").await;
    worker.accept(&[Request::new("acme", "a")]).await;
    let statuses = bench.until_final("a").await;
    assert_eq!(steps(&statuses), ["accepted", "failed"]);
    let last = statuses.last().unwrap();
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
async fn a_permanent_failure_is_final_at_once_and_names_the_responsible_party() {
    let bench = TestBench::new();
    let worker = bench.worker("one").await;
    let faults = [
        (Fault::Credentials, ReasonCode::TenantCredentials),
        (Fault::Tenant, ReasonCode::TenantConfiguration),
        (Fault::Destination, ReasonCode::DestinationInvalid),
        (Fault::Blocked, ReasonCode::DestinationBlocked),
        (Fault::Internal, ReasonCode::RequestRefused),
    ];
    for (n, (fault, code)) in (1..).zip(faults) {
        bench
            .telephony
            .always(&number(n), Answer::Fails(Class::Permanent(fault)));
        // One tenant for each fault, since rejected credentials fail all later requests of a
        // tenant.
        let tenant = format!("tenant{n}");
        bench.tenant(&tenant, n, 1.0);
        let request = Request::new(&tenant, "a").to(n);
        worker.accept(std::slice::from_ref(&request)).await;
        let statuses = bench.until_final_of(&request.key()).await;
        assert_eq!(status_names(&statuses), ["accepted", "failed"]);
        assert_eq!(statuses[1].reason.as_ref().unwrap().code, code);
        assert_eq!(bench.telephony.posts().len(), usize::try_from(n).unwrap());
    }
}

#[tokio::test(start_paused = true)]
async fn no_post_is_sent_after_the_deadline_whatever_fails() {
    let four_seconds = Some(Duration::from_secs(4));
    for answer in [
        Answer::Fails(Class::Transient),
        Answer::Fails(Class::Congested),
        Answer::Fails(Class::Throttled(None)),
        Answer::Fails(Class::Throttled(four_seconds)),
        Answer::DropsSilently,
    ] {
        let mut bench = TestBench::new();
        bench.tuning.attempts = 1_000;
        bench.telephony.always(&number(1), answer);
        let worker = bench.worker("one").await;
        let place_by = bench.now() + Duration::from_secs(30);
        worker
            .accept(&[Request::new("acme", "a").expires_in(Duration::from_mins(1))])
            .await;
        let statuses = bench.until_final("a").await;
        assert_eq!(
            status_names(&statuses).last(),
            Some(&"expired"),
            "{answer:?}"
        );
        assert!(
            statuses.last().unwrap().timings.ended_ms.unwrap() < 60_000,
            "published before the code expires"
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
async fn a_call_that_twilio_queues_for_too_long_is_cancelled_and_expires() {
    let bench = TestBench::new();
    let held = CallTimeline {
        queued: Duration::from_hours(1),
        ..CallTimeline::default()
    };
    bench
        .telephony
        .answers(&number(1), &[Answer::Accepts(held)]);
    let worker = bench.worker("one").await;
    let start = bench.now();
    worker
        .accept(&[Request::new("acme", "a").expires_in(Duration::from_mins(1))])
        .await;
    let statuses = bench.until_final("a").await;
    assert_eq!(status_names(&statuses), ["accepted", "placed", "expired"]);
    assert_eq!(
        statuses[2].reason.as_ref().unwrap().code,
        ReasonCode::ProviderQueue
    );
    assert_eq!(bench.telephony.calls()[0].status, CallStatus::Canceled);
    assert!(
        bench.now() < start + Duration::from_secs(35),
        "right after the deadline"
    );
}
