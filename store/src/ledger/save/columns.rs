//! The parameters of the statement `save_changes`, which `sql/statements/save_changes.sql` lists.

use tokio_postgres::types::ToSql;
use uuid::Uuid;
use voice_otp::account::CallSid;
use voice_otp::delivery::{CancelCause, Change, Played};
use voice_otp::event::Event;
use voice_otp::ports::WorkerEpoch;
use voice_otp_schemas::Timestamp;
use voice_otp_schemas::status::Status;

/// A batch as the arrays that the statement takes, one element per change: a delivery's columns,
/// and what else the change writes.
#[derive(Default)]
pub(super) struct Columns<'a> {
    tenant: Vec<&'a str>,
    delivery: Vec<&'a str>,
    /// The revision that the change was computed from.
    revision: Vec<i64>,
    state: Vec<&'static str>,
    wake_at: Vec<Timestamp>,
    slot_at: Vec<Option<Timestamp>>,
    slot_epoch: Vec<Option<i64>>,
    announced_at: Vec<Option<Timestamp>>,
    attempt: Vec<i32>,
    attempt_id: Vec<Option<Uuid>>,
    intent_at: Vec<Option<Timestamp>>,
    settle_after: Vec<Option<Timestamp>>,
    call_sid: Vec<Option<&'a str>>,
    heard_after_ms: Vec<i32>,
    placed_at: Vec<Option<Timestamp>>,
    ringing_at: Vec<Option<Timestamp>>,
    answered_at: Vec<Option<Timestamp>>,
    cancel_reason: Vec<Option<&'static str>>,
    tries: Vec<i32>,
    sequence: Vec<i32>,
    final_status: Vec<Option<&'static str>>,
    voicemail: Vec<&'static str>,
    played: Vec<Option<&'static str>>,
    answered_by: Vec<Option<&'a str>>,
    redials: Vec<i32>,
    /// The attempt that ended, and its call.
    ended_attempt: Vec<Option<Uuid>>,
    ended_call: Vec<Option<&'a str>>,
    unpriced_call: Vec<Option<&'a str>>,
    /// How many events the change has.
    event_count: Vec<i32>,
    events: Events<'a>,
}

/// The events of a batch, one element per event.
#[derive(Default)]
struct Events<'a> {
    /// The position of the event's change in the batch, from 1.
    ord: Vec<i64>,
    sequence: Vec<i32>,
    status: Vec<&'static str>,
    route: Vec<&'a str>,
    body: Vec<&'a str>,
    traceparent: Vec<Option<&'a str>>,
    tracestate: Vec<Option<&'a str>>,
}

impl<'a> Events<'a> {
    fn push(&mut self, ord: i64, event: &'a Event) {
        self.ord.push(ord);
        self.sequence.push(event.sequence.cast_signed());
        self.status.push(event.status.map_or("", Status::as_str));
        self.route.push(&event.routing_key);
        self.body.push(&event.body);
        self.traceparent.push(event.trace.traceparent.as_deref());
        self.tracestate.push(event.trace.tracestate.as_deref());
    }
}

impl<'a> Columns<'a> {
    pub(super) fn of(group: &'a [Change]) -> Self {
        let mut columns = Self::default();
        for (ord, change) in (1..).zip(group) {
            columns.push_delivery(change);
            columns.push_rest(ord, change);
        }
        columns
    }

    fn push_delivery(&mut self, change: &'a Change) {
        let delivery = &change.delivery;
        self.tenant.push(delivery.key.tenant_id.as_str());
        self.delivery.push(delivery.key.delivery_id.as_str());
        self.revision.push(delivery.revision);
        self.state.push(delivery.state.as_str());
        self.wake_at.push(delivery.wake_at);
        self.slot_at.push(delivery.slot.map(|slot| slot.at));
        self.slot_epoch.push(delivery.slot.map(|slot| slot.epoch));
        self.announced_at.push(delivery.announced_at);
        self.attempt.push(delivery.attempt.cast_signed());
        self.attempt_id.push(delivery.attempt_id.map(|id| id.0));
        self.intent_at.push(delivery.intent_at);
        self.settle_after.push(delivery.settle_after);
        self.call_sid
            .push(delivery.call_sid.as_ref().map(CallSid::as_str));
        // Longer than any call.
        let heard_after_ms = i32::try_from(delivery.heard_after.as_millis()).unwrap_or(i32::MAX);
        self.heard_after_ms.push(heard_after_ms);
        self.placed_at.push(delivery.placed_at);
        self.ringing_at.push(delivery.ringing_at);
        self.answered_at.push(delivery.answered_at);
        self.cancel_reason
            .push(delivery.cancel_reason.map(CancelCause::as_str));
        self.tries.push(delivery.tries.cast_signed());
        self.sequence.push(delivery.sequence.cast_signed());
        self.final_status
            .push(delivery.final_status.map(Status::as_str));
        self.voicemail.push(delivery.voicemail.as_str());
        self.played.push(delivery.played.map(Played::as_str));
        self.answered_by.push(delivery.answered_by.as_deref());
        self.redials.push(delivery.redials.cast_signed());
    }

    fn push_rest(&mut self, ord: i64, change: &'a Change) {
        let ended = change.ended_attempt.as_ref();
        self.ended_attempt.push(ended.map(|ended| ended.attempt.0));
        self.ended_call
            .push(ended.and_then(|ended| ended.call.as_ref().map(CallSid::as_str)));
        self.unpriced_call
            .push(change.unpriced_call.as_ref().map(CallSid::as_str));
        // A change has a few events.
        self.event_count
            .push(i32::try_from(change.events.len()).unwrap_or(i32::MAX));
        for event in &change.events {
            self.events.push(ord, event);
        }
    }

    /// The parameters $1 to $37.
    pub(super) fn params<'p>(&'p self, worker: &'p WorkerEpoch) -> [&'p (dyn ToSql + Sync); 37] {
        [
            &worker.0,
            &self.tenant,
            &self.delivery,
            &self.revision,
            &self.state,
            &self.wake_at,
            &self.slot_at,
            &self.slot_epoch,
            &self.announced_at,
            &self.attempt,
            &self.attempt_id,
            &self.intent_at,
            &self.settle_after,
            &self.call_sid,
            &self.heard_after_ms,
            &self.placed_at,
            &self.ringing_at,
            &self.answered_at,
            &self.cancel_reason,
            &self.tries,
            &self.sequence,
            &self.final_status,
            &self.ended_attempt,
            &self.event_count,
            &self.events.ord,
            &self.events.sequence,
            &self.events.status,
            &self.events.route,
            &self.events.body,
            &self.events.traceparent,
            &self.events.tracestate,
            &self.voicemail,
            &self.played,
            &self.answered_by,
            &self.redials,
            &self.ended_call,
            &self.unpriced_call,
        ]
    }
}
