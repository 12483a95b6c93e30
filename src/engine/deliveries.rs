//! Reading and changing deliveries: every change is saved in a batch, and its events go to the
//! relay.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use voice_otp_schemas::DeliveryKey;
use voice_otp_schemas::Timestamp;
use voice_otp_schemas::status::Status;

use super::batch::{Batch, BatchError, work_on};
use super::clock::LedgerClock;
use super::counts::Counts;
use super::relay::Relay;
use super::retry::until_answered;
use super::schedule::Held;
use super::shutdown::Shutdown;
use crate::delivery::{AttemptId, Change, Delivery};
use crate::event::Event;
use crate::ports::{Attempt, EarlierEvents, Ledger, LedgerError, Saved, WorkerEpoch};

/// The pause after which a delivery is read again that another transaction has locked.
const LOCKED_PAUSE: Duration = Duration::from_millis(100);

/// Reads and changes deliveries.
pub(super) struct Deliveries<L> {
    ledger: Arc<L>,
    saves: Batch<Change, Saved>,
    relay: Arc<Relay>,
    clock: Arc<LedgerClock>,
    counts: Arc<Counts>,
    shutdown: Shutdown,
}

/// What became of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Changed {
    /// It is saved, or there was nothing left to change.
    Done,
    /// This worker can't save it now. The delivery is released, and claimed again later.
    Lost,
}

/// The answer to a change that was tried once.
#[derive(Debug)]
pub(super) enum SavedNow {
    /// It is saved; the delivery as it is stored.
    Saved(Box<Delivery>),
    /// The delivery was changed concurrently.
    Conflict,
    /// Another transaction has locked the delivery.
    RowLocked,
}

impl<L: Ledger> Deliveries<L> {
    pub(super) fn new(
        ledger: Arc<L>,
        saves: Batch<Change, Saved>,
        relay: Arc<Relay>,
        clock: Arc<LedgerClock>,
        counts: Arc<Counts>,
        shutdown: Shutdown,
    ) -> Self {
        Self {
            ledger,
            saves,
            relay,
            clock,
            counts,
            shutdown,
        }
    }

    /// Changes an owned delivery: computes the change on the newest value until it is saved, or
    /// there is nothing left to change.
    pub(super) async fn change(
        &self,
        held: &mut Held,
        compute: impl Fn(&Delivery, Timestamp) -> Option<Change>,
    ) -> Changed {
        loop {
            let Some(change) = compute(&held.delivery, self.clock.now()) else {
                return Changed::Done;
            };
            match self.save(change).await {
                Ok(Some(saved)) => {
                    held.replace(saved);
                    return Changed::Done;
                }
                Ok(None) => match self.reload(&held.delivery.key).await {
                    Some(newer) => held.replace(newer),
                    None => return Changed::Lost,
                },
                Err(_) => return Changed::Lost,
            }
        }
    }

    /// Saves a change and hands its events to the relay. `None` if the delivery was changed
    /// concurrently.
    pub(super) async fn save(&self, change: Change) -> Result<Option<Delivery>, BatchError> {
        match self.saves.submit(change.clone()).await? {
            Saved::Saved { earlier_events } => Ok(Some(self.follow(change, earlier_events))),
            Saved::Conflict => Ok(None),
            Saved::RowLocked => {
                // Perhaps for long: the delivery is read, and the change computed, again.
                tokio::time::sleep(LOCKED_PAUSE).await;
                Ok(None)
            }
        }
    }

    /// Saves changes of different deliveries in one statement, without waiting for locked rows: one
    /// answer each, in order. What the database gives up on is left to the caller.
    pub(super) async fn save_all(
        &self,
        worker: WorkerEpoch,
        changes: Vec<Change>,
    ) -> Vec<Result<SavedNow, BatchError>> {
        let work = |group: Vec<Change>| async move {
            let saved = self.ledger.save(worker, &group).await;
            (group, saved)
        };
        // Cancel-safe: a change whose answer isn't awaited is fenced by its revision.
        let answers = tokio::select! {
            answers = work_on(changes.clone(), &work, "save") => answers,
            () = self.shutdown.hard.cancelled() => {
                changes.iter().map(|_| Err(BatchError::Closed)).collect()
            }
        };
        let answers = changes.into_iter().zip(answers);
        let answers = answers.map(|(change, answer)| match answer? {
            Saved::Saved { earlier_events } => Ok(SavedNow::Saved(Box::new(
                self.follow(change, earlier_events),
            ))),
            Saved::Conflict => Ok(SavedNow::Conflict),
            Saved::RowLocked => Ok(SavedNow::RowLocked),
        });
        answers.collect()
    }

    /// Counts and publishes what a saved change did. Returns the delivery as it is stored.
    fn follow(&self, change: Change, earlier_events: EarlierEvents) -> Delivery {
        let redial = change
            .ended_attempt
            .as_ref()
            .is_some_and(|ended| ended.call.is_some());
        let (mut delivery, events) = (change.delivery, change.events);
        delivery.revision += 1;
        self.counts
            .redials
            .fetch_add(redial.into(), Ordering::Relaxed);
        for event in events.iter().filter(|event| event.is_final()) {
            self.counts.final_statuses.fetch_add(1, Ordering::Relaxed);
            log_finished(event);
        }
        self.relay.send(events, earlier_events);
        delivery
    }

    /// Hands events that were written by an admission to the relay.
    pub(super) fn publish_admitted(&self, events: Vec<Event>) {
        self.relay.send(events, EarlierEvents::Published);
    }

    /// Reads a delivery again; waits for an unavailable database. `None` if it is gone, or if the
    /// worker must stop.
    pub(super) async fn reload(&self, key: &DeliveryKey) -> Option<Delivery> {
        self.reload_all(std::slice::from_ref(key)).await.pop()
    }

    /// Reads deliveries again; waits for an unavailable database. Without those that are gone; none
    /// if the worker must stop.
    pub(super) async fn reload_all(&self, keys: &[DeliveryKey]) -> Vec<Delivery> {
        let read = until_answered(&self.shutdown, "read deliveries", || {
            self.ledger.find_all(keys)
        });
        read.await.unwrap_or_default()
    }

    /// Reads an attempt's delivery again; waits for an unavailable database. `None` if it is gone,
    /// or if the worker must stop.
    pub(super) async fn reload_attempt(&self, attempt: AttemptId) -> Option<Attempt> {
        let read = until_answered(&self.shutdown, "read an attempt", || {
            self.ledger.find_attempt(attempt)
        });
        read.await.flatten()
    }

    /// Whether a call belongs, or belonged, to a delivery.
    pub(super) async fn is_known_call(&self, sid: &crate::account::CallSid) -> bool {
        let known = self.ledger.known_calls(std::slice::from_ref(sid)).await;
        known.is_ok_and(|known| !known.is_empty())
    }

    /// The work of the save batch. Of several changes to one delivery in a group only the first can
    /// win; the others are computed again.
    pub(super) async fn save_group(
        &self,
        worker: WorkerEpoch,
        group: Vec<Change>,
    ) -> (Vec<Change>, Result<Vec<Saved>, LedgerError>) {
        let mut seen = HashSet::new();
        let is_first: Vec<bool> = group
            .iter()
            .map(|change| seen.insert(&change.delivery.key))
            .collect();
        if is_first.iter().all(|first| *first) {
            let result = self.ledger.save(worker, &group).await;
            return (group, result);
        }
        let firsts: Vec<Change> = group
            .iter()
            .zip(&is_first)
            .filter(|(_, first)| **first)
            .map(|(change, _)| change.clone())
            .collect();
        let result = self.ledger.save(worker, &firsts).await.map(|answers| {
            let mut answers = answers.into_iter();
            let answer = |first: &bool| {
                let own = if *first { answers.next() } else { None };
                own.unwrap_or(Saved::Conflict)
            };
            is_first.iter().map(answer).collect()
        });
        (group, result)
    }
}

/// Logs the end of a delivery. The delivery's span has its ids.
pub(super) fn log_finished(event: &Event) {
    tracing::info!(
        outcome = event.status.map_or("", Status::as_str),
        "delivery finished"
    );
}
