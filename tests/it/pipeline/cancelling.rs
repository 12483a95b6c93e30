//! Cancellations of deliveries that haven't been heard yet.

use std::sync::atomic::Ordering;
use std::time::Duration;

use voice_otp::call::CallStatus;
use voice_otp::engine::Disposition;
use voice_otp_schemas::reason::ReasonCode;
use voice_otp_schemas::status::StatusData;

use super::test_bench::{TestBench, Worker, status_names, steps};
use crate::memory::sample::{Request, cancelled, cancelled_user, key, number};
use crate::memory::{Answer, CallTimeline};

async fn cancel(bench: &TestBench, worker: &Worker, id: &str) {
    let done = worker.process(&[cancelled("acme", id, bench.now())]).await;
    assert_eq!(done, [Disposition::Acknowledge]);
}

fn check_cancelled(statuses: &[StatusData]) {
    let last = statuses.last().unwrap();
    assert_eq!(last.status.as_str(), "cancelled");
    assert_eq!(
        last.reason.as_ref().unwrap().code,
        ReasonCode::CancelledByRequest
    );
}

#[tokio::test(start_paused = true)]
async fn a_waiting_delivery_is_cancelled_at_once_and_never_placed() {
    let bench = TestBench::new();
    let worker = bench.worker("one").await;
    worker
        .accept(&[Request::new("acme", "a"), Request::new("acme", "b").to(2)])
        .await;
    cancel(&bench, &worker, "b").await;
    let statuses = bench.until_final("b").await;
    assert_eq!(status_names(&statuses), ["accepted", "cancelled"]);
    check_cancelled(&statuses);
    bench.until_final("a").await;
    cancel(&bench, &worker, "b").await;
    assert_eq!(bench.telephony.calls_to(&number(2)), 0);
    assert_eq!(
        bench.statuses(&key("acme", "b")).len(),
        2,
        "the second cancellation changes nothing"
    );
}

#[tokio::test(start_paused = true)]
async fn a_worker_can_cancel_a_delivery_that_another_owns() {
    let bench = TestBench::new();
    let (first, second) = (bench.worker("one").await, bench.worker("two").await);
    first
        .accept(&[Request::new("acme", "a"), Request::new("acme", "b").to(2)])
        .await;
    cancel(&bench, &second, "b").await;
    check_cancelled(&bench.until_final("b").await);
    bench.until_status("a", "ringing").await;
    cancel(&bench, &second, "a").await;
    check_cancelled(&bench.until_final("a").await);
    assert_eq!(bench.telephony.posts().len(), 1);
    assert_eq!(bench.telephony.calls()[0].status, CallStatus::Canceled);
}

#[tokio::test(start_paused = true)]
async fn a_cancellation_by_user_cancels_all_of_the_users_deliveries() {
    let bench = TestBench::new();
    let worker = bench.worker("one").await;
    let requests = [("a", "june"), ("b", "jane")];
    let requests: Vec<Request> = (1..)
        .zip(requests)
        .map(|(n, (id, user))| Request::new("acme", id).to(n).of_user(user))
        .collect();
    worker.accept(&requests).await;
    assert_eq!(
        worker
            .process(&[cancelled_user("acme", "jane", bench.now())])
            .await,
        [Disposition::Acknowledge]
    );
    check_cancelled(&bench.until_final("b").await);
    assert_eq!(
        steps(&bench.until_final("a").await).last(),
        Some(&"delivered")
    );
}

#[tokio::test(start_paused = true)]
async fn a_cancellation_before_its_request_counts_and_a_duplicate_publishes_nothing() {
    let bench = TestBench::new();
    let worker = bench.worker("one").await;
    cancel(&bench, &worker, "early").await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    let request = Request::new("acme", "early");
    worker.accept(std::slice::from_ref(&request)).await;
    let statuses = bench.until_final("early").await;
    assert_eq!(status_names(&statuses), ["cancelled"]);
    check_cancelled(&statuses);
    worker.accept(&[request.clone(), request]).await;
    tokio::time::sleep(Duration::from_mins(1)).await;
    assert_eq!(
        (bench.telephony.posts().len(), bench.sink.events().len()),
        (0, 1)
    );
}

#[tokio::test(start_paused = true)]
async fn a_ringing_call_is_hung_up() {
    let bench = TestBench::new();
    let worker = bench.worker("one").await;
    worker.accept(&[Request::new("acme", "a")]).await;
    bench.until_status("a", "ringing").await;
    cancel(&bench, &worker, "a").await;
    let statuses = bench.until_final("a").await;
    assert_eq!(
        status_names(&statuses),
        ["accepted", "placed", "ringing", "cancelled"]
    );
    check_cancelled(&statuses);
    assert_eq!(bench.telephony.calls()[0].status, CallStatus::Canceled);
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
async fn an_answered_call_keeps_its_own_outcome() {
    let bench = TestBench::new();
    let worker = bench.worker("one").await;
    worker.accept(&[Request::new("acme", "a")]).await;
    bench.until_status("a", "answered").await;
    cancel(&bench, &worker, "a").await;
    assert_eq!(
        status_names(&bench.until_final("a").await),
        ["accepted", "placed", "ringing", "answered", "delivered"]
    );
}

#[tokio::test(start_paused = true)]
async fn no_final_status_is_published_while_a_post_is_in_flight() {
    let bench = TestBench::new();
    bench.telephony.set_latency(Duration::from_secs(3));
    let worker = bench.worker("one").await;
    worker.accept(&[Request::new("acme", "a")]).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    cancel(&bench, &worker, "a").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(
        status_names(&bench.statuses(&key("acme", "a"))),
        ["accepted"]
    );
    let statuses = bench.until_final("a").await;
    assert_eq!(status_names(&statuses), ["accepted", "placed", "cancelled"]);
    check_cancelled(&statuses);
    assert_eq!(bench.telephony.calls()[0].status, CallStatus::Canceled);
    assert_eq!(bench.telephony.posts().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_call_of_unknown_outcome_is_found_and_hung_up() {
    let bench = TestBench::new();
    let rings_long = CallTimeline {
        ringing: Duration::from_mins(1),
        ..CallTimeline::default()
    };
    bench
        .telephony
        .answers(&number(1), &[Answer::AcceptsSilently(rings_long)]);
    let worker = bench.worker("one").await;
    worker.accept(&[Request::new("acme", "a")]).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    cancel(&bench, &worker, "a").await;
    let statuses = bench.until_final("a").await;
    assert_eq!(
        steps(&statuses),
        ["accepted", "placed", "ringing", "cancelled"]
    );
    check_cancelled(&statuses);
    assert_eq!(bench.telephony.calls()[0].status, CallStatus::Canceled);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_without_a_call_is_cancelled_once_its_outcome_is_known() {
    let bench = TestBench::new();
    bench.telephony.always(&number(1), Answer::DropsSilently);
    let worker = bench.worker("one").await;
    worker.accept(&[Request::new("acme", "a")]).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    cancel(&bench, &worker, "a").await;
    let statuses = bench.until_final("a").await;
    assert_eq!(steps(&statuses), ["accepted", "cancelled"]);
    check_cancelled(&statuses);
    assert_eq!(bench.telephony.posts().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn cancelling_an_unknown_delivery_does_no_harm() {
    let bench = TestBench::new();
    let worker = bench.worker("one").await;
    cancel(&bench, &worker, "unknown").await;
    assert_eq!(
        worker
            .process(&[cancelled_user("acme", "unknown-user", bench.now())])
            .await,
        [Disposition::Acknowledge]
    );
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(bench.sink.events().is_empty());
}
