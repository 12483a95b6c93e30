//! Saving changes: what the store's `save` statement does.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use chrono::DurationRound as _;
use chrono::TimeDelta;
use voice_otp::account::CallSid;
use voice_otp::delivery::{AttemptId, Change, Delivery, EndedAttempt, State};
use voice_otp::ports::WorkerEpoch;
use voice_otp::ports::{EarlierEvents, LedgerError, Marked, Saved, UnpricedCall};
use voice_otp::price::Price;
use voice_otp_schemas::{DeliveryKey, TenantId, Timestamp};

use super::tables::{Line, PriceQuery, Tables};

/// How long after the end of a call its price is first queried.
const FIRST_PRICE_QUERY: Duration = Duration::from_secs(15);

pub(super) fn save(
    tables: &mut Tables,
    worker: WorkerEpoch,
    group: &[Change],
    now: Timestamp,
) -> Result<Vec<Saved>, LedgerError> {
    let current: Vec<bool> = group
        .iter()
        .map(|change| is_current(tables, &change.delivery))
        .collect();
    check(
        tables,
        group
            .iter()
            .zip(&current)
            .filter(|(_, is_current)| **is_current)
            .map(|(change, _)| change),
    )?;
    Ok(group
        .iter()
        .zip(current)
        .map(|(change, is_current)| {
            if is_current {
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

/// Checks the constraints of the table.
fn check<'a>(
    tables: &Tables,
    changes: impl Iterator<Item = &'a Change> + Clone,
) -> Result<(), LedgerError> {
    let data = |what: &'static str| Err(LedgerError::InvalidRow(what.into()));
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
        if (delivery.state == State::Final) != delivery.final_status.is_some() {
            return data("a final delivery has a final status, and no other has one");
        }
        if delivery
            .call_sid
            .as_ref()
            .is_some_and(|sid| !calls.insert(sid))
        {
            return data("the call belongs to another delivery");
        }
        if delivery
            .attempt_id
            .is_some_and(|attempt| !attempts.insert(attempt))
        {
            return data("the attempt belongs to another delivery");
        }
    }
    Ok(())
}

fn apply(tables: &mut Tables, worker: WorkerEpoch, change: &Change, now: Timestamp) -> Saved {
    let earlier_events = earlier_events(tables, worker, change);
    let new = &change.delivery;
    let row = tables
        .rows
        .get_mut(&new.key)
        .expect("the change is current");
    row.owner = Some(worker);
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
    row.ended_at = new.final_status.map(|_| now);
    let heard_after_ms = u64::try_from(new.heard_after.as_millis()).unwrap_or(u64::MAX);
    // Only the columns of the statement are saved, whatever else the change holds.
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
        cancel_reason: new.cancel_reason,
        voicemail: new.voicemail,
        played: new.played,
        answered_by: new.answered_by.clone(),
        redials: new.redials,
        tries: new.tries,
        line: row.line.as_ref().map(Line::bytes),
        sequence: new.sequence,
        final_status: new.final_status,
        secrets: row
            .delivery
            .secrets
            .take()
            .filter(|_| new.state != State::Final),
        ..row.delivery.clone()
    };
    let saved = row.delivery.clone();
    for event in &change.events {
        tables.push_event(event.clone(), worker, now);
    }
    if let Some(EndedAttempt { attempt, call }) = change.ended_attempt.clone() {
        tables
            .past_attempts
            .entry(attempt)
            .or_insert_with(|| (new.key.clone(), now, call));
    }
    if let Some(call_sid) = change.unpriced_call.clone() {
        let query = UnpricedCall {
            call_sid: call_sid.clone(),
            key: saved.key,
            attempt: saved.attempt,
            ended_at: now,
            to_masked: saved.to_masked,
            context: saved.context,
        };
        tables.unpriced_calls.entry(call_sid).or_insert(PriceQuery {
            call: query,
            query_at: now + FIRST_PRICE_QUERY,
            queries: 0,
        });
    }
    Saved::Saved { earlier_events }
}

/// Who publishes the delivery's events from before this change.
fn earlier_events(tables: &Tables, worker: WorkerEpoch, change: &Change) -> EarlierEvents {
    let key = &change.delivery.key;
    let added = u32::try_from(change.events.len()).expect("a change has few events");
    let last = change.delivery.sequence - added;
    let first = tables
        .outbox
        .range((key.clone(), 0)..=(key.clone(), last))
        .next();
    match first {
        _ if change.events.is_empty() => EarlierEvents::Published,
        None => EarlierEvents::Published,
        Some((_, event)) if event.owner == worker => EarlierEvents::OwnedHere,
        Some(_) => EarlierEvents::OwnedElsewhere,
    }
}

/// Records that a delivery's code was entered.
pub(super) fn mark_verified(tables: &mut Tables, key: &DeliveryKey) -> Marked {
    match tables.rows.get_mut(key) {
        Some(row) => {
            row.delivery.verified = true;
            Marked::Recorded {
                awaits_redial: row.delivery.state == State::Waiting && row.delivery.redials > 0,
            }
        }
        None => Marked::Unknown,
    }
}

/// Removes calls whose price is published, and adds the prices to the tenants' spend.
pub(super) fn clear_unpriced_calls(tables: &mut Tables, priced: &[(CallSid, Price)]) {
    let mut sums: BTreeMap<(TenantId, Timestamp, String), (f64, u64)> = BTreeMap::new();
    for (sid, price) in priced {
        let Some(query) = tables.unpriced_calls.remove(sid) else {
            continue;
        };
        let hour = query.call.ended_at.duration_trunc(TimeDelta::hours(1));
        let hour = hour.expect("an hour can be truncated to");
        let key = (query.call.key.tenant_id, hour, price.unit.clone());
        let (amount, calls) = sums.entry(key).or_default();
        *amount -= price.amount.parse::<f64>().unwrap_or(0.0);
        *calls += 1;
    }
    for (key, (amount, calls)) in sums {
        let spent = tables.spend.entry(key).or_default();
        spent.0 += amount;
        spent.1 += calls;
    }
}
