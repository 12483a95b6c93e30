//! What admission should do with a request: everything that can be said without the ledger.

use std::sync::Arc;
use std::time::Duration;

use voice_otp_schemas::envelope::Trace;
use voice_otp_schemas::reason::{Reason, ReasonCode};
use voice_otp_schemas::request::{Identity, Incoming, Invalid, Requested};
use voice_otp_schemas::status::{Status, StatusData, Timings};
use voice_otp_schemas::{Context, Locale, PhoneNumber, Timestamp, UserRef};

use crate::account::AccountSid;
use crate::delivery::{AttemptId, Key, Order, withdrawal};
use crate::event::{DUE_AT, Event, WAIT_MS};
use crate::settings::VoiceSettings;
use crate::speech::Speaker;
use crate::tuning::Tuning;

/// A request on its way into the ledger. Whatever the plan: it becomes a row, so that a repeat is known as one.
#[derive(Debug, Clone)]
pub struct Admission {
    /// The idempotency key.
    pub key: Key,
    /// What a repeat is compared by.
    pub identity: Identity,
    /// The event's `time`.
    pub requested_at: Option<Timestamp>,
    /// When the code is worth nothing any more; for a request that can't be read so far, when it came.
    pub expires_at: Timestamp,
    /// The number, masked.
    pub to_masked: Option<String>,
    /// Echoed in every status.
    pub context: Context,
    /// The request's trace.
    pub trace: Trace,
    /// Who it is for.
    pub user_ref: Option<UserRef>,
    /// Which settings the plan was made from. The ledger refuses a plan made from others than its own.
    pub basis: Basis,
    /// What to do.
    pub plan: Plan,
}

/// Which settings a plan was made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Basis {
    /// None were asked for: the request can't be followed whatever they are.
    Nothing,
    /// There were none.
    NoSettings,
    /// This version of them.
    Version(i64),
}

/// What to do with a request.
#[derive(Debug, Clone)]
pub enum Plan {
    /// Place a call.
    Place(Box<Placement>),
    /// Say these statuses, the last of them final.
    End(Vec<Event>),
}

/// A call to be placed.
#[derive(Debug, Clone)]
pub struct Placement {
    /// The secret part.
    pub order: Arc<Order>,
    /// The language asked for.
    pub locale: Option<Locale>,
    /// The Twilio account.
    pub account_sid: AccountSid,
    /// The calling number.
    pub from: PhoneNumber,
    /// Whose pace counts.
    pub pace_key: String,
    /// The latest a POST may go.
    pub place_by: Timestamp,
    /// How long a call must last for the code to have been read once.
    pub heard_after: Duration,
    /// The attempt, if the placement may begin at once: there is room for it.
    pub attempt_id: Option<AttemptId>,
    /// The status `deferred`, if the tenant or the account is paused: the delivery waits without a slot.
    pub parked: Option<Event>,
    /// The status `accepted`, with a mark for the slot.
    pub accepted: Event,
    /// The status `expired` for an account whose pace has no slot in time, with marks for the slot and the wait.
    pub backlog: Event,
}

/// Why a tenant with such a policy can't be served here.
pub(crate) const NO_PUBLIC_URL: &str = "the tenant's voicemail policy needs workers that Twilio can reach: set VOICE_OTP_PUBLIC_URL, \
                                        or the policy to speak";
/// Publishers' clocks may be ahead of the ledger's by this much.
const CLOCK_SKEW: Duration = Duration::from_secs(30);

/// Plans a request. None for an event that isn't a request. `callbacks` is whether Twilio can reach this worker.
pub fn plan(
    incoming: &Incoming,
    settings: Option<&VoiceSettings>,
    callbacks: bool,
    tuning: &Tuning,
    now: Timestamp,
) -> Option<Admission> {
    match incoming {
        Incoming::Requested(request) => Some(requested(request, settings, callbacks, tuning, now)),
        Incoming::Invalid(invalid) => Some(refused(invalid, now)),
        Incoming::Cancelled(_) | Incoming::Verified(_) => None,
    }
}

fn requested(
    request: &Requested,
    settings: Option<&VoiceSettings>,
    callbacks: bool,
    tuning: &Tuning,
    now: Timestamp,
) -> Admission {
    let mut admission = Admission {
        key: Key {
            tenant_id: request.tenant_id.clone(),
            delivery_id: request.delivery_id.clone(),
        },
        identity: request.identity(),
        requested_at: request.time,
        expires_at: request.expires_at,
        to_masked: Some(request.to.masked()),
        context: request.context.clone(),
        trace: request.trace.clone(),
        user_ref: request.user_ref.clone(),
        basis: settings.map_or(Basis::NoSettings, |settings| {
            Basis::Version(settings.version)
        }),
        plan: Plan::End(Vec::new()),
    };
    let place_by = request.expires_at - tuning.lead;
    let end = |status, code, message: &str| {
        Plan::End(vec![admission.event(
            now,
            1,
            status,
            Some(Reason::new(code, message)),
            Extra::None,
        )])
    };
    let rejected = |code, message: &str| end(Status::Rejected, code, message);
    admission.plan = match settings {
        None => rejected(
            ReasonCode::UnknownTenant,
            "there is no such tenant; configure it first: voice-otp tenant set",
        ),
        Some(settings) if !settings.enabled => rejected(
            ReasonCode::VoiceDisabled,
            "voice is switched off for the tenant: voice-otp tenant set --enable",
        ),
        Some(settings) if !settings.offered && !request.context.is_test_call() => rejected(
            ReasonCode::VoiceDisabled,
            "Voice OTP is not among the tenant's methods: tick it in the console, under Authentication, Methods",
        ),
        Some(settings) if settings.voicemail.needs_public_url() && !callbacks => {
            rejected(ReasonCode::VoiceNotConfigured, NO_PUBLIC_URL)
        }
        Some(_) if request.expires_at > now + tuning.longest_life + CLOCK_SKEW => rejected(
            ReasonCode::InvalidRequest,
            "expires_at must be at most one hour ahead",
        ),
        Some(settings) if !allowed(settings, &request.to) => rejected(
            ReasonCode::DestinationNotAllowed,
            "the tenant doesn't allow calls to the number's country: voice-otp tenant set --allow-country",
        ),
        Some(_) if place_by <= now => end(
            Status::Expired,
            ReasonCode::ExpiredOnArrival,
            "the code expires too soon for a call to ring and be heard; send a new code, or use another channel",
        ),
        Some(settings) if settings.refused => end(
            Status::Failed,
            ReasonCode::TenantCredentials,
            "Twilio refuses the tenant's credentials: check them with voice-otp tenant check",
        ),
        Some(settings) if settings.test_mode => Plan::End(vec![
            admission.event(now, 1, Status::Accepted, None, Extra::Test),
            admission.event(now, 2, Status::Delivered, None, Extra::Test),
        ]),
        Some(settings) => Plan::Place(Box::new(
            admission.placement(request, settings, place_by, now),
        )),
    };
    admission
}

fn allowed(settings: &VoiceSettings, to: &PhoneNumber) -> bool {
    to.country()
        .is_some_and(|country| settings.allowed_countries.contains(&country))
}

fn refused(invalid: &Invalid, now: Timestamp) -> Admission {
    let mut admission = Admission {
        key: Key {
            tenant_id: invalid.tenant_id.clone(),
            delivery_id: invalid.delivery_id.clone(),
        },
        identity: invalid.identity.clone(),
        requested_at: invalid.time,
        expires_at: now,
        to_masked: invalid.to.as_ref().map(PhoneNumber::masked),
        context: invalid.context.clone(),
        trace: invalid.trace.clone(),
        user_ref: None,
        basis: Basis::Nothing,
        plan: Plan::End(Vec::new()),
    };
    let mut clauses: Vec<String> = invalid.problems.iter().map(ToString::to_string).collect();
    if invalid.code == ReasonCode::SealedCodeUnsupported {
        clauses.insert(0, "sealed_code is not supported yet: send code".to_owned());
    }
    let reason = Reason::new(invalid.code, clauses.join("; "));
    admission.plan = Plan::End(vec![admission.event(
        now,
        1,
        Status::Rejected,
        Some(reason),
        Extra::None,
    )]);
    admission
}

impl Admission {
    /// Ends the request at once instead of placing a call: it was taken back before it came, or superseded.
    pub fn unwanted(&mut self, why: ReasonCode, now: Timestamp) {
        let (status, reason) = withdrawal(why);
        self.plan = Plan::End(vec![self.event(now, 1, status, Some(reason), Extra::None)]);
    }
}

/// Who speaks for an order: in the request's language, else the tenant's, else the number's country's.
pub fn speaker<'a>(
    order: &Order,
    asked: Option<&Locale>,
    settings: &'a VoiceSettings,
) -> Speaker<'a> {
    Speaker::new(
        asked,
        settings.default_locale.as_ref(),
        order.to.country(),
        &settings.manner,
    )
}

/// What an admission's event says beside the usual.
#[derive(Clone, Copy, PartialEq)]
enum Extra {
    None,
    /// Nothing is called in truth.
    Test,
    /// A mark for the slot.
    Due,
}

impl Admission {
    fn placement(
        &self,
        request: &Requested,
        settings: &VoiceSettings,
        place_by: Timestamp,
        now: Timestamp,
    ) -> Placement {
        let why = "the account's pace has no slot left for the tenant before the code expires; use another channel, or raise the \
                   account's pace";
        let mut reason = Reason::new(ReasonCode::AccountBacklog, why);
        reason.estimated_wait_ms = Some(WAIT_MS);
        let order = Order {
            to: request.to.clone(),
            code: request.code.clone(),
            extension: request.extension.clone(),
        };
        Placement {
            heard_after: speaker(&order, request.locale.as_ref(), settings)
                .heard_after(&order.code),
            order: Arc::new(order),
            locale: request.locale.clone(),
            account_sid: settings.account_sid.clone(),
            from: settings.from.clone(),
            pace_key: settings.pace_key.clone(),
            place_by,
            attempt_id: None,
            parked: settings.paused.map(|paused| {
                self.event(now, 2, Status::Deferred, Some(paused.reason()), Extra::None)
            }),
            accepted: self.event(
                now,
                1,
                Status::Accepted,
                None,
                if settings.paused.is_some() {
                    Extra::None
                } else {
                    Extra::Due
                },
            ),
            backlog: self.event(now, 1, Status::Expired, Some(reason), Extra::None),
        }
    }

    fn event(
        &self,
        now: Timestamp,
        sequence: u32,
        status: Status,
        reason: Option<Reason>,
        extra: Extra,
    ) -> Event {
        let since_request = (now - self.requested_at.unwrap_or(now)).num_milliseconds();
        let data = StatusData {
            delivery_id: self.key.delivery_id.clone(),
            tenant_id: self.key.tenant_id.clone(),
            status,
            is_final: status.is_final(),
            sequence,
            attempt: 0,
            to_masked: self.to_masked.clone(),
            call_sid: None,
            due_at: (extra == Extra::Due).then(|| DUE_AT.to_owned()),
            reason,
            timings: Timings {
                admitted_ms: Some(since_request),
                ended_ms: status.is_final().then_some(since_request),
                ..Timings::default()
            },
            answered_by: None,
            call_duration_s: None,
            sip_code: None,
            price: None,
            price_unit: None,
            test: extra == Extra::Test,
            context: self.context.clone(),
        };
        Event::new(now, data, &self.trace)
    }
}
