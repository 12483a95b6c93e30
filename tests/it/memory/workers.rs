//! Worker registrations: heartbeats, release, and the deliveries of expired workers.

use std::time::Duration;

use voice_otp::delivery::{Delivery, State};
use voice_otp::ports::{Heartbeat, WorkerEpoch};
use voice_otp_schemas::{DeliveryKey, Timestamp};
use voice_otp_store::ledger::Limits;

use super::tables::{Row, Tables};

/// A delivery that is overdue by more than this is claimed even from a worker with a valid lease.
const TAKEOVER_AGE: Duration = Duration::from_mins(1);

pub(super) fn heartbeat(
    tables: &mut Tables,
    limits: &Limits,
    worker: WorkerEpoch,
    now: Timestamp,
) -> Heartbeat {
    // An expired lease is not extended: other workers may own its deliveries already.
    let lease = tables
        .workers
        .get_mut(&worker)
        .filter(|until| **until > now);
    let alive = lease.map(|until| *until = now + limits.lease).is_some();
    Heartbeat { now, alive }
}

pub(super) fn release(tables: &mut Tables, worker: WorkerEpoch, now: Timestamp) {
    if let Some(until) = tables.workers.get_mut(&worker) {
        *until = now;
    }
}

/// Claims due deliveries without a valid owner, and lists the worker's own overdue ones. Unlike the
/// store, it lists no delivery twice.
pub(super) fn claim_due(
    tables: &mut Tables,
    limits: &Limits,
    worker: WorkerEpoch,
    limit: usize,
    now: Timestamp,
) -> Vec<Delivery> {
    let alive = tables.alive(now);
    let free = |row: &Row| {
        let long_overdue = row.owner != Some(worker) && row.delivery.wake_at < now - TAKEOVER_AGE;
        let due = row.delivery.wake_at <= now
            || (row.delivery.state == State::Waiting
                && row.delivery.wake_at <= now + limits.claim_ahead);
        due && (!row.owner.is_some_and(|owner| alive.contains(&owner)) || long_overdue)
    };
    let mut claimed = first(tables, limit, free);
    let unannounced = first(tables, limit, |row: &Row| row.unannounced);
    claimed.extend(
        unannounced
            .into_iter()
            .filter(|key| !claimed.contains(key))
            .collect::<Vec<_>>(),
    );
    for key in &claimed {
        let row = tables.rows.get_mut(key).expect("the row was just found");
        row.owner = Some(worker);
        row.unannounced = false;
        row.delivery.revision += 1;
    }
    let overdue =
        |row: &Row| row.owner == Some(worker) && row.delivery.wake_at < now - limits.forgotten;
    let own = first(tables, limit, overdue);
    let others = own
        .into_iter()
        .filter(|key| !claimed.contains(key))
        .collect::<Vec<_>>();
    claimed
        .iter()
        .chain(&others)
        .map(|key| tables.rows[key].delivery.clone())
        .collect()
}

/// The keys of the `limit` open deliveries that are due first, among those that `which` selects.
fn first(tables: &Tables, limit: usize, which: impl Fn(&Row) -> bool) -> Vec<DeliveryKey> {
    let rows = tables
        .rows
        .iter()
        .filter(|(_, row)| row.delivery.state != State::Final && which(row));
    let mut keys: Vec<(Timestamp, &DeliveryKey)> =
        rows.map(|(key, row)| (row.delivery.wake_at, key)).collect();
    keys.sort();
    keys.into_iter()
        .take(limit)
        .map(|(_, key)| key.clone())
        .collect()
}
