//! Statuses reach the sink complete and in order, whatever the sink does.

use std::time::Duration;

use voice_otp::settings::Draft;

use super::test_bench::{TestBench, status_names, steps, without_duplicates};
use crate::memory::MemorySink;
use crate::memory::sample::{Request, draft, key};

fn requests(count: u32) -> Vec<Request> {
    (0..count)
        .map(|n| Request::new("acme", &format!("r{n}")).to(n))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_was_down_gets_every_status_in_order_once_it_is_back() {
    let bench = TestBench::new();
    bench.sink.set_down(true);
    let worker = bench.worker("one").await;
    let requests = requests(3);
    worker.accept(&requests).await;
    tokio::time::sleep(Duration::from_secs(8)).await;
    assert!(bench.sink.events().is_empty());
    assert_eq!(
        bench.telephony.posts().len(),
        3,
        "calls don't wait for the sink"
    );
    bench.sink.set_down(false);
    for request in &requests {
        assert_eq!(
            steps(&bench.until_final_of(&request.key()).await),
            ["accepted", "placed", "ringing", "answered", "delivered"]
        );
    }
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(bench.ledger.outbox_len(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_unreliable_sink_gets_every_status_in_order() {
    let bench = TestBench::new();
    let worker = bench.worker("one").await;
    let requests = requests(10);
    worker.accept(&requests).await;
    for _ in 0..40 {
        bench.sink.set_down(true);
        tokio::time::sleep(Duration::from_millis(700)).await;
        bench.sink.set_down(false);
        tokio::time::sleep(Duration::from_millis(400)).await;
    }
    for request in &requests {
        assert_eq!(
            status_names(&bench.until_final_of(&request.key()).await).last(),
            Some(&"delivered")
        );
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_published_before_a_status_that_the_broker_refused() {
    let bench = TestBench::new();
    bench.sink.set_down(true);
    let worker = bench.worker("one").await;
    worker.accept(&requests(1)).await;
    tokio::time::sleep(Duration::from_secs(8)).await;
    // By now several statuses wait.
    bench.sink.refuse_next(1);
    bench.sink.set_down(false);
    bench.until_final("r0").await;
    let published: Vec<u32> = bench.sink.events().iter().map(|e| e.sequence).collect();
    assert_eq!(published, [1, 2, 3, 4, 5]);
}

#[tokio::test(start_paused = true)]
async fn a_long_outage_of_the_sink_does_not_multiply_the_statuses() {
    let bench = TestBench::new();
    bench.sink.set_down(true);
    let worker = bench.worker("one").await;
    let requests = requests(3);
    worker.accept(&requests).await;
    tokio::time::sleep(Duration::from_mins(10)).await;
    bench.sink.set_down(false);
    bench
        .sink
        .until("everything is published", |events| {
            without_duplicates(events).values().flatten().count() == 15
        })
        .await;
    tokio::time::sleep(Duration::from_mins(1)).await;
    let events = bench.sink.events();
    for (key, statuses) in without_duplicates(&events) {
        let sequences: Vec<u32> = statuses.iter().map(|event| event.sequence).collect();
        assert_eq!(sequences, [1, 2, 3, 4, 5], "{key}");
    }
    assert!(
        events.len() <= 2 * 15,
        "at least once, but not once every few seconds: {} events",
        events.len()
    );
    assert_eq!(bench.ledger.outbox_len(), 0);
}

#[tokio::test(start_paused = true)]
async fn more_than_one_batch_of_statuses_is_published_in_order() {
    let bench = TestBench::new();
    bench.directory.save(
        "acme",
        &Draft {
            test_mode: true,
            ..draft(1, 1.0)
        },
    );
    let worker = bench.worker("one").await;
    let requests = requests(300);
    for group in requests.chunks(120) {
        worker.accept(group).await;
    }
    for request in &requests {
        assert_eq!(
            status_names(&bench.until_final_of(&request.key()).await),
            ["accepted", "delivered"]
        );
    }
    assert_eq!(bench.sink.events().len(), 600);
}

#[tokio::test(start_paused = true)]
async fn the_unpublished_statuses_of_a_killed_worker_are_published_by_another() {
    let bench = TestBench::new();
    bench.sink.set_down(true);
    let first = bench.worker("one").await;
    first
        .accept(&[Request::new("ghost", "a"), Request::new("acme", "b")])
        .await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    first.kill().await;
    bench.sink.set_down(false);
    let _second = bench.worker("two").await;
    assert_eq!(
        status_names(&bench.until_final_with_duplicates(&key("ghost", "a")).await),
        ["rejected"]
    );
    let statuses = bench.until_final_with_duplicates(&key("acme", "b")).await;
    assert_eq!(
        steps(&statuses),
        ["accepted", "placed", "ringing", "answered", "delivered"]
    );
    assert_eq!(bench.telephony.posts().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_is_never_idle_still_publishes_a_killed_workers_statuses() {
    let bench = TestBench::new();
    bench.directory.save(
        "busy",
        &Draft {
            test_mode: true,
            ..draft(9, 1.0)
        },
    );
    let broken = MemorySink::new();
    broken.set_down(true);
    let first = bench.worker_with_sink("one", broken).await;
    let second = bench.worker("two").await;
    bench.sink.set_latency(Duration::from_millis(20));
    // A request every few milliseconds, so that a publish is always in progress.
    let load = async |requests: std::ops::Range<u32>| {
        for n in requests {
            second
                .accept(&[Request::new("busy", &format!("r{n}"))])
                .await;
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
    };
    load(0..300).await;
    first.accept(&[Request::new("ghost", "left-behind")]).await;
    first.kill().await;
    load(300..5_000).await;
    assert_eq!(
        status_names(&bench.statuses(&key("ghost", "left-behind"))),
        ["rejected"],
        "published while the load continues"
    );
}
