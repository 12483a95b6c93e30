//! Beginning of placements: what `begin_attempts` in SQL does.

use std::collections::{BTreeMap, HashSet};

use voice_otp::delivery::{Slot, State, WorkerEpoch};
use voice_otp::ports::{Begin, Begun};
use voice_otp_schemas::Timestamp;
use voice_otp_store::ledger::Limits;

use super::tables::{Line, Tables};

/// A placement that is due and whose line is free.
struct Judged<'a> {
    place: usize,
    begin: &'a Begin,
    line: Line,
    /// Its slot, and whether it still holds.
    slot: Option<Slot>,
    good: bool,
    place_by: Timestamp,
}

pub(super) fn begin(
    tables: &mut Tables,
    limits: &Limits,
    worker: WorkerEpoch,
    group: &[Begin],
    now: Timestamp,
) -> Vec<Begun> {
    for begin in group {
        tables.ensure_pace(&begin.pace_key, begin.account_sid.as_str(), now);
    }
    let mut answers = vec![None; group.len()];
    let mut lines = HashSet::new();
    let mut judged = Vec::new();
    for (place, begin) in group.iter().enumerate() {
        let row = tables
            .rows
            .get(&begin.delivery.key)
            .map(|row| &row.delivery);
        let Some(row) = row
            .filter(|row| row.revision == begin.delivery.revision && row.state == State::Waiting)
        else {
            answers[place] = Some(Begun::Conflict);
            continue;
        };
        if let Some(answer) = user_says(tables, begin) {
            answers[place] = Some(answer);
            continue;
        }
        let line = Line::of_begin(begin);
        if tables.line_is_taken(&line) || !lines.insert(line.clone()) {
            answers[place] = Some(Begun::LineBusy);
            continue;
        }
        let epoch = tables.paces[&begin.pace_key].epoch;
        let same_pace = row.pace_key.as_ref() == Some(&begin.pace_key);
        let in_order = row
            .slot
            .is_some_and(|slot| slot.epoch == epoch && slot.at >= now - limits.slot_late);
        judged.push(Judged {
            place,
            begin,
            line,
            slot: row.slot,
            good: same_pace && in_order,
            place_by: row.place_by,
        });
    }
    let in_order = full(tables, &judged);
    judged.retain(|one| {
        let full = in_order.contains(&one.place);
        answers[one.place] = full.then_some(Begun::Full);
        !full
    });
    judged.retain(|one| {
        let answer = first_words(tables, limits, worker, one, now);
        answers[one.place] = answer;
        answer.is_none()
    });
    let reserved = reserve(tables, &judged, now);
    for one in judged {
        let epoch = tables.paces[&one.begin.pace_key].epoch;
        let at = match (one.good, one.slot, reserved.get(&one.place)) {
            (true, Some(slot), _) => slot.at,
            (_, _, Some(Ok(at))) => *at,
            (_, _, Some(Err(late_at))) => {
                answers[one.place] = Some(later(tables, worker, &one, *late_at, now));
                continue;
            }
            (_, _, None) => unreachable!("a void slot was reserved again, or is too late"),
        };
        let place = one.place;
        answers[place] = Some(write(tables, limits, worker, &one, Slot { at, epoch }, now));
    }
    answers
        .into_iter()
        .map(|answer| answer.expect("every placement has an answer"))
        .collect()
}

/// One that was tried before lets those go first that never were, while there is a backlog.
fn first_words(
    tables: &mut Tables,
    limits: &Limits,
    worker: WorkerEpoch,
    one: &Judged<'_>,
    now: Timestamp,
) -> Option<Begun> {
    let base = tables.paces[&one.begin.pace_key].base(now);
    let tried = tables.rows[&one.begin.delivery.key].delivery.attempt > 0;
    let yields = !one.good && tried && base > now + limits.begin_ahead;
    yields.then(|| later(tables, worker, one, base, now))
}

/// Nothing is reserved for it; but while a circuit is tried out, it is parked, if it may yet be in time.
fn later(
    tables: &mut Tables,
    worker: WorkerEpoch,
    one: &Judged<'_>,
    at: Timestamp,
    now: Timestamp,
) -> Begun {
    if !tables.paces[&one.begin.pace_key].may_reopen(one.place_by, now) {
        return Begun::Wait {
            slot: Slot { at, epoch: 0 },
            revision: one.begin.delivery.revision,
        };
    }
    let row = tables
        .rows
        .get_mut(&one.begin.delivery.key)
        .expect("it was there a moment ago");
    row.owner = Some(worker);
    let delivery = &mut row.delivery;
    delivery.revision += 1;
    delivery.pace_key = Some(one.begin.pace_key.clone());
    delivery.account_sid = Some(one.begin.account_sid.clone());
    delivery.slot = None;
    delivery.wake_at = delivery.place_by;
    Begun::Wait {
        slot: Slot {
            at: delivery.place_by,
            epoch: 0,
        },
        revision: delivery.revision,
    }
}

/// Those for whom the account has no call left, in the order of their slots.
fn full(tables: &Tables, judged: &[Judged<'_>]) -> Vec<usize> {
    let mut by_pace: BTreeMap<&str, Vec<&Judged<'_>>> = BTreeMap::new();
    for one in judged {
        by_pace.entry(&one.begin.pace_key).or_default().push(one);
    }
    let mut full = Vec::new();
    for (pace_key, mut ones) in by_pace {
        let Some(most) = tables
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
        ones.sort_by_key(|one| (one.slot.is_none(), one.slot.map(|slot| slot.at), one.place));
        for (rank, one) in (1..).zip(ones) {
            if i64::try_from(in_progress).unwrap() + rank > most {
                full.push(one.place);
            }
        }
    }
    full
}

/// What the user's other deliveries have against a placement.
fn user_says(tables: &Tables, begin: &Begin) -> Option<Begun> {
    let row = tables.rows.get(&begin.delivery.key)?;
    let (user, _) = row.user.as_ref()?;
    let of_user = || tables.of_user(&begin.delivery.key.tenant_id, user);
    if of_user().any(|other| other.asked() > row.asked()) {
        return Some(Begun::Superseded);
    }
    of_user()
        .any(|other| other.user_line)
        .then_some(Begun::UserBusy)
}

/// New slots for those whose slot is void, by place; an error is the time of a slot that would be too late.
fn reserve(
    tables: &mut Tables,
    judged: &[Judged<'_>],
    now: Timestamp,
) -> BTreeMap<usize, Result<Timestamp, Timestamp>> {
    let mut void: BTreeMap<&str, Vec<&Judged<'_>>> = BTreeMap::new();
    for one in judged.iter().filter(|one| !one.good) {
        void.entry(&one.begin.pace_key).or_default().push(one);
    }
    let mut reserved = BTreeMap::new();
    for (pace_key, mut ones) in void {
        // In the order of the slots they had; who had none comes last.
        ones.sort_by_key(|one| (one.slot.is_none(), one.slot.map(|slot| slot.at), one.place));
        let pace = tables.paces.get_mut(pace_key).expect("it was ensured");
        let base = pace.base(now);
        let mut in_time = 0;
        for (n, one) in (0..).zip(ones) {
            let late_at = pace.after(base, n);
            let answer = if late_at > one.place_by {
                Err(late_at)
            } else {
                in_time += 1;
                Ok(pace.after(base, in_time - 1))
            };
            reserved.insert(one.place, answer);
        }
        if in_time > 0 {
            pace.tat = pace.after(base, in_time);
        }
    }
    reserved
}

/// Writes the slot, and the intent if the slot is now or in a moment.
fn write(
    tables: &mut Tables,
    limits: &Limits,
    worker: WorkerEpoch,
    one: &Judged<'_>,
    slot: Slot,
    now: Timestamp,
) -> Begun {
    let go = slot.at <= now + limits.begin_ahead;
    let counted = tables
        .account(one.begin.account_sid.as_str())
        .is_some_and(|account| account.max_calls.is_some());
    let row = tables
        .rows
        .get_mut(&one.begin.delivery.key)
        .expect("it was there a moment ago");
    row.owner = Some(worker);
    row.counted = (go && counted).then(|| one.begin.pace_key.clone());
    row.line = go.then(|| one.line.clone());
    row.user_line = go && row.user.is_some();
    let delivery = &mut row.delivery;
    delivery.revision += 1;
    delivery.pace_key = Some(one.begin.pace_key.clone());
    delivery.account_sid = Some(one.begin.account_sid.clone());
    delivery.line = go.then(|| one.line.bytes());
    delivery.slot = Some(slot);
    delivery.state = if go { State::Placing } else { State::Waiting };
    delivery.wake_at = if go {
        now + limits.rescue
    } else {
        slot.at.min(delivery.place_by)
    };
    delivery.attempt += u32::from(go);
    delivery.attempt_id = go.then_some(one.begin.attempt_id);
    delivery.intent_at = go.then_some(now);
    let revision = delivery.revision;
    if go {
        Begun::Go { slot, revision }
    } else {
        Begun::Wait { slot, revision }
    }
}
