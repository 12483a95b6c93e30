//! Why a delivery has its status: a closed list of codes, for programs to decide on.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What happened, for programs to decide on. The list is closed: a new code comes with a new
/// version of the event's schema.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum ReasonCode {
    /// A field of the request is missing or invalid; the message names each one.
    InvalidRequest,
    /// `sealed_code` isn't supported yet: send `code`.
    SealedCodeUnsupported,
    /// There is no such tenant.
    UnknownTenant,
    /// The tenant's voicemail policy needs workers that Twilio can reach, and this worker has no
    /// public URL.
    VoiceNotConfigured,
    /// Voice is disabled for the tenant.
    VoiceDisabled,
    /// The tenant doesn't allow calls to the number's country.
    DestinationNotAllowed,
    /// The code had expired, or was about to expire, when the request arrived.
    ExpiredOnArrival,
    /// The account's rate has no free slot before the code expires; see `estimated_wait_ms`.
    AccountBacklog,
    /// The code was about to expire while the delivery waited or was being retried.
    ExpiredWaiting,
    /// Twilio kept the call in its own queue for too long; the worker cancelled it.
    ProviderQueue,
    /// The delivery waits for its slot under the account's rate limit.
    Pace,
    /// The attempt failed on the way to Twilio and will be retried.
    Retry,
    /// Twilio asked to slow down, or the account is at its concurrency limit.
    Throttled,
    /// The last call did not reach the callee; another one follows, by the tenant's redial policy.
    Redial,
    /// An operator has paused the tenant or the account.
    Paused,
    /// Another attempt from the same number to the same number is in flight, or an earlier call to
    /// the same user has not completed.
    LineBusy,
    /// The outcome of an attempt is unknown; the worker is checking Twilio's call list.
    Settling,
    /// A `cancelled` event cancelled the delivery.
    CancelledByRequest,
    /// A newer request of the same user superseded this one.
    Superseded,
    /// The code was entered before another call was placed.
    Verified,
    /// An operator cancelled the delivery. Not published yet.
    CancelledByOperator,
    /// Twilio rejects the tenant's credentials: SID, auth token or API key.
    TenantCredentials,
    /// The tenant's Twilio account or settings prevent calls; the message says what to change.
    TenantConfiguration,
    /// The number doesn't exist or can't be reached.
    DestinationInvalid,
    /// Twilio or the account's geographic permissions block calls to the number.
    DestinationBlocked,
    /// Twilio rejected the worker's API request: an internal error of voice-otp.
    RequestRefused,
    /// Twilio kept failing until the code expired or the attempts were used up.
    ProviderTrouble,
    /// The outcome of an attempt could not be determined, so no other call was placed.
    OutcomeUnknown,
    /// The carrier could not complete the call.
    CarrierFailed,
    /// The line was busy.
    Busy,
    /// The call was not answered, or was declined.
    NoAnswer,
    /// The call ended before the first complete reading of the code.
    HungUp,
    /// The confirmation key was not pressed: the callee declined, or a machine answered.
    NoKey,
    /// A machine answered, and the tenant's policy keeps codes from machines.
    Voicemail,
    /// The call was cancelled from Twilio's side, not by voice-otp.
    CanceledAtProvider,
}

/// The responsible party: who can change what happened.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum ReasonClass {
    /// The publisher: the auth service must send a different request.
    Request,
    /// The tenant: its settings or its Twilio account.
    Tenant,
    /// The destination: the number called, or the callee.
    Destination,
    /// The provider: Twilio or a carrier.
    Provider,
    /// Time: the code's expiry, the account's rate limit, or a pause.
    Schedule,
    /// The request was cancelled or superseded.
    Cancelled,
    /// voice-otp: an internal error.
    Internal,
}

impl ReasonCode {
    /// Every code, in declaration order.
    pub const ALL: [Self; 35] = [
        Self::InvalidRequest,
        Self::SealedCodeUnsupported,
        Self::UnknownTenant,
        Self::VoiceNotConfigured,
        Self::VoiceDisabled,
        Self::DestinationNotAllowed,
        Self::ExpiredOnArrival,
        Self::AccountBacklog,
        Self::ExpiredWaiting,
        Self::ProviderQueue,
        Self::Pace,
        Self::Retry,
        Self::Throttled,
        Self::Redial,
        Self::Paused,
        Self::LineBusy,
        Self::Settling,
        Self::CancelledByRequest,
        Self::Superseded,
        Self::Verified,
        Self::CancelledByOperator,
        Self::TenantCredentials,
        Self::TenantConfiguration,
        Self::DestinationInvalid,
        Self::DestinationBlocked,
        Self::RequestRefused,
        Self::ProviderTrouble,
        Self::OutcomeUnknown,
        Self::CarrierFailed,
        Self::Busy,
        Self::NoAnswer,
        Self::HungUp,
        Self::NoKey,
        Self::Voicemail,
        Self::CanceledAtProvider,
    ];

    /// The code as events and the database spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::SealedCodeUnsupported => "sealed_code_unsupported",
            Self::UnknownTenant => "unknown_tenant",
            Self::VoiceNotConfigured => "voice_not_configured",
            Self::VoiceDisabled => "voice_disabled",
            Self::DestinationNotAllowed => "destination_not_allowed",
            Self::ExpiredOnArrival => "expired_on_arrival",
            Self::AccountBacklog => "account_backlog",
            Self::ExpiredWaiting => "expired_waiting",
            Self::ProviderQueue => "provider_queue",
            Self::Pace => "pace",
            Self::Retry => "retry",
            Self::Throttled => "throttled",
            Self::Redial => "redial",
            Self::Paused => "paused",
            Self::LineBusy => "line_busy",
            Self::Settling => "settling",
            Self::CancelledByRequest => "cancelled_by_request",
            Self::Superseded => "superseded",
            Self::Verified => "verified",
            Self::CancelledByOperator => "cancelled_by_operator",
            Self::TenantCredentials => "tenant_credentials",
            Self::TenantConfiguration => "tenant_configuration",
            Self::DestinationInvalid => "destination_invalid",
            Self::DestinationBlocked => "destination_blocked",
            Self::RequestRefused => "request_refused",
            Self::ProviderTrouble => "provider_trouble",
            Self::OutcomeUnknown => "outcome_unknown",
            Self::CarrierFailed => "carrier_failed",
            Self::Busy => "busy",
            Self::NoAnswer => "no_answer",
            Self::HungUp => "hung_up",
            Self::NoKey => "no_key",
            Self::Voicemail => "voicemail",
            Self::CanceledAtProvider => "canceled_at_provider",
        }
    }

    /// The code with this spelling: the inverse of [`as_str`](Self::as_str).
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.as_str() == text)
    }

    /// The responsible party. Two events with one code never disagree, since this table is the only
    /// source of a class.
    pub fn class(self) -> ReasonClass {
        match self {
            Self::InvalidRequest | Self::SealedCodeUnsupported => ReasonClass::Request,
            Self::UnknownTenant
            | Self::VoiceNotConfigured
            | Self::VoiceDisabled
            | Self::DestinationNotAllowed
            | Self::TenantCredentials
            | Self::TenantConfiguration => ReasonClass::Tenant,
            Self::DestinationInvalid
            | Self::DestinationBlocked
            | Self::Busy
            | Self::NoAnswer
            | Self::HungUp
            | Self::NoKey
            | Self::Voicemail => ReasonClass::Destination,
            Self::ProviderQueue
            | Self::Retry
            | Self::Throttled
            | Self::ProviderTrouble
            | Self::OutcomeUnknown
            | Self::Settling
            | Self::CarrierFailed
            | Self::CanceledAtProvider => ReasonClass::Provider,
            Self::ExpiredOnArrival
            | Self::AccountBacklog
            | Self::ExpiredWaiting
            | Self::Pace
            | Self::Redial
            | Self::Paused
            | Self::LineBusy => ReasonClass::Schedule,
            Self::CancelledByRequest
            | Self::Superseded
            | Self::Verified
            | Self::CancelledByOperator => ReasonClass::Cancelled,
            Self::RequestRefused => ReasonClass::Internal,
        }
    }
}

impl std::fmt::Display for ReasonCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// The reason of a status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Reason {
    /// What happened, for programs.
    pub code: ReasonCode,
    /// The responsible party, for people who triage. Fixed by the code.
    pub class: ReasonClass,
    /// Twilio's error code, if Twilio reported one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub provider_code: Option<u32>,
    /// A sentence in English for people. It never contains a code, a number or a secret.
    pub message: String,
    /// When the next attempt is planned, RFC 3339. Present on `deferred`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub retry_at: Option<String>,
    /// How long the call would have had to wait for a slot, in milliseconds. Present on
    /// `account_backlog`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub estimated_wait_ms: Option<i64>,
}

impl Reason {
    /// A reason with the class of its code, a message, and no optional field.
    pub fn new(code: ReasonCode, message: impl Into<String>) -> Self {
        Self {
            code,
            class: code.class(),
            provider_code: None,
            message: message.into(),
            retry_at: None,
            estimated_wait_ms: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_its_serde_name_as_text() {
        for code in ReasonCode::ALL {
            assert_eq!(serde_json::to_value(code).unwrap(), code.as_str());
            assert_eq!(ReasonCode::parse(code.as_str()), Some(code));
        }
        assert_eq!(ReasonCode::parse("no_such_code"), None);
    }

    #[test]
    fn the_list_of_all_codes_is_complete() {
        let schema = schemars::schema_for!(ReasonCode).to_value();
        let variants = schema["oneOf"].as_array().unwrap().iter();
        let declared: Vec<_> = variants.map(|variant| &variant["const"]).collect();
        assert_eq!(declared, ReasonCode::ALL.map(ReasonCode::as_str).to_vec());
    }
}
