//! Changes of a delivery: the new value, and the events that belong to it.

use std::time::Duration;

use voice_otp_schemas::Timestamp;
use voice_otp_schemas::reason::{Reason, ReasonCode};
use voice_otp_schemas::request::rfc3339;
use voice_otp_schemas::status::Status;

use super::{AttemptId, CancelCause, Delivery, State};
use crate::account::CallSid;
use crate::event::Event;
use crate::price::Price;
use crate::settings::policy::RedialOutcome;

/// A change to save: the new value of a delivery, and the events to publish.
#[derive(Debug, Clone)]
pub struct Change {
    /// The new value. Its `revision` is still the one that the change was computed from.
    pub delivery: Delivery,
    /// The status events of this change, in order.
    pub events: Vec<Event>,
    /// An attempt that ended while the delivery continues, so that late callbacks are recognised.
    pub ended_attempt: Option<EndedAttempt>,
    /// A completed call whose price Twilio has not reported yet.
    pub unpriced_call: Option<CallSid>,
}

/// An attempt that ended while its delivery continues.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndedAttempt {
    /// The attempt.
    pub attempt: AttemptId,
    /// Its completed call. `None` if no call is known; a callback for one may still arrive.
    pub call: Option<CallSid>,
}

/// What a status says besides its name.
#[derive(Debug, Clone, Default)]
pub struct StatusDetails {
    /// Why the delivery has this status.
    pub reason: Option<Reason>,
    /// When the call is due.
    pub due_at: Option<Timestamp>,
    /// Who answered, in Twilio's word.
    pub answered_by: Option<String>,
    /// How long the call was, in seconds.
    pub call_duration_s: Option<u32>,
    /// The carrier's last SIP status.
    pub sip_code: Option<u16>,
    /// The price of the call.
    pub price: Option<Price>,
}

impl Change {
    /// A change that saves the delivery as it is; the caller edits it.
    pub fn unchanged(delivery: &Delivery) -> Self {
        Self {
            delivery: delivery.clone(),
            events: Vec::new(),
            ended_attempt: None,
            unpriced_call: None,
        }
    }

    /// Adds a status. A final one finishes the delivery and drops its secrets.
    pub fn push_status(&mut self, now: Timestamp, status: Status, details: StatusDetails) {
        let delivery = &mut self.delivery;
        delivery.sequence += 1;
        if details.due_at.is_some() {
            delivery.announced_at = details.due_at;
        }
        let data = delivery.status_data(now, status, details);
        self.events.push(Event::new(now, data, &delivery.trace));
        if status.is_final() {
            delivery.state = State::Final;
            delivery.final_status = Some(status);
            delivery.secrets = None;
            delivery.slot = None;
        }
    }

    /// Adds `deferred`, if the delivery is due more than a second later than last published.
    pub fn defer(&mut self, now: Timestamp, mut reason: Reason) {
        let due_at = self.delivery.wake_at;
        if self.delivery.is_later_than_announced() {
            reason.retry_at = Some(rfc3339(due_at));
            let details = StatusDetails {
                reason: Some(reason),
                due_at: Some(due_at),
                ..StatusDetails::default()
            };
            self.push_status(now, Status::Deferred, details);
        }
    }

    /// Finishes the delivery with a final status.
    pub fn finish(&mut self, now: Timestamp, status: Status, reason: Reason) {
        let details = StatusDetails {
            reason: Some(reason),
            ..StatusDetails::default()
        };
        self.push_status(now, status, details);
    }

    /// Finishes the delivery as expired: no call could be placed before its deadline.
    pub fn expire(&mut self, now: Timestamp) {
        let why = "no call could be placed before the code expires; send a new code, or use \
                   another channel";
        self.finish(
            now,
            Status::Expired,
            Reason::new(ReasonCode::ExpiredWaiting, why),
        );
    }

    /// Finishes the delivery as cancelled.
    pub fn finish_cancelled(&mut self, now: Timestamp, cause: CancelCause) {
        let (status, reason) = cause.outcome();
        self.finish(now, status, reason);
    }

    /// Places another call after this one reached no one: a new attempt with a slot of its own,
    /// `after` from now.
    pub fn redial(
        &mut self,
        now: Timestamp,
        after: Duration,
        outcome: RedialOutcome,
        details: StatusDetails,
    ) {
        self.delivery.wake_at = now + after;
        self.delivery.redials += 1;
        let message = match outcome {
            RedialOutcome::Busy => "the line was busy; calling again",
            RedialOutcome::NoAnswer => "the call was not answered; calling again",
            RedialOutcome::Voicemail => "a machine answered; calling again",
            RedialOutcome::Failed => "the call could not be completed; calling again",
        };
        let reason = Reason {
            provider_code: details
                .reason
                .as_ref()
                .and_then(|reason| reason.provider_code),
            retry_at: Some(rfc3339(self.delivery.wake_at)),
            ..Reason::new(ReasonCode::Redial, message)
        };
        // Before the call is cleared below, so that the status names it.
        let due_at = Some(self.delivery.wake_at);
        let details = StatusDetails {
            reason: Some(reason),
            due_at,
            ..details
        };
        self.push_status(now, Status::Deferred, details);
        let call = self.delivery.call_sid.take();
        self.end_attempt();
        if let Some(ended) = &mut self.ended_attempt {
            ended.call = call;
        }
        let next = &mut self.delivery;
        next.state = State::Waiting;
        next.tries = 0;
        (next.placed_at, next.ringing_at, next.answered_at) = (None, None, None);
        (next.played, next.answered_by) = (None, None);
    }

    /// Ends the current attempt without a call. What becomes of it later doesn't change the
    /// delivery any more.
    pub fn end_attempt(&mut self) {
        let attempt = self.delivery.attempt_id.take();
        self.ended_attempt = attempt.map(|attempt| EndedAttempt {
            attempt,
            call: None,
        });
        self.delivery.intent_at = None;
        self.delivery.settle_after = None;
        self.delivery.slot = None;
    }
}

impl Delivery {
    /// Cancels the delivery. A waiting one finishes at once. One that Twilio has, or may have, is
    /// only marked, and finishes when Twilio reports the end of the call. An answered call is not
    /// hung up and keeps its own outcome, but it is played nothing more and isn't redialled.
    /// `None` if there is nothing to change.
    pub fn cancel(&self, cause: CancelCause, now: Timestamp) -> Option<Change> {
        if self.state == State::Final || self.cancel_reason.is_some() {
            return None;
        }
        let mut change = Change::unchanged(self);
        change.delivery.cancel_reason = Some(cause);
        if self.state == State::Waiting {
            change.finish_cancelled(now, cause);
        }
        Some(change)
    }

    /// Cancels a delivery whose attempt was started, if the POST was not sent and will not be.
    pub fn cancel_unsent(&self, cause: CancelCause, now: Timestamp) -> Change {
        let mut change = self.revert_start(now);
        change.delivery.cancel_reason = Some(cause);
        change.finish_cancelled(now, cause);
        change
    }

    /// Finishes the delivery as expired.
    pub fn expire(&self, now: Timestamp) -> Change {
        let mut change = Change::unchanged(self);
        change.expire(now);
        change
    }

    /// Reverts the start of an attempt whose POST was never sent: the delivery waits again, and the
    /// attempt doesn't count.
    pub fn revert_start(&self, now: Timestamp) -> Change {
        let mut change = Change::unchanged(self);
        change.end_attempt();
        change.ended_attempt = None;
        change.delivery.attempt = change.delivery.attempt.saturating_sub(1);
        change.delivery.state = State::Waiting;
        change.delivery.wake_at = now;
        change
    }

    /// Marks the outcome of the POST as unknown, for the reason `why`. `look_at` is when to ask
    /// Twilio first; `absent_from` is when the absence of a call becomes conclusive.
    pub fn mark_unsettled(
        &self,
        look_at: Timestamp,
        absent_from: Timestamp,
        why: &str,
        now: Timestamp,
    ) -> Change {
        let mut change = Change::unchanged(self);
        change.delivery.state = State::Unsettled;
        change.delivery.settle_after = Some(absent_from);
        change.delivery.wake_at = absent_from;
        change.defer(now, Reason::new(ReasonCode::Settling, why));
        change.delivery.wake_at = look_at;
        change
    }
}
