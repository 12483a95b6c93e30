//! Answers of the ledger that are lost after their commit.

use std::time::Duration;

use super::bench::{Bench, steps};
use crate::memory::sample::{Ask, number};

/// Loses the answer of the `nth` statement of a worker's that is about this one request; gives how long its call took.
async fn placed_after(nth: u32) -> Duration {
    let bench = Bench::new();
    let worker = bench.worker("one").await;
    let start = bench.now();
    bench.ledger.lose_nth(nth);
    worker.take(&[Ask::new("acme", "a")]).await;
    let told = bench.ended_with_repeats(&Ask::new("acme", "a").key()).await;
    assert_eq!(steps(&told).last(), Some(&"delivered"), "answer {nth}");
    assert_eq!(
        (
            bench.caller.posts().len(),
            bench.caller.calls_to(&number(1))
        ),
        (1, 1),
        "answer {nth}"
    );
    (bench.post_times()[0] - start).to_std().unwrap()
}

#[tokio::test(start_paused = true)]
async fn whatever_answer_is_lost_the_call_goes_out_once_and_at_once() {
    for nth in 0..12 {
        let wait = placed_after(nth).await;
        // The account's next slot is a second away; one that is a quarter of a second late by then is void, and the next taken.
        assert!(
            wait < Duration::from_millis(2_300),
            "answer {nth}: {wait:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_beginning_whose_answer_is_lost_goes_on_with_its_own_attempt() {
    for nth in 0..12 {
        let bench = Bench::new();
        let worker = bench.worker("one").await;
        worker
            .take(&[Ask::new("acme", "a"), Ask::new("acme", "b").calling(2)])
            .await;
        bench.ledger.lose_nth(nth);
        for id in ["a", "b"] {
            let told = bench.ended_with_repeats(&Ask::new("acme", id).key()).await;
            assert_eq!(
                steps(&told).last(),
                Some(&"delivered"),
                "{id}, answer {nth}"
            );
        }
        let times = bench.post_times();
        assert_eq!(times.len(), 2, "answer {nth}");
        assert!(
            (times[1] - times[0]).to_std().unwrap() < Duration::from_secs(3),
            "answer {nth}: {times:?}"
        );
    }
}
