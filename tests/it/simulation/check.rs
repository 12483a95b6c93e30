//! What must hold after every run.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use voice_otp::delivery::Key;
use voice_otp::event::Event;
use voice_otp_schemas::Timestamp;
use voice_otp_schemas::status::Status;

use super::world::{Published, Stats, TENANTS, World};
use crate::memory::sample::account;

/// What was said of each delivery, as it was said first.
fn first_told(world: &World) -> BTreeMap<Key, BTreeMap<u32, Event>> {
    let mut told: BTreeMap<Key, BTreeMap<u32, Event>> = BTreeMap::new();
    for event in world.sink.events() {
        told.entry(event.key.clone())
            .or_default()
            .entry(event.sequence)
            .or_insert(event);
    }
    told
}

fn have_ended(world: &World) -> usize {
    let has_final = |events: &BTreeMap<u32, Event>| events.values().any(Event::is_final);
    first_told(world)
        .values()
        .filter(|events| has_final(events))
        .count()
}

/// Waits for an ending of each request.
pub(super) async fn until_all_have_ended(world: &World, count: usize) {
    while world.published.lock().unwrap().len() < count || have_ended(world) < count {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// The requests that have no ending.
pub(super) fn open(world: &World) -> String {
    let told = first_told(world);
    let published = world.published.lock().unwrap();
    let open = published.iter().filter(|one| {
        !told
            .get(&one.ask.key())
            .is_some_and(|events| events.values().any(Event::is_final))
    });
    open.map(|one| {
        let said: Vec<&str> = told
            .get(&one.ask.key())
            .into_iter()
            .flat_map(BTreeMap::values)
            .map(|event| event.status.map_or("?", Status::as_str))
            .collect();
        format!("{} {said:?}", one.ask.key())
    })
    .collect::<Vec<_>>()
    .join(", ")
}

/// Checks all.
pub(super) fn all(world: &World) -> Result<Stats, String> {
    let published = world.published.lock().unwrap().clone();
    let told = first_told(world);
    for one in &published {
        statuses(
            &one.ask.key(),
            told.get(&one.ask.key())
                .ok_or_else(|| format!("{}: nothing was said", one.ask.key()))?,
        )?;
        let (calls, redials) = (
            world.caller.calls_to(&one.to),
            redials(&told[&one.ask.key()]),
        );
        if calls > 1 + redials {
            return Err(format!("{} was called {calls} times", one.ask.key()));
        }
    }
    if told.len() != published.len() {
        return Err(format!(
            "{} deliveries for {} requests",
            told.len(),
            published.len()
        ));
    }
    for event in world.sink.events() {
        if told[&event.key][&event.sequence] != event {
            return Err(format!(
                "{}/{} was said again with other words",
                event.key, event.sequence
            ));
        }
    }
    if let Some(one) = published
        .iter()
        .find(|one| one.taken_back && world.caller.calls_to(&one.to) > 0)
    {
        return Err(format!(
            "{} was called although it had been taken back",
            one.ask.key()
        ));
    }
    one_at_a_time(world, &published)?;
    in_time(world, &published)?;
    paced(world)?;
    let (dead, conflicts) = (
        world.dead.load(Ordering::SeqCst),
        world.conflicts.load(Ordering::SeqCst),
    );
    // A dead letter may be written twice, when the acknowledgement after it is lost; here it isn't.
    if dead != conflicts {
        return Err(format!(
            "{dead} dead letters for {conflicts} conflicting repeats"
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
        posts: world.caller.posts().len() as u64,
        calls: world.caller.calls().len() as u64,
        crashes: world.crashes.load(Ordering::Relaxed),
        faults: world.faults.load(Ordering::Relaxed),
        redeliveries: world.redeliveries.load(Ordering::Relaxed),
        callbacks: world.callbacks.load(Ordering::Relaxed),
        statuses: world.sink.events().len() as u64,
    })
}

/// How often it was said that another call would be placed.
fn redials(events: &BTreeMap<u32, Event>) -> usize {
    events
        .values()
        .filter(|event| event.body.contains(r#""code":"redial""#))
        .count()
}

/// Sequences from 1 without a gap, and one final status, the last.
fn statuses(key: &Key, events: &BTreeMap<u32, Event>) -> Result<(), String> {
    let words: Vec<&str> = events
        .values()
        .map(|event| event.status.map_or("?", Status::as_str))
        .collect();
    if !events.keys().copied().eq((1..).take(events.len())) {
        return Err(format!("{key}: a gap in {:?} {words:?}", events.keys()));
    }
    let finals = events.values().filter(|event| event.is_final()).count();
    let last_is_final = events.values().next_back().is_some_and(Event::is_final);
    if finals != 1 || !last_is_final {
        return Err(format!("{key}: {finals} endings in {words:?}"));
    }
    Ok(())
}

/// No user has two calls at a time.
fn one_at_a_time(world: &World, published: &[Published]) -> Result<(), String> {
    let of = |to: &str| {
        published
            .iter()
            .find(|one| one.to == to)
            .filter(|one| one.user.is_some())
    };
    let spans = world.caller.spans();
    for (place, (to, from, over)) in spans.iter().enumerate() {
        let Some(one) = of(to) else { continue };
        for (other_to, other_from, other_over) in spans.iter().skip(place + 1) {
            let Some(other) = of(other_to).filter(|other| other.user == one.user) else {
                continue;
            };
            let same = one.ask.key().tenant_id == other.ask.key().tenant_id;
            if same && other_from < over && from < other_over {
                return Err(format!(
                    "{} and {} were called at one time",
                    one.ask.key(),
                    other.ask.key()
                ));
            }
        }
    }
    Ok(())
}

/// No POST after its last moment, but for what clocks differ.
fn in_time(world: &World, published: &[Published]) -> Result<(), String> {
    for post in world.caller.posts() {
        let one = published
            .iter()
            .find(|one| one.to == post.to.expose())
            .ok_or("a number that nobody asked for was called")?;
        if post.at > one.place_by + Duration::from_millis(120) {
            return Err(format!(
                "{}: a POST {} after its last moment",
                one.ask.key(),
                post.at - one.place_by
            ));
        }
    }
    Ok(())
}

/// An account's POSTs keep their distance; a slot may be used a fifth of a second late.
fn paced(world: &World) -> Result<(), String> {
    let posts = world.caller.posts();
    for (n, pace) in TENANTS.map(|(_, n, pace)| (n, pace)) {
        let mut times: Vec<Timestamp> = posts
            .iter()
            .filter(|post| post.account == account(n))
            .map(|post| post.at)
            .collect();
        times.sort();
        let allowed =
            Duration::from_secs_f64(1.0 / pace).saturating_sub(Duration::from_millis(230));
        if let Some(pair) = times
            .windows(2)
            .find(|pair| (pair[1] - pair[0]).to_std().unwrap() < allowed)
        {
            return Err(format!(
                "account {n}: two POSTs within {}",
                pair[1] - pair[0]
            ));
        }
        // And over a longer time exactly, but for the one slot that a window may cut.
        let window = chrono::TimeDelta::seconds(3);
        for (first, start) in times.iter().enumerate() {
            let within = times
                .iter()
                .skip(first)
                .filter(|time| **time - *start < window)
                .count();
            let most = pace * 3.0 + 2.0;
            if within as f64 > most {
                return Err(format!("account {n}: {within} POSTs within 3 s"));
            }
        }
    }
    Ok(())
}
