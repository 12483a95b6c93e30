//! The outbox: unpublished events.

use std::collections::BTreeSet;

use voice_otp::event::Event;
use voice_otp::ports::WorkerEpoch;
use voice_otp_schemas::{DeliveryKey, Timestamp};
use voice_otp_store::ledger::Limits;

use super::tables::Tables;

/// Claims the events of deliveries whose first unpublished event belongs to an expired worker, or
/// to this one and is overdue.
pub(super) fn claim_unpublished(
    tables: &mut Tables,
    limits: &Limits,
    worker: WorkerEpoch,
    limit: usize,
    now: Timestamp,
) -> Vec<Event> {
    let mut others = tables.alive(now);
    others.remove(&worker);
    let mut firsts: Vec<(Timestamp, DeliveryKey)> = tables
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
    firsts.truncate(limit);
    let claimed: BTreeSet<DeliveryKey> = firsts.into_iter().map(|(_, key)| key).collect();
    let mut events = Vec::new();
    for ((key, _), event) in &mut tables.outbox {
        if claimed.contains(key) {
            event.owner = worker;
            events.push(event.event.clone());
        }
    }
    events
}
