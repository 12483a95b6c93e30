//! A delivery: what we owe for one request, and every change that can happen to it.
//!
//! A change is computed here as a new value; the ledger saves it on condition that the delivery still has the
//! `revision` it was computed from. So nobody's late write counts, and a change that lost the race is computed again
//! on the newer value.

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;
use voice_otp_schemas::envelope::Trace;
use voice_otp_schemas::reason::{Reason, ReasonCode};
use voice_otp_schemas::request::rfc3339;
use voice_otp_schemas::status::{Status, StatusData, Timings};
use voice_otp_schemas::{
    Context, DeliveryId, Extension, Locale, OtpCode, PhoneNumber, TenantId, Timestamp,
};

use crate::account::{AccountSid, CallSid};
use crate::event::Event;
use crate::policy::Voicemail;

/// Which delivery: the idempotency key.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// The tenant.
    pub tenant_id: TenantId,
    /// The tenant's name for it.
    pub delivery_id: DeliveryId,
}

/// One placement of a call. Unguessable: it travels in the URL that Twilio reports to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AttemptId(pub Uuid);

/// One life of a worker. Counts up, never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkerEpoch(pub i64);

/// Names the line of a placement, from one account and number to another, as the ledger does.
#[derive(Clone, PartialEq, Eq)]
pub struct Line(pub Vec<u8>);

/// The secret part of a delivery. The ledger stores it sealed, and drops it with the final status.
#[derive(Debug, Clone)]
pub struct Order {
    /// Whom to call.
    pub to: PhoneNumber,
    /// What to read.
    pub code: OtpCode,
    /// What to dial after the answer.
    pub extension: Option<Extension>,
}

/// Where a delivery stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// For its slot, a retry, or the end of a pause. No POST is under way.
    Waiting,
    /// A POST is about to go, or gone, and its outcome not saved yet.
    Placing,
    /// A POST went and its outcome is unknown: Twilio must be asked before anything else.
    Unsettled,
    /// Twilio has the call.
    Calling,
    /// The final status is said.
    Final,
}

/// A moment reserved in an account's pace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    /// When.
    pub at: Timestamp,
    /// The pacing row's epoch it was reserved under; of another epoch it is void.
    pub epoch: i64,
}

/// A delivery as the ledger has it.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// Which.
    pub key: Key,
    /// Counts the saves.
    pub revision: i64,
    /// Where it stands.
    pub state: State,
    /// When something is to be done about it next.
    pub wake_at: Timestamp,
    /// The secret part; none once final.
    pub order: Option<Arc<Order>>,
    /// The number, masked.
    pub to_masked: Option<String>,
    /// The language asked for.
    pub locale: Option<Locale>,
    /// Echoed in every status.
    pub context: Context,
    /// The request's trace.
    pub trace: Trace,
    /// The Twilio account it goes through.
    pub account_sid: Option<AccountSid>,
    /// Whose pace counts.
    pub pace_key: Option<String>,
    /// The request's `time`.
    pub requested_at: Option<Timestamp>,
    /// When it became durable.
    pub admitted_at: Timestamp,
    /// When the code is worth nothing any more.
    pub expires_at: Timestamp,
    /// The latest a POST may go.
    pub place_by: Timestamp,
    /// Its slot, while it has one.
    pub slot: Option<Slot>,
    /// When the last status said that it is due.
    pub announced_at: Option<Timestamp>,
    /// How many placements it has spent, the current one included.
    pub attempt: u32,
    /// The current placement.
    pub attempt_id: Option<AttemptId>,
    /// When the current placement was intended.
    pub intent_at: Option<Timestamp>,
    /// Names the line of a placement under way or unsettled, as the ledger does.
    pub line: Option<Line>,
    /// When an absence at Twilio counts, while unsettled.
    pub settle_after: Option<Timestamp>,
    /// Twilio's SID of the current call.
    pub call_sid: Option<CallSid>,
    /// How long a call must have lasted for the code to have been read once.
    pub heard_after: Duration,
    /// When Twilio took the call.
    pub placed_at: Option<Timestamp>,
    /// When it rang.
    pub ringing_at: Option<Timestamp>,
    /// When it was answered.
    pub answered_at: Option<Timestamp>,
    /// Why it is being taken back, once it is.
    pub withdrawn: Option<ReasonCode>,
    /// What the current call does about answering machines.
    pub voicemail: Voicemail,
    /// What the current call was told, where it asked.
    pub said: Option<Said>,
    /// Who answered it, as Twilio tells it.
    pub answered_by: Option<String>,
    /// How many calls were placed again after one that reached nobody.
    pub redials: u32,
    /// Whether the code is known to have been entered.
    pub verified: bool,
    /// How often in a row it was tried, or its call polled, without getting further.
    pub tries: u32,
    /// The sequence of its last status.
    pub sequence: u32,
    /// The final status.
    pub ended: Option<Status>,
}

/// What a call that asked was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Said {
    /// The code.
    Code,
    /// Which key to press for the code.
    Question,
    /// Nothing: it was to be kept from who answered, was taken back, or had expired.
    Nothing,
}

/// A placement that is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retired {
    /// Which.
    pub attempt: AttemptId,
    /// Its call, which is over; none where there is no call that we know of, though a callback for one may still come.
    pub call: Option<CallSid>,
}

/// What a call cost, in Twilio's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Price {
    /// Negative, a decimal fraction.
    pub amount: String,
    /// The currency, ISO 4217.
    pub unit: String,
}

/// A change to save: the new value, and what the world is told.
#[derive(Debug, Clone)]
pub struct Change {
    /// The new value; its `revision` is still the one it was computed from.
    pub delivery: Delivery,
    /// The statuses that go with it, in order.
    pub events: Vec<Event>,
    /// A placement that is over, while the delivery isn't, or has no call.
    pub retired: Option<Retired>,
    /// A call that cost something, and Twilio hasn't said how much.
    pub unpriced: Option<CallSid>,
}

/// What a status says beside itself.
#[derive(Debug, Clone, Default)]
pub struct Details {
    /// Why.
    pub reason: Option<Reason>,
    /// When the call is due.
    pub due_at: Option<Timestamp>,
    /// Who answered.
    pub answered_by: Option<String>,
    /// How long the call was, in seconds.
    pub call_duration_s: Option<u32>,
    /// The carrier's last SIP status.
    pub sip_code: Option<u16>,
    /// What the call cost.
    pub price: Option<Price>,
}

impl Change {
    /// Nothing but the delivery as it stands.
    pub fn of(delivery: &Delivery) -> Self {
        Self {
            delivery: delivery.clone(),
            events: Vec::new(),
            retired: None,
            unpriced: None,
        }
    }

    /// Says a status. A final one ends the delivery and drops its secrets.
    pub fn tell(&mut self, now: Timestamp, status: Status, details: Details) {
        let delivery = &mut self.delivery;
        delivery.sequence += 1;
        if details.due_at.is_some() {
            delivery.announced_at = details.due_at;
        }
        let data = StatusData {
            delivery_id: delivery.key.delivery_id.clone(),
            tenant_id: delivery.key.tenant_id.clone(),
            status,
            is_final: status.is_final(),
            sequence: delivery.sequence,
            attempt: delivery.attempt,
            to_masked: delivery.to_masked.clone(),
            call_sid: delivery
                .call_sid
                .as_ref()
                .map(|sid| sid.as_str().to_owned()),
            due_at: details.due_at.map(rfc3339),
            reason: details.reason,
            timings: delivery.timings(status.is_final().then_some(now)),
            answered_by: details.answered_by,
            call_duration_s: details.call_duration_s,
            sip_code: details.sip_code,
            price: details.price.as_ref().map(|price| price.amount.clone()),
            price_unit: details.price.map(|price| price.unit),
            test: false,
            context: delivery.context.clone(),
        };
        self.events.push(Event::new(now, data, &delivery.trace));
        if status.is_final() {
            delivery.state = State::Final;
            delivery.ended = Some(status);
            delivery.order = None;
            delivery.slot = None;
        }
    }

    /// Says `deferred`, if the delivery is now due more than a second later than last said.
    pub fn defer(&mut self, now: Timestamp, mut reason: Reason) {
        let due_at = self.delivery.wake_at;
        if self.delivery.waits_longer() {
            reason.retry_at = Some(rfc3339(due_at));
            self.tell(
                now,
                Status::Deferred,
                Details {
                    reason: Some(reason),
                    due_at: Some(due_at),
                    ..Details::default()
                },
            );
        }
    }

    /// Ends the delivery.
    pub fn end(&mut self, now: Timestamp, status: Status, reason: Reason) {
        self.tell(
            now,
            status,
            Details {
                reason: Some(reason),
                ..Details::default()
            },
        );
    }

    /// Ends the delivery that could not be placed in time.
    pub fn expire(&mut self, now: Timestamp) {
        let why = "the code was about to expire before a call could be placed; send a new code, or use another channel";
        self.end(
            now,
            Status::Expired,
            Reason::new(ReasonCode::ExpiredWaiting, why),
        );
    }

    /// Ends the delivery that was taken back.
    pub fn end_withdrawn(&mut self, now: Timestamp, why: ReasonCode) {
        let (status, reason) = withdrawal(why);
        self.end(now, status, reason);
    }

    /// Places another call, after this one reached nobody: a placement of its own, with a slot of its own.
    pub fn redial(&mut self, now: Timestamp, after: Duration, ended: Status, details: Details) {
        self.delivery.wake_at = now + after;
        self.delivery.redials += 1;
        let message = match ended {
            Status::Busy => "the line was busy; the call is placed again",
            Status::NoAnswer => "nobody answered; the call is placed again",
            Status::Voicemail => "a machine answered; the call is placed again",
            _ => "the call could not be completed; it is placed again",
        };
        let provider_code = details
            .reason
            .as_ref()
            .and_then(|reason| reason.provider_code);
        let reason = Reason {
            provider_code,
            retry_at: Some(rfc3339(self.delivery.wake_at)),
            ..Reason::new(ReasonCode::Redial, message)
        };
        // While the call is still the delivery's, so that the status names it.
        let due_at = Some(self.delivery.wake_at);
        let told = Details {
            reason: Some(reason),
            due_at,
            ..details
        };
        self.tell(now, Status::Deferred, told);
        let call = self.delivery.call_sid.take();
        self.retire_attempt();
        if let Some(retired) = &mut self.retired {
            retired.call = call;
        }
        let next = &mut self.delivery;
        next.state = State::Waiting;
        next.tries = 0;
        (next.placed_at, next.ringing_at, next.answered_at) = (None, None, None);
        (next.said, next.answered_by) = (None, None);
    }

    /// Gives up the current placement: whatever comes of it later is no longer this delivery's.
    pub fn retire_attempt(&mut self) {
        self.retired = self.delivery.attempt_id.take().map(|attempt| Retired {
            attempt,
            call: None,
        });
        self.delivery.intent_at = None;
        self.delivery.settle_after = None;
        self.delivery.slot = None;
    }
}

impl Delivery {
    /// Whether a placement that was intended now would come too late.
    pub fn too_late(&self, now: Timestamp) -> bool {
        now > self.place_by
    }

    /// Whether it is due more than a second later than last said.
    pub fn waits_longer(&self) -> bool {
        self.wake_at > self.announced_at.unwrap_or(self.admitted_at) + Duration::from_secs(1)
    }

    /// How many placements were spent on the call that is owed now: redials are calls of their own.
    pub fn spent(&self) -> u32 {
        self.attempt.saturating_sub(self.redials)
    }

    /// How long it may ring: the tenant's time-out, or what the code's life leaves.
    pub fn ring_timeout(&self, wanted: Duration, now: Timestamp) -> Duration {
        let left = (self.expires_at - now).to_std().unwrap_or_default();
        wanted.min(left).max(Duration::from_secs(5))
    }

    /// Takes it back: what waits ends at once; what Twilio has, or may have, is only marked, and ends when Twilio says so. A call that
    /// was answered is not hung up and keeps its own ending, but if it still asks what to say it is told nothing, and it isn't placed
    /// again. None when there is nothing to change.
    pub fn withdraw(&self, why: ReasonCode, now: Timestamp) -> Option<Change> {
        if self.state == State::Final || self.withdrawn.is_some() {
            return None;
        }
        let mut change = Change::of(self);
        change.delivery.withdrawn = Some(why);
        if self.state == State::Waiting {
            change.end_withdrawn(now, why);
        }
        Some(change)
    }

    /// It could not be placed in time.
    pub fn expire(&self, now: Timestamp) -> Change {
        let mut change = Change::of(self);
        change.expire(now);
        change
    }

    /// Its placement, begun but never sent, goes back to waiting.
    pub fn unbegin(&self, now: Timestamp) -> Change {
        let mut change = Change::of(self);
        change.retire_attempt();
        change.retired = None;
        change.delivery.attempt = change.delivery.attempt.saturating_sub(1);
        change.delivery.state = State::Waiting;
        change.delivery.wake_at = now;
        change
    }

    /// A POST whose outcome nobody knows: settle first. `absent_from` is when an absence at Twilio counts.
    pub fn unsettle(&self, look_at: Timestamp, absent_from: Timestamp, now: Timestamp) -> Change {
        let mut change = Change::of(self);
        change.delivery.state = State::Unsettled;
        change.delivery.settle_after = Some(absent_from);
        change.delivery.wake_at = absent_from;
        let why = "Twilio did not answer, so it is being asked whether it took the call before another is placed";
        change.defer(now, Reason::new(ReasonCode::Settling, why));
        change.delivery.wake_at = look_at;
        change
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

/// How a delivery ends that was taken back.
pub fn withdrawal(why: ReasonCode) -> (Status, Reason) {
    let (status, message) = match why {
        ReasonCode::ProviderQueue => (
            Status::Expired,
            "Twilio held the call in its queue for too long; it was cancelled",
        ),
        ReasonCode::Superseded => (
            Status::Cancelled,
            "a newer request of the same user took its place",
        ),
        ReasonCode::Verified => (
            Status::Cancelled,
            "the code was entered meanwhile, so nobody is called again",
        ),
        ReasonCode::CancelledByOperator => (Status::Cancelled, "an operator took it back"),
        _ => (Status::Cancelled, "the auth service took it back"),
    };
    (status, Reason::new(why, message))
}

impl Said {
    /// The word the ledger stores.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Code => "code",
            Self::Question => "question",
            Self::Nothing => "nothing",
        }
    }

    /// What a word says.
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Code, Self::Question, Self::Nothing]
            .into_iter()
            .find(|said| said.as_str() == word)
    }
}

impl State {
    /// Every state, in the order of a delivery's life.
    pub const ALL: [Self; 5] = [
        Self::Waiting,
        Self::Placing,
        Self::Unsettled,
        Self::Calling,
        Self::Final,
    ];

    /// The word the ledger stores.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Placing => "placing",
            Self::Unsettled => "unsettled",
            Self::Calling => "calling",
            Self::Final => "final",
        }
    }

    /// The state of a word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }
}

impl std::fmt::Debug for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Line(…)")
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.tenant_id, self.delivery_id)
    }
}
