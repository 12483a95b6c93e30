//! What this worker holds, and when something is to be done about it.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use voice_otp_schemas::Timestamp;

use crate::clock::LedgerClock;
use crate::delivery::{Delivery, Key, State};

/// A delivery in the hands of one of this worker's tasks. As long as it lives, no other task here takes the delivery
/// up.
#[derive(Debug)]
pub struct Held {
    /// The delivery, as last known.
    pub delivery: Box<Delivery>,
    /// Which taking up it is: a task's drop must not let go of what another has taken up since.
    token: u64,
    agenda: Arc<Agenda>,
}

/// The worker's diary.
#[derive(Debug, Default)]
pub struct Agenda {
    inner: Mutex<Inner>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    deliveries: HashMap<Key, Place>,
    /// When, and which entry. An entry whose delivery has moved on is passed over.
    times: BinaryHeap<Reverse<(Timestamp, u64, Key)>>,
    entries: u64,
}

#[derive(Debug)]
enum Place {
    /// In a task's hands, under this token; the revision it had then, and whether a newer one has been heard of since.
    Busy(u64, i64, bool),
    /// Put down, under this entry.
    Down(u64, Box<Delivery>),
}

impl Agenda {
    /// Takes a delivery up that isn't in the agenda. None if it is.
    pub fn take(self: &Arc<Self>, delivery: Delivery) -> Option<Held> {
        let mut inner = self.lock();
        if inner.deliveries.contains_key(&delivery.key) {
            return None;
        }
        inner.entries += 1;
        let token = inner.entries;
        inner.deliveries.insert(
            delivery.key.clone(),
            Place::Busy(token, delivery.revision, false),
        );
        Some(Held {
            delivery: Box::new(delivery),
            token,
            agenda: Arc::clone(self),
        })
    }

    /// Takes a delivery up whose newer value has come. None, if a task has it in hand, which will learn by itself, or that value isn't
    /// newer.
    pub fn take_newer(self: &Arc<Self>, delivery: Delivery) -> Option<Held> {
        let mut inner = self.lock();
        match inner.deliveries.get_mut(&delivery.key) {
            Some(Place::Busy(_, known, newer)) => {
                *newer |= delivery.revision > *known;
                return None;
            }
            Some(Place::Down(_, known)) if known.revision >= delivery.revision => return None,
            Some(Place::Down(..)) | None => {}
        }
        inner.entries += 1;
        let token = inner.entries;
        inner.deliveries.insert(
            delivery.key.clone(),
            Place::Busy(token, delivery.revision, false),
        );
        Some(Held {
            delivery: Box::new(delivery),
            token,
            agenda: Arc::clone(self),
        })
    }

    /// Takes note of a delivery's newer value. What a task has in hand it will learn by itself.
    pub fn learn(&self, delivery: Delivery) {
        let mut inner = self.lock();
        match inner.deliveries.get_mut(&delivery.key) {
            Some(Place::Busy(_, known, newer)) => {
                *newer |= delivery.revision > *known;
                return;
            }
            Some(Place::Down(_, known)) if known.revision >= delivery.revision => return,
            Some(Place::Down(..)) | None => {}
        }
        if delivery.state == State::Final {
            inner.deliveries.remove(&delivery.key);
            return;
        }
        let sooner = inner.put(Box::new(delivery));
        drop(inner);
        if sooner {
            self.changed.notify_one();
        }
    }

    /// Waits until something is due, then gives what is, `most` at most. Cancel-safe: nothing is taken before it is
    /// given. For one caller at a time.
    pub async fn due(self: &Arc<Self>, clock: &LedgerClock, most: usize) -> Vec<Held> {
        loop {
            let changed = self.changed.notified();
            let now = clock.now();
            let (due, first) = self.lock().pop(now, most);
            if !due.is_empty() {
                let held = |(token, delivery)| Held {
                    delivery,
                    token,
                    agenda: Arc::clone(self),
                };
                return due.into_iter().map(held).collect();
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

    /// Lets go of everything that is put down. What a task has in hand stays there.
    pub fn clear(&self) {
        let mut inner = self.lock();
        inner.times.clear();
        inner
            .deliveries
            .retain(|_, place| matches!(place, Place::Busy(..)));
    }

    /// Whether this worker holds a delivery.
    pub fn holds(&self, key: &Key) -> bool {
        self.lock().deliveries.contains_key(key)
    }

    /// How many deliveries this worker holds.
    pub fn len(&self) -> usize {
        self.lock().deliveries.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// True if it is now the first.
    fn put(&mut self, delivery: Box<Delivery>) -> bool {
        self.entries += 1;
        let (at, key) = (delivery.wake_at, delivery.key.clone());
        let sooner = self
            .times
            .peek()
            .is_none_or(|Reverse((first, ..))| at < *first);
        self.times.push(Reverse((at, self.entries, key.clone())));
        self.deliveries
            .insert(key, Place::Down(self.entries, delivery));
        sooner
    }

    /// Takes up what is due; else says when the first is.
    fn pop(
        &mut self,
        now: Timestamp,
        most: usize,
    ) -> (Vec<(u64, Box<Delivery>)>, Option<Timestamp>) {
        let mut due = Vec::new();
        while due.len() < most {
            let Some(Reverse((at, ..))) = self.times.peek() else {
                break;
            };
            if *at > now {
                return (due, Some(*at));
            }
            let Some(Reverse((_, entry, key))) = self.times.pop() else {
                break;
            };
            let Some(place) = self.deliveries.get_mut(&key) else {
                continue;
            };
            match std::mem::replace(place, Place::Busy(entry, 0, false)) {
                // Entries are never used again, so this one's number is its taking up's as well.
                Place::Down(current, delivery) if current == entry => {
                    *place = Place::Busy(entry, delivery.revision, false);
                    due.push((entry, delivery));
                }
                other => *place = other,
            }
        }
        (due, None)
    }
}

impl Held {
    /// Whether somebody here changed the delivery since it was taken up: it was taken back, perhaps.
    pub fn is_outdated(&self) -> bool {
        matches!(self.agenda.lock().deliveries.get(&self.delivery.key), Some(Place::Busy(token, _, true)) if *token == self.token)
    }

    /// Puts it down until its `wake_at`; lets go of it if it is over.
    pub fn put_down(self) {
        if self.delivery.state == State::Final {
            return;
        }
        let agenda = Arc::clone(&self.agenda);
        // The drop that follows leaves what is put down alone.
        if agenda.lock().put(self.delivery.clone()) {
            agenda.changed.notify_one();
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut inner = self.agenda.lock();
        if matches!(inner.deliveries.get(&self.delivery.key), Some(Place::Busy(token, ..)) if *token == self.token)
        {
            inner.deliveries.remove(&self.delivery.key);
        }
    }
}
