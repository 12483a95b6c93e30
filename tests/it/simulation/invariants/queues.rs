//! The invariants about a queue that doesn't take its tenant's statuses, where nothing else fails.

use std::collections::HashMap;

use chrono::TimeDelta;

use crate::memory::BrokenQueue;
use crate::simulation::world::World;

/// How often a status reaches the other queues at most, if a queue refuses it. A publish without a
/// confirm isn't counted if nothing else was confirmed.
const MAX_COPIES: usize = 5;
/// How long after its change another tenant's status is published at the latest.
const MAX_DELAY: TimeDelta = TimeDelta::seconds(1);

/// No status is published more than five times, and no other tenant's statuses wait.
pub(super) fn check(world: &World) -> Result<(), String> {
    let broken = world.plan.broken_queue.map(|(tenant, _)| tenant);
    let refuses = world
        .plan
        .broken_queue
        .is_some_and(|(_, broken)| broken == BrokenQueue::Refuses);
    let mut copies: HashMap<_, usize> = HashMap::new();
    for event in world.sink.events() {
        let copies = copies
            .entry((event.key.clone(), event.sequence))
            .or_default();
        *copies += 1;
        let most = match Some(event.key.tenant_id.as_str()) == broken {
            true if refuses => MAX_COPIES,
            true => usize::MAX,
            false => 1,
        };
        if *copies > most {
            return Err(format!(
                "{}/{} was published {copies} times",
                event.key, event.sequence
            ));
        }
    }
    for ((key, sequence), delay) in &*world.queues.delays.lock().unwrap() {
        if Some(key.tenant_id.as_str()) != broken && *delay > MAX_DELAY {
            return Err(format!("{key}/{sequence} was published after {delay}"));
        }
    }
    Ok(())
}
