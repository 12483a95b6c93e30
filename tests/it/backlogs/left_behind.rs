//! Events that a dead worker left in the outbox are published within seconds.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use voice_otp::Tuning;
use voice_otp::engine::Engine;
use voice_otp::engine::clock::TokioClock;
use voice_otp::engine::rng::SharedRng;
use voice_otp::ports::{Ledger as _, Ports};
use voice_otp_store::{Health, PgLedger};

use super::Bench;
use crate::memory::sample::limits;
use crate::memory::{MemoryDirectory, MemoryLedger, MemorySink, MemoryTelephony};

/// The ledger on Postgres, and the other ports in memory.
struct PostgresPorts;

impl Ports for PostgresPorts {
    type Ledger = PgLedger;
    type Directory = MemoryDirectory;
    type Telephony = MemoryTelephony;
    type Sink = MemorySink;
}

const EVENTS: usize = 100_000;

/// Inserts events of the bench's worker.
async fn insert_events(bench: &Bench, name: &str, count: usize) {
    let owner = bench.worker.0;
    bench
        .execute(&format!(
            "insert into outbox (tenant_id, delivery_id, sequence, owner, status, routing_key, \
                 body) \
             select 'acme', '{name}-' || n, s, {owner}, 'accepted', 'otp.accepted', '{{}}' \
               from generate_series(1, {count} / 2) n, generate_series(1, 2) s"
        ))
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_events_of_a_dead_worker_are_published_within_thirty_seconds() {
    let bench = Bench::new().await;
    let pool = voice_otp_store::connect_worker(&bench.database.url, 4).unwrap();
    let now: crate::memory::clock::Now =
        Arc::new(|| chrono::DateTime::from(std::time::SystemTime::now()));
    let directory = MemoryLedger::new(Arc::clone(&now), limits()).directory();
    let sink = MemorySink::new();
    let ports = (
        PgLedger::new(pool, bench.keys.clone(), limits(), Health::default()).unwrap(),
        directory,
        MemoryTelephony::new(now),
        sink.clone(),
    );
    let (engine, background) = Engine::<PostgresPorts>::start(
        ports,
        Tuning::default(),
        SharedRng::seeded(1),
        TokioClock::start(),
        "sweeper",
    )
    .await
    .unwrap();
    let (soft, hard) = (CancellationToken::new(), CancellationToken::new());
    let running = tokio::task::spawn(engine.run(background, soft.clone(), hard));
    // The sweeps are planned while the outbox is empty.
    tokio::time::sleep(Duration::from_secs(3)).await;
    bench.ledger.release_worker(bench.worker).await.unwrap();
    insert_events(&bench, "first", EVENTS).await;
    let began = Instant::now();
    sink.until("all are published", |events| events.len() >= EVENTS)
        .await;
    let took = began.elapsed();
    eprintln!("{EVENTS} events published in {took:?}");
    assert!(took < Duration::from_secs(30), "{took:?}");
    while bench.number("select count(*) from outbox").await > 0 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let events = sink.events();
    let distinct: HashSet<_> = events
        .iter()
        .map(|event| (&event.key, event.sequence))
        .collect();
    assert_eq!(
        (events.len(), distinct.len()),
        (EVENTS, EVENTS),
        "each once"
    );

    // While the broker is away, no event is rewritten again and again.
    sink.set_down(true);
    insert_events(&bench, "second", EVENTS).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let owners = "select count(distinct xmin::text) from outbox where owner <> 1";
    let claimed = bench.number(owners).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let later = bench.number(owners).await;
    assert!(
        later <= claimed + 1,
        "what the relay has isn't written again: {claimed}, {later}"
    );
    sink.set_down(false);
    sink.until("all are published", |events| events.len() >= 2 * EVENTS)
        .await;
    soft.cancel();
    running.await.unwrap();
    assert_eq!(sink.events().len(), 2 * EVENTS, "each once");
    bench.stop().await;
}
