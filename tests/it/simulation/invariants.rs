//! The invariants that must hold after every run.

mod calls;
mod order;
mod queues;

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use voice_otp::event::Event;
use voice_otp_schemas::DeliveryKey;
use voice_otp_schemas::status::Status;

use super::plan::Stats;
use super::world::World;

/// The statuses of each delivery, as first published, by sequence.
type FirstStatuses = BTreeMap<DeliveryKey, BTreeMap<u32, Event>>;

fn first_statuses(world: &World) -> FirstStatuses {
    let mut statuses = FirstStatuses::new();
    for event in world.sink.events() {
        statuses
            .entry(event.key.clone())
            .or_default()
            .entry(event.sequence)
            .or_insert(event);
    }
    statuses
}

fn finished_count(world: &World) -> usize {
    let has_final = |events: &BTreeMap<u32, Event>| events.values().any(Event::is_final);
    first_statuses(world)
        .values()
        .filter(|events| has_final(events))
        .count()
}

/// Waits for a final status of each request.
pub(super) async fn until_all_are_final(world: &World, count: usize) {
    while world.published.lock().unwrap().len() < count || finished_count(world) < count {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// The requests without a final status, and the statuses that they have.
pub(super) fn open(world: &World) -> String {
    let statuses = first_statuses(world);
    let published = world.published.lock().unwrap();
    let open = published.iter().filter(|one| {
        !statuses
            .get(&one.request.key())
            .is_some_and(|events| events.values().any(Event::is_final))
    });
    open.map(|one| {
        let names: Vec<&str> = statuses
            .get(&one.request.key())
            .into_iter()
            .flat_map(BTreeMap::values)
            .map(|event| event.status.map_or("?", Status::as_str))
            .collect();
        format!("{} {names:?}", one.request.key())
    })
    .collect::<Vec<_>>()
    .join(", ")
}

/// Checks every invariant.
pub(super) fn check(world: &World) -> Result<Stats, String> {
    let published = world.published.lock().unwrap().clone();
    let statuses = first_statuses(world);
    for one in &published {
        complete(
            &one.request.key(),
            statuses
                .get(&one.request.key())
                .ok_or_else(|| format!("{}: no status was published", one.request.key()))?,
        )?;
        let (calls, redials) = (
            world.telephony.calls_to(&one.to),
            redials(&statuses[&one.request.key()]),
        );
        if calls > 1 + redials {
            let posts = world.telephony.posts();
            let times = posts.iter().filter(|post| post.to.expose() == one.to);
            let times: Vec<_> = times.map(|post| (post.at, post.attempt_id)).collect();
            return Err(format!(
                "{} was called {calls} times: {times:?}",
                one.request.key()
            ));
        }
    }
    if statuses.len() != published.len() {
        return Err(format!(
            "{} deliveries for {} requests",
            statuses.len(),
            published.len()
        ));
    }
    for event in world.sink.events() {
        if statuses[&event.key][&event.sequence] != event {
            return Err(format!(
                "{}/{} was published again with different content",
                event.key, event.sequence
            ));
        }
    }
    if let Some(one) = published
        .iter()
        .find(|one| one.cancelled_first && world.telephony.calls_to(&one.to) > 0)
    {
        return Err(format!(
            "{} was called although it was cancelled first",
            one.request.key()
        ));
    }
    order::check(world)?;
    if world.plan.only_broken_queue {
        queues::check(world)?;
    }
    calls::one_call_per_user(world, &published)?;
    calls::before_deadlines(world, &published)?;
    calls::within_rate_limits(world)?;
    calls::within_call_limits(world, &published)?;
    calls::not_while_paused(world, &published)?;
    calls::none_once_verified(world, &published)?;
    calls::only_keys_confirm(world, &published, &statuses)?;
    calls::idle_account_is_alive(world, &published)?;
    let (dead_letters, conflicts) = (
        world.dead_letters.load(Ordering::SeqCst),
        world.conflicts.load(Ordering::SeqCst),
    );
    // In production a dead letter may be written twice, if the acknowledgement after it is lost.
    // The simulation never loses that acknowledgement.
    if dead_letters != conflicts {
        return Err(format!(
            "{dead_letters} dead letters for {conflicts} conflicting duplicates"
        ));
    }
    if world.ledger.outbox_len() > 0 {
        return Err(format!(
            "{} statuses were never published",
            world.ledger.outbox_len()
        ));
    }
    Ok(Stats {
        requests: published.len() as u64,
        posts: world.telephony.posts().len() as u64,
        calls: world.telephony.calls().len() as u64,
        crashes: world.crashes.load(Ordering::Relaxed),
        faults: world.faults(),
        redeliveries: world.redeliveries.load(Ordering::Relaxed),
        callbacks: world.callbacks.load(Ordering::Relaxed),
        statuses: world.sink.events().len() as u64,
        clock_steps: world.clock_steps.lock().unwrap().len() as u64,
        keys_pressed: world.keys_pressed.lock().unwrap().len() as u64,
        verified: world.verified.lock().unwrap().len() as u64,
    })
}

/// The number of announced redials.
fn redials(events: &BTreeMap<u32, Event>) -> usize {
    events
        .values()
        .filter(|event| event.body.contains(r#""code":"redial""#))
        .count()
}

/// Sequences run from 1 without a gap, and only the last status is final.
fn complete(key: &DeliveryKey, events: &BTreeMap<u32, Event>) -> Result<(), String> {
    let names: Vec<&str> = events
        .values()
        .map(|event| event.status.map_or("?", Status::as_str))
        .collect();
    if !events.keys().copied().eq((1..).take(events.len())) {
        return Err(format!("{key}: a gap in {:?} {names:?}", events.keys()));
    }
    let finals = events.values().filter(|event| event.is_final()).count();
    let last_is_final = events.values().next_back().is_some_and(Event::is_final);
    if finals != 1 || !last_is_final {
        return Err(format!("{key}: {finals} final statuses in {names:?}"));
    }
    Ok(())
}
