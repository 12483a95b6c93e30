//! The status sink in memory.

use std::collections::HashMap;
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
    /// The tenants that have a queue which doesn't take their statuses.
    broken_queues: Arc<Mutex<HashMap<String, BrokenQueue>>>,
    /// How long the confirm of a batch takes.
    latency: Arc<Mutex<Duration>>,
    /// The number of published events, for tests that wait.
    count: watch::Sender<usize>,
}

/// What a queue does with every status of its tenant. Other queues have the status all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BrokenQueue {
    /// It is full and refuses.
    Refuses,
    /// It never confirms.
    IsSilent,
}

/// How long a publish without a confirm takes.
pub(crate) const CONFIRM_TIMEOUT: Duration = Duration::from_secs(30);
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
            broken_queues: Arc::default(),
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

    /// Breaks a queue of a tenant, or mends or deletes it.
    pub(crate) fn set_queue(&self, tenant: &str, broken: Option<BrokenQueue>) {
        let mut queues = self.broken_queues.lock().unwrap();
        match broken {
            Some(broken) => drop(queues.insert(tenant.to_owned(), broken)),
            None => drop(queues.remove(tenant)),
        }
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

    fn broken_queue(&self, event: &Event) -> Option<BrokenQueue> {
        let queues = self.broken_queues.lock().unwrap();
        queues.get(event.key.tenant_id.as_str()).copied()
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
    async fn publish(&self, event: &Event) -> Result<(), SinkError> {
        let latency = *self.latency.lock().unwrap();
        tokio::time::sleep(latency).await;
        if self.down.load(Ordering::SeqCst) {
            return Err(SinkError::Unavailable("the sink is down".into()));
        }
        let refuse_one = |left: usize| left.checked_sub(1);
        let refused = self
            .refusals
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, refuse_one);
        if refused.is_ok() {
            return Err(SinkError::Refused("refused".into()));
        }
        let published = if event.status.is_some() {
            &self.events
        } else {
            &self.prices
        };
        published.lock().unwrap().push(event.clone());
        self.count.send_modify(|count| *count += 1);
        match self.broken_queue(event) {
            None => Ok(()),
            Some(BrokenQueue::Refuses) => Err(SinkError::Refused("a queue is full".into())),
            Some(BrokenQueue::IsSilent) => {
                tokio::time::sleep(CONFIRM_TIMEOUT).await;
                Err(SinkError::Unconfirmed("a queue is silent".into()))
            }
        }
    }
}
