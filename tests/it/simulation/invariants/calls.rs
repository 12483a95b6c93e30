//! The invariants of the calls: whom they reach, when, and how many at a time.

use std::collections::HashSet;
use std::time::Duration;

use voice_otp_schemas::Timestamp;
use voice_otp_schemas::status::Status;

use super::FirstStatuses;
use crate::memory::sample::{account, key};
use crate::simulation::broker::PROBE;
use crate::simulation::plan::{IDLE, LISTENER_SILENCE, TENANTS};
use crate::simulation::world::{Published, World};

/// How far clocks may differ, and how long the last steps before a POST take.
const SLACK: Duration = Duration::from_millis(120);
/// How soon an idle account's call is placed.
const IDLE_WAIT: Duration = Duration::from_secs(12);
/// How soon if Twilio is slow, which opens circuits.
const IDLE_WAIT_IF_SLOW: Duration = Duration::from_secs(15);
/// How long after a step of the ledger's clock an account's rate isn't checked.
const UNSETTLED_PACE: Duration = Duration::from_secs(3);

/// No user has two calls at the same time.
pub(super) fn one_call_per_user(world: &World, published: &[Published]) -> Result<(), String> {
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

/// No POST is sent after its deadline, and none at all after the code's real end. While the
/// ledger's clock is wrong only the real end counts.
pub(super) fn before_deadlines(world: &World, published: &[Published]) -> Result<(), String> {
    for post in world.telephony.posts() {
        let one = published
            .iter()
            .find(|one| one.to == post.to.expose())
            .ok_or("a number without a request was called")?;
        let key = one.request.key();
        if post.at > one.expires_at {
            let late = post.at - one.expires_at;
            return Err(format!("{key}: a POST {late} after the code's real end"));
        }
        if !world.plan.clock_steps && post.at > one.place_by + SLACK {
            let late = post.at - one.place_by;
            return Err(format!("{key}: a POST {late} after its deadline"));
        }
    }
    Ok(())
}

/// A request to an idle account is placed at once, whatever the ledger's clock did before.
pub(super) fn idle_account_is_alive(world: &World, published: &[Published]) -> Result<(), String> {
    let probe = published
        .iter()
        .find(|one| one.request.key() == key(IDLE.0, PROBE))
        .ok_or("the idle account wasn't called")?;
    let posts = world.telephony.posts();
    let first = posts.iter().find(|post| post.to.expose() == probe.to);
    let longest = match world.plan.provider_capacity {
        Some(_) => IDLE_WAIT_IF_SLOW,
        None => IDLE_WAIT,
    };
    match first.map(|post| post.at - probe.at) {
        Some(wait) if wait.to_std().is_ok_and(|wait| wait <= longest) => Ok(()),
        Some(wait) => Err(format!("an idle account's call was placed after {wait}")),
        None => Err("an idle account's call was not placed".to_owned()),
    }
}

/// A tenant that is paused is not called, whatever its workers have heard: they trust a silent
/// listener, and an answer on its way, for a while.
pub(super) fn not_while_paused(world: &World, published: &[Published]) -> Result<(), String> {
    let grace = LISTENER_SILENCE.max(world.tuning.lease) + SLACK * 2;
    let pauses = world.pauses.lock().unwrap();
    for post in world.telephony.posts() {
        let Some(one) = published.iter().find(|one| one.to == post.to.expose()) else {
            continue;
        };
        let key = one.request.key();
        let violated = pauses.iter().find(|pause| {
            pause.tenants.contains(&key.tenant_id.as_str())
                && post.at > pause.from + grace
                && pause.until.is_none_or(|until| post.at < until)
        });
        if let Some(pause) = violated {
            let late = post.at - pause.from;
            return Err(format!("{key}: a POST {late} after its tenant was paused"));
        }
    }
    Ok(())
}

/// An account has no more calls in progress than its limit.
pub(super) fn within_call_limits(world: &World, published: &[Published]) -> Result<(), String> {
    // A clock that goes forward makes calls count as given up before they have ended.
    let limit = world.plan.max_calls.filter(|_| !world.plan.clock_steps);
    let Some(limit) = limit else {
        return Ok(());
    };
    let is_limited = |to: &str| {
        let one = published.iter().find(|one| one.to == to);
        let tenant = one.map(|one| one.request.key().tenant_id);
        TENANTS
            .iter()
            .any(|(name, n, _)| *n == 1 && tenant.as_ref().is_some_and(|t| t.as_str() == *name))
    };
    let spans: Vec<_> = world
        .telephony
        .intervals()
        .into_iter()
        .filter(|(to, ..)| is_limited(to))
        .collect();
    for (to, from, _) in &spans {
        let at_once = spans
            .iter()
            .filter(|(_, other_from, other_end)| other_from <= from && from < other_end)
            .count();
        if at_once > usize::try_from(limit).unwrap() {
            return Err(format!("{to}: call {at_once} of at most {limit} at a time"));
        }
    }
    Ok(())
}

/// Once it was reported that a code was entered, no POST is sent for another call. What a worker
/// has read just before may be as old as its lease.
pub(super) fn none_once_verified(world: &World, published: &[Published]) -> Result<(), String> {
    let grace = world.tuning.lease + SLACK;
    let verified = world.verified.lock().unwrap();
    let calls = world.telephony.intervals();
    for post in world.telephony.posts() {
        let to = post.to.expose();
        let Some(one) = published.iter().find(|one| one.to == to) else {
            continue;
        };
        let key = one.request.key();
        let is_redial = calls
            .iter()
            .any(|(other, from, _)| *other == to && *from < post.at);
        if let Some(at) = verified.get(&key)
            && is_redial
            && post.at > *at + grace
        {
            let late = post.at - *at;
            return Err(format!("{key}: a redial {late} after its code was entered"));
        }
    }
    Ok(())
}

/// Where a call asks for a key, its delivery counts as delivered if and only if the callee pressed
/// it and was read the code.
pub(super) fn only_keys_confirm(
    world: &World,
    published: &[Published],
    statuses: &FirstStatuses,
) -> Result<(), String> {
    let (pressed, read) = (
        world.keys_pressed.lock().unwrap(),
        world.codes_read.lock().unwrap(),
    );
    let asked = world.telephony.posts();
    let asked = asked.iter().filter(|post| post.policy.is_some());
    for one in published {
        let key = one.request.key();
        let attempts: Vec<_> = asked
            .clone()
            .filter(|post| post.to.expose() == one.to)
            .map(|post| post.attempt_id)
            .collect();
        let last = statuses[&key].values().next_back();
        let Some(status) = last.and_then(|event| event.status) else {
            continue;
        };
        let is_delivered = status == Status::Delivered;
        let any = |of: &HashSet<_>| attempts.iter().any(|attempt| of.contains(attempt));
        if !attempts.is_empty() && is_delivered && !any(&pressed) {
            return Err(format!("{key}: delivered, and no key was pressed"));
        }
        // While the clock is wrong, a call may be given up before it ends.
        if any(&read) && !is_delivered && !world.plan.clock_steps {
            let last = last.map(|event| event.body.as_str()).unwrap_or_default();
            return Err(format!(
                "{key}: not delivered, and the code was read: {last}"
            ));
        }
    }
    Ok(())
}

/// An account's POSTs keep to its rate limit. A slot may be used up to 200 ms late.
pub(super) fn within_rate_limits(world: &World) -> Result<(), String> {
    let posts = world.telephony.posts();
    let steps = world.clock_steps.lock().unwrap();
    let is_unsettled = |at: Timestamp| {
        let just_before = |step: &&Timestamp| at >= **step && at < **step + UNSETTLED_PACE;
        steps.iter().any(|step| just_before(&step))
    };
    for (n, rate) in TENANTS.map(|(_, n, rate)| (n, rate)) {
        let mut times: Vec<Timestamp> = posts
            .iter()
            .filter(|post| post.account == account(n))
            .map(|post| post.at)
            .filter(|at| !is_unsettled(*at))
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
