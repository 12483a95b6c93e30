//! The stream of statuses, for all who look: read once, kept for a while, and handed to each what is theirs.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use secrecy::SecretString;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;
use voice_otp_schemas::TenantId;
use voice_otp_schemas::status::StatusData;

use crate::tail::{Tail, Told};

/// A status, as it came.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) data: StatusData,
    /// When it was said, RFC 3339.
    pub(super) time: String,
    /// For scripts: `data` with `time`.
    pub(super) json: String,
}

pub(super) struct Hub {
    sender: broadcast::Sender<Arc<Live>>,
    recent: Mutex<Recent>,
}

/// The latest statuses, by delivery.
#[derive(Default)]
struct Recent {
    order: VecDeque<Arc<Live>>,
    of: HashMap<(String, String), Vec<Arc<Live>>>,
}

/// Somebody who is slower than this many statuses misses some, and is told so.
const BACKLOG: usize = 4_096;
/// So many are kept: a few tens of megabytes.
const KEPT: usize = 20_000;

impl Default for Hub {
    fn default() -> Self {
        Self {
            sender: broadcast::channel(BACKLOG).0,
            recent: Mutex::default(),
        }
    }
}

impl Hub {
    /// Reads statuses as they are said, for good: what is said while the broker can't be reached is missed here.
    pub(super) async fn listen(self: Arc<Self>, url: SecretString, stop: CancellationToken) {
        loop {
            let reading = async {
                let mut tail = Tail::start(&url, None).await?;
                while let Some((_, told)) = tail.next().await {
                    if let Told::Status(event) = told {
                        self.tell(event.data, event.time);
                    }
                }
                anyhow::Ok(())
            };
            tokio::select! {
                read = reading => {
                    if let Err(error) = read {
                        tracing::warn!(error = &*error as &dyn std::error::Error, "can't read statuses, trying again");
                    }
                }
                () = stop.cancelled() => return,
            }
            tokio::select! {
                () = tokio::time::sleep(Duration::from_secs(1)) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    fn tell(&self, data: StatusData, time: String) {
        let mut json = serde_json::to_value(&data).unwrap_or_default();
        if let Some(object) = json.as_object_mut() {
            object.insert("time".to_owned(), time.clone().into());
        }
        let live = Arc::new(Live {
            json: json.to_string(),
            data,
            time,
        });
        self.recent().keep(Arc::clone(&live));
        // Nobody may be looking.
        drop(self.sender.send(live));
    }

    /// What is said from now on.
    pub(super) fn subscribe(&self) -> broadcast::Receiver<Arc<Live>> {
        self.sender.subscribe()
    }

    /// The statuses of a delivery that were said lately, in order, each once.
    pub(super) fn of(&self, tenant: &TenantId, delivery: &str) -> Vec<Arc<Live>> {
        let key = (tenant.as_str().to_owned(), delivery.to_owned());
        let mut found = self.recent().of.get(&key).cloned().unwrap_or_default();
        found.sort_by_key(|live| live.data.sequence);
        found.dedup_by_key(|live| live.data.sequence);
        found
    }

    fn recent(&self) -> MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(live: &Live) -> (String, String) {
    (
        live.data.tenant_id.as_str().to_owned(),
        live.data.delivery_id.as_str().to_owned(),
    )
}

impl Recent {
    fn keep(&mut self, live: Arc<Live>) {
        self.of
            .entry(key(&live))
            .or_default()
            .push(Arc::clone(&live));
        self.order.push_back(live);
        while self.order.len() > KEPT {
            let Some(oldest) = self.order.pop_front() else {
                return;
            };
            let key = key(&oldest);
            if let Some(of) = self.of.get_mut(&key) {
                of.retain(|live| !Arc::ptr_eq(live, &oldest));
                if of.is_empty() {
                    self.of.remove(&key);
                }
            }
        }
    }
}
