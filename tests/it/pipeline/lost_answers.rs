//! Answers of the ledger that are lost after the commit.

use std::time::Duration;

use super::test_bench::{TestBench, steps};
use crate::memory::sample::{Request, number};

/// Loses the answer to the `nth` statement after a request is processed. Returns how long the
/// request waited for its call.
async fn placed_after(nth: u32) -> Duration {
    let bench = TestBench::new();
    let worker = bench.worker("one").await;
    let start = bench.now();
    bench.ledger.lose_nth(nth);
    worker.accept(&[Request::new("acme", "a")]).await;
    let statuses = bench
        .until_final_with_duplicates(&Request::new("acme", "a").key())
        .await;
    assert_eq!(steps(&statuses).last(), Some(&"delivered"), "answer {nth}");
    assert_eq!(
        (
            bench.telephony.posts().len(),
            bench.telephony.calls_to(&number(1))
        ),
        (1, 1),
        "answer {nth}"
    );
    (bench.post_times()[0] - start).to_std().unwrap()
}

#[tokio::test(start_paused = true)]
async fn whichever_answer_is_lost_the_call_is_placed_once_and_at_once() {
    for nth in 0..12 {
        let wait = placed_after(nth).await;
        // The account's next slot is a second away. A slot that is used more than 200 ms late is
        // void, and the attempt takes the next one.
        assert!(
            wait < Duration::from_millis(2_300),
            "answer {nth}: {wait:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn an_attempt_start_whose_answer_is_lost_continues_with_the_same_attempt() {
    for nth in 0..12 {
        let bench = TestBench::new();
        let worker = bench.worker("one").await;
        worker
            .accept(&[Request::new("acme", "a"), Request::new("acme", "b").to(2)])
            .await;
        bench.ledger.lose_nth(nth);
        for id in ["a", "b"] {
            let statuses = bench
                .until_final_with_duplicates(&Request::new("acme", id).key())
                .await;
            assert_eq!(
                steps(&statuses).last(),
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
