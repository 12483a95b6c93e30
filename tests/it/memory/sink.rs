//! Where statuses go in memory.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;
use voice_otp::event::Event;
use voice_otp::ports::{SinkError, StatusSink};
use voice_otp_schemas::status::Status;

/// Keeps what is published, in order. Clones are the same one.
#[derive(Clone)]
pub(crate) struct MemorySink {
    events: Arc<Mutex<Vec<Event>>>,
    prices: Arc<Mutex<Vec<Event>>>,
    down: Arc<AtomicBool>,
    /// How long a window of publishes takes to be confirmed.
    latency: Arc<Mutex<Duration>>,
    count: watch::Sender<usize>,
}

/// How long something is waited for: under a paused clock no time at all.
const PATIENCE: Duration = Duration::from_hours(1);

impl MemorySink {
    pub(crate) fn new() -> Self {
        let latency = Arc::new(Mutex::new(Duration::from_millis(1)));
        Self {
            events: Arc::default(),
            prices: Arc::default(),
            down: Arc::default(),
            latency,
            count: watch::Sender::new(0),
        }
    }

    /// Whether it takes nothing.
    pub(crate) fn set_down(&self, down: bool) {
        self.down.store(down, Ordering::SeqCst);
    }

    pub(crate) fn set_latency(&self, latency: Duration) {
        *self.latency.lock().unwrap() = latency;
    }

    /// What was published, in order, but for prices.
    pub(crate) fn events(&self) -> Vec<Event> {
        self.events.lock().unwrap().clone()
    }

    /// The prices that were published.
    pub(crate) fn prices(&self) -> Vec<Event> {
        self.prices.lock().unwrap().clone()
    }

    /// Waits until what was published is as wanted; `what` says what that is.
    pub(crate) async fn until(&self, what: &str, mut wanted: impl FnMut(&[Event]) -> bool) {
        let mut count = self.count.subscribe();
        let waiting = count.wait_for(|_| wanted(&self.events.lock().unwrap()));
        let came = tokio::time::timeout(PATIENCE, waiting).await;
        assert!(
            came.is_ok(),
            "never happened: {what}; statuses: {:#?}",
            self.summary()
        );
    }

    /// Every status in a word, for a failing test to show.
    fn summary(&self) -> Vec<String> {
        self.events
            .lock()
            .unwrap()
            .iter()
            .map(|event| {
                format!(
                    "{}/{} {}",
                    event.key,
                    event.sequence,
                    event.status.map_or("?", Status::as_str)
                )
            })
            .collect()
    }
}

impl StatusSink for MemorySink {
    async fn publish(&self, events: &[Event]) -> Vec<Result<(), SinkError>> {
        let latency = *self.latency.lock().unwrap();
        tokio::time::sleep(latency).await;
        if self.down.load(Ordering::SeqCst) {
            return events
                .iter()
                .map(|_| Err(SinkError("the sink is down".into())))
                .collect();
        }
        let (statuses, prices): (Vec<Event>, Vec<Event>) = events
            .iter()
            .cloned()
            .partition(|event| event.status.is_some());
        self.events.lock().unwrap().extend(statuses);
        self.prices.lock().unwrap().extend(prices);
        self.count.send_modify(|count| *count += events.len());
        events.iter().map(|_| Ok(())).collect()
    }
}
