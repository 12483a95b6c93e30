//! A delivery: what we owe for one request.
//!
//! Every change is computed as a new value ([`Change`]). The ledger saves it only if the delivery
//! still has the `revision` that the change was computed from, so a late write of a former owner is
//! refused, and a change that lost the race is computed again on the newer value.

mod attempt_id;
mod change;
mod state;

use std::sync::Arc;
use std::time::Duration;

use voice_otp_schemas::envelope::Trace;
use voice_otp_schemas::request::rfc3339;
use voice_otp_schemas::status::{Status, StatusData, Timings};
use voice_otp_schemas::{Context, DeliveryKey, Extension, Locale, OtpCode, PhoneNumber, Timestamp};

use crate::account::{AccountSid, CallSid};
use crate::settings::policy::Voicemail;

pub use attempt_id::{AttemptId, Origin};
pub use change::{Change, EndedAttempt, StatusDetails};
pub use state::{CancelCause, Played, State};

/// A keyed hash of account, From and To. The ledger allows one attempt at a time for each, so that
/// two calls in Twilio's call list can't be mistaken for each other. Only the ledger computes it.
#[derive(Clone, PartialEq, Eq)]
pub struct Line(pub Vec<u8>);

/// The secret part of a delivery. The ledger stores it sealed and drops it with the final status.
#[derive(Debug, Clone)]
pub struct Secrets {
    /// The number to call.
    pub to: PhoneNumber,
    /// The code to read.
    pub code: OtpCode,
    /// Digits to dial once the call is answered.
    pub extension: Option<Extension>,
}

/// A moment reserved under an account's rate limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    /// When the POST may be sent.
    pub at: Timestamp,
    /// The epoch of the account's pacing row when the slot was reserved. A slot of another epoch is
    /// void: the rate, a pause or the circuit changed since.
    pub epoch: i64,
}

/// A delivery, as the ledger stores it.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// The idempotency key. Set at admission.
    pub key: DeliveryKey,
    /// The number of saves, counted by the ledger. A save names the revision that it was computed
    /// from, and is refused if another one came first.
    pub revision: i64,
    /// The state. Each change sets it; [`State`] says what it means.
    pub state: State,
    /// When the delivery needs attention next: its slot, a retry, a poll, or its deadline. Set by
    /// every change, and by the ledger when it moves slots.
    pub wake_at: Timestamp,
    /// The number, the code and the extension. Set at admission, `None` once final.
    pub secrets: Option<Arc<Secrets>>,
    /// The number as statuses show it. Set at admission, kept after the end.
    pub to_masked: Option<String>,
    /// The language that the request asks for.
    pub locale: Option<Locale>,
    /// The request's context, copied into every status.
    pub context: Context,
    /// The request's trace context, published with every status.
    pub trace: Trace,
    /// The Twilio account. Set at admission, and again by each attempt, from the tenant's settings
    /// at that moment.
    pub account_sid: Option<AccountSid>,
    /// The key of the rate limit that applies. Set together with `account_sid`.
    pub pace_key: Option<String>,
    /// The request's `time`; `None` if it has none.
    pub requested_at: Option<Timestamp>,
    /// When the ledger committed the row.
    pub admitted_at: Timestamp,
    /// When the code expires.
    pub expires_at: Timestamp,
    /// The latest moment at which a POST may be sent: `expires_at` less the latest-start margin.
    pub place_by: Timestamp,
    /// The reserved slot. Set at admission, at the start of an attempt, and by the ledger when it
    /// moves slots; `None` while there is none (paused, retrying, final).
    pub slot: Option<Slot>,
    /// The due time that the last `accepted` or `deferred` status published.
    pub announced_at: Option<Timestamp>,
    /// The number of attempts, the current one included. Raised with the intent, lowered again if
    /// nothing was sent.
    pub attempt: u32,
    /// The current attempt. Set with the intent, cleared when the attempt ends and the delivery
    /// continues.
    pub attempt_id: Option<AttemptId>,
    /// When the intent of the current attempt was stored. Settling compares calls with it.
    pub intent_at: Option<Timestamp>,
    /// The line of the current attempt while it is being placed or settled. Only the ledger sets
    /// it.
    pub line: Option<Line>,
    /// While unsettled: when the absence of a call at Twilio becomes conclusive. Later: when it was
    /// concluded. Set when an outcome becomes unknown.
    pub settle_after: Option<Timestamp>,
    /// Twilio's SID of the current call. Set when the call becomes known, cleared by a redial.
    pub call_sid: Option<CallSid>,
    /// How long a call must have lasted for the code to have been read once. Set at admission, and
    /// again when a call requests its instructions.
    pub heard_after: Duration,
    /// When Twilio accepted the current call.
    pub placed_at: Option<Timestamp>,
    /// When the current call was first reported as ringing.
    pub ringing_at: Option<Timestamp>,
    /// When the current call was first reported as answered.
    pub answered_at: Option<Timestamp>,
    /// Why the delivery is being cancelled. Set once, by a cancellation; the call may still go on.
    pub cancel_reason: Option<CancelCause>,
    /// What the current call does when a machine answers. Set when the call becomes known.
    pub voicemail: Voicemail,
    /// What was played to the current call, where it requested its instructions.
    pub played: Option<Played>,
    /// Who answered the current call, in Twilio's word (`human`, `machine_start`, …).
    pub answered_by: Option<String>,
    /// The number of redials: calls placed again after one that reached no one.
    pub redials: u32,
    /// Whether the publisher reported that the code was entered. Only the ledger sets it.
    pub verified: bool,
    /// The number of retries, or polls of the current call, since the last progress. Reset by it.
    pub tries: u32,
    /// The sequence number of the last status, from 1.
    pub sequence: u32,
    /// The final status. Set once, together with [`State::Final`].
    pub final_status: Option<Status>,
}

impl Delivery {
    /// Whether the latest moment for a POST has passed.
    pub fn is_too_late(&self, now: Timestamp) -> bool {
        now > self.place_by
    }

    /// Whether the delivery is due more than a second later than last published.
    pub fn is_later_than_announced(&self) -> bool {
        let announced = self.announced_at.unwrap_or(self.admitted_at);
        self.wake_at > announced + Duration::from_secs(1)
    }

    /// How many attempts were spent on the call that is owed now: redials are calls of their own.
    pub fn attempts_spent(&self) -> u32 {
        self.attempt.saturating_sub(self.redials)
    }

    /// How long the phone may ring: the tenant's setting, cut to what is left until expiry, and at
    /// least 5 s (Twilio's minimum that still rings).
    pub fn ring_timeout(&self, wanted: Duration, now: Timestamp) -> Duration {
        let left = (self.expires_at - now).to_std().unwrap_or_default();
        wanted.min(left).max(Duration::from_secs(5))
    }

    /// The data of the delivery's next status. `sequence` has been raised for it already.
    fn status_data(&self, now: Timestamp, status: Status, details: StatusDetails) -> StatusData {
        StatusData {
            delivery_id: self.key.delivery_id.clone(),
            tenant_id: self.key.tenant_id.clone(),
            status,
            is_final: status.is_final(),
            sequence: self.sequence,
            attempt: self.attempt,
            to_masked: self.to_masked.clone(),
            call_sid: self.call_sid.as_ref().map(|sid| sid.as_str().to_owned()),
            due_at: details.due_at.map(rfc3339),
            reason: details.reason,
            timings: self.timings(status.is_final().then_some(now)),
            answered_by: details.answered_by,
            call_duration_s: details.call_duration_s,
            sip_code: details.sip_code,
            price: details.price.as_ref().map(|price| price.amount.clone()),
            price_unit: details.price.map(|price| price.unit),
            test: false,
            context: self.context.clone(),
        }
    }

    fn timings(&self, ended: Option<Timestamp>) -> Timings {
        let start = self.requested_at.unwrap_or(self.admitted_at);
        let since = |time: Timestamp| (time - start).num_milliseconds();
        Timings {
            admitted_ms: Some(since(self.admitted_at)),
            due_ms: self.announced_at.map(since),
            placed_ms: self.placed_at.map(since),
            ringing_ms: self.ringing_at.map(since),
            answered_ms: self.answered_at.map(since),
            ended_ms: ended.map(since),
        }
    }
}

impl std::fmt::Debug for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Line(…)")
    }
}
