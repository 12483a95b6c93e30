//! Why a status is what it is: a closed list.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What happened, for a program to decide on. Closed: a new code comes with a new version of the event's schema.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum ReasonCode {
    /// A field is missing or wrong; the message names each.
    InvalidRequest,
    /// `sealed_code` isn't supported yet: send `code`.
    SealedCodeUnsupported,
    /// There is no such tenant.
    UnknownTenant,
    /// The tenant has no voice settings yet, or not all of them.
    VoiceNotConfigured,
    /// Voice is switched off for the tenant.
    VoiceDisabled,
    /// The tenant doesn't allow calls to this country.
    DestinationNotAllowed,
    /// The code had expired, or was about to, when the request arrived.
    ExpiredOnArrival,
    /// The code expires before the account's pace lets the call through; see `estimated_wait_ms`.
    AccountBacklog,
    /// The code expired while the delivery waited or was retried.
    ExpiredWaiting,
    /// Twilio held the call in its own queue for too long; it was cancelled.
    ProviderQueue,
    /// It waits for its turn at the account's pace.
    Pace,
    /// It waits to be tried again after the provider's trouble.
    Retry,
    /// The provider asked to slow down.
    Throttled,
    /// It waits to be dialled again after a call that reached nobody.
    Redial,
    /// The tenant or the account is paused.
    Paused,
    /// Another call from the same number to the same number is just being placed.
    LineBusy,
    /// It is not known whether Twilio took the call: Twilio is being asked.
    Settling,
    /// A `cancelled` event took it back.
    CancelledByRequest,
    /// A newer request of the same user took its place.
    Superseded,
    /// The code was entered before another call was placed.
    Verified,
    /// An operator took it back.
    CancelledByOperator,
    /// Twilio refuses the tenant's credentials: SID, auth token or API key.
    TenantCredentials,
    /// Something in the tenant's Twilio account or settings keeps calls from being made; the message says what.
    TenantConfiguration,
    /// The number can't be called: it doesn't exist, or can't be reached.
    DestinationInvalid,
    /// Twilio or the account's geographic permissions block calls to this number.
    DestinationBlocked,
    /// Twilio refused what we sent: our mistake.
    RequestRefused,
    /// Twilio was in trouble until the code expired or the attempts were used up.
    ProviderTrouble,
    /// It could not be found out whether Twilio took the call, so it was not placed again.
    OutcomeUnknown,
    /// The carrier could not complete the call.
    CarrierFailed,
    /// The line was busy.
    Busy,
    /// Nobody answered, or the call was declined.
    NoAnswer,
    /// The callee hung up before the code had been read once.
    HungUp,
    /// Nobody pressed the key that the code is read for: the callee didn't want it, or a machine answered.
    NoKey,
    /// A machine answered, and the tenant's policy keeps codes from machines.
    Voicemail,
    /// The call was ended from Twilio's side or by somebody else.
    CanceledAtProvider,
}

/// Whose matter it is, for a person to look at.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum ReasonClass {
    /// The event's: the auth service must send something else.
    Request,
    /// The tenant's settings or Twilio account.
    Tenant,
    /// The number called, or the person who has it.
    Destination,
    /// Twilio or a carrier.
    Provider,
    /// Time: the code's life, the account's pace, a pause.
    Schedule,
    /// Somebody took the request back.
    Withdrawn,
    /// Ours.
    Internal,
}

impl ReasonCode {
    /// Whose matter it is. One table, so that two events never disagree.
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
            | Self::CancelledByOperator => ReasonClass::Withdrawn,
            Self::RequestRefused => ReasonClass::Internal,
        }
    }
}

/// Why, in a status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Reason {
    /// What happened.
    pub code: ReasonCode,
    /// Whose matter it is.
    pub class: ReasonClass,
    /// Twilio's error code, where Twilio gave one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub provider_code: Option<u32>,
    /// A sentence for a person, in English; never a code, a number or a secret.
    pub message: String,
    /// When it is tried next, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub retry_at: Option<String>,
    /// How long the call would have had to wait, in milliseconds, on `account_backlog`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub estimated_wait_ms: Option<i64>,
}

impl Reason {
    /// A reason with its class and a sentence.
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
