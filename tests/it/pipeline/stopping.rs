//! Workers that stop, die, or lose the ledger: others go on, and nobody is called twice.

use std::sync::Arc;
use std::time::Duration;

use voice_otp::engine::Disposition;

use super::bench::{Bench, steps, words};
use crate::memory::sample::{Ask, key, limits, number};
use crate::memory::{Answer, Life, Then, Trouble};

#[tokio::test(start_paused = true)]
async fn a_worker_that_stops_finishes_what_is_in_flight_and_hands_over_the_rest() {
    let bench = Bench::new();
    bench.caller.set_latency(Duration::from_millis(700));
    let first = bench.worker("one").await;
    let asks: Vec<Ask> = (0..6)
        .map(|n| Ask::new("acme", &format!("r{n}")).calling(n))
        .collect();
    first.take(&asks).await;
    tokio::time::sleep(Duration::from_millis(3_300)).await;
    assert_eq!(bench.caller.posts().len(), 3);
    assert_eq!(
        words(&bench.told(&key("acme", "r2"))),
        ["accepted"],
        "its POST is in flight"
    );
    first.stop().await;
    assert_eq!(
        words(&bench.told(&key("acme", "r2"))),
        ["accepted", "placed"]
    );
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(bench.caller.posts().len(), 3, "it takes up nothing new");
    let second = bench.worker("two").await;
    for ask in &asks {
        let told = bench.ended_of(&ask.key()).await;
        assert_eq!(steps(&told).last(), Some(&"delivered"));
        assert_eq!(told.last().unwrap().attempt, 1);
    }
    assert_eq!(bench.caller.posts().len(), 6, "nobody is called twice");
    assert_eq!(second.engine.holds(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_running_worker_takes_over_from_one_that_stops() {
    let bench = Bench::new();
    let (first, second) = (bench.worker("one").await, bench.worker("two").await);
    let asks: Vec<Ask> = (0..10)
        .map(|n| Ask::new("acme", &format!("r{n}")).calling(n))
        .collect();
    first.take(&asks).await;
    tokio::time::sleep(Duration::from_millis(3_500)).await;
    first.stop().await;
    for ask in &asks {
        assert_eq!(
            steps(&bench.ended_of(&ask.key()).await).last(),
            Some(&"delivered")
        );
    }
    assert_eq!(bench.caller.posts().len(), 10);
    let times = bench.post_times();
    let took = (times[9] - times[0]).to_std().unwrap();
    assert!(
        took < Duration::from_secs(16),
        "no slot is lost more than once: {took:?}"
    );
    second.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_worker_killed_in_the_middle_of_a_post_leaves_a_call_that_is_adopted() {
    let bench = Bench::new();
    bench.caller.set_latency(Duration::from_secs(5));
    let talks = Life {
        rings: Duration::from_secs(40),
        ..Life::default()
    };
    bench.caller.answers(&number(1), &[Answer::Takes(talks)]);
    let first = bench.worker("one").await;
    first.take(&[Ask::new("acme", "a")]).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    first.kill().await;
    let _second = bench.worker("two").await;
    let told = bench.ended_with_repeats(&key("acme", "a")).await;
    assert_eq!(
        steps(&told),
        ["accepted", "placed", "ringing", "answered", "delivered"]
    );
    assert_eq!(told.last().unwrap().attempt, 1);
    assert_eq!(
        (
            bench.caller.posts().len(),
            bench.caller.calls_to(&number(1))
        ),
        (1, 1)
    );
}

#[tokio::test(start_paused = true)]
async fn a_call_adopted_from_a_killed_worker_that_ends_too_soon_was_not_heard() {
    let bench = Bench::new();
    bench.caller.set_latency(Duration::from_secs(5));
    let hangs_up = Life {
        rings: Duration::from_secs(40),
        then: Then::Talks(Duration::from_secs(2)),
        ..Life::default()
    };
    bench.caller.answers(&number(1), &[Answer::Takes(hangs_up)]);
    let first = bench.worker("one").await;
    first.take(&[Ask::new("acme", "a")]).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    first.kill().await;
    let _second = bench.worker("two").await;
    assert_eq!(
        steps(&bench.ended_with_repeats(&key("acme", "a")).await).last(),
        Some(&"hung_up")
    );
}

#[tokio::test(start_paused = true)]
async fn a_worker_whose_lease_has_lapsed_sends_nothing() {
    let bench = Bench::new();
    let worker = bench.worker("one").await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(worker.engine.is_alive());
    bench.ledger.meet(Trouble::NoBeats);
    tokio::time::sleep(limits().lease + Duration::from_secs(1)).await;
    assert!(!worker.engine.is_alive());
    worker
        .take(&[Ask::new("acme", "a").living(Duration::from_mins(5))])
        .await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert!(
        bench.caller.posts().is_empty(),
        "another worker might be settling this very attempt"
    );
    bench.ledger.meet(Trouble::None);
    let told = bench.ended_with_repeats(&key("acme", "a")).await;
    assert_eq!(
        steps(&told),
        ["accepted", "placed", "ringing", "answered", "delivered"]
    );
    assert_eq!(bench.caller.posts().len(), 1);
    assert!(worker.engine.is_alive(), "it has a new life");
}

#[tokio::test(start_paused = true)]
async fn a_ledger_that_was_away_is_waited_for() {
    let bench = Bench::new();
    let worker = bench.worker("one").await;
    worker.take(&[Ask::new("acme", "a")]).await;
    bench.until_told("a", "ringing").await;
    bench.ledger.meet(Trouble::Away);
    let (engine, ask) = (Arc::clone(&worker.engine), Ask::new("acme", "b").calling(2));
    let published = ask.incoming(bench.now());
    let taking = tokio::task::spawn(async move { engine.take_in(&[published.into()]).await });
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert!(
        !taking.is_finished(),
        "nothing is acknowledged that is not durable"
    );
    bench.ledger.meet(Trouble::None);
    assert_eq!(taking.await.unwrap(), [Disposition::Done]);
    for id in ["a", "b"] {
        assert_eq!(
            steps(&bench.ended_with_repeats(&key("acme", id)).await).last(),
            Some(&"delivered")
        );
    }
    assert_eq!(bench.caller.posts().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_of_the_ledger_calls_nobody_twice() {
    for every in [2, 3, 5, 7] {
        let bench = Bench::new();
        let worker = bench.worker("one").await;
        bench.ledger.lose_every(every);
        let asks: Vec<Ask> = (0..5)
            .map(|n| {
                Ask::new("acme", &format!("r{n}"))
                    .calling(n)
                    .living(Duration::from_mins(9))
            })
            .collect();
        for ask in &asks {
            worker.take(std::slice::from_ref(ask)).await;
        }
        for (n, ask) in (0..).zip(&asks) {
            let told = bench.ended_with_repeats(&ask.key()).await;
            let (calls, word) = (
                bench.caller.calls_to(&number(n)),
                words(&told).pop().unwrap(),
            );
            // What is begun and not known to have been is looked up, and counts as an attempt: they may run out.
            assert!(
                calls <= 1 && (calls == 1) == (word == "delivered"),
                "one in {every} lost: {calls} calls, {word}"
            );
        }
        bench.ledger.lose_every(0);
        worker.stop().await;
    }
}
