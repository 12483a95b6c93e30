//! The status sink of one worker.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::TimeDelta;
use voice_otp::event::Event;
use voice_otp::ports::{SinkError, StatusSink};
use voice_otp_schemas::DeliveryKey;
use voice_otp_schemas::status::StatusEvent;

use crate::memory::clock::Now;
use crate::memory::{BrokenQueue, MemorySink};
use crate::simulation::bug::Bug;
use crate::simulation::fault_injector::FaultInjector;
use crate::simulation::plan::CALL_TIMEOUT;

#[derive(Clone)]
pub(in crate::simulation) struct SimSink {
    /// What the status log receives.
    pub(in crate::simulation) sink: MemorySink,
    pub(in crate::simulation) queues: Arc<Queues>,
    pub(in crate::simulation) faults: FaultInjector,
    pub(in crate::simulation) true_time: Now,
    pub(in crate::simulation) bug: Option<Bug>,
}

/// The queues of consumers, which all workers share.
#[derive(Default)]
pub(in crate::simulation) struct Queues {
    /// The tenant with a queue that doesn't take its statuses, for now.
    pub(in crate::simulation) broken: Mutex<Option<(&'static str, BrokenQueue)>>,
    /// The statuses that the broker has confirmed, in order: every queue has them.
    pub(in crate::simulation) confirmed: Mutex<Vec<Event>>,
    /// How long after its change a status was first published.
    pub(in crate::simulation) delays: Mutex<HashMap<(DeliveryKey, u32), TimeDelta>>,
}

/// What the broker does with one status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Confirmed,
    /// A queue refuses it; the status log has it.
    Refused,
    /// A queue doesn't confirm it; the status log has it.
    Unconfirmed,
}

/// How long a publish waits for its confirm: a tenth of what the publisher waits.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(3);

impl StatusSink for SimSink {
    async fn publish(&self, event: &Event) -> Result<(), SinkError> {
        self.note_delay(event);
        if self.bug == Some(Bug::RefusedStopsOthers) {
            while self.broken_elsewhere(event) {
                tokio::time::sleep(CALL_TIMEOUT).await;
            }
            self.note_delay(event);
        }
        let fate = self.fate(event);
        let (sink, queues, bug) = (self.sink.clone(), Arc::clone(&self.queues), self.bug);
        let sent = event.clone();
        let published = self.faults.perform(async move {
            match (fate, bug) {
                (Fate::Confirmed, _) => {
                    if sent.status.is_some() {
                        queues.confirmed.lock().unwrap().push(sent.clone());
                    }
                    drop(sink.publish(&sent).await);
                }
                (Fate::Refused, Some(Bug::PublishRefusedLater)) => {
                    drop(tokio::task::spawn(async move {
                        tokio::time::sleep(CALL_TIMEOUT).await;
                        sink.publish(&sent).await
                    }));
                }
                (Fate::Refused, Some(Bug::RepeatRefused)) => {
                    for _ in 0..3 {
                        drop(sink.publish(&sent).await);
                    }
                }
                (Fate::Refused | Fate::Unconfirmed, _) => drop(sink.publish(&sent).await),
            }
        });
        if published.await.is_err() {
            return Err(SinkError::Unavailable("no answer".into()));
        }
        match fate {
            Fate::Confirmed => Ok(()),
            Fate::Refused if self.bug == Some(Bug::PublishRefusedLater) => Ok(()),
            Fate::Refused => Err(SinkError::Refused("a queue is full".into())),
            Fate::Unconfirmed => {
                tokio::time::sleep(CONFIRM_TIMEOUT).await;
                self.faults.halt_if_crashed().await;
                Err(SinkError::Unconfirmed("a queue is silent".into()))
            }
        }
    }
}

impl SimSink {
    fn fate(&self, event: &Event) -> Fate {
        if self.faults.happens(|odds| odds.refused) {
            return Fate::Refused;
        }
        match *self.queues.broken.lock().unwrap() {
            Some((tenant, BrokenQueue::Refuses)) if event.key.tenant_id.as_str() == tenant => {
                Fate::Refused
            }
            Some((tenant, BrokenQueue::IsSilent)) if event.key.tenant_id.as_str() == tenant => {
                Fate::Unconfirmed
            }
            _ => Fate::Confirmed,
        }
    }

    /// Whether another tenant's queue is broken.
    fn broken_elsewhere(&self, event: &Event) -> bool {
        let broken = *self.queues.broken.lock().unwrap();
        broken.is_some_and(|(tenant, _)| event.key.tenant_id.as_str() != tenant)
    }

    fn note_delay(&self, event: &Event) {
        let Ok(status) = serde_json::from_str::<StatusEvent>(&event.body) else {
            return;
        };
        let changed_at = chrono::DateTime::parse_from_rfc3339(&status.time).unwrap();
        let delay = (self.true_time)() - changed_at.with_timezone(&chrono::Utc);
        let id = (event.key.clone(), event.sequence);
        let mut delays = self.queues.delays.lock().unwrap();
        if self.bug == Some(Bug::RefusedStopsOthers) {
            delays.insert(id, delay);
        } else {
            delays.entry(id).or_insert(delay);
        }
    }
}
