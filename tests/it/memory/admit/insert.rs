//! The rows of new requests.

use std::sync::Arc;
use std::time::Duration;

use voice_otp::admission::{Admission, Admitted, Plan};
use voice_otp::delivery::{Delivery, Slot, State};
use voice_otp::ports::{Verdict, WorkerEpoch};
use voice_otp::settings::policy::Voicemail;
use voice_otp_schemas::envelope::Trace;
use voice_otp_schemas::status::Status;
use voice_otp_schemas::{Context, DeliveryKey, Timestamp};
use voice_otp_store::ledger::Limits;

use super::request_order;
use super::reserve::{Chance, Reserved};
use crate::memory::tables::{Line, Row, Tables};

/// Inserts the row of a new request.
pub(super) fn insert(
    tables: &mut Tables,
    limits: &Limits,
    worker: WorkerEpoch,
    admission: &Admission,
    slot: Option<Reserved>,
    now: Timestamp,
) -> Verdict {
    let user = request_order(admission, now)
        .and_then(|(time, _)| Some((admission.user_ref.clone()?, time)));
    let of_user = || {
        user.iter()
            .flat_map(|(name, _)| tables.of_user(&admission.key.tenant_id, name))
    };
    let own = request_order(admission, now);
    let user_rows = UserRows {
        is_busy: of_user().any(|row| row.user_line),
        has_older_requests: of_user()
            .any(|row| row.delivery.state != State::Final && row.request_order() < own),
    };
    let (mut delivery, line, verdict) = row(tables, limits, admission, slot, &user_rows, now);
    match &verdict {
        Verdict::Admitted(admitted) => admitted
            .event
            .iter()
            .for_each(|event| tables.push_event(event.clone(), worker, now)),
        Verdict::Finished(events) | Verdict::AdmittedWithoutSlot(events) => {
            for event in events {
                tables.push_event(event.clone(), worker, now);
            }
        }
        Verdict::Duplicate
        | Verdict::ConflictingDuplicate
        | Verdict::StaleSettings
        | Verdict::RowLocked
        | Verdict::Inadmissible(_) => {
            unreachable!("the request is new")
        }
    }
    let held = matches!(&verdict, Verdict::Admitted(admitted) if admitted.held);
    // The row may replace a tombstone.
    delivery.revision += i64::from(tables.rows.contains_key(&admission.key));
    let row = Row {
        owner: held.then_some(worker),
        counted: None,
        identity: Some(admission.identity.expose().to_owned()),
        user_line: user.is_some() && line.is_some(),
        user,
        ended_at: (delivery.state == State::Final).then_some(now),
        forget_at: match admission.plan {
            Plan::Call(_) => None,
            Plan::Finish(_) => tables.forget_at(&admission.key.tenant_id, now),
        },
        line,
        delivery,
    };
    tables.rows.insert(admission.key.clone(), row);
    verdict
}

/// What the rows of the same user say about a new request.
struct UserRows {
    /// Whether a call to the user is being placed or in progress.
    is_busy: bool,
    has_older_requests: bool,
}

/// The row of a new request, its line if the attempt starts, and the verdict.
fn row(
    tables: &Tables,
    limits: &Limits,
    admission: &Admission,
    slot: Option<Reserved>,
    user: &UserRows,
    now: Timestamp,
) -> (Delivery, Option<Line>, Verdict) {
    match (&admission.plan, slot) {
        (Plan::Call(planned_call), Some(slot)) if slot.chance != Chance::Late => {
            let in_time = slot.chance == Chance::InTime;
            let line = Line::of_planned_call(planned_call);
            let soon = in_time && slot.at <= now + limits.begin_ahead;
            let counted = tables
                .account(planned_call.account_sid.as_str())
                .is_some_and(|account| account.max_calls.is_some());
            let begun = soon
                && planned_call.attempt_id.is_some()
                && !counted
                && !tables.is_line_busy(&line)
                && !user.is_busy;
            let admitted = Admitted {
                slot: Slot {
                    at: slot.at,
                    epoch: slot.epoch,
                },
                admitted_at: now,
                begun,
                held: begun || in_time && slot.at <= now + limits.hold_ahead,
                wake_at: if begun {
                    now + limits.rescue
                } else if in_time {
                    slot.at.min(planned_call.place_by)
                } else {
                    planned_call.place_by
                },
                event: Some(
                    planned_call
                        .accepted
                        .clone()
                        .filled(slot.at, wait_ms(slot.at, now)),
                ),
                has_older_requests: user.has_older_requests,
            };
            let mut delivery =
                Delivery::admitted(admission.clone(), planned_call.as_ref().clone(), &admitted);
            delivery.line = begun.then(|| line.bytes());
            delivery.slot = delivery.slot.filter(|_| in_time);
            (
                delivery,
                begun.then_some(line),
                Verdict::Admitted(Box::new(admitted)),
            )
        }
        (Plan::Call(planned_call), _) if planned_call.deferred.is_some() => {
            let deferred = planned_call.deferred.clone().expect("the plan defers");
            let delivery = Delivery {
                state: State::Waiting,
                wake_at: planned_call.place_by,
                secrets: Some(Arc::clone(&planned_call.secrets)),
                announced_at: Some(planned_call.place_by),
                final_status: None,
                locale: planned_call.locale.clone(),
                account_sid: Some(planned_call.account_sid.clone()),
                pace_key: Some(planned_call.pace_key.clone()),
                place_by: planned_call.place_by,
                heard_after: planned_call.heard_after,
                ..finished(admission, Status::Deferred, 2, now)
            };
            (
                delivery,
                None,
                Verdict::AdmittedWithoutSlot(vec![planned_call.accepted.clone(), deferred]),
            )
        }
        (Plan::Call(planned_call), slot) => {
            let slot = slot.expect("every planned call is in time or too late");
            let delivery = Delivery {
                locale: planned_call.locale.clone(),
                account_sid: Some(planned_call.account_sid.clone()),
                pace_key: Some(planned_call.pace_key.clone()),
                place_by: planned_call.place_by,
                heard_after: planned_call.heard_after,
                ..finished(admission, Status::Expired, 1, now)
            };
            let event = planned_call
                .expired
                .clone()
                .filled(slot.at, wait_ms(slot.at, now));
            (delivery, None, Verdict::Finished(vec![event]))
        }
        (Plan::Finish(events), _) => {
            let last = events.last().expect("the plan has events");
            (
                finished(
                    admission,
                    last.status.expect("the event is a status"),
                    last.sequence,
                    now,
                ),
                None,
                Verdict::Finished(events.clone()),
            )
        }
    }
}

/// A delivery that is finished at its admission.
fn finished(admission: &Admission, status: Status, sequence: u32, now: Timestamp) -> Delivery {
    Delivery {
        to_masked: admission.to_masked.clone(),
        context: admission.context.clone(),
        trace: admission.trace.clone(),
        requested_at: admission.requested_at,
        expires_at: admission.expires_at,
        place_by: admission.expires_at,
        sequence,
        final_status: Some(status),
        ..tombstone(&admission.key, now)
    }
}

/// A tombstone: the row of a delivery that was cancelled before it arrived.
pub(in crate::memory) fn tombstone(key: &DeliveryKey, now: Timestamp) -> Delivery {
    Delivery {
        key: key.clone(),
        revision: 1,
        state: State::Final,
        wake_at: now,
        secrets: None,
        to_masked: None,
        locale: None,
        context: Context::default(),
        trace: Trace::default(),
        account_sid: None,
        pace_key: None,
        requested_at: None,
        admitted_at: now,
        expires_at: now,
        place_by: now,
        slot: None,
        announced_at: None,
        attempt: 0,
        attempt_id: None,
        intent_at: None,
        line: None,
        settle_after: None,
        call_sid: None,
        heard_after: Duration::ZERO,
        placed_at: None,
        ringing_at: None,
        answered_at: None,
        cancel_reason: None,
        voicemail: Voicemail::default(),
        played: None,
        answered_by: None,
        redials: 0,
        verified: false,
        tries: 0,
        sequence: 0,
        final_status: Some(Status::Cancelled),
    }
}

/// The wait in milliseconds, rounded as Postgres rounds.
fn wait_ms(slot: Timestamp, now: Timestamp) -> i64 {
    let micros = (slot - now).num_microseconds().expect("a wait is short");
    (micros + 500).div_euclid(1000)
}
