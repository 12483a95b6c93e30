//! The invariant of the order in which a consumer receives statuses.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::Ordering;

use voice_otp_schemas::DeliveryKey;

use crate::simulation::world::World;

/// The statuses of a delivery arrive in the order of their sequences. One that arrived may come
/// again, if something failed.
pub(super) fn check(world: &World) -> Result<(), String> {
    let failures = world.faults() + world.crashes.load(Ordering::Relaxed) > 0
        || world.plan.broken_queue.is_some();
    let mut last: HashMap<DeliveryKey, u32> = HashMap::new();
    for event in world.sink.events() {
        let (key, sequence) = (event.key, event.sequence);
        let highest = last.entry(key.clone()).or_default();
        if sequence > *highest + 1 {
            return Err(format!(
                "{key}: status {sequence} was published after {highest}"
            ));
        }
        if sequence <= *highest && !failures {
            return Err(format!("{key}: {sequence} came again, and nothing failed"));
        }
        *highest = sequence.max(*highest);
    }
    // A publish without an answer may be stored late, another worker may have the status too, and a
    // worker may end before it has deleted what it published: then a status that was given up may
    // arrive after its successors.
    let ended = world.ended_workers.load(Ordering::Relaxed) > 0;
    if world.plan.workers == 1 && world.plan.odds.silent == 0 && !ended {
        confirmed_in_order(world).map_err(|why| format!("{why}, with {:?}", world.plan.odds))?;
    }
    Ok(())
}

/// A queue that refuses some statuses receives the others in order, too.
fn confirmed_in_order(world: &World) -> Result<(), String> {
    let mut received: HashMap<DeliveryKey, BTreeSet<u32>> = HashMap::new();
    for event in &*world.queues.confirmed.lock().unwrap() {
        let (key, sequence) = (&event.key, event.sequence);
        let earlier = received.entry(key.clone()).or_default();
        let is_first = earlier.insert(sequence);
        if is_first && earlier.last() != Some(&sequence) {
            return Err(format!(
                "{key}: a queue received {sequence} only after {earlier:?}"
            ));
        }
    }
    Ok(())
}
