//! Workers that shut down, are killed, or lose their lease or the ledger: other workers continue,
//! and no user is called twice.

use std::sync::Arc;
use std::time::Duration;

use voice_otp::engine::Disposition;

use super::test_bench::{TestBench, status_names, steps};
use crate::memory::sample::{Request, key, limits, number};
use crate::memory::{Answer, CallEnd, CallTimeline, Outage};

#[tokio::test(start_paused = true)]
async fn a_worker_that_stops_finishes_what_is_in_flight_and_hands_over_the_rest() {
    let bench = TestBench::new();
    bench.telephony.set_latency(Duration::from_millis(700));
    let first = bench.worker("one").await;
    let requests: Vec<Request> = (0..6)
        .map(|n| Request::new("acme", &format!("r{n}")).to(n))
        .collect();
    first.accept(&requests).await;
    tokio::time::sleep(Duration::from_millis(3_300)).await;
    assert_eq!(bench.telephony.posts().len(), 3);
    assert_eq!(
        status_names(&bench.statuses(&key("acme", "r2"))),
        ["accepted"],
        "its POST is in flight"
    );
    first.stop().await;
    assert_eq!(
        status_names(&bench.statuses(&key("acme", "r2"))),
        ["accepted", "placed"]
    );
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(bench.telephony.posts().len(), 3, "it starts no new attempt");
    let second = bench.worker("two").await;
    for request in &requests {
        let statuses = bench.until_final_of(&request.key()).await;
        assert_eq!(steps(&statuses).last(), Some(&"delivered"));
        assert_eq!(statuses.last().unwrap().attempt, 1);
    }
    assert_eq!(bench.telephony.posts().len(), 6, "no user is called twice");
    assert_eq!(second.engine.deliveries_owned(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_running_worker_takes_over_from_one_that_stops() {
    let bench = TestBench::new();
    let (first, second) = (bench.worker("one").await, bench.worker("two").await);
    let requests: Vec<Request> = (0..10)
        .map(|n| Request::new("acme", &format!("r{n}")).to(n))
        .collect();
    first.accept(&requests).await;
    tokio::time::sleep(Duration::from_millis(3_500)).await;
    first.stop().await;
    for request in &requests {
        assert_eq!(
            steps(&bench.until_final_of(&request.key()).await).last(),
            Some(&"delivered")
        );
    }
    assert_eq!(bench.telephony.posts().len(), 10);
    let times = bench.post_times();
    let took = (times[9] - times[0]).to_std().unwrap();
    assert!(
        took < Duration::from_secs(16),
        "each slot is lost at most once: {took:?}"
    );
    second.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_worker_was_killed_during_the_post_is_adopted() {
    let bench = TestBench::new();
    bench.telephony.set_latency(Duration::from_secs(5));
    let rings_long = CallTimeline {
        ringing: Duration::from_secs(40),
        ..CallTimeline::default()
    };
    bench
        .telephony
        .answers(&number(1), &[Answer::Accepts(rings_long)]);
    let first = bench.worker("one").await;
    first.accept(&[Request::new("acme", "a")]).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    first.kill().await;
    let _second = bench.worker("two").await;
    let statuses = bench.until_final_with_duplicates(&key("acme", "a")).await;
    assert_eq!(
        steps(&statuses),
        ["accepted", "placed", "ringing", "answered", "delivered"]
    );
    assert_eq!(statuses.last().unwrap().attempt, 1);
    assert_eq!(
        (
            bench.telephony.posts().len(),
            bench.telephony.calls_to(&number(1))
        ),
        (1, 1)
    );
}

#[tokio::test(start_paused = true)]
async fn an_adopted_call_that_ends_too_soon_was_not_heard() {
    let bench = TestBench::new();
    bench.telephony.set_latency(Duration::from_secs(5));
    let hangs_up = CallTimeline {
        ringing: Duration::from_secs(40),
        end: CallEnd::Answered(Duration::from_secs(2)),
        ..CallTimeline::default()
    };
    bench
        .telephony
        .answers(&number(1), &[Answer::Accepts(hangs_up)]);
    let first = bench.worker("one").await;
    first.accept(&[Request::new("acme", "a")]).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    first.kill().await;
    let _second = bench.worker("two").await;
    assert_eq!(
        steps(&bench.until_final_with_duplicates(&key("acme", "a")).await).last(),
        Some(&"hung_up")
    );
}

#[tokio::test(start_paused = true)]
async fn a_worker_whose_lease_has_expired_sends_nothing() {
    let bench = TestBench::new();
    let worker = bench.worker("one").await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(worker.engine.is_alive());
    bench.ledger.set_outage(Outage::NoHeartbeats);
    tokio::time::sleep(limits().lease + Duration::from_secs(1)).await;
    assert!(!worker.engine.is_alive());
    worker
        .accept(&[Request::new("acme", "a").expires_in(Duration::from_mins(5))])
        .await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert!(
        bench.telephony.posts().is_empty(),
        "another worker might be settling this very attempt"
    );
    bench.ledger.set_outage(Outage::None);
    let statuses = bench.until_final_with_duplicates(&key("acme", "a")).await;
    assert_eq!(
        steps(&statuses),
        ["accepted", "placed", "ringing", "answered", "delivered"]
    );
    assert_eq!(bench.telephony.posts().len(), 1);
    assert!(worker.engine.is_alive(), "it has registered again");
}

#[tokio::test(start_paused = true)]
async fn an_unreachable_ledger_is_waited_for() {
    let bench = TestBench::new();
    let worker = bench.worker("one").await;
    worker.accept(&[Request::new("acme", "a")]).await;
    bench.until_status("a", "ringing").await;
    bench.ledger.set_outage(Outage::Unreachable);
    let (engine, request) = (Arc::clone(&worker.engine), Request::new("acme", "b").to(2));
    let published = request.incoming(bench.now());
    let processing = tokio::task::spawn(async move { engine.process(&[published.into()]).await });
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert!(
        !processing.is_finished(),
        "no message is acknowledged before it is stored"
    );
    bench.ledger.set_outage(Outage::None);
    assert_eq!(processing.await.unwrap(), [Disposition::Acknowledge]);
    for id in ["a", "b"] {
        assert_eq!(
            steps(&bench.until_final_with_duplicates(&key("acme", id)).await).last(),
            Some(&"delivered")
        );
    }
    assert_eq!(bench.telephony.posts().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn no_user_is_called_twice_when_the_ledgers_answers_are_lost() {
    for every in [2, 3, 5, 7] {
        let bench = TestBench::new();
        let worker = bench.worker("one").await;
        bench.ledger.lose_every(every);
        let requests: Vec<Request> = (0..5)
            .map(|n| {
                Request::new("acme", &format!("r{n}"))
                    .to(n)
                    .expires_in(Duration::from_mins(9))
            })
            .collect();
        for request in &requests {
            worker.accept(std::slice::from_ref(request)).await;
        }
        for (n, request) in (0..).zip(&requests) {
            let statuses = bench.until_final_with_duplicates(&request.key()).await;
            let (calls, word) = (
                bench.telephony.calls_to(&number(n)),
                status_names(&statuses).pop().unwrap(),
            );
            // An attempt whose start got no answer is settled, and counts. The attempts may run
            // out.
            assert!(
                calls <= 1 && (calls == 1) == (word == "delivered"),
                "one in {every} lost: {calls} calls, {word}"
            );
        }
        bench.ledger.lose_every(0);
        worker.stop().await;
    }
}
