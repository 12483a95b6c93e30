//! The status event: workers publish one for each step of a delivery.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::reason::Reason;
use crate::{Context, DeliveryId, TenantId};

/// The `CloudEvents` `type` of a status event.
pub const STATUS: &str = "dev.voiceotp.delivery.status.v1";

/// The state of a delivery. A delivery has any number of statuses that aren't final, then exactly
/// one that is.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// The request is stored and scheduled.
    Accepted,
    /// The call is rescheduled more than one second later than last published.
    Deferred,
    /// Twilio accepted the call.
    Placed,
    /// The callee's telephone rings.
    Ringing,
    /// A person or a machine answered.
    Answered,
    /// Answered, and the call lasted for one complete reading of the code; or the confirmation key
    /// was pressed, if the tenant asks for one.
    Delivered,
    /// Answered, but the call ended before the first complete reading, or without the confirmation
    /// key.
    HungUp,
    /// A machine answered, and the tenant's policy keeps codes from machines.
    Voicemail,
    /// The line was busy.
    Busy,
    /// The call was not answered, or was declined.
    NoAnswer,
    /// Twilio or the carrier could not complete the call.
    Failed,
    /// The call could not be placed before its deadline.
    Expired,
    /// Cancelled by the publisher, superseded, or cancelled at the provider.
    Cancelled,
    /// The request was not accepted.
    Rejected,
}

impl Status {
    /// Every status, in the order in which a delivery can have them.
    pub const ALL: [Self; 14] = [
        Self::Accepted,
        Self::Deferred,
        Self::Placed,
        Self::Ringing,
        Self::Answered,
        Self::Delivered,
        Self::HungUp,
        Self::Voicemail,
        Self::Busy,
        Self::NoAnswer,
        Self::Failed,
        Self::Expired,
        Self::Cancelled,
        Self::Rejected,
    ];

    /// Whether this is the last status of its delivery.
    pub fn is_final(self) -> bool {
        match self {
            Self::Accepted | Self::Deferred | Self::Placed | Self::Ringing | Self::Answered => {
                false
            }
            Self::Delivered
            | Self::HungUp
            | Self::Voicemail
            | Self::Busy
            | Self::NoAnswer
            | Self::Failed
            | Self::Expired
            | Self::Cancelled
            | Self::Rejected => true,
        }
    }

    /// The status as events and routing keys spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Deferred => "deferred",
            Self::Placed => "placed",
            Self::Ringing => "ringing",
            Self::Answered => "answered",
            Self::Delivered => "delivered",
            Self::HungUp => "hung_up",
            Self::Voicemail => "voicemail",
            Self::Busy => "busy",
            Self::NoAnswer => "no_answer",
            Self::Failed => "failed",
            Self::Expired => "expired",
            Self::Cancelled => "cancelled",
            Self::Rejected => "rejected",
        }
    }

    /// The status with this spelling: the inverse of [`as_str`](Self::as_str).
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == text)
    }
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// Milliseconds from the request's `time` to each step; from its admission if the request has no
/// `time`. Negative if the publisher's clock is ahead of the database's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Timings {
    /// To the commit that stored the request.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub admitted_ms: Option<i64>,
    /// To the time for which the call is planned, as last published.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub due_ms: Option<i64>,
    /// To Twilio's acceptance of the call.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub placed_ms: Option<i64>,
    /// To ringing. For a polled call: to the poll that saw it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ringing_ms: Option<i64>,
    /// To the answer. For a polled call: to the poll that saw it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub answered_ms: Option<i64>,
    /// To the end of the delivery.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ended_ms: Option<i64>,
}

/// The `data` of a status event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StatusData {
    /// The delivery: the `id` of its request.
    pub delivery_id: DeliveryId,
    /// The tenant that the delivery belongs to.
    pub tenant_id: TenantId,
    /// The state of the delivery.
    pub status: Status,
    /// Whether this is the last status of its delivery.
    #[serde(rename = "final")]
    pub is_final: bool,
    /// The position of this status among the delivery's statuses: from 1, without gaps. Order by
    /// it, and drop duplicates by it.
    #[schemars(range(min = 1))]
    pub sequence: u32,
    /// The attempt that this status is about, from 1; 0 before the first attempt.
    pub attempt: u32,
    /// The number called, with at least five digits hidden: `+1415*****71`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub to_masked: Option<String>,
    /// The call SID of Twilio.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub call_sid: Option<String>,
    /// When the call is planned, RFC 3339. Present on `accepted` and `deferred`, and on `expired`
    /// with `account_backlog`; absent in test mode.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub due_at: Option<String>,
    /// Why the delivery has this status. Absent if everything went as requested.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<Reason>,
    /// The time that each step took.
    pub timings: Timings,
    /// Who answered, if Twilio reports it: `human`, `machine_start`, `fax`, `unknown`, …
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub answered_by: Option<String>,
    /// The length of the call in seconds, as Twilio counts it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub call_duration_s: Option<u32>,
    /// The carrier's last SIP status, if Twilio reports it: 486 busy, 487 not answered in time, 404
    /// no such number, …
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub sip_code: Option<u16>,
    /// The price of the call, if Twilio knew it by then. Otherwise a price event follows.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub price: Option<String>,
    /// The currency of `price`, ISO 4217.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub price_unit: Option<String>,
    /// Whether the tenant is in test mode: no call was placed. Absent unless `true`.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub test: bool,
    /// The request's `context`, unchanged.
    #[serde(skip_serializing_if = "Context::is_empty", default)]
    pub context: Context,
}

/// A status event: CloudEvents 1.0 in structured mode.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StatusEvent {
    /// Always `1.0`.
    pub specversion: String,
    /// `<delivery id>/<sequence>`. Unique together with `source`, and unchanged when the event is
    /// published again.
    pub id: String,
    /// The tenant's events: `/voice-otp/<tenant id>`.
    pub source: String,
    /// Always `dev.voiceotp.delivery.status.v1`.
    #[serde(rename = "type")]
    #[schemars(regex(pattern = r"^dev\.voiceotp\.delivery\.status\.v1$"))]
    pub kind: String,
    /// The id of the delivery.
    pub subject: String,
    /// When the delivery reached this status, RFC 3339, by the database's clock.
    pub time: String,
    /// Always `application/json`.
    pub datacontenttype: String,
    /// The status.
    pub data: StatusData,
}

impl StatusEvent {
    /// A status event with this data. `time` is RFC 3339.
    pub fn new(time: String, data: StatusData) -> Self {
        Self {
            specversion: "1.0".to_owned(),
            id: format!("{}/{}", data.delivery_id, data.sequence),
            source: format!("/voice-otp/{}", data.tenant_id),
            kind: STATUS.to_owned(),
            subject: data.delivery_id.as_str().to_owned(),
            time,
            datacontenttype: "application/json".to_owned(),
            data,
        }
    }

    /// The routing key: `status.<status>.<tenant id>`.
    pub fn routing_key(&self) -> String {
        format!("status.{}.{}", self.data.status, self.data.tenant_id)
    }
}
