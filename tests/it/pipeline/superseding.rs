//! A newer request of a user supersedes the older one.

use std::time::Duration;

use voice_otp_schemas::reason::ReasonCode;
use voice_otp_schemas::status::StatusData;

use super::test_bench::{TestBench, status_names, steps};
use crate::memory::sample::{Request, key, number};
use crate::memory::{Answer, CallTimeline};

fn of_jane(id: &str, to: u32) -> Request {
    Request::new("acme", id).to(to).of_user("jane")
}

fn check_superseded(statuses: &[StatusData]) {
    let last = statuses.last().unwrap();
    assert_eq!(
        (
            last.status.as_str(),
            last.reason.as_ref().map(|reason| reason.code)
        ),
        ("cancelled", Some(ReasonCode::Superseded))
    );
}

#[tokio::test(start_paused = true)]
async fn a_waiting_delivery_is_superseded_at_once_and_never_placed() {
    let bench = TestBench::new();
    let worker = bench.worker("one").await;
    // The first request takes the slot, so that jane's older one waits.
    worker
        .accept(&[Request::new("acme", "a"), of_jane("older", 2)])
        .await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    worker.accept(&[of_jane("newer", 3)]).await;
    let statuses = bench.until_final("older").await;
    assert_eq!(status_names(&statuses), ["accepted", "cancelled"]);
    check_superseded(&statuses);
    assert_eq!(
        steps(&bench.until_final("newer").await).last(),
        Some(&"delivered")
    );
    assert_eq!(
        (
            bench.telephony.calls_to(&number(2)),
            bench.telephony.calls_to(&number(3))
        ),
        (0, 1)
    );
}

#[tokio::test(start_paused = true)]
async fn a_ringing_call_is_hung_up_before_the_newer_one_is_placed() {
    let bench = TestBench::new();
    let (first, second) = (bench.worker("one").await, bench.worker("two").await);
    first.accept(&[of_jane("older", 2)]).await;
    bench.until_status("older", "ringing").await;
    // The newer request reaches another worker, which doesn't own the older one.
    second.accept(&[of_jane("newer", 2)]).await;
    check_superseded(&bench.until_final("older").await);
    assert_eq!(
        steps(&bench.until_final("newer").await),
        ["accepted", "placed", "ringing", "answered", "delivered"]
    );
    let calls = bench.telephony.calls();
    assert_eq!(calls.len(), 2);
    assert!(calls[0].status.is_finished() && bench.post_times().len() == 2);
}

#[tokio::test(start_paused = true)]
async fn an_answered_call_continues_and_the_newer_one_waits_for_its_end() {
    let bench = TestBench::new();
    let worker = bench.worker("one").await;
    worker.accept(&[of_jane("older", 2)]).await;
    bench.until_status("older", "answered").await;
    worker.accept(&[of_jane("newer", 2)]).await;
    let older = bench.until_final("older").await;
    assert_eq!(steps(&older).last(), Some(&"delivered"));
    let ended_at = bench.now();
    let newer = bench.until_final("newer").await;
    assert_eq!(steps(&newer).last(), Some(&"delivered"));
    assert!(
        bench.post_times()[1] >= ended_at - Duration::from_secs(4),
        "not while the older call is in progress"
    );
    let waited = newer
        .iter()
        .filter_map(|data| data.reason.as_ref())
        .map(|reason| reason.code)
        .collect::<Vec<_>>();
    assert!(waited.contains(&ReasonCode::LineBusy), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn an_older_request_that_arrives_later_is_superseded_at_once() {
    let bench = TestBench::new();
    let worker = bench.worker("one").await;
    worker.accept(&[of_jane("newer", 2)]).await;
    bench.until_final("newer").await;
    worker
        .accept(&[of_jane("older", 3).requested_ago(Duration::from_secs(90))])
        .await;
    let statuses = bench.until_final("older").await;
    assert_eq!(status_names(&statuses), ["cancelled"]);
    check_superseded(&statuses);
    assert_eq!(bench.telephony.calls_to(&number(3)), 0);
}

#[tokio::test(start_paused = true)]
async fn of_two_in_one_batch_the_older_is_superseded_and_other_users_are_not_affected() {
    let bench = TestBench::new();
    let worker = bench.worker("one").await;
    let older = of_jane("older", 2).requested_ago(Duration::from_secs(1));
    worker
        .accept(&[
            of_jane("newer", 3),
            older,
            Request::new("acme", "june").to(4).of_user("june"),
        ])
        .await;
    check_superseded(&bench.until_final("older").await);
    for id in ["newer", "june"] {
        assert_eq!(
            steps(&bench.until_final(id).await).last(),
            Some(&"delivered"),
            "{id}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn two_workers_at_one_moment_place_one_call_at_a_time() {
    for round in 0..20_u64 {
        let bench = TestBench::new();
        bench.tenant("acme", 1, 100.0);
        let (first, second) = (bench.worker("one").await, bench.worker("two").await);
        let requests = (
            [of_jane("x", 2)],
            [of_jane("y", 2).requested_ago(Duration::from_millis(round % 3))],
        );
        tokio::join!(first.accept(&requests.0), async {
            tokio::time::sleep(Duration::from_micros(round * 150)).await;
            second.accept(&requests.1).await;
        });
        let statuses = [bench.until_final("x").await, bench.until_final("y").await];
        let ends: Vec<&str> = statuses
            .iter()
            .map(|statuses| statuses.last().unwrap().status.as_str())
            .collect();
        assert!(ends.contains(&"delivered"), "round {round}: {ends:?}");
        // Never two calls at once: a call of the older one had ended when the newer one was placed.
        let cancelled = ends.iter().filter(|end| **end == "cancelled").count();
        assert_eq!(cancelled, 1, "round {round}: {ends:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_older_attempt_of_unknown_outcome_is_settled_before_the_newer_one_is_placed() {
    let bench = TestBench::new();
    bench.telephony.answers(
        &number(2),
        &[Answer::AcceptsSilently(CallTimeline::default())],
    );
    let worker = bench.worker("one").await;
    worker.accept(&[of_jane("older", 2)]).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    worker.accept(&[of_jane("newer", 2)]).await;
    bench.until_final("older").await;
    assert_eq!(
        steps(&bench.until_final("newer").await).last(),
        Some(&"delivered")
    );
    assert_eq!(
        bench
            .statuses(&key("acme", "older"))
            .iter()
            .filter(|data| data.is_final)
            .count(),
        1
    );
    let calls = bench.telephony.calls();
    assert_eq!(calls.len(), 2, "one each");
    assert!(calls[0].status.is_finished());
}
