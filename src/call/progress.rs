//! What an update of a call makes of its delivery. Updates come from callbacks, from polls and from
//! the answer to a POST.
#![deny(clippy::wildcard_enum_match_arm)]

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use voice_otp_schemas::Timestamp;
use voice_otp_schemas::reason::{Reason, ReasonCode};
use voice_otp_schemas::status::Status;

use crate::account::AccountSid;
use crate::call::failure::{Class, Fault};
use crate::call::{Call, CallStatus, ProviderError};
use crate::delivery::{CancelCause, Change, Delivery, Played, State, StatusDetails};
use crate::settings::policy::{Policy, RedialOutcome, Voicemail};
use crate::tuning::Tuning;

/// What an update of a call makes of a delivery.
#[derive(Debug)]
pub enum Progress {
    /// The delivery changes.
    Change(Box<Change>),
    /// The update says nothing new.
    Unchanged,
    /// The call doesn't belong to this delivery, or no longer does. It must be hung up.
    Orphaned,
}

/// Applies an update of a call to a delivery.
///
/// Updates arrive late, twice and in any order: what is known already changes nothing, and a final
/// status stays. `policy` is the tenant's; `callbacks` says whether Twilio reports progress by
/// itself.
pub fn progress(
    delivery: &Delivery,
    call: &Call,
    policy: &Policy,
    tuning: &Tuning,
    callbacks: bool,
    now: Timestamp,
) -> Progress {
    let mut change = Change::unchanged(delivery);
    match (delivery.state, &delivery.call_sid) {
        (State::Final, Some(sid)) if *sid == call.sid => return Progress::Unchanged,
        (State::Calling, Some(sid)) if *sid == call.sid => {}
        // The answer to the POST, a callback that was faster, or a call found while settling.
        (State::Placing | State::Unsettled, _) => {
            let next = &mut change.delivery;
            next.state = State::Calling;
            next.call_sid = Some(call.sid.clone());
            next.placed_at = Some(now);
            next.settle_after = None;
            next.tries = 0;
            next.voicemail = policy.voicemail;
            change.push_status(now, Status::Placed, StatusDetails::default());
        }
        (State::Final | State::Calling | State::Waiting, _) => return Progress::Orphaned,
    }
    apply_status(&mut change, call, policy, now);
    let next = &mut change.delivery;
    if next.state == State::Calling {
        next.wake_at = next_poll_at(next, call, tuning, callbacks, now);
    }
    // `answered_by` alone is worth saving: the call's instructions depend on it.
    if !change.events.is_empty() || change.delivery.answered_by != delivery.answered_by {
        Progress::Change(Box::new(change))
    } else {
        Progress::Unchanged
    }
}

/// Adds the statuses that follow `placed`, and the redial if there is one.
fn apply_status(change: &mut Change, call: &Call, policy: &Policy, now: Timestamp) {
    let is_answered = matches!(call.status, CallStatus::InProgress | CallStatus::Completed);
    if let Some(by) = &call.answered_by {
        change.delivery.answered_by = Some(by.clone());
    }
    let answered_by = change.delivery.answered_by.clone();
    if call.status == CallStatus::Ringing
        && change.delivery.ringing_at.is_none()
        && change.delivery.answered_at.is_none()
    {
        change.delivery.ringing_at = Some(now);
        change.push_status(now, Status::Ringing, StatusDetails::default());
    }
    if is_answered && change.delivery.answered_at.is_none() {
        change.delivery.answered_at = Some(now);
        let answered_by = answered_by.clone();
        let details = StatusDetails {
            answered_by,
            ..StatusDetails::default()
        };
        change.push_status(now, Status::Answered, details);
    }
    let Some((status, reason)) = final_status(&change.delivery, call) else {
        return;
    };
    let mut details = StatusDetails {
        reason,
        answered_by,
        call_duration_s: call.duration_s,
        sip_code: call.sip_code,
        price: call.price.clone(),
        ..StatusDetails::default()
    };
    if call.status == CallStatus::Completed && call.price.is_none() {
        change.unpriced_call.clone_from(&change.delivery.call_sid);
    }
    match redial_after(&change.delivery, call, status, policy, now) {
        Some((outcome, after)) => {
            // Only a final status carries a price. This call's follows as an event of its own.
            if details.price.take().is_some() {
                change.unpriced_call.clone_from(&change.delivery.call_sid);
            }
            change.redial(now, after, outcome, details);
        }
        None => change.push_status(now, status, details),
    }
}

/// How long after a completed call another one is placed. `None` unless the tenant's policy says
/// so, another call may fare better, and it can still be placed before the delivery's deadline.
fn redial_after(
    delivery: &Delivery,
    call: &Call,
    status: Status,
    policy: &Policy,
    now: Timestamp,
) -> Option<(RedialOutcome, Duration)> {
    let (outcome, after) = policy.redial.after(status, delivery.redials)?;
    let is_permanent = status == Status::Failed
        && (is_unreachable(call) || call.error.as_ref().is_some_and(ProviderError::is_permanent));
    (delivery.cancel_reason.is_none()
        && !delivery.verified
        && !is_permanent
        && now + after <= delivery.place_by)
        .then_some((outcome, after))
}

impl ProviderError {
    fn is_permanent(&self) -> bool {
        matches!(self.class, Class::Permanent(_))
    }

    fn reason(&self) -> Reason {
        let code = match self.class {
            Class::Permanent(Fault::Credentials | Fault::Tenant) => ReasonCode::TenantConfiguration,
            Class::Permanent(Fault::Destination) => ReasonCode::DestinationInvalid,
            Class::Permanent(Fault::Blocked) => ReasonCode::DestinationBlocked,
            Class::Permanent(Fault::Internal) => ReasonCode::RequestRefused,
            Class::Transient | Class::Throttled(_) | Class::Congested | Class::Ambiguous => {
                ReasonCode::CarrierFailed
            }
        };
        Reason {
            provider_code: Some(self.code),
            ..Reason::new(code, self.tenant_message)
        }
    }
}

/// Whether the carrier's SIP status says that the number doesn't exist or can't be reached: 404 Not
/// Found, 484 Address Incomplete, 604 Does Not Exist Anywhere (RFC 3261, section 21).
fn is_unreachable(call: &Call) -> bool {
    matches!(call.sip_code, Some(404 | 484 | 604))
}

/// A final status, and why.
type Outcome = (Status, Option<Reason>);

fn outcome(status: Status, code: ReasonCode, message: &str) -> Outcome {
    (status, Some(Reason::new(code, message)))
}

fn cancelled(cause: CancelCause) -> Outcome {
    let (status, reason) = cause.outcome();
    (status, Some(reason))
}

/// The final status that a call's status amounts to; `None` while the call continues.
fn final_status(delivery: &Delivery, call: &Call) -> Option<Outcome> {
    Some(match call.status {
        CallStatus::Queued
        | CallStatus::Initiated
        | CallStatus::Ringing
        | CallStatus::InProgress => return None,
        CallStatus::Completed => completed(delivery, call),
        CallStatus::Busy => outcome(Status::Busy, ReasonCode::Busy, "the line was busy"),
        CallStatus::NoAnswer => {
            let message = "the call was not answered, or was declined";
            outcome(Status::NoAnswer, ReasonCode::NoAnswer, message)
        }
        CallStatus::Failed => failed(call),
        CallStatus::Canceled => match delivery.cancel_reason {
            Some(cause) => cancelled(cause),
            None => outcome(
                Status::Cancelled,
                ReasonCode::CanceledAtProvider,
                "the call was cancelled at Twilio, not by voice-otp",
            ),
        },
    })
}

fn failed(call: &Call) -> Outcome {
    if let Some(error) = &call.error {
        return (Status::Failed, Some(error.reason()));
    }
    let message = if is_unreachable(call) {
        "the number doesn't exist, or the carrier can't reach it"
    } else {
        "the carrier could not complete the call"
    };
    outcome(Status::Failed, ReasonCode::CarrierFailed, message)
}

/// The final status of a call that was answered and has ended: by what was played to it, the policy
/// that it was placed under, and how long it was.
fn completed(delivery: &Delivery, call: &Call) -> Outcome {
    const DELIVERED: Outcome = (Status::Delivered, None);
    // Twilio cuts the duration to whole seconds; the callee gets the benefit of the rest.
    let duration = Duration::from_secs(u64::from(call.duration_s.unwrap_or(0)) + 1);
    let is_heard = duration > delivery.heard_after;
    let is_machine = delivery.answered_by.as_deref().is_some_and(is_machine);
    let is_unasked = call.error.is_none()
        && call
            .duration_s
            .is_some_and(|seconds| seconds > INSTRUCTIONS_GRACE_S);
    match delivery.played {
        Some(Played::Code) => match delivery.voicemail {
            Voicemail::PressKey => DELIVERED,
            Voicemail::Speak | Voicemail::HangUp | Voicemail::WaitForBeep if is_heard => DELIVERED,
            Voicemail::Speak | Voicemail::HangUp | Voicemail::WaitForBeep => cut_short(call),
        },
        Some(Played::Prompt) => match delivery.voicemail {
            Voicemail::PressKey => outcome(
                Status::HungUp,
                ReasonCode::NoKey,
                "the confirmation key was not pressed, so the code was not read",
            ),
            Voicemail::Speak if is_heard => DELIVERED,
            Voicemail::Speak | Voicemail::HangUp | Voicemail::WaitForBeep => cut_short(call),
        },
        Some(Played::Nothing) => match delivery.cancel_reason {
            Some(cause) => cancelled(cause),
            None if is_machine => kept_from_machine(),
            None => outcome(
                Status::Expired,
                ReasonCode::ExpiredWaiting,
                "the code expired before it could be read to the callee; send a new code, or use \
                 another channel",
            ),
        },
        // No instructions were requested.
        None => match delivery.voicemail {
            Voicemail::PressKey if is_unasked => {
                outcome(Status::Failed, ReasonCode::RequestRefused, NO_INSTRUCTIONS)
            }
            Voicemail::HangUp if is_machine => kept_from_machine(),
            Voicemail::Speak if is_heard => DELIVERED,
            Voicemail::Speak | Voicemail::HangUp | Voicemail::WaitForBeep | Voicemail::PressKey => {
                cut_short(call)
            }
        },
    }
}

fn kept_from_machine() -> Outcome {
    let message = "a machine answered, and the tenant's policy keeps codes from machines";
    outcome(Status::Voicemail, ReasonCode::Voicemail, message)
}

fn cut_short(call: &Call) -> Outcome {
    match &call.error {
        Some(error) => (Status::Failed, Some(error.reason())),
        None => outcome(
            Status::HungUp,
            ReasonCode::HungUp,
            "the call ended before the first complete reading of the code",
        ),
    }
}

/// A call of at most this many seconds may have ended before Twilio could request its instructions.
const INSTRUCTIONS_GRACE_S: u32 = 2;
const NO_INSTRUCTIONS: &str = "Twilio could not request the call's instructions; the operator must \
                               check the workers' public URL, its proxy and its certificate";

/// Whether Twilio's `AnsweredBy` means anything but a person
/// (<https://www.twilio.com/docs/voice/answering-machine-detection>).
pub fn is_machine(answered_by: &str) -> bool {
    answered_by.starts_with("machine") || answered_by == "fax"
}

/// When to poll Twilio about a call without updates: at growing intervals, and at once if it must
/// be cancelled.
pub fn next_poll_at(
    delivery: &Delivery,
    call: &Call,
    tuning: &Tuning,
    callbacks: bool,
    now: Timestamp,
) -> Timestamp {
    let first = if callbacks {
        tuning.poll_after_with_callbacks
    } else {
        tuning.poll_after_without_callbacks
    };
    let interval = first.mul_f64(1.5_f64.powi(delivery.tries.min(20).cast_signed()));
    let at = next_account_tick(delivery, now + interval.min(tuning.longest_poll_interval));
    if is_queued_too_long(delivery, call, tuning, now) {
        now
    } else if call.status == CallStatus::Queued {
        // A call still queued at that time would ring too late, so the poll then cancels it.
        at.min(queued_until(delivery, tuning).max(now))
    } else {
        at
    }
}

/// The account's next tick. Each account has one tick a second, at a phase of its own, so that
/// polls of one account can share a request and different accounts don't poll at the same moment.
pub fn next_account_tick(delivery: &Delivery, at: Timestamp) -> Timestamp {
    let mut hasher = DefaultHasher::new();
    delivery
        .account_sid
        .as_ref()
        .map(AccountSid::as_str)
        .hash(&mut hasher);
    let phase = i64::try_from(hasher.finish() % SECOND_US.unsigned_abs()).unwrap_or(0);
    let past = (at.timestamp_micros() - phase).rem_euclid(SECOND_US);
    let wait = if past == 0 {
        0
    } else {
        (SECOND_US - past).unsigned_abs()
    };
    at + Duration::from_micros(wait)
}

const SECOND_US: i64 = 1_000_000;

/// Whether Twilio has kept a call in its queue for too long, or announces that it will. The call
/// must then be cancelled.
pub fn is_queued_too_long(
    delivery: &Delivery,
    call: &Call,
    tuning: &Tuning,
    now: Timestamp,
) -> bool {
    let until = queued_until(delivery, tuning);
    let ends_too_late = |wait| delivery.placed_at.unwrap_or(now) + wait > until;
    call.status == CallStatus::Queued
        && (now >= until || call.queue_time.is_some_and(ends_too_late))
}

/// How long a call may stay in Twilio's queue: until the latest moment for a POST. Twilio queues
/// every call for a moment, so one that was placed just in time gets that moment as well.
fn queued_until(delivery: &Delivery, tuning: &Tuning) -> Timestamp {
    delivery.placed_at.map_or(delivery.place_by, |placed| {
        delivery.place_by.max(placed + tuning.queue_grace)
    })
}
