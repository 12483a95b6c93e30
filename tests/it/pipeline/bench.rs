//! Workers on one ledger in memory, and short words for what every test does with them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use voice_otp::Tuning;
use voice_otp::clock::TokioSteady;
use voice_otp::delivery::Key;
use voice_otp::dice::Dice;
use voice_otp::engine::{Disposition, Engine, Message};
use voice_otp::event::Event;
use voice_otp_schemas::Timestamp;
use voice_otp_schemas::request::Incoming;
use voice_otp_schemas::status::{StatusData, StatusEvent};

use crate::memory::clock::{self, Now};
use crate::memory::sample::{Ask, draft, key, limits};
use crate::memory::{MemoryCaller, MemoryDirectory, MemoryLedger, MemoryPorts, MemorySink};

/// What every worker of a test shares.
pub(super) struct Bench {
    pub(super) ledger: MemoryLedger,
    pub(super) directory: MemoryDirectory,
    pub(super) caller: MemoryCaller,
    pub(super) sink: MemorySink,
    pub(super) tuning: Tuning,
    now: Now,
}

/// A worker that runs.
pub(super) struct Worker {
    pub(super) engine: Arc<Engine<MemoryPorts>>,
    soft: CancellationToken,
    hard: CancellationToken,
    running: JoinHandle<()>,
}

impl Bench {
    /// No worker yet, and one tenant, `acme`, of an account with one call a second, whose credentials are proven.
    pub(super) fn new() -> Self {
        let now = clock::of_tokio();
        let ledger =
            MemoryLedger::new(Arc::clone(&now), limits()).with_latency(Duration::from_millis(1));
        let bench = Self {
            directory: ledger.directory(),
            ledger,
            caller: MemoryCaller::new(Arc::clone(&now)),
            sink: MemorySink::new(),
            tuning: Tuning::default(),
            now,
        };
        bench.tenant("acme", 1, 1.0);
        bench
    }

    /// A tenant whose credentials are proven.
    pub(super) fn tenant(&self, name: &str, account: u32, pace: f64) {
        let settings = self.directory.save(name, &draft(account, pace));
        self.directory.prove(&settings);
    }

    /// Starts a worker.
    pub(super) async fn worker(&self, name: &str) -> Worker {
        let ports = (
            self.ledger.clone(),
            self.ledger.directory(),
            self.caller.clone(),
            self.sink.clone(),
        );
        self.worker_on(ports, name).await
    }

    /// Starts a worker that shares the bench's own directory, cache and all.
    pub(super) async fn worker_with_directory(&self, name: &str) -> Worker {
        let ports = (
            self.ledger.clone(),
            self.directory.clone(),
            self.caller.clone(),
            self.sink.clone(),
        );
        self.worker_on(ports, name).await
    }

    /// Starts a worker that publishes elsewhere.
    pub(super) async fn worker_with_sink(&self, name: &str, sink: MemorySink) -> Worker {
        self.worker_on(
            (
                self.ledger.clone(),
                self.ledger.directory(),
                self.caller.clone(),
                sink,
            ),
            name,
        )
        .await
    }

    async fn worker_on(
        &self,
        ports: (MemoryLedger, MemoryDirectory, MemoryCaller, MemorySink),
        name: &str,
    ) -> Worker {
        // Workers of different names never throw the same attempt ids.
        let seed = name.bytes().fold(7_u64, |seed, byte| {
            seed.wrapping_mul(31).wrapping_add(byte.into())
        });
        let (tuning, dice) = (self.tuning.clone(), Dice::seeded(seed));
        let started =
            Engine::<MemoryPorts>::start(ports, tuning, dice, TokioSteady::start(), name).await;
        let (engine, works) = started.expect("a worker can start");
        let (soft, hard) = (CancellationToken::new(), CancellationToken::new());
        let running =
            tokio::task::spawn(Arc::clone(&engine).run(works, soft.clone(), hard.clone()));
        Worker {
            engine,
            soft,
            hard,
            running,
        }
    }

    pub(super) fn now(&self) -> Timestamp {
        (self.now)()
    }

    /// When each POST came.
    pub(super) fn post_times(&self) -> Vec<Timestamp> {
        self.caller.posts().iter().map(|post| post.at).collect()
    }

    /// What has been said of a delivery, repeats included.
    pub(super) fn told(&self, key: &Key) -> Vec<StatusData> {
        self.sink
            .events()
            .iter()
            .filter(|event| event.key == *key)
            .map(data)
            .collect()
    }

    /// Waits for the end of a delivery of `acme`, as [`ended_of`](Self::ended_of) does.
    pub(super) async fn ended(&self, id: &str) -> Vec<StatusData> {
        self.ended_of(&key("acme", id)).await
    }

    /// Waits for the end of a delivery; gives all that was said of it, which must be whole, in order, and nothing twice.
    pub(super) async fn ended_of(&self, key: &Key) -> Vec<StatusData> {
        self.until_over(key).await;
        let told = self.told(key);
        check_whole(key, &told);
        told
    }

    /// The same where something broke, so that statuses may be repeated: gives each as it was said first.
    pub(super) async fn ended_with_repeats(&self, key: &Key) -> Vec<StatusData> {
        self.until_over(key).await;
        let told: Vec<StatusData> = first_appearances(&self.sink.events())
            .remove(key)
            .unwrap_or_default()
            .iter()
            .map(data)
            .collect();
        check_whole(key, &told);
        told
    }

    async fn until_over(&self, key: &Key) {
        let over = |event: &Event| event.key == *key && event.is_final();
        self.sink
            .until(&format!("{key} ends"), |events| events.iter().any(&over))
            .await;
    }

    /// Waits until a status of `acme`'s delivery is said.
    pub(super) async fn until_told(&self, id: &str, status: &str) {
        let key = key("acme", id);
        let said = |event: &Event| {
            event.key == key && event.status.is_some_and(|said| said.as_str() == status)
        };
        self.sink
            .until(&format!("{key} is {status}"), |events| {
                events.iter().any(&said)
            })
            .await;
    }
}

impl Worker {
    /// Takes requests in, published now; all must be done with.
    pub(super) async fn take(&self, asks: &[Ask]) {
        let now = self.engine.now();
        let group: Vec<Incoming> = asks.iter().map(|ask| ask.incoming(now)).collect();
        let dispositions = self.take_in(&group).await;
        assert!(
            dispositions
                .iter()
                .all(|disposition| *disposition == Disposition::Done),
            "{dispositions:?}"
        );
    }

    /// Takes messages in, from nobody that the broker vouches for.
    pub(super) async fn take_in(&self, group: &[Incoming]) -> Vec<Disposition> {
        self.take_in_from(None, group).await
    }

    /// Takes messages in from a user of the broker.
    pub(super) async fn take_in_from(
        &self,
        user: Option<&str>,
        group: &[Incoming],
    ) -> Vec<Disposition> {
        let message = |incoming: &Incoming| Message {
            incoming: incoming.clone(),
            user: user.map(str::to_owned),
        };
        self.engine
            .take_in(&group.iter().map(message).collect::<Vec<_>>())
            .await
    }

    /// Stops it softly: what is in hand is done, the rest is handed over.
    pub(super) async fn stop(self) {
        self.soft.cancel();
        self.running.await.expect("the worker ends well");
    }

    /// Stops it softly, and when that takes too long, at once: as a program is stopped.
    pub(super) async fn stop_within(mut self, grace: Duration) {
        self.soft.cancel();
        match tokio::time::timeout(grace, &mut self.running).await {
            Ok(ended) => ended.expect("the worker ends well"),
            Err(_) => self.kill().await,
        }
    }

    /// Stops it at once, whatever is in hand.
    pub(super) async fn kill(self) {
        self.hard.cancel();
        self.running.await.expect("the worker ends well");
    }
}

/// What an event says.
pub(super) fn data(event: &Event) -> StatusData {
    let event: StatusEvent = serde_json::from_str(&event.body).expect("a status event can be read");
    event.data
}

/// What was said of each delivery, in the order in which it was said first.
pub(super) fn first_appearances(events: &[Event]) -> BTreeMap<Key, Vec<Event>> {
    let mut seen = BTreeSet::new();
    let mut first: BTreeMap<Key, Vec<Event>> = BTreeMap::new();
    for event in events {
        if seen.insert((event.key.clone(), event.sequence)) {
            first
                .entry(event.key.clone())
                .or_default()
                .push(event.clone());
        }
    }
    first
}

/// The statuses of a delivery in words.
pub(super) fn words(told: &[StatusData]) -> Vec<&'static str> {
    told.iter().map(|data| data.status.as_str()).collect()
}

/// The same without `deferred`, which depends on the jitter.
pub(super) fn steps(told: &[StatusData]) -> Vec<&'static str> {
    words(told)
        .into_iter()
        .filter(|word| *word != "deferred")
        .collect()
}

/// Sequences from 1 without a gap or a repeat, and one final status, the last.
pub(super) fn check_whole(key: &Key, told: &[StatusData]) {
    let sequences: Vec<u32> = told.iter().map(|data| data.sequence).collect();
    let wanted: Vec<u32> = (1..).take(told.len()).collect();
    assert_eq!(sequences, wanted, "{key}: {:?}", words(told));
    let finals: Vec<bool> = told.iter().map(|data| data.is_final).collect();
    assert_eq!(
        finals.iter().filter(|is_final| **is_final).count(),
        1,
        "{key}: {:?}",
        words(told)
    );
    assert!(
        finals.last().is_some_and(|last| *last),
        "{key}: {:?}",
        words(told)
    );
}
