//! News of a call, from a callback, a poll or the answer to a POST, and what it makes of the delivery.
#![deny(clippy::wildcard_enum_match_arm)]

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use voice_otp_schemas::Timestamp;
use voice_otp_schemas::reason::{Reason, ReasonCode};
use voice_otp_schemas::status::Status;

use crate::account::{AccountSid, CallSid};
use crate::delivery::{Change, Delivery, Details, Price, Said, State, withdrawal};
use crate::failure::{Class, Fault};
use crate::policy::{Policy, Voicemail};
use crate::tuning::Tuning;

/// A call's status, as Twilio says it (callbacks say `initiated` as well).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CallStatus {
    /// In line before dialling.
    Queued,
    /// Being dialled.
    Initiated,
    /// Ringing.
    Ringing,
    /// Answered, and going on.
    InProgress,
    /// Answered, and over.
    Completed,
    /// A busy signal.
    Busy,
    /// No answer, or declined.
    NoAnswer,
    /// Could not be completed as dialled.
    Failed,
    /// Cancelled before the answer.
    Canceled,
}

/// What is known of a call.
#[derive(Debug, Clone)]
pub struct Call {
    /// Its SID.
    pub sid: CallSid,
    /// Its status.
    pub status: CallStatus,
    /// Who answered, where Twilio says.
    pub answered_by: Option<String>,
    /// How long it was, in seconds, once it is over.
    pub duration_s: Option<u32>,
    /// The carrier's last SIP status, where Twilio says.
    pub sip_code: Option<u16>,
    /// When Twilio took it, to the second; unknown in callbacks.
    pub created_at: Option<Timestamp>,
    /// Whether it was placed through the API.
    pub outbound_api: bool,
    /// How long Twilio means to hold it before it dials.
    pub queue_time: Option<Duration>,
    /// What it cost, once Twilio knows.
    pub price: Option<Price>,
    /// What Twilio says went wrong with it, where it does.
    pub trouble: Option<Trouble>,
}

/// What went wrong with a call that Twilio had taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// Twilio's error code.
    pub code: u32,
    /// What kind of trouble it is.
    pub class: Class,
    /// A sentence for the tenant: what to do.
    pub tenant: &'static str,
}

/// What news of a call makes of a delivery.
#[derive(Debug)]
pub enum Progress {
    /// Something new.
    Change(Box<Change>),
    /// Nothing new.
    Known,
    /// The call isn't this delivery's, or no longer: it must be hung up.
    Stray,
}

impl CallStatus {
    /// Parses Twilio's word.
    pub fn from_word(word: &str) -> Option<Self> {
        Some(match word {
            "queued" => Self::Queued,
            "initiated" => Self::Initiated,
            "ringing" => Self::Ringing,
            "in-progress" => Self::InProgress,
            "completed" => Self::Completed,
            "busy" => Self::Busy,
            "no-answer" => Self::NoAnswer,
            "failed" => Self::Failed,
            "canceled" => Self::Canceled,
            _ => return None,
        })
    }

    /// Whether nothing comes after it.
    pub fn is_over(self) -> bool {
        match self {
            Self::Queued | Self::Initiated | Self::Ringing | Self::InProgress => false,
            Self::Completed | Self::Busy | Self::NoAnswer | Self::Failed | Self::Canceled => true,
        }
    }
}

/// Works news into a delivery. News comes late, twice and in any order: what is known already changes nothing, and
/// final is final. `policy` is the tenant's; `callbacks` is whether Twilio reports to us by itself.
pub fn progress(
    delivery: &Delivery,
    call: &Call,
    policy: &Policy,
    tuning: &Tuning,
    callbacks: bool,
    now: Timestamp,
) -> Progress {
    let mut change = Change::of(delivery);
    match (delivery.state, &delivery.call_sid) {
        (State::Final, Some(sid)) if *sid == call.sid => return Progress::Known,
        (State::Calling, Some(sid)) if *sid == call.sid => {}
        // The answer to the POST, or a callback that was faster, or a call found while settling.
        (State::Placing | State::Unsettled, _) => {
            let next = &mut change.delivery;
            next.state = State::Calling;
            next.call_sid = Some(call.sid.clone());
            next.placed_at = Some(now);
            next.settle_after = None;
            next.tries = 0;
            next.voicemail = policy.voicemail;
            change.tell(now, Status::Placed, Details::default());
        }
        (State::Final | State::Calling | State::Waiting, _) => return Progress::Stray,
    }
    follow(&mut change, call, policy, now);
    let next = &mut change.delivery;
    if next.state == State::Calling {
        next.wake_at = quiet_until(next, call, tuning, callbacks, now);
    }
    // Who answered is news also where that somebody did is not: on it hangs what the call is told.
    let new = !change.events.is_empty() || change.delivery.answered_by != delivery.answered_by;
    if new {
        Progress::Change(Box::new(change))
    } else {
        Progress::Known
    }
}

/// The statuses after `placed`.
fn follow(change: &mut Change, call: &Call, policy: &Policy, now: Timestamp) {
    let rings = call.status == CallStatus::Ringing;
    let answered = matches!(call.status, CallStatus::InProgress | CallStatus::Completed);
    if let Some(by) = &call.answered_by {
        change.delivery.answered_by = Some(by.clone());
    }
    let answered_by = change.delivery.answered_by.clone();
    if rings && change.delivery.ringing_at.is_none() && change.delivery.answered_at.is_none() {
        change.delivery.ringing_at = Some(now);
        change.tell(now, Status::Ringing, Details::default());
    }
    if answered && change.delivery.answered_at.is_none() {
        change.delivery.answered_at = Some(now);
        change.tell(
            now,
            Status::Answered,
            Details {
                answered_by: answered_by.clone(),
                ..Details::default()
            },
        );
    }
    let Some((status, reason)) = ending(&change.delivery, call) else {
        return;
    };
    let details = Details {
        reason,
        answered_by,
        call_duration_s: call.duration_s,
        sip_code: call.sip_code,
        price: call.price.clone(),
        ..Details::default()
    };
    if call.status == CallStatus::Completed && call.price.is_none() {
        change.unpriced.clone_from(&change.delivery.call_sid);
    }
    match again(&change.delivery, call, status, policy, now) {
        Some(after) => {
            // A price stands on an ending, or comes as an event of its own.
            if details.price.is_some() {
                change.unpriced.clone_from(&change.delivery.call_sid);
            }
            change.redial(
                now,
                after,
                status,
                Details {
                    price: None,
                    ..details
                },
            );
        }
        None => change.tell(now, status, details),
    }
}

/// After how long another call is placed in the place of one that reached nobody: if the tenant wants it, it may do better, and the
/// code lives for it.
fn again(
    delivery: &Delivery,
    call: &Call,
    status: Status,
    policy: &Policy,
    now: Timestamp,
) -> Option<Duration> {
    let after = policy.redial.after(status, delivery.redials)?;
    let hopeless = status == Status::Failed
        && (no_such_number(call) || call.trouble.as_ref().is_some_and(Trouble::is_for_good));
    (delivery.withdrawn.is_none()
        && !delivery.verified
        && !hopeless
        && now + after <= delivery.place_by)
        .then_some(after)
}

impl Trouble {
    fn is_for_good(&self) -> bool {
        matches!(self.class, Class::Permanent(_))
    }

    fn reason(&self) -> Reason {
        let code = match self.class {
            Class::Permanent(Fault::Credentials | Fault::Tenant) => ReasonCode::TenantConfiguration,
            Class::Permanent(Fault::Destination) => ReasonCode::DestinationInvalid,
            Class::Permanent(Fault::Blocked) => ReasonCode::DestinationBlocked,
            Class::Permanent(Fault::Ours) => ReasonCode::RequestRefused,
            Class::Transient | Class::Throttled(_) | Class::Congested | Class::Ambiguous => {
                ReasonCode::CarrierFailed
            }
        };
        Reason {
            provider_code: Some(self.code),
            ..Reason::new(code, self.tenant)
        }
    }
}

fn no_such_number(call: &Call) -> bool {
    matches!(call.sip_code, Some(404 | 484 | 604))
}

/// The final status of a call that is over.
fn ending(delivery: &Delivery, call: &Call) -> Option<(Status, Option<Reason>)> {
    let because = |code, message: &str| Some(Reason::new(code, message));
    Some(match call.status {
        CallStatus::Queued
        | CallStatus::Initiated
        | CallStatus::Ringing
        | CallStatus::InProgress => return None,
        CallStatus::Completed => completed(delivery, call),
        CallStatus::Busy => (Status::Busy, because(ReasonCode::Busy, "the line was busy")),
        CallStatus::NoAnswer => (
            Status::NoAnswer,
            because(
                ReasonCode::NoAnswer,
                "nobody answered, or the call was declined",
            ),
        ),
        CallStatus::Failed => {
            let why = if no_such_number(call) {
                "the carrier knows no such number, or can't reach it"
            } else {
                "the carrier could not complete the call"
            };
            let told = call.trouble.as_ref().map(Trouble::reason);
            (
                Status::Failed,
                told.or_else(|| because(ReasonCode::CarrierFailed, why)),
            )
        }
        CallStatus::Canceled => match delivery.withdrawn {
            Some(why) => {
                let (status, reason) = withdrawal(why);
                (status, Some(reason))
            }
            None => (
                Status::Cancelled,
                because(
                    ReasonCode::CanceledAtProvider,
                    "the call was cancelled at Twilio",
                ),
            ),
        },
    })
}

/// What became of a call that was answered, and is over.
fn completed(delivery: &Delivery, call: &Call) -> (Status, Option<Reason>) {
    let because = |status, code, message: &str| (status, Some(Reason::new(code, message)));
    // Twilio counts whole seconds; the part of one that it leaves out is the callee's.
    let heard =
        Duration::from_secs(u64::from(call.duration_s.unwrap_or(0)) + 1) > delivery.heard_after;
    let machine = delivery.answered_by.as_deref().is_some_and(is_machine);
    let kept = "a machine answered, and the tenant's policy keeps codes from machines";
    match (delivery.voicemail, delivery.said) {
        (_, Some(Said::Nothing)) => match delivery.withdrawn {
            Some(why) => {
                let (status, reason) = withdrawal(why);
                (status, Some(reason))
            }
            None if machine => because(Status::Voicemail, ReasonCode::Voicemail, kept),
            None => because(
                Status::Expired,
                ReasonCode::ExpiredWaiting,
                "the code expired before it could be read to who answered",
            ),
        },
        (Voicemail::PressKey, Some(Said::Code)) => (Status::Delivered, None),
        (Voicemail::PressKey, Some(Said::Question)) => because(
            Status::HungUp,
            ReasonCode::NoKey,
            "nobody pressed the key that the code is read for, so it was not read",
        ),
        // It never asked us what to say, though it went on for a while.
        (Voicemail::PressKey, None)
            if call.trouble.is_none()
                && call.duration_s.is_some_and(|seconds| seconds > AT_ONCE_S) =>
        {
            because(Status::Failed, ReasonCode::RequestRefused, UNASKED)
        }
        (Voicemail::HangUp, None) if machine => {
            because(Status::Voicemail, ReasonCode::Voicemail, kept)
        }
        (Voicemail::HangUp | Voicemail::WaitForBeep, Some(Said::Code)) | (Voicemail::Speak, _)
            if heard =>
        {
            (Status::Delivered, None)
        }
        (_, _) => match &call.trouble {
            Some(trouble) => (Status::Failed, Some(trouble.reason())),
            None => because(
                Status::HungUp,
                ReasonCode::HungUp,
                "the call ended before the code had been read once",
            ),
        },
    }
}

/// Who hangs up as soon as this, in seconds, does so before Twilio can ask what to say.
const AT_ONCE_S: u32 = 2;
const UNASKED: &str = "Twilio could not ask what to say: the workers' public URL, its proxy or its certificate needs the operator's \
                       attention";

/// Whether Twilio's word for who answered means that it was no person.
pub fn is_machine(answered_by: &str) -> bool {
    answered_by.starts_with("machine") || answered_by == "fax"
}

/// When to ask Twilio about a call that has gone quiet: later each time, and at once when it must be cancelled.
pub fn quiet_until(
    delivery: &Delivery,
    call: &Call,
    tuning: &Tuning,
    callbacks: bool,
    now: Timestamp,
) -> Timestamp {
    let first = if callbacks {
        tuning.quiet_with_callbacks
    } else {
        tuning.quiet_without_callbacks
    };
    let grown = first.mul_f64(1.5_f64.powi(delivery.tries.min(20).cast_signed()));
    let mut at = together_after(delivery, now + grown.min(tuning.quiet_longest));
    if waits_too_long(delivery, call, tuning, now) {
        at = now;
    } else if call.status == CallStatus::Queued {
        // What Twilio still holds then would ring too late: look then, and cancel it.
        at = at.min(queued_until(delivery, tuning).max(now));
    }
    at
}

/// The next of the account's moments, one a second: so that its calls come up together and are asked for at once, and those of other
/// accounts at other moments.
pub fn together_after(delivery: &Delivery, at: Timestamp) -> Timestamp {
    let mut hasher = DefaultHasher::new();
    delivery
        .account_sid
        .as_ref()
        .map(AccountSid::as_str)
        .hash(&mut hasher);
    let phase = i64::try_from(hasher.finish() % SECOND_US.unsigned_abs()).unwrap_or(0);
    let past = (at.timestamp_micros() - phase).rem_euclid(SECOND_US);
    at + Duration::from_micros(if past == 0 {
        0
    } else {
        (SECOND_US - past).unsigned_abs()
    })
}

const SECOND_US: i64 = 1_000_000;

/// Whether Twilio holds a call for too long, or says that it will: it must be cancelled.
pub fn waits_too_long(delivery: &Delivery, call: &Call, tuning: &Tuning, now: Timestamp) -> bool {
    let until = queued_until(delivery, tuning);
    let announced = |wait| delivery.placed_at.unwrap_or(now) + wait > until;
    call.status == CallStatus::Queued && (now >= until || call.queue_time.is_some_and(announced))
}

/// How long Twilio may hold a call before it dials: until the latest POST time. Every call is queued for a moment, so
/// one placed only just in time gets that moment too.
fn queued_until(delivery: &Delivery, tuning: &Tuning) -> Timestamp {
    delivery.placed_at.map_or(delivery.place_by, |placed| {
        delivery.place_by.max(placed + tuning.queue_moment)
    })
}
