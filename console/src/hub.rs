//! The stream of statuses: read once from the broker, kept for a while, sent to every subscriber.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use secrecy::SecretString;
use serde::Serialize;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;
use voice_otp_publisher::statuses::{Received, StatusStream};
use voice_otp_schemas::TenantId;
use voice_otp_schemas::status::StatusData;

/// A status, as it was published.
#[derive(Debug)]
pub(crate) struct LiveStatus {
    pub(crate) data: StatusData,
    /// When it was published, RFC 3339.
    pub(crate) time: String,
    /// `data` and `time` as one JSON object, for scripts.
    pub(crate) json: String,
}

/// Statuses as they are published, and the latest ones by delivery.
pub(crate) struct Hub {
    sender: broadcast::Sender<Arc<LiveStatus>>,
    recent: Mutex<Recent>,
}

/// The latest statuses: `order` has them as they came, `by_delivery` by tenant and delivery id.
#[derive(Default)]
struct Recent {
    order: VecDeque<Arc<LiveStatus>>,
    by_delivery: HashMap<(String, String), Vec<Arc<LiveStatus>>>,
}

/// A subscriber that is this many statuses behind misses some, and learns how many.
const SUBSCRIBER_BACKLOG: usize = 4_096;
/// Statuses that are kept: a few tens of megabytes.
const MAX_RECENT: usize = 20_000;
/// The pause before the broker is connected to again.
const RECONNECT_DELAY: Duration = Duration::from_secs(1);

impl Default for Hub {
    fn default() -> Self {
        Self {
            sender: broadcast::channel(SUBSCRIBER_BACKLOG).0,
            recent: Mutex::default(),
        }
    }
}

impl Hub {
    /// Reads statuses until `stop` is cancelled. Statuses that are published while the broker is
    /// unreachable are missed.
    pub(crate) async fn read_statuses(self: Arc<Self>, url: SecretString, stop: CancellationToken) {
        loop {
            let reading = async {
                let mut stream = StatusStream::subscribe(&url, None).await?;
                while let Some((_, received)) = stream.next().await {
                    if let Received::Status(event) = received {
                        self.publish(event.data, event.time);
                    }
                }
                anyhow::Ok(())
            };
            tokio::select! {
                read = reading => {
                    if let Err(error) = read {
                        let error = &*error as &dyn std::error::Error;
                        tracing::warn!(error, "failed to read statuses; retrying");
                    }
                }
                () = stop.cancelled() => return,
            }
            tokio::select! {
                () = tokio::time::sleep(RECONNECT_DELAY) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    fn publish(&self, data: StatusData, time: String) {
        let live = Arc::new(LiveStatus {
            json: to_json(&data, &time),
            data,
            time,
        });
        self.recent().push(Arc::clone(&live));
        // Sending fails only when no page is open.
        drop(self.sender.send(live));
    }

    /// Receives every status that is published from now on.
    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Arc<LiveStatus>> {
        self.sender.subscribe()
    }

    /// The recent statuses of a delivery, in the order of their sequence numbers, without
    /// duplicates.
    pub(crate) fn recent_statuses(
        &self,
        tenant: &TenantId,
        delivery: &str,
    ) -> Vec<Arc<LiveStatus>> {
        let key = (tenant.as_str().to_owned(), delivery.to_owned());
        let mut found = self
            .recent()
            .by_delivery
            .get(&key)
            .cloned()
            .unwrap_or_default();
        found.sort_by_key(|live| live.data.sequence);
        found.dedup_by_key(|live| live.data.sequence);
        found
    }

    fn recent(&self) -> MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[expect(clippy::expect_used, reason = "a status consists of text and numbers")]
fn to_json(data: &StatusData, time: &str) -> String {
    #[derive(Serialize)]
    struct WithTime<'a> {
        #[serde(flatten)]
        data: &'a StatusData,
        time: &'a str,
    }
    serde_json::to_string(&WithTime { data, time }).expect("a status has a JSON form")
}

fn key_of(live: &LiveStatus) -> (String, String) {
    (
        live.data.tenant_id.as_str().to_owned(),
        live.data.delivery_id.as_str().to_owned(),
    )
}

impl Recent {
    /// Adds a status, and drops the oldest beyond [`MAX_RECENT`].
    fn push(&mut self, live: Arc<LiveStatus>) {
        self.by_delivery
            .entry(key_of(&live))
            .or_default()
            .push(Arc::clone(&live));
        self.order.push_back(live);
        while self.order.len() > MAX_RECENT {
            let Some(oldest) = self.order.pop_front() else {
                return;
            };
            let key = key_of(&oldest);
            if let Some(statuses) = self.by_delivery.get_mut(&key) {
                statuses.retain(|live| !Arc::ptr_eq(live, &oldest));
                if statuses.is_empty() {
                    self.by_delivery.remove(&key);
                }
            }
        }
    }
}
