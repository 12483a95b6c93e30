//! The ledger's clock is set, or another server with another clock takes over.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use chrono::TimeDelta;

use super::test_bench::{TestBench, steps};
use crate::memory::clock::{self, Now};
use crate::memory::sample::{Request, account, key};

/// A clock that can be set.
struct Settable {
    true_time: Now,
    ahead_ms: Arc<AtomicI64>,
}

impl Settable {
    fn new() -> Self {
        Self {
            true_time: clock::tokio_clock(),
            ahead_ms: Arc::default(),
        }
    }

    fn reader(&self) -> Now {
        let (now, ahead) = (Arc::clone(&self.true_time), Arc::clone(&self.ahead_ms));
        Arc::new(move || now() + TimeDelta::milliseconds(ahead.load(Ordering::Relaxed)))
    }

    fn set_ahead(&self, by: Duration) {
        let by = i64::try_from(by.as_millis()).unwrap();
        self.ahead_ms.store(by, Ordering::Relaxed);
    }

    fn set_behind(&self, by: Duration) {
        let by = i64::try_from(by.as_millis()).unwrap();
        self.ahead_ms.store(-by, Ordering::Relaxed);
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_step_back_an_idle_account_has_slots_at_once() {
    let clock = Settable::new();
    let bench = TestBench::with_clock(clock.reader());
    let worker = bench.worker("one").await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    clock.set_ahead(Duration::from_secs(90));
    tokio::time::sleep(Duration::from_secs(10)).await;
    // Uses the account, whose next slot is now a minute and a half ahead of the true time.
    worker.accept(&[Request::new("acme", "ahead").to(1)]).await;
    bench.until_final_of(&key("acme", "ahead")).await;
    clock.set_ahead(Duration::ZERO);
    // Two heartbeats.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let request = Request::new("acme", "after")
        .to(2)
        .expires_in(Duration::from_mins(1));
    worker.accept(&[request]).await;
    let statuses = bench.until_final_of(&key("acme", "after")).await;
    assert_eq!(steps(&statuses).last(), Some(&"delivered"));
    assert!(
        statuses.last().unwrap().timings.placed_ms < Some(3_000),
        "{statuses:?}"
    );
    assert!(worker.engine.counts().clock_steps.load(Ordering::Relaxed) >= 2);
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_ledger_that_is_behind_does_not_make_a_code_live_longer() {
    let clock = Settable::new();
    let mut bench = TestBench::with_clock(clock.reader());
    bench.time_of_day = Some(Arc::clone(&clock.true_time));
    let worker = bench.worker("one").await;
    bench.directory.set_account_paused(&account(1), true);
    worker
        .accept(&[Request::new("acme", "waits")
            .to(1)
            .expires_in(Duration::from_secs(100))])
        .await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    clock.set_behind(Duration::from_secs(90));
    tokio::time::sleep(Duration::from_secs(80)).await;
    // 85 s have passed, and the latest start was after 70 s; the ledger believes that it is -5 s.
    bench.directory.set_account_paused(&account(1), false);
    let statuses = bench.until_final_of(&key("acme", "waits")).await;
    assert_eq!(steps(&statuses).last(), Some(&"expired"));
    assert!(bench.telephony.posts().is_empty(), "it is not called");
    worker.stop().await;
}
