//! The status sink in memory.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;
use voice_otp::event::Event;
use voice_otp::ports::{SinkError, StatusSink};
use voice_otp_schemas::status::Status;

/// Keeps the published events, in order. Clones share the same events.
#[derive(Clone)]
pub(crate) struct MemorySink {
    events: Arc<Mutex<Vec<Event>>>,
    /// Price events, which are kept apart from statuses.
    prices: Arc<Mutex<Vec<Event>>>,
    /// Whether every publish fails.
    down: Arc<AtomicBool>,
    /// How many of the next events are refused.
    refusals: Arc<AtomicUsize>,
    /// How long the confirm of a batch takes.
    latency: Arc<Mutex<Duration>>,
    /// The number of published events, for tests that wait.
    count: watch::Sender<usize>,
}

/// The longest that a test waits. Under a paused clock it takes no real time.
const WAIT_TIMEOUT: Duration = Duration::from_hours(1);

impl MemorySink {
    pub(crate) fn new() -> Self {
        let latency = Arc::new(Mutex::new(Duration::from_millis(1)));
        Self {
            events: Arc::default(),
            prices: Arc::default(),
            down: Arc::default(),
            refusals: Arc::default(),
            latency,
            count: watch::Sender::new(0),
        }
    }

    /// Makes every publish fail, or succeed again.
    pub(crate) fn set_down(&self, down: bool) {
        self.down.store(down, Ordering::SeqCst);
    }

    /// Refuses the next `count` events, and takes those that follow.
    pub(crate) fn refuse_next(&self, count: usize) {
        self.refusals.store(count, Ordering::SeqCst);
    }

    pub(crate) fn set_latency(&self, latency: Duration) {
        *self.latency.lock().unwrap() = latency;
    }

    /// The published statuses, in order.
    pub(crate) fn events(&self) -> Vec<Event> {
        self.events.lock().unwrap().clone()
    }

    /// The published prices, in order.
    pub(crate) fn prices(&self) -> Vec<Event> {
        self.prices.lock().unwrap().clone()
    }

    /// Waits until the published statuses satisfy `wanted`, which `what` describes.
    pub(crate) async fn until(&self, what: &str, mut wanted: impl FnMut(&[Event]) -> bool) {
        let mut count = self.count.subscribe();
        let waiting = count.wait_for(|_| wanted(&self.events.lock().unwrap()));
        let came = tokio::time::timeout(WAIT_TIMEOUT, waiting).await;
        assert!(
            came.is_ok(),
            "timed out waiting until {what}; statuses: {:#?}",
            self.summary()
        );
    }

    /// One short line per status, for the message of a failed wait.
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
        let refused = self.refusals.swap(0, Ordering::SeqCst);
        self.refusals
            .store(refused.saturating_sub(events.len()), Ordering::SeqCst);
        let (statuses, prices): (Vec<Event>, Vec<Event>) = events
            .iter()
            .skip(refused)
            .cloned()
            .partition(|event| event.status.is_some());
        self.events.lock().unwrap().extend(statuses);
        self.prices.lock().unwrap().extend(prices);
        self.count.send_modify(|count| *count += events.len());
        let result = |n| {
            if n < refused {
                Err(SinkError("refused".into()))
            } else {
                Ok(())
            }
        };
        (0..events.len()).map(result).collect()
    }
}
