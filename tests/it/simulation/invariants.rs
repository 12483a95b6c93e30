//! The invariants that must hold after every run.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use voice_otp::event::Event;
use voice_otp_schemas::DeliveryKey;
use voice_otp_schemas::Timestamp;
use voice_otp_schemas::status::Status;

use super::plan::{Stats, TENANTS};
use super::world::{Published, World};
use crate::memory::sample::account;

/// The statuses of each delivery, as first published, by sequence.
fn first_statuses(world: &World) -> BTreeMap<DeliveryKey, BTreeMap<u32, Event>> {
    let mut statuses: BTreeMap<DeliveryKey, BTreeMap<u32, Event>> = BTreeMap::new();
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
            return Err(format!("{} was called {calls} times", one.request.key()));
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
    one_call_per_user(world, &published)?;
    before_deadlines(world, &published)?;
    within_rate_limits(world)?;
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
        faults: world.faults.load(Ordering::Relaxed),
        redeliveries: world.redeliveries.load(Ordering::Relaxed),
        callbacks: world.callbacks.load(Ordering::Relaxed),
        statuses: world.sink.events().len() as u64,
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

/// No user has two calls at the same time.
fn one_call_per_user(world: &World, published: &[Published]) -> Result<(), String> {
    let of = |to: &str| {
        published
            .iter()
            .find(|one| one.to == to)
            .filter(|one| one.user.is_some())
    };
    let spans = world.telephony.intervals();
    for (index, (to, from, end)) in spans.iter().enumerate() {
        let Some(one) = of(to) else { continue };
        for (other_to, other_from, other_end) in spans.iter().skip(index + 1) {
            let Some(other) = of(other_to).filter(|other| other.user == one.user) else {
                continue;
            };
            let same = one.request.key().tenant_id == other.request.key().tenant_id;
            if same && other_from < end && from < other_end {
                return Err(format!(
                    "{} and {} were called at the same time",
                    one.request.key(),
                    other.request.key()
                ));
            }
        }
    }
    Ok(())
}

/// No POST is sent after its deadline, but for the difference of clocks.
fn before_deadlines(world: &World, published: &[Published]) -> Result<(), String> {
    for post in world.telephony.posts() {
        let one = published
            .iter()
            .find(|one| one.to == post.to.expose())
            .ok_or("a number without a request was called")?;
        if post.at > one.place_by + Duration::from_millis(120) {
            return Err(format!(
                "{}: a POST {} after its deadline",
                one.request.key(),
                post.at - one.place_by
            ));
        }
    }
    Ok(())
}

/// An account's POSTs keep to its rate limit. A slot may be used up to 200 ms late.
fn within_rate_limits(world: &World) -> Result<(), String> {
    let posts = world.telephony.posts();
    for (n, rate) in TENANTS.map(|(_, n, rate)| (n, rate)) {
        let mut times: Vec<Timestamp> = posts
            .iter()
            .filter(|post| post.account == account(n))
            .map(|post| post.at)
            .collect();
        times.sort();
        let allowed =
            Duration::from_secs_f64(1.0 / rate).saturating_sub(Duration::from_millis(230));
        if let Some(pair) = times
            .windows(2)
            .find(|pair| (pair[1] - pair[0]).to_std().unwrap() < allowed)
        {
            return Err(format!(
                "account {n}: two POSTs within {}",
                pair[1] - pair[0]
            ));
        }
        // Over a longer window the rate holds, but for one slot that the window may cut.
        let window = chrono::TimeDelta::seconds(3);
        for (first, start) in times.iter().enumerate() {
            let within = times
                .iter()
                .skip(first)
                .filter(|time| **time - *start < window)
                .count();
            let limit = rate * 3.0 + 2.0;
            if within as f64 > limit {
                return Err(format!("account {n}: {within} POSTs within 3 s"));
            }
        }
    }
    Ok(())
}
