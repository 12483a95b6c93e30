//! The outbox: unpublished events.

use std::collections::{BTreeSet, HashSet};

use voice_otp::event::Event;
use voice_otp::ports::WorkerEpoch;
use voice_otp_schemas::{DeliveryKey, TenantId, Timestamp};
use voice_otp_store::ledger::Limits;

use super::tables::{Tables, Unpublished};

/// Claims the events of deliveries whose first unpublished event belongs to an expired worker.
pub(super) fn claim_unpublished(
    tables: &mut Tables,
    worker: WorkerEpoch,
    limit: usize,
    now: Timestamp,
) -> Vec<Event> {
    let mut alive = tables.alive(now);
    alive.insert(worker);
    let mut firsts: Vec<(WorkerEpoch, Timestamp, DeliveryKey)> = firsts(tables)
        .filter(|(_, event)| !alive.contains(&event.owner))
        .map(|(key, event)| (event.owner, event.created_at, key.clone()))
        .collect();
    firsts.sort();
    firsts.truncate(limit);
    let keys = firsts.into_iter().map(|(_, _, key)| key).collect();
    take(tables, worker, &keys)
}

/// The worker's own old events, after a position.
pub(super) fn find_own_unpublished(
    tables: &mut Tables,
    limits: &Limits,
    worker: WorkerEpoch,
    (after, limit, without): (Timestamp, usize, &HashSet<TenantId>),
    now: Timestamp,
) -> (Vec<Event>, Option<Timestamp>) {
    let mut firsts: Vec<(Timestamp, DeliveryKey)> = firsts(tables)
        .filter(|(key, event)| event.owner == worker && !without.contains(&key.tenant_id))
        .filter(|(_, event)| event.created_at > after && event.created_at < now - limits.forgotten)
        .map(|(key, event)| (event.created_at, key.clone()))
        .collect();
    firsts.sort();
    firsts.truncate(limit);
    let last = firsts.last().map(|(at, _)| *at);
    let keys = firsts.into_iter().map(|(_, key)| key).collect();
    (take(tables, worker, &keys), last)
}

/// The first unpublished event of each delivery.
fn firsts(tables: &Tables) -> impl Iterator<Item = (&DeliveryKey, &Unpublished)> {
    let mut before = None;
    tables.outbox.iter().filter_map(move |((key, _), event)| {
        let is_first = before != Some(key);
        before = Some(key);
        is_first.then_some((key, event))
    })
}

/// Makes the events of these deliveries the worker's.
fn take(tables: &mut Tables, worker: WorkerEpoch, keys: &BTreeSet<DeliveryKey>) -> Vec<Event> {
    let mut events = Vec::new();
    for ((key, _), event) in &mut tables.outbox {
        if keys.contains(key) {
            event.owner = worker;
            events.push(event.event.clone());
        }
    }
    events
}
