//! The deliveries that this worker owns, and when each needs attention.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::Notify;
use tracing::Span;
use voice_otp_schemas::{DeliveryKey, Timestamp};

use super::clock::LedgerClock;
use super::span;
use super::sync::lock;
use crate::delivery::{Delivery, State};

/// A delivery held by one task. While it exists, no other task of this worker acquires the
/// delivery.
#[derive(Debug)]
pub struct Held {
    /// The delivery, as last known.
    pub delivery: Box<Delivery>,
    /// The delivery's span, in which its tasks run.
    pub(super) span: Span,
    /// The generation of this hold. Dropping a stale `Held` must not release a hold that was
    /// acquired after it.
    generation: u64,
    schedule: Arc<Schedule>,
}

/// The deliveries of one worker, ordered by their `wake_at`.
#[derive(Debug, Default)]
pub struct Schedule {
    inner: Mutex<Inner>,
    /// Notified when a delivery becomes the first one due.
    changed: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    deliveries: HashMap<DeliveryKey, Entry>,
    /// When each entry is due, by generation. Entries whose delivery has moved on are skipped.
    times: BinaryHeap<Reverse<(Timestamp, u64, DeliveryKey)>>,
    /// The last generation. Generations are never reused.
    generation: u64,
}

#[derive(Debug)]
enum Entry {
    /// A task holds the delivery.
    Held {
        generation: u64,
        /// The revision when it was acquired.
        revision: i64,
        /// Whether a newer revision has been seen since.
        outdated: bool,
    },
    /// The delivery waits until it is due.
    Waiting {
        generation: u64,
        delivery: Box<Delivery>,
        span: Span,
    },
}

impl Schedule {
    /// Acquires a delivery that isn't in the schedule. `None` if it is.
    pub fn acquire(self: &Arc<Self>, delivery: Delivery) -> Option<Held> {
        let mut inner = self.lock();
        if inner.deliveries.contains_key(&delivery.key) {
            return None;
        }
        let span = span::of(&delivery);
        Some(self.hold(&mut inner, delivery, span))
    }

    /// Acquires a delivery of which a newer value has arrived. `None` if that value isn't newer, or
    /// if a task holds the delivery: the task finds out by itself.
    pub fn acquire_newer(self: &Arc<Self>, delivery: Delivery) -> Option<Held> {
        let mut inner = self.lock();
        let span = inner.accept_newer(&delivery)?;
        Some(self.hold(&mut inner, delivery, span))
    }

    /// Stores a newer value of a delivery. A task that holds the delivery finds out by itself.
    pub fn update(&self, delivery: Delivery) {
        let mut inner = self.lock();
        let Some(span) = inner.accept_newer(&delivery) else {
            return;
        };
        if delivery.state == State::Final {
            inner.deliveries.remove(&delivery.key);
            return;
        }
        let sooner = inner.insert(Box::new(delivery), span);
        drop(inner);
        if sooner {
            self.changed.notify_one();
        }
    }

    /// Waits until deliveries are due, and acquires up to `limit` of them. Cancel-safe: none is
    /// acquired before it is returned. For one caller at a time.
    pub async fn next_due(self: &Arc<Self>, clock: &LedgerClock, limit: usize) -> Vec<Held> {
        loop {
            let changed = self.changed.notified();
            let (due, first) = self.pop_due(clock.now(), limit);
            if !due.is_empty() {
                return due;
            }
            match first {
                Some(at) => tokio::select! {
                    () = tokio::time::sleep(clock.until(at)) => {}
                    () = changed => {}
                },
                None => changed.await,
            }
        }
    }

    /// Removes every delivery that no task holds.
    pub fn clear(&self) {
        let mut inner = self.lock();
        inner.times.clear();
        inner
            .deliveries
            .retain(|_, entry| matches!(entry, Entry::Held { .. }));
    }

    /// Whether this worker owns a delivery.
    pub fn contains(&self, key: &DeliveryKey) -> bool {
        self.lock().deliveries.contains_key(key)
    }

    /// The number of deliveries that this worker owns.
    pub fn len(&self) -> usize {
        self.lock().deliveries.len()
    }

    /// Whether this worker owns no delivery.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn hold(self: &Arc<Self>, inner: &mut Inner, delivery: Delivery, span: Span) -> Held {
        inner.generation += 1;
        let generation = inner.generation;
        let entry = Entry::Held {
            generation,
            revision: delivery.revision,
            outdated: false,
        };
        inner.deliveries.insert(delivery.key.clone(), entry);
        Held {
            delivery: Box::new(delivery),
            span,
            generation,
            schedule: Arc::clone(self),
        }
    }

    /// Acquires what is due; else says when the first delivery is.
    fn pop_due(self: &Arc<Self>, now: Timestamp, limit: usize) -> (Vec<Held>, Option<Timestamp>) {
        let mut due = Vec::new();
        let mut inner = self.lock();
        while due.len() < limit {
            let Some(Reverse((at, ..))) = inner.times.peek() else {
                break;
            };
            if *at > now {
                return (due, Some(*at));
            }
            let Some(Reverse((_, generation, key))) = inner.times.pop() else {
                break;
            };
            let Some(entry) = inner.deliveries.get_mut(&key) else {
                continue;
            };
            // The hold takes over the entry's generation, which no other entry has.
            let hold = Entry::Held {
                generation,
                revision: 0,
                outdated: false,
            };
            match std::mem::replace(entry, hold) {
                Entry::Waiting {
                    generation: current,
                    delivery,
                    span,
                } if current == generation => {
                    let revision = delivery.revision;
                    *entry = Entry::Held {
                        generation,
                        revision,
                        outdated: false,
                    };
                    due.push(Held {
                        delivery,
                        span,
                        generation,
                        schedule: Arc::clone(self),
                    });
                }
                other => *entry = other,
            }
        }
        (due, None)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        lock(&self.inner)
    }
}

impl Inner {
    /// The span for a value that has arrived, if it is newer and no task holds the delivery.
    fn accept_newer(&mut self, delivery: &Delivery) -> Option<Span> {
        match self.deliveries.get_mut(&delivery.key) {
            Some(Entry::Held {
                revision, outdated, ..
            }) => {
                *outdated |= delivery.revision > *revision;
                None
            }
            Some(Entry::Waiting {
                delivery: known, ..
            }) if known.revision >= delivery.revision => None,
            Some(Entry::Waiting {
                delivery: known,
                span,
                ..
            }) => Some(span::renewed(span, known, delivery).unwrap_or_else(|| span.clone())),
            None => Some(span::of(delivery)),
        }
    }

    /// Returns true if the delivery is now the first one due.
    fn insert(&mut self, delivery: Box<Delivery>, span: Span) -> bool {
        self.generation += 1;
        let generation = self.generation;
        let (at, key) = (delivery.wake_at, delivery.key.clone());
        let sooner = self
            .times
            .peek()
            .is_none_or(|Reverse((first, ..))| at < *first);
        self.times.push(Reverse((at, generation, key.clone())));
        self.deliveries.insert(
            key,
            Entry::Waiting {
                generation,
                delivery,
                span,
            },
        );
        sooner
    }
}

impl Held {
    /// Whether another task of this worker has changed the delivery since it was acquired: perhaps
    /// it was cancelled.
    pub fn is_outdated(&self) -> bool {
        let inner = self.schedule.lock();
        matches!(
            inner.deliveries.get(&self.delivery.key),
            Some(Entry::Held { generation, outdated: true, .. }) if *generation == self.generation
        )
    }

    /// Puts a newer value in place of the delivery.
    pub fn replace(&mut self, newer: Delivery) {
        if let Some(span) = span::renewed(&self.span, &self.delivery, &newer) {
            self.span = span;
        }
        *self.delivery = newer;
    }

    /// Releases the delivery until its `wake_at`; for good if it is final.
    pub fn release(self) {
        if self.delivery.state == State::Final {
            return;
        }
        let schedule = Arc::clone(&self.schedule);
        // The drop that follows doesn't remove it: the entry has another generation then.
        if schedule
            .lock()
            .insert(self.delivery.clone(), self.span.clone())
        {
            schedule.changed.notify_one();
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut inner = self.schedule.lock();
        let own = matches!(
            inner.deliveries.get(&self.delivery.key),
            Some(Entry::Held { generation, .. }) if *generation == self.generation
        );
        if own {
            inner.deliveries.remove(&self.delivery.key);
        }
    }
}
