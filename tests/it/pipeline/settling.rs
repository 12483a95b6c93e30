//! A POST whose outcome is unknown: Twilio's call list is checked before anything else is tried.

use std::sync::atomic::Ordering;
use std::time::Duration;

use voice_otp::call::failure::Class;
use voice_otp_schemas::reason::ReasonCode;

use super::test_bench::{TestBench, steps};
use crate::memory::sample::{Request, number};
use crate::memory::{Answer, CallTimeline};

#[tokio::test(start_paused = true)]
async fn a_call_that_was_placed_without_an_answer_is_adopted() {
    let bench = TestBench::new();
    bench.telephony.answers(
        &number(1),
        &[Answer::AcceptsSilently(CallTimeline::default())],
    );
    let worker = bench.worker("one").await;
    worker.accept(&[Request::new("acme", "a")]).await;
    let statuses = bench.until_final("a").await;
    assert_eq!(
        steps(&statuses),
        ["accepted", "placed", "ringing", "answered", "delivered"]
    );
    let settling = statuses
        .iter()
        .find_map(|data| data.reason.as_ref())
        .expect("it was deferred");
    assert_eq!(settling.code, ReasonCode::Settling);
    let last = statuses.last().unwrap();
    assert_eq!(
        (last.attempt, last.call_sid.as_deref()),
        (1, Some(bench.telephony.calls()[0].sid.as_str()))
    );
    assert_eq!(bench.telephony.posts().len(), 1);
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
async fn a_call_that_is_listed_late_is_still_found_before_another_is_placed() {
    let bench = TestBench::new();
    bench.telephony.set_list_lag(Duration::from_secs(11));
    bench.telephony.answers(
        &number(1),
        &[Answer::AcceptsSilently(CallTimeline::default())],
    );
    let worker = bench.worker("one").await;
    worker.accept(&[Request::new("acme", "a")]).await;
    assert_eq!(
        steps(&bench.until_final("a").await).last(),
        Some(&"delivered")
    );
    assert_eq!(
        (
            bench.telephony.posts().len(),
            bench.telephony.calls_to(&number(1))
        ),
        (1, 1)
    );
}

#[tokio::test(start_paused = true)]
async fn a_call_that_was_not_placed_is_retried_once_its_absence_is_conclusive() {
    let bench = TestBench::new();
    bench
        .telephony
        .answers(&number(1), &[Answer::DropsSilently]);
    let worker = bench.worker("one").await;
    worker.accept(&[Request::new("acme", "a")]).await;
    let statuses = bench.until_final("a").await;
    assert_eq!(
        steps(&statuses),
        ["accepted", "placed", "ringing", "answered", "delivered"]
    );
    assert_eq!(
        statuses.last().unwrap().attempt,
        2,
        "the unanswered attempt counts"
    );
    let times = bench.post_times();
    assert_eq!(times.len(), 2);
    // The worker waits 2 s for the answer. Then Twilio gets three times as long, and the list its
    // lag.
    let wait = (times[1] - times[0]).to_std().unwrap();
    assert!(wait >= Duration::from_secs(21), "{wait:?}");
    assert!(wait < Duration::from_secs(24), "{wait:?}");
}

#[tokio::test(start_paused = true)]
async fn attempts_of_unknown_outcome_count() {
    let bench = TestBench::new();
    bench.telephony.always(&number(1), Answer::DropsSilently);
    let worker = bench.worker("one").await;
    worker.accept(&[Request::new("acme", "a")]).await;
    let statuses = bench.until_final("a").await;
    assert_eq!(steps(&statuses), ["accepted", "failed"]);
    let last = statuses.last().unwrap();
    assert_eq!(
        (last.attempt, last.reason.as_ref().unwrap().code),
        (3, ReasonCode::ProviderTrouble)
    );
    assert_eq!(bench.telephony.posts().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn another_deliverys_call_on_the_same_line_is_not_adopted() {
    let bench = TestBench::new();
    // The first delivery's call is known. The second's POST places no call, and its answer is lost.
    bench.telephony.answers(
        &number(1),
        &[
            Answer::Accepts(CallTimeline::default()),
            Answer::DropsSilently,
        ],
    );
    let worker = bench.worker("one").await;
    worker
        .accept(&[Request::new("acme", "a"), Request::new("acme", "b")])
        .await;
    for id in ["a", "b"] {
        assert_eq!(
            steps(&bench.until_final(id).await).last(),
            Some(&"delivered")
        );
    }
    assert_eq!(
        (
            bench.telephony.posts().len(),
            bench.telephony.calls_to(&number(1))
        ),
        (3, 2)
    );
}

#[tokio::test(start_paused = true)]
async fn a_failed_post_is_retried_without_checking_the_call_list() {
    let bench = TestBench::new();
    bench
        .telephony
        .answers(&number(1), &[Answer::Fails(Class::Transient)]);
    let worker = bench.worker("one").await;
    worker.accept(&[Request::new("acme", "a")]).await;
    bench.until_final("a").await;
    let times = bench.post_times();
    assert!(times[1] - times[0] < chrono::TimeDelta::seconds(3));
}

#[tokio::test(start_paused = true)]
async fn an_outcome_that_cannot_be_looked_up_in_time_is_unknown_when_the_code_expires() {
    let bench = TestBench::new();
    bench.tenant("acme", 1, 1000.0);
    bench.telephony.set_list_latency(Duration::from_secs(20));
    let requests: Vec<Request> = (0..400)
        .map(|n| {
            bench.telephony.always(&number(n), Answer::DropsSilently);
            Request::new("acme", &format!("a{n}"))
                .to(n)
                .expires_in(Duration::from_secs(90))
        })
        .collect();
    let (worker, start) = (bench.worker("one").await, bench.now());
    let other = bench.worker("other").await;
    worker.accept(&requests).await;
    let is_final = |event: &voice_otp::event::Event| event.is_final();
    bench
        .sink
        .until("every request has its end", |events| {
            events.iter().filter(|event| is_final(event)).count() >= 400
        })
        .await;
    let took = (bench.now() - start).to_std().unwrap();
    assert!(
        took >= Duration::from_secs(90),
        "most wait for a look: {took:?}"
    );
    assert!(
        took < Duration::from_secs(91),
        "until the code expires: {took:?}"
    );
    drop(other);
}
