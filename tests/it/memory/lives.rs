//! Workers' lives, what dead ones left, and the outbox.

use voice_otp::delivery::{Delivery, Key, State, WorkerEpoch};
use voice_otp::event::Event;
use voice_otp::ports::Beat;
use voice_otp_schemas::Timestamp;
use voice_otp_store::ledger::Limits;

use std::time::Duration;

use super::tables::{Row, Tables};

/// A delivery this overdue is taken from a living worker as well.
const LONG_OVERDUE: Duration = Duration::from_mins(1);

pub(super) fn beat(tables: &mut Tables, limits: &Limits, worker: WorkerEpoch, now: Timestamp) -> Beat {
    // A life that has ended is not prolonged: its deliveries may be others' already.
    let life = tables.workers.get_mut(&worker).filter(|until| **until > now);
    let alive = life.map(|until| *until = now + limits.lease).is_some();
    Beat { now, alive }
}

pub(super) fn retire(tables: &mut Tables, worker: WorkerEpoch, now: Timestamp) {
    if let Some(until) = tables.workers.get_mut(&worker) {
        *until = now;
    }
}

/// Takes over what is due and nobody's, and lists what is the worker's own and overdue. Unlike the store it names none
/// twice.
pub(super) fn claim(tables: &mut Tables, limits: &Limits, worker: WorkerEpoch, most: usize, now: Timestamp) -> Vec<Delivery> {
    let alive = tables.alive(now);
    let free = |row: &Row| {
        let long_overdue = row.owner != worker && row.delivery.wake_at < now - LONG_OVERDUE;
        row.delivery.wake_at <= now && (!alive.contains(&row.owner) || long_overdue)
    };
    let taken = first(tables, most, free);
    for key in &taken {
        let row = tables.rows.get_mut(key).expect("it was there a moment ago");
        row.owner = worker;
        row.delivery.revision += 1;
    }
    let forgotten = |row: &Row| row.owner == worker && row.delivery.wake_at < now - limits.forgotten;
    let own = first(tables, most, forgotten);
    let others = own.into_iter().filter(|key| !taken.contains(key)).collect::<Vec<_>>();
    taken.iter().chain(&others).map(|key| tables.rows[key].delivery.clone()).collect()
}

/// The most overdue that aren't over.
fn first(tables: &Tables, most: usize, which: impl Fn(&Row) -> bool) -> Vec<Key> {
    let rows = tables.rows.iter().filter(|(_, row)| row.delivery.state != State::Final && which(row));
    let mut keys: Vec<(Timestamp, &Key)> = rows.map(|(key, row)| (row.delivery.wake_at, key)).collect();
    keys.sort();
    keys.into_iter().take(most).map(|(_, key)| key.clone()).collect()
}

/// An event whose forerunner a living worker still has is left to that worker.
pub(super) fn unpublished(tables: &mut Tables, limits: &Limits, worker: WorkerEpoch, most: usize, now: Timestamp) -> Vec<Event> {
    let mut others = tables.alive(now);
    others.remove(&worker);
    let mut left: Vec<(Timestamp, (Key, u32))> = tables
        .outbox
        .iter()
        .filter(|(_, event)| !others.contains(&event.owner))
        .filter(|(_, event)| event.owner != worker || event.created_at < now - limits.forgotten)
        .filter(|((key, sequence), _)| {
            let mut before = tables.outbox.range((key.clone(), 0)..(key.clone(), *sequence));
            !before.any(|(_, event)| others.contains(&event.owner))
        })
        .map(|(place, event)| (event.created_at, place.clone()))
        .collect();
    left.sort();
    left.truncate(most);
    let mut places: Vec<(Key, u32)> = left.into_iter().map(|(_, place)| place).collect();
    places.sort();
    let mut take = |place: &(Key, u32)| {
        let event = tables.outbox.get_mut(place).expect("it was there a moment ago");
        event.owner = worker;
        event.event.clone()
    };
    places.iter().map(&mut take).collect()
}
