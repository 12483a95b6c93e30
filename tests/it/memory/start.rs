//! Starting attempts: what the SQL function `start_attempts` does.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use voice_otp::delivery::{Slot, State};
use voice_otp::ports::WorkerEpoch;
use voice_otp::ports::{AttemptStart, StartOutcome};
use voice_otp_schemas::Timestamp;
use voice_otp_store::ledger::Limits;

use super::tables::{Line, Pace, Tables};

/// A due attempt whose line is free.
struct Candidate<'a> {
    /// The index in the group.
    index: usize,
    start: &'a AttemptStart,
    line: Line,
    slot: Option<Slot>,
    /// Whether the slot is still valid.
    slot_is_valid: bool,
    place_by: Timestamp,
}

pub(super) fn start_attempts(
    tables: &mut Tables,
    limits: &Limits,
    worker: WorkerEpoch,
    group: &[AttemptStart],
    now: Timestamp,
) -> Vec<StartOutcome> {
    for start in group {
        tables.ensure_pace(&start.pace_key, start.account_sid.as_str(), now);
    }
    let mut answers = vec![None; group.len()];
    let mut lines = HashSet::new();
    let mut candidates = Vec::new();
    for (index, start) in group.iter().enumerate() {
        let row = tables
            .rows
            .get(&start.delivery.key)
            .map(|row| &row.delivery);
        let Some(row) = row
            .filter(|row| row.revision == start.delivery.revision && row.state == State::Waiting)
        else {
            answers[index] = Some(StartOutcome::Conflict);
            continue;
        };
        if let Some(answer) = blocked_by_user(tables, start) {
            answers[index] = Some(answer);
            continue;
        }
        let line = Line::of_start(start);
        if tables.is_line_busy(&line) || !lines.insert(line.clone()) {
            answers[index] = Some(StartOutcome::LineBusy);
            continue;
        }
        let epoch = tables.paces[&start.pace_key].epoch;
        let same_pace = row.pace_key.as_ref() == Some(&start.pace_key);
        let in_order = row
            .slot
            .is_some_and(|slot| slot.epoch == epoch && slot.at >= now - limits.slot_late);
        candidates.push(Candidate {
            index,
            start,
            line,
            slot: row.slot,
            slot_is_valid: same_pace && in_order,
            place_by: row.place_by,
        });
    }
    let over_limit = over_call_limit(tables, &candidates);
    candidates.retain(|one| {
        let is_over = over_limit.contains(&one.index);
        answers[one.index] = is_over.then_some(StartOutcome::AtConcurrencyLimit);
        !is_over
    });
    candidates.retain(|one| {
        let answer = park(tables, one, now);
        answers[one.index] = answer;
        answer.is_none()
    });
    candidates.retain(|one| {
        let answer = yield_to_first_attempts(tables, limits, one, now);
        answers[one.index] = answer;
        answer.is_none()
    });
    let reserved = reserve(tables, &candidates, now);
    for one in candidates {
        let epoch = tables.paces[&one.start.pace_key].epoch;
        let at = match (one.slot_is_valid, one.slot, reserved.get(&one.index)) {
            (true, Some(slot), _) => slot.at,
            (_, _, Some(Ok(at))) => *at,
            (_, _, Some(Err(late_at))) => {
                answers[one.index] = Some(no_slot(&one, *late_at));
                continue;
            }
            (_, _, None) => unreachable!("a void slot is reserved again, or is too late"),
        };
        let index = one.index;
        answers[index] = Some(write(tables, limits, worker, &one, Slot { at, epoch }, now));
    }
    answers
        .into_iter()
        .map(|answer| answer.expect("every attempt has an answer"))
        .collect()
}

/// While the account has a queue, a delivery with a void slot waits there.
fn park(tables: &mut Tables, one: &Candidate<'_>, now: Timestamp) -> Option<StartOutcome> {
    let pace = &tables.paces[&one.start.pace_key];
    if one.slot_is_valid || one.place_by <= now {
        return None;
    }
    let estimate = pace
        .queue_until?
        .max(pace.base(now))
        .max(now + Duration::from_secs(1));
    let row = tables
        .rows
        .get_mut(&one.start.delivery.key)
        .expect("the row was just found");
    row.owner = None;
    let delivery = &mut row.delivery;
    delivery.revision += 1;
    delivery.pace_key = Some(one.start.pace_key.clone());
    delivery.account_sid = Some(one.start.account_sid.clone());
    delivery.slot = None;
    delivery.wake_at = delivery.place_by;
    Some(StartOutcome::Rescheduled {
        slot: Slot {
            at: estimate.min(delivery.place_by),
            epoch: 0,
        },
        revision: delivery.revision,
    })
}

/// While there is a backlog, a delivery that was tried before waits for those that never were.
fn yield_to_first_attempts(
    tables: &Tables,
    limits: &Limits,
    one: &Candidate<'_>,
    now: Timestamp,
) -> Option<StartOutcome> {
    let base = tables.paces[&one.start.pace_key].base(now);
    let tried = tables.rows[&one.start.delivery.key].delivery.attempt > 0;
    let yields = !one.slot_is_valid && tried && base > now + limits.begin_ahead;
    yields.then(|| no_slot(one, base))
}

/// Reserves no slot.
fn no_slot(one: &Candidate<'_>, at: Timestamp) -> StartOutcome {
    StartOutcome::Rescheduled {
        slot: Slot { at, epoch: 0 },
        revision: one.start.delivery.revision,
    }
}

/// The attempts that would exceed their account's limit of calls in progress, in the order of their
/// slots.
fn over_call_limit(tables: &Tables, candidates: &[Candidate<'_>]) -> Vec<usize> {
    let mut by_pace: BTreeMap<&str, Vec<&Candidate<'_>>> = BTreeMap::new();
    for one in candidates {
        by_pace.entry(&one.start.pace_key).or_default().push(one);
    }
    let mut over_limit = Vec::new();
    for (pace_key, mut ones) in by_pace {
        let Some(limit) = tables
            .account(&tables.paces[pace_key].account)
            .and_then(|account| account.max_calls)
        else {
            continue;
        };
        let in_progress = tables
            .rows
            .values()
            .filter(|row| row.counted.as_deref() == Some(pace_key))
            .count();
        ones.sort_by_key(|one| (one.slot.is_none(), one.slot.map(|slot| slot.at), one.index));
        for (rank, one) in (1..).zip(ones) {
            if i64::try_from(in_progress).unwrap() + rank > limit {
                over_limit.push(one.index);
            }
        }
    }
    over_limit
}

/// Why the user's other deliveries forbid an attempt, if they do.
fn blocked_by_user(tables: &Tables, start: &AttemptStart) -> Option<StartOutcome> {
    let row = tables.rows.get(&start.delivery.key)?;
    let (user, _) = row.user.as_ref()?;
    let of_user = || tables.of_user(&start.delivery.key.tenant_id, user);
    if of_user().any(|other| other.request_order() > row.request_order()) {
        return Some(StartOutcome::Superseded);
    }
    of_user()
        .any(|other| other.user_line)
        .then_some(StartOutcome::UserBusy)
}

/// Reserves new slots for attempts whose slot is void, by index. An error is the time of a slot
/// that would be too late.
fn reserve(
    tables: &mut Tables,
    candidates: &[Candidate<'_>],
    now: Timestamp,
) -> BTreeMap<usize, Result<Timestamp, Timestamp>> {
    let mut void: BTreeMap<&str, Vec<&Candidate<'_>>> = BTreeMap::new();
    for one in candidates.iter().filter(|one| !one.slot_is_valid) {
        void.entry(&one.start.pace_key).or_default().push(one);
    }
    let mut reserved = BTreeMap::new();
    for (pace_key, mut ones) in void {
        // In the order of their old slots; deliveries without one come last.
        ones.sort_by_key(|one| (one.slot.is_none(), one.slot.map(|slot| slot.at), one.index));
        let pace = tables.paces.get_mut(pace_key).expect("the row was ensured");
        let base = pace.base(now);
        let mut in_time = 0;
        for (n, one) in (0..).zip(ones) {
            let late_at = pace.after(base, n);
            let answer = if Pace::is_in_time(late_at, one.place_by) {
                in_time += 1;
                Ok(pace.after(base, in_time - 1))
            } else {
                Err(late_at)
            };
            reserved.insert(one.index, answer);
        }
        if in_time > 0 {
            pace.tat = pace.after(base, in_time);
        }
    }
    reserved
}

/// Writes the slot, and the intent if the slot is near enough to start the attempt.
fn write(
    tables: &mut Tables,
    limits: &Limits,
    worker: WorkerEpoch,
    one: &Candidate<'_>,
    slot: Slot,
    now: Timestamp,
) -> StartOutcome {
    let starts = slot.at <= now + limits.begin_ahead;
    let counted = tables
        .account(one.start.account_sid.as_str())
        .is_some_and(|account| account.max_calls.is_some());
    let row = tables
        .rows
        .get_mut(&one.start.delivery.key)
        .expect("the row was just found");
    row.owner = Some(worker);
    row.counted = (starts && counted).then(|| one.start.pace_key.clone());
    row.line = starts.then(|| one.line.clone());
    row.user_line = starts && row.user.is_some();
    let delivery = &mut row.delivery;
    delivery.revision += 1;
    delivery.pace_key = Some(one.start.pace_key.clone());
    delivery.account_sid = Some(one.start.account_sid.clone());
    delivery.line = starts.then(|| one.line.bytes());
    delivery.slot = Some(slot);
    delivery.state = if starts {
        State::Placing
    } else {
        State::Waiting
    };
    delivery.wake_at = if starts {
        now + limits.rescue
    } else {
        slot.at.min(delivery.place_by)
    };
    delivery.attempt += u32::from(starts);
    delivery.attempt_id = starts.then_some(one.start.attempt_id);
    delivery.intent_at = starts.then_some(now);
    let revision = delivery.revision;
    if starts {
        StartOutcome::Started { slot, revision }
    } else {
        StartOutcome::Rescheduled { slot, revision }
    }
}
