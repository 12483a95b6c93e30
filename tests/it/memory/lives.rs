//! Workers' lives, what dead ones left, and the outbox.

use std::time::Duration;

use voice_otp::delivery::{Delivery, Key, State, WorkerEpoch};
use voice_otp::event::Event;
use voice_otp::ports::Beat;
use voice_otp_schemas::Timestamp;
use voice_otp_store::ledger::Limits;

use super::admit;
use super::tables::{Row, Tables};

/// A delivery this overdue is taken from a living worker as well.
const LONG_OVERDUE: Duration = Duration::from_mins(1);

pub(super) fn beat(
    tables: &mut Tables,
    limits: &Limits,
    worker: WorkerEpoch,
    now: Timestamp,
) -> Beat {
    // A life that has ended is not prolonged: its deliveries may be others' already.
    let life = tables
        .workers
        .get_mut(&worker)
        .filter(|until| **until > now);
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
pub(super) fn claim(
    tables: &mut Tables,
    limits: &Limits,
    worker: WorkerEpoch,
    most: usize,
    now: Timestamp,
) -> Vec<Delivery> {
    let alive = tables.alive(now);
    let free = |row: &Row| {
        let long_overdue = row.owner != Some(worker) && row.delivery.wake_at < now - LONG_OVERDUE;
        let due = row.delivery.wake_at <= now
            || (row.delivery.state == State::Waiting
                && row.delivery.wake_at <= now + limits.claim_ahead);
        due && (!row.owner.is_some_and(|owner| alive.contains(&owner)) || long_overdue)
    };
    let mut taken = first(tables, most, free);
    let untold = first(tables, most, |row: &Row| row.untold);
    taken.extend(
        untold
            .into_iter()
            .filter(|key| !taken.contains(key))
            .collect::<Vec<_>>(),
    );
    for key in &taken {
        let row = tables.rows.get_mut(key).expect("it was there a moment ago");
        row.owner = Some(worker);
        row.untold = false;
        row.delivery.revision += 1;
    }
    let forgotten =
        |row: &Row| row.owner == Some(worker) && row.delivery.wake_at < now - limits.forgotten;
    let own = first(tables, most, forgotten);
    let others = own
        .into_iter()
        .filter(|key| !taken.contains(key))
        .collect::<Vec<_>>();
    taken
        .iter()
        .chain(&others)
        .map(|key| tables.rows[key].delivery.clone())
        .collect()
}

/// The most overdue that aren't over.
fn first(tables: &Tables, most: usize, which: impl Fn(&Row) -> bool) -> Vec<Key> {
    let rows = tables
        .rows
        .iter()
        .filter(|(_, row)| row.delivery.state != State::Final && which(row));
    let mut keys: Vec<(Timestamp, &Key)> =
        rows.map(|(key, row)| (row.delivery.wake_at, key)).collect();
    keys.sort();
    keys.into_iter()
        .take(most)
        .map(|(_, key)| key.clone())
        .collect()
}

/// Takes a delivery's events by its first.
pub(super) fn unpublished(
    tables: &mut Tables,
    limits: &Limits,
    worker: WorkerEpoch,
    most: usize,
    now: Timestamp,
) -> Vec<Event> {
    let mut others = tables.alive(now);
    others.remove(&worker);
    let mut firsts: Vec<(Timestamp, Key)> = tables
        .outbox
        .iter()
        .filter(|(_, event)| !others.contains(&event.owner))
        .filter(|(_, event)| event.owner != worker || event.created_at < now - limits.forgotten)
        .filter(|((key, sequence), _)| {
            tables
                .outbox
                .range((key.clone(), 0)..(key.clone(), *sequence))
                .next()
                .is_none()
        })
        .map(|((key, _), event)| (event.created_at, key.clone()))
        .collect();
    firsts.sort();
    firsts.truncate(most);
    let taken: std::collections::BTreeSet<Key> = firsts.into_iter().map(|(_, key)| key).collect();
    let mut events = Vec::new();
    for ((key, _), event) in &mut tables.outbox {
        if taken.contains(key) {
            event.owner = worker;
            events.push(event.event.clone());
        }
    }
    events
}

/// Leaves a tombstone where there is nothing.
pub(super) fn forbid(tables: &mut Tables, key: &Key, now: Timestamp) -> bool {
    if tables.rows.contains_key(key) || tables.finished.contains_key(key) {
        return false;
    }
    let row = Row {
        delivery: admit::over(key, now),
        owner: None,
        counted: None,
        untold: false,
        identity: None,
        user: None,
        user_line: false,
        line: None,
        ended_at: Some(now),
    };
    tables.rows.insert(key.clone(), row);
    true
}

/// Puts away what has been over for long.
pub(super) fn tidy(tables: &mut Tables, limits: &Limits, now: Timestamp) -> u64 {
    let told = |key: &Key| {
        tables
            .outbox
            .range((key.clone(), 0)..=(key.clone(), u32::MAX))
            .next()
            .is_none()
    };
    let over = |row: &&Row| {
        row.ended_at.is_some_and(|at| at < now - limits.recent) && told(&row.delivery.key)
    };
    let keys: Vec<Key> = tables
        .rows
        .values()
        .filter(over)
        .map(|row| row.delivery.key.clone())
        .collect();
    for key in &keys {
        if let Some(Row {
            identity: Some(identity),
            ended_at: Some(at),
            ..
        }) = tables.rows.remove(key)
        {
            tables.finished.insert(key.clone(), (identity, at));
        }
    }
    tables
        .past_attempts
        .retain(|_, (_, retired_at, _)| *retired_at >= now - limits.recent);
    // Whole days are dropped.
    let oldest = (now - limits.retention).date_naive();
    tables
        .finished
        .retain(|_, (_, at)| at.date_naive() + chrono::Days::new(1) >= oldest);
    u64::try_from(keys.len()).unwrap()
}
