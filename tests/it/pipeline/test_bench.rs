//! Workers that share ports in memory, and the helpers of every pipeline test.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use voice_otp::Tuning;
use voice_otp::engine::clock::{MonotonicClock, TokioClock};
use voice_otp::engine::rng::SharedRng;
use voice_otp::engine::{Disposition, Engine, Message};
use voice_otp::event::Event;
use voice_otp_schemas::DeliveryKey;
use voice_otp_schemas::Timestamp;
use voice_otp_schemas::request::Incoming;
use voice_otp_schemas::status::{StatusData, StatusEvent};

use crate::memory::clock::{self, Now};
use crate::memory::sample::{Request, draft, key, limits};
use crate::memory::{MemoryDirectory, MemoryLedger, MemoryPorts, MemorySink, MemoryTelephony};

/// The ports that all workers of a test share.
pub(super) struct TestBench {
    pub(super) ledger: MemoryLedger,
    pub(super) directory: MemoryDirectory,
    pub(super) telephony: MemoryTelephony,
    pub(super) sink: MemorySink,
    pub(super) tuning: Tuning,
    now: Now,
    /// What the machines' own clocks show, if that matters.
    pub(super) time_of_day: Option<Now>,
}

/// A worker's clocks.
struct MachineClock {
    monotonic: TokioClock,
    time_of_day: Option<Now>,
}

impl MonotonicClock for MachineClock {
    fn elapsed(&self) -> Duration {
        self.monotonic.elapsed()
    }

    fn time_of_day(&self) -> Option<Timestamp> {
        self.time_of_day.as_ref().map(|now| now())
    }
}

/// A running worker.
pub(super) struct Worker {
    pub(super) engine: Arc<Engine<MemoryPorts>>,
    soft: CancellationToken,
    hard: CancellationToken,
    running: JoinHandle<()>,
}

impl TestBench {
    /// A bench without workers, and with one tenant, `acme`: its credentials are verified, and its
    /// account may place one call per second.
    pub(super) fn new() -> Self {
        Self::with_clock(clock::tokio_clock())
    }

    /// Like [`new`](Self::new), with another clock of the ledger and of Twilio.
    pub(super) fn with_clock(now: Now) -> Self {
        let ledger =
            MemoryLedger::new(Arc::clone(&now), limits()).with_latency(Duration::from_millis(1));
        let bench = Self {
            directory: ledger.directory(),
            ledger,
            telephony: MemoryTelephony::new(Arc::clone(&now)),
            sink: MemorySink::new(),
            tuning: Tuning::default(),
            now,
            time_of_day: None,
        };
        bench.tenant("acme", 1, 1.0);
        bench
    }

    /// Saves a tenant with verified credentials.
    pub(super) fn tenant(&self, name: &str, account: u32, rate: f64) {
        let settings = self.directory.save(name, &draft(account, rate));
        self.directory.verify_credentials(&settings);
    }

    /// Starts a worker.
    pub(super) async fn worker(&self, name: &str) -> Worker {
        let ports = (
            self.ledger.clone(),
            self.ledger.directory(),
            self.telephony.clone(),
            self.sink.clone(),
        );
        self.worker_on(ports, name).await
    }

    /// Starts a worker that shares the bench's directory, and so its cache.
    pub(super) async fn worker_with_directory(&self, name: &str) -> Worker {
        let ports = (
            self.ledger.clone(),
            self.directory.clone(),
            self.telephony.clone(),
            self.sink.clone(),
        );
        self.worker_on(ports, name).await
    }

    /// Starts a worker with another sink.
    pub(super) async fn worker_with_sink(&self, name: &str, sink: MemorySink) -> Worker {
        self.worker_on(
            (
                self.ledger.clone(),
                self.ledger.directory(),
                self.telephony.clone(),
                sink,
            ),
            name,
        )
        .await
    }

    async fn worker_on(
        &self,
        ports: (MemoryLedger, MemoryDirectory, MemoryTelephony, MemorySink),
        name: &str,
    ) -> Worker {
        // The seed depends on the name, so that no two workers draw the same attempt ids.
        let seed = name.bytes().fold(7_u64, |seed, byte| {
            seed.wrapping_mul(31).wrapping_add(byte.into())
        });
        let (tuning, rng) = (self.tuning.clone(), SharedRng::seeded(seed));
        let clock = MachineClock {
            monotonic: TokioClock::start(),
            time_of_day: self.time_of_day.clone(),
        };
        let started = Engine::<MemoryPorts>::start(ports, tuning, rng, clock, name).await;
        let (engine, background) = started.expect("the worker starts");
        let (soft, hard) = (CancellationToken::new(), CancellationToken::new());
        let running =
            tokio::task::spawn(Arc::clone(&engine).run(background, soft.clone(), hard.clone()));
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

    /// The times of the POSTs.
    pub(super) fn post_times(&self) -> Vec<Timestamp> {
        self.telephony.posts().iter().map(|post| post.at).collect()
    }

    /// The statuses of a delivery so far, duplicates included.
    pub(super) fn statuses(&self, key: &DeliveryKey) -> Vec<StatusData> {
        self.sink
            .events()
            .iter()
            .filter(|event| event.key == *key)
            .map(data)
            .collect()
    }

    /// Waits for the final status of a delivery of `acme`, like
    /// [`until_final_of`](Self::until_final_of).
    pub(super) async fn until_final(&self, id: &str) -> Vec<StatusData> {
        self.until_final_of(&key("acme", id)).await
    }

    /// Waits for the final status of a delivery. Returns all of its statuses, which must be
    /// complete, in order and without duplicates.
    pub(super) async fn until_final_of(&self, key: &DeliveryKey) -> Vec<StatusData> {
        self.wait_for_final(key).await;
        let statuses = self.statuses(key);
        check_complete(key, &statuses);
        statuses
    }

    /// Like [`until_final_of`](Self::until_final_of), after a failure: statuses may be published
    /// more than once. Returns each as first published.
    pub(super) async fn until_final_with_duplicates(&self, key: &DeliveryKey) -> Vec<StatusData> {
        self.wait_for_final(key).await;
        let statuses: Vec<StatusData> = without_duplicates(&self.sink.events())
            .remove(key)
            .unwrap_or_default()
            .iter()
            .map(data)
            .collect();
        check_complete(key, &statuses);
        statuses
    }

    async fn wait_for_final(&self, key: &DeliveryKey) {
        let is_last = |event: &Event| event.key == *key && event.is_final();
        self.sink
            .until(&format!("{key} is final"), |events| {
                events.iter().any(&is_last)
            })
            .await;
    }

    /// Waits until a status of `acme`'s delivery is published.
    pub(super) async fn until_status(&self, id: &str, status: &str) {
        let key = key("acme", id);
        let matches = |event: &Event| {
            event.key == key && event.status.is_some_and(|found| found.as_str() == status)
        };
        self.sink
            .until(&format!("{key} is {status}"), |events| {
                events.iter().any(&matches)
            })
            .await;
    }
}

impl Worker {
    /// Processes requests, published now; all must be acknowledged.
    pub(super) async fn accept(&self, requests: &[Request]) {
        let now = self.engine.now();
        let group: Vec<Incoming> = requests
            .iter()
            .map(|request| request.incoming(now))
            .collect();
        let dispositions = self.process(&group).await;
        assert!(
            dispositions
                .iter()
                .all(|disposition| *disposition == Disposition::Acknowledge),
            "{dispositions:?}"
        );
    }

    /// Processes messages without a broker user.
    pub(super) async fn process(&self, group: &[Incoming]) -> Vec<Disposition> {
        self.process_from(None, group).await
    }

    /// Processes messages from a broker user.
    pub(super) async fn process_from(
        &self,
        user: Option<&str>,
        group: &[Incoming],
    ) -> Vec<Disposition> {
        let message = |incoming: &Incoming| Message {
            incoming: incoming.clone(),
            user: user.map(str::to_owned),
        };
        self.engine
            .process(&group.iter().map(message).collect::<Vec<_>>())
            .await
    }

    /// Shuts the worker down gracefully: it finishes what is in flight and hands over the rest.
    pub(super) async fn stop(self) {
        self.soft.cancel();
        self.running
            .await
            .expect("the worker stops without a panic");
    }

    /// Shuts the worker down gracefully, and kills it after `grace`, as the program does.
    pub(super) async fn stop_within(mut self, grace: Duration) {
        self.soft.cancel();
        match tokio::time::timeout(grace, &mut self.running).await {
            Ok(ended) => ended.expect("the worker stops without a panic"),
            Err(_) => self.kill().await,
        }
    }

    /// Stops the worker at once, whatever is in flight.
    pub(super) async fn kill(self) {
        self.hard.cancel();
        self.running
            .await
            .expect("the worker stops without a panic");
    }
}

/// The data of a status event.
pub(super) fn data(event: &Event) -> StatusData {
    let event: StatusEvent =
        serde_json::from_str(&event.body).expect("the event is a valid status");
    event.data
}

/// The statuses of each delivery as first published, in that order.
pub(super) fn without_duplicates(events: &[Event]) -> BTreeMap<DeliveryKey, Vec<Event>> {
    let mut seen = BTreeSet::new();
    let mut first: BTreeMap<DeliveryKey, Vec<Event>> = BTreeMap::new();
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

/// The names of statuses.
pub(super) fn status_names(statuses: &[StatusData]) -> Vec<&'static str> {
    statuses.iter().map(|data| data.status.as_str()).collect()
}

/// Requests of `acme`, each for a number of its own.
pub(super) fn requests(count: u32) -> Vec<Request> {
    (0..count)
        .map(|n| Request::new("acme", &format!("r{n}")).to(n))
        .collect()
}

/// The names of statuses without `deferred`, which depends on the jitter.
pub(super) fn steps(statuses: &[StatusData]) -> Vec<&'static str> {
    status_names(statuses)
        .into_iter()
        .filter(|word| *word != "deferred")
        .collect()
}

/// Checks that sequences run from 1 without a gap or a duplicate, and that only the last status is
/// final.
pub(super) fn check_complete(key: &DeliveryKey, statuses: &[StatusData]) {
    let sequences: Vec<u32> = statuses.iter().map(|data| data.sequence).collect();
    let wanted: Vec<u32> = (1..).take(statuses.len()).collect();
    assert_eq!(sequences, wanted, "{key}: {:?}", status_names(statuses));
    let finals: Vec<bool> = statuses.iter().map(|data| data.is_final).collect();
    assert_eq!(
        finals.iter().filter(|is_final| **is_final).count(),
        1,
        "{key}: {:?}",
        status_names(statuses)
    );
    assert!(
        finals.last().is_some_and(|last| *last),
        "{key}: {:?}",
        status_names(statuses)
    );
}
