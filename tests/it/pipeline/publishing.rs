//! Statuses reach the sink whole and in order, whatever the sink does.

use std::time::Duration;

use voice_otp::settings::Draft;

use super::bench::{Bench, first_appearances, steps, words};
use crate::memory::MemorySink;
use crate::memory::sample::{Ask, draft, key};

fn asks(count: u32) -> Vec<Ask> {
    (0..count)
        .map(|n| Ask::new("acme", &format!("r{n}")).calling(n))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_was_down_gets_everything_in_order_once_it_is_back() {
    let bench = Bench::new();
    bench.sink.set_down(true);
    let worker = bench.worker("one").await;
    let asks = asks(3);
    worker.take(&asks).await;
    tokio::time::sleep(Duration::from_secs(8)).await;
    assert!(bench.sink.events().is_empty());
    assert_eq!(
        bench.caller.posts().len(),
        3,
        "calls don't wait for the sink"
    );
    bench.sink.set_down(false);
    for ask in &asks {
        assert_eq!(
            steps(&bench.ended_of(&ask.key()).await),
            ["accepted", "placed", "ringing", "answered", "delivered"]
        );
    }
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(bench.ledger.outbox_len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_comes_and_goes_gets_everything_in_order() {
    let bench = Bench::new();
    let worker = bench.worker("one").await;
    let asks = asks(10);
    worker.take(&asks).await;
    for _ in 0..40 {
        bench.sink.set_down(true);
        tokio::time::sleep(Duration::from_millis(700)).await;
        bench.sink.set_down(false);
        tokio::time::sleep(Duration::from_millis(400)).await;
    }
    for ask in &asks {
        assert_eq!(
            words(&bench.ended_of(&ask.key()).await).last(),
            Some(&"delivered")
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_long_outage_of_the_sink_does_not_multiply_the_statuses() {
    let bench = Bench::new();
    bench.sink.set_down(true);
    let worker = bench.worker("one").await;
    let asks = asks(3);
    worker.take(&asks).await;
    tokio::time::sleep(Duration::from_mins(10)).await;
    bench.sink.set_down(false);
    bench
        .sink
        .until("everything is published", |events| {
            first_appearances(events).values().flatten().count() == 15
        })
        .await;
    tokio::time::sleep(Duration::from_mins(1)).await;
    let events = bench.sink.events();
    for (key, told) in first_appearances(&events) {
        let sequences: Vec<u32> = told.iter().map(|event| event.sequence).collect();
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
async fn more_than_one_window_goes_out_in_order() {
    let bench = Bench::new();
    bench.directory.save(
        "acme",
        &Draft {
            test_mode: true,
            ..draft(1, 1.0)
        },
    );
    let worker = bench.worker("one").await;
    let asks = asks(300);
    for group in asks.chunks(120) {
        worker.take(group).await;
    }
    for ask in &asks {
        assert_eq!(
            words(&bench.ended_of(&ask.key()).await),
            ["accepted", "delivered"]
        );
    }
    assert_eq!(bench.sink.events().len(), 600);
}

#[tokio::test(start_paused = true)]
async fn what_a_killed_worker_left_unpublished_is_published_by_another() {
    let bench = Bench::new();
    bench.sink.set_down(true);
    let first = bench.worker("one").await;
    first
        .take(&[Ask::new("ghost", "a"), Ask::new("acme", "b")])
        .await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    first.kill().await;
    bench.sink.set_down(false);
    let _second = bench.worker("two").await;
    assert_eq!(
        words(&bench.ended_with_repeats(&key("ghost", "a")).await),
        ["rejected"]
    );
    let told = bench.ended_with_repeats(&key("acme", "b")).await;
    assert_eq!(
        steps(&told),
        ["accepted", "placed", "ringing", "answered", "delivered"]
    );
    assert_eq!(bench.caller.posts().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_is_never_idle_still_publishes_what_a_dead_one_left() {
    let bench = Bench::new();
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
    // A request every few milliseconds: there is always something on its way to the sink.
    let load = async |requests: std::ops::Range<u32>| {
        for n in requests {
            second.take(&[Ask::new("busy", &format!("r{n}"))]).await;
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
    };
    load(0..300).await;
    first.take(&[Ask::new("ghost", "left-behind")]).await;
    first.kill().await;
    load(300..5_000).await;
    assert_eq!(
        words(&bench.told(&key("ghost", "left-behind"))),
        ["rejected"],
        "within many seconds of load"
    );
}
