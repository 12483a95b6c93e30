//! Admission: what the ledger should do with a request, decided without asking the ledger.
//!
//! [`plan`] checks a request against the tenant's settings and renders the events that admission
//! may publish. The ledger then knows what only it can know: whether the request is a duplicate,
//! and which slot is free.

mod admitted;

use std::sync::Arc;
use std::time::Duration;

use voice_otp_schemas::envelope::Trace;
use voice_otp_schemas::reason::{Reason, ReasonCode};
use voice_otp_schemas::request::{Identity, Incoming, Invalid, Requested};
use voice_otp_schemas::status::{Status, StatusData, Timings};
use voice_otp_schemas::{Context, DeliveryKey, Locale, PhoneNumber, Timestamp, UserRef};

use crate::account::AccountSid;
use crate::delivery::{AttemptId, CancelCause, Secrets};
use crate::event::{DUE_AT_MARK, Event, WAIT_MS_MARK};
use crate::settings::VoiceSettings;
use crate::tuning::Tuning;

pub use admitted::Admitted;

/// A request on its way into the ledger. It becomes a row whatever the plan, so that a duplicate is
/// recognised.
#[derive(Debug, Clone)]
pub struct Admission {
    /// The idempotency key.
    pub key: DeliveryKey,
    /// The content that a duplicate is compared by. The ledger stores a keyed hash of it.
    pub identity: Identity,
    /// The request's `time`; `None` if it has none.
    pub requested_at: Option<Timestamp>,
    /// When the code expires. For a request that can't be read so far, when it arrived.
    pub expires_at: Timestamp,
    /// The number as statuses show it; `None` if the request has no valid one.
    pub to_masked: Option<String>,
    /// The request's context, copied into every status.
    pub context: Context,
    /// The request's trace context, published with every status.
    pub trace: Trace,
    /// The user that the code is for, if the request names one. Of a user's requests, the newest
    /// supersedes the others.
    pub user_ref: Option<UserRef>,
    /// The settings that the plan was made from. The ledger refuses a plan that was made from other
    /// settings than it has.
    pub basis: SettingsBasis,
    /// What to do with the request.
    pub plan: Plan,
}

/// The settings that a plan was made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SettingsBasis {
    /// The plan doesn't depend on settings: the request is invalid.
    NotNeeded,
    /// The tenant had no settings.
    Missing,
    /// The settings with this version.
    Version(i64),
}

/// What to do with a request.
#[derive(Debug, Clone)]
pub enum Plan {
    /// Reserve a slot and place a call.
    Call(Box<PlannedCall>),
    /// Publish these statuses, the last of which is final. At most two.
    Finish(Vec<Event>),
}

/// A call that is to be placed.
#[derive(Debug, Clone)]
pub struct PlannedCall {
    /// The number, the code and the extension.
    pub secrets: Arc<Secrets>,
    /// The language that the request asks for.
    pub locale: Option<Locale>,
    /// The Twilio account.
    pub account_sid: AccountSid,
    /// The From number.
    pub from: PhoneNumber,
    /// The key of the rate limit that applies.
    pub pace_key: String,
    /// The latest moment at which the POST may be sent: `expires_at` less the latest-start margin.
    pub place_by: Timestamp,
    /// How long a call must last for the code to have been read once.
    pub heard_after: Duration,
    /// The id of the first attempt, set by intake if a permit for it is free. The ledger then
    /// starts the attempt in the same statement, if its slot is near. `None`: the delivery waits in
    /// the schedule.
    pub attempt_id: Option<AttemptId>,
    /// The status `deferred`, published second if the tenant or the account is paused. The delivery
    /// then waits without a slot.
    pub deferred: Option<Event>,
    /// The status `accepted`, published if the request is admitted. Unless paused, its `due_at` is
    /// [`DUE_AT_MARK`].
    pub accepted: Event,
    /// The status `expired`, published instead if no slot is free before `place_by`. Its
    /// `estimated_wait_ms` is [`WAIT_MS_MARK`].
    pub expired: Event,
}

/// The message of a tenant whose voicemail policy needs callbacks, at a worker that has none.
pub(crate) const NO_PUBLIC_URL: &str = "Twilio can't reach the workers, which the tenant's \
    voicemail policy requires; the operator must set VOICE_OTP_PUBLIC_URL, or set the policy to \
    speak";

/// The message of a tenant whose credentials Twilio rejects.
pub(crate) const CREDENTIALS_REJECTED: &str = "Twilio rejects the tenant's credentials; check \
    them with voice-otp tenant check, and enter valid ones";

/// How far a publisher's clock may be ahead of the ledger's.
const MAX_CLOCK_SKEW: Duration = Duration::from_secs(30);

/// Plans a request. `None` for an event that isn't a request. `callbacks` says whether Twilio can
/// reach the workers.
pub fn plan(
    incoming: &Incoming,
    settings: Option<&VoiceSettings>,
    callbacks: bool,
    tuning: &Tuning,
    now: Timestamp,
) -> Option<Admission> {
    match incoming {
        Incoming::Requested(request) => {
            Some(plan_request(request, settings, callbacks, tuning, now))
        }
        Incoming::Invalid(invalid) => Some(plan_invalid(invalid, now)),
        Incoming::Cancelled(_) | Incoming::Verified(_) => None,
    }
}

fn plan_request(
    request: &Requested,
    settings: Option<&VoiceSettings>,
    callbacks: bool,
    tuning: &Tuning,
    now: Timestamp,
) -> Admission {
    let mut admission = Admission {
        key: DeliveryKey {
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
        basis: settings.map_or(SettingsBasis::Missing, |settings| {
            SettingsBasis::Version(settings.version)
        }),
        plan: Plan::Finish(Vec::new()),
    };
    let place_by = request.expires_at - tuning.lead;
    let finish =
        |status, code, message: &str| admission.finish(status, Reason::new(code, message), now);
    let reject = |code, message: &str| finish(Status::Rejected, code, message);
    admission.plan = match settings {
        None => reject(
            ReasonCode::UnknownTenant,
            "the tenant is unknown; the operator must configure it with voice-otp tenant set, or \
             the publisher must correct tenant_id",
        ),
        Some(settings) if !settings.enabled => reject(
            ReasonCode::VoiceDisabled,
            "voice is disabled for the tenant; enable it with voice-otp tenant set --enable",
        ),
        Some(settings) if !settings.offered && !request.context.is_test_call() => reject(
            ReasonCode::VoiceDisabled,
            "Voice OTP is not one of the tenant's methods; select it in the console, under \
             Authentication, Methods",
        ),
        Some(settings) if settings.voicemail.needs_public_url() && !callbacks => {
            reject(ReasonCode::VoiceNotConfigured, NO_PUBLIC_URL)
        }
        Some(_) if request.expires_at > now + tuning.longest_life + MAX_CLOCK_SKEW => reject(
            ReasonCode::InvalidRequest,
            "expires_at must be at most one hour ahead",
        ),
        Some(settings) if !is_allowed(settings, &request.to) => reject(
            ReasonCode::DestinationNotAllowed,
            "the tenant doesn't allow calls to the number's country; allow it with voice-otp \
             tenant set --allow-country",
        ),
        Some(_) if place_by <= now => finish(
            Status::Expired,
            ReasonCode::ExpiredOnArrival,
            "the code expires too soon for a call to ring and be heard; send a new code, or use \
             another channel",
        ),
        Some(settings) if settings.credentials_rejected => finish(
            Status::Failed,
            ReasonCode::TenantCredentials,
            CREDENTIALS_REJECTED,
        ),
        Some(settings) if settings.test_mode => Plan::Finish(vec![
            admission.event(now, 1, Status::Accepted, None, EventKind::TestMode),
            admission.event(now, 2, Status::Delivered, None, EventKind::TestMode),
        ]),
        Some(settings) => Plan::Call(Box::new(
            admission.planned_call(request, settings, place_by, now),
        )),
    };
    admission
}

fn is_allowed(settings: &VoiceSettings, to: &PhoneNumber) -> bool {
    to.country()
        .is_some_and(|country| settings.allowed_countries.contains(&country))
}

fn plan_invalid(invalid: &Invalid, now: Timestamp) -> Admission {
    let mut admission = Admission {
        key: DeliveryKey {
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
        basis: SettingsBasis::NotNeeded,
        plan: Plan::Finish(Vec::new()),
    };
    let mut clauses: Vec<String> = invalid.problems.iter().map(ToString::to_string).collect();
    if invalid.code == ReasonCode::SealedCodeUnsupported {
        clauses.insert(0, "sealed_code is not supported yet: send code".to_owned());
    }
    let reason = Reason::new(invalid.code, clauses.join("; "));
    admission.plan = admission.finish(Status::Rejected, reason, now);
    admission
}

impl Admission {
    /// Replaces the plan: no call is placed, because the request was cancelled before it arrived,
    /// or a newer request of the same user superseded it.
    pub fn finish_inadmissible(&mut self, cause: CancelCause, now: Timestamp) {
        let (status, reason) = cause.outcome();
        self.plan = self.finish(status, reason, now);
    }

    fn finish(&self, status: Status, reason: Reason, now: Timestamp) -> Plan {
        Plan::Finish(vec![self.event(
            now,
            1,
            status,
            Some(reason),
            EventKind::Plain,
        )])
    }

    fn planned_call(
        &self,
        request: &Requested,
        settings: &VoiceSettings,
        place_by: Timestamp,
        now: Timestamp,
    ) -> PlannedCall {
        let no_slot = "no free slot before the code expires, under the account's rate limit; use \
                       another channel, or raise the rate limit";
        let mut no_slot = Reason::new(ReasonCode::AccountBacklog, no_slot);
        no_slot.estimated_wait_ms = Some(WAIT_MS_MARK);
        let accepted = match settings.paused {
            Some(_) => EventKind::Plain,
            None => EventKind::DueAtSlot,
        };
        let secrets = Secrets {
            to: request.to.clone(),
            code: request.code.clone(),
            extension: request.extension.clone(),
        };
        let speaker = settings.speaker(&secrets.to, request.locale.as_ref());
        PlannedCall {
            heard_after: speaker.heard_after(&secrets.code),
            secrets: Arc::new(secrets),
            locale: request.locale.clone(),
            account_sid: settings.account_sid.clone(),
            from: settings.from.clone(),
            pace_key: settings.pace_key.clone(),
            place_by,
            attempt_id: None,
            deferred: settings.paused.map(|paused| {
                self.event(
                    now,
                    2,
                    Status::Deferred,
                    Some(paused.reason()),
                    EventKind::Plain,
                )
            }),
            accepted: self.event(now, 1, Status::Accepted, None, accepted),
            expired: self.event(now, 1, Status::Expired, Some(no_slot), EventKind::Plain),
        }
    }

    fn event(
        &self,
        now: Timestamp,
        sequence: u32,
        status: Status,
        reason: Option<Reason>,
        kind: EventKind,
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
            due_at: (kind == EventKind::DueAtSlot).then(|| DUE_AT_MARK.to_owned()),
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
            test: kind == EventKind::TestMode,
            context: self.context.clone(),
        };
        Event::new(now, data, &self.trace)
    }
}

/// What an event of an admission carries besides its status and reason.
#[derive(Clone, Copy, PartialEq)]
enum EventKind {
    /// Nothing else.
    Plain,
    /// `test`: no call is placed.
    TestMode,
    /// `due_at`, as a mark that the ledger replaces with the slot.
    DueAtSlot,
}
