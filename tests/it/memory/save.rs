//! Saving of changes: what the one statement of the store does.

use std::collections::HashSet;
use std::time::Duration;

use voice_otp::account::CallSid;
use voice_otp::delivery::{AttemptId, Change, Delivery, Retired, State, WorkerEpoch};
use voice_otp::ports::{LedgerError, Lower, Saved, Unpriced};
use voice_otp_schemas::Timestamp;

use super::tables::{Line, Owed, Tables};

/// How long after a call its price is asked for first.
const FIRST_ASKED: Duration = Duration::from_secs(15);

pub(super) fn save(
    tables: &mut Tables,
    worker: WorkerEpoch,
    group: &[Change],
    now: Timestamp,
) -> Result<Vec<Saved>, LedgerError> {
    let wins: Vec<bool> = group
        .iter()
        .map(|change| is_current(tables, &change.delivery))
        .collect();
    check(
        tables,
        group
            .iter()
            .zip(&wins)
            .filter(|(_, wins)| **wins)
            .map(|(change, _)| change),
    )?;
    Ok(group
        .iter()
        .zip(wins)
        .map(|(change, wins)| {
            if wins {
                apply(tables, worker, change, now)
            } else {
                Saved::Conflict
            }
        })
        .collect())
}

fn is_current(tables: &Tables, delivery: &Delivery) -> bool {
    let row = tables.rows.get(&delivery.key);
    row.is_some_and(|row| {
        row.delivery.revision == delivery.revision && row.delivery.state != State::Final
    })
}

/// The constraints of the table.
fn check<'a>(
    tables: &Tables,
    changes: impl Iterator<Item = &'a Change> + Clone,
) -> Result<(), LedgerError> {
    let data = |what: &'static str| Err(LedgerError::Data(what.into()));
    let keys: HashSet<_> = changes.clone().map(|change| &change.delivery.key).collect();
    let others = || {
        tables
            .rows
            .values()
            .map(|row| &row.delivery)
            .filter(|row| !keys.contains(&row.key))
    };
    let mut calls: HashSet<&CallSid> = others().filter_map(|row| row.call_sid.as_ref()).collect();
    let mut attempts: HashSet<AttemptId> = others().filter_map(|row| row.attempt_id).collect();
    for Change { delivery, .. } in changes {
        if (delivery.state == State::Final) != delivery.ended.is_some() {
            return data("a final delivery has an ending, and no other has one");
        }
        if delivery
            .call_sid
            .as_ref()
            .is_some_and(|sid| !calls.insert(sid))
        {
            return data("the call is another delivery's");
        }
        if delivery
            .attempt_id
            .is_some_and(|attempt| !attempts.insert(attempt))
        {
            return data("the attempt is another delivery's");
        }
    }
    Ok(())
}

fn apply(tables: &mut Tables, worker: WorkerEpoch, change: &Change, now: Timestamp) -> Saved {
    let lower = lower(tables, worker, change);
    let new = &change.delivery;
    let row = tables.rows.get_mut(&new.key).expect("it is current");
    row.owner = Some(worker);
    row.untold = false;
    if !matches!(
        new.state,
        State::Placing | State::Unsettled | State::Calling
    ) {
        row.counted = None;
    }
    if !matches!(new.state, State::Placing | State::Unsettled) {
        row.line = None;
    }
    row.user_line &= matches!(
        new.state,
        State::Placing | State::Unsettled | State::Calling
    );
    row.ended_at = new.ended.map(|_| now);
    let heard_after_ms = u64::try_from(new.heard_after.as_millis()).unwrap_or(u64::MAX);
    // The columns of the statement; whatever else the change holds isn't saved.
    row.delivery = Delivery {
        revision: row.delivery.revision + 1,
        state: new.state,
        wake_at: new.wake_at,
        slot: new.slot,
        announced_at: new.announced_at,
        attempt: new.attempt,
        attempt_id: new.attempt_id,
        intent_at: new.intent_at,
        settle_after: new.settle_after,
        call_sid: new.call_sid.clone(),
        heard_after: Duration::from_millis(heard_after_ms),
        placed_at: new.placed_at,
        ringing_at: new.ringing_at,
        answered_at: new.answered_at,
        withdrawn: new.withdrawn,
        voicemail: new.voicemail,
        said: new.said,
        answered_by: new.answered_by.clone(),
        redials: new.redials,
        tries: new.tries,
        line: row.line.as_ref().map(Line::bytes),
        sequence: new.sequence,
        ended: new.ended,
        order: row
            .delivery
            .order
            .take()
            .filter(|_| new.state != State::Final),
        ..row.delivery.clone()
    };
    let saved = row.delivery.clone();
    for event in &change.events {
        tables.tell(event.clone(), worker, now);
    }
    if let Some(Retired { attempt, call }) = change.retired.clone() {
        tables
            .past_attempts
            .entry(attempt)
            .or_insert_with(|| (new.key.clone(), now, call));
    }
    if let Some(call_sid) = change.unpriced.clone() {
        let owed = Unpriced {
            call_sid: call_sid.clone(),
            key: saved.key,
            attempt: saved.attempt,
            ended_at: now,
            to_masked: saved.to_masked,
            context: saved.context,
        };
        tables.unpriced.entry(call_sid).or_insert(Owed {
            call: owed,
            ask_at: now + FIRST_ASKED,
            asked: 0,
        });
    }
    Saved::Saved { lower }
}

/// Whose the first is of the events from before this change.
fn lower(tables: &Tables, worker: WorkerEpoch, change: &Change) -> Lower {
    let key = &change.delivery.key;
    let told = u32::try_from(change.events.len()).expect("a change says little");
    let last = change.delivery.sequence - told;
    let first = tables
        .outbox
        .range((key.clone(), 0)..=(key.clone(), last))
        .next();
    match first {
        _ if change.events.is_empty() => Lower::Published,
        None => Lower::Published,
        Some((_, event)) if event.owner == worker => Lower::Mine,
        Some(_) => Lower::Others,
    }
}
