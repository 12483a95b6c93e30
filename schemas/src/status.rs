//! The event that workers emit: what became of a delivery, step by step.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::reason::Reason;
use crate::{Context, DeliveryId, TenantId};

/// The type of a status event.
pub const STATUS: &str = "dev.voiceotp.delivery.status.v1";

/// What has become of a delivery.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// The delivery is durable.
    Accepted,
    /// It waits, longer than last said.
    Deferred,
    /// Twilio took the call.
    Placed,
    /// It rings.
    Ringing,
    /// Somebody or something answered.
    Answered,
    /// Answered, and long enough for the code to be read once.
    Delivered,
    /// Answered, but ended before the code had been read once.
    HungUp,
    /// A machine answered, and the tenant's policy kept the code from it.
    Voicemail,
    /// The line was busy.
    Busy,
    /// Nobody answered.
    NoAnswer,
    /// Twilio or the carrier could not.
    Failed,
    /// It could not be placed in time.
    Expired,
    /// It was taken back.
    Cancelled,
    /// It was not taken on.
    Rejected,
}

impl Status {
    /// Every status, in the order of a delivery's life.
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

    /// Whether nothing comes after it.
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

    /// The word of events and routing keys.
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

    /// The status of a word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == word)
    }
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// Milliseconds from the request's `time` (its admission, where it had none) to each step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Timings {
    /// Durable here.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub admitted_ms: Option<i64>,
    /// Due to be placed, as planned last.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub due_ms: Option<i64>,
    /// Taken by Twilio.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub placed_ms: Option<i64>,
    /// Ringing.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ringing_ms: Option<i64>,
    /// Answered.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub answered_ms: Option<i64>,
    /// Ended.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ended_ms: Option<i64>,
}

/// The data of a status event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StatusData {
    /// The delivery: the id of its request.
    pub delivery_id: DeliveryId,
    /// The tenant.
    pub tenant_id: TenantId,
    /// What has become of it.
    pub status: Status,
    /// Whether this is the last status of the delivery.
    #[serde(rename = "final")]
    pub is_final: bool,
    /// From 1, without gaps; order by it, and drop what has been seen.
    #[schemars(range(min = 1))]
    pub sequence: u32,
    /// Which placement of a call this is about, from 1; 0 before the first.
    pub attempt: u32,
    /// The number called, at least five digits hidden.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub to_masked: Option<String>,
    /// Twilio's SID of the call.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub call_sid: Option<String>,
    /// When the call is due, RFC 3339, on `accepted` and `deferred`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub due_at: Option<String>,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<Reason>,
    /// How long the steps took.
    pub timings: Timings,
    /// Who answered, as Twilio tells it: `human`, `machine_start`, `fax`, `unknown`, …
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub answered_by: Option<String>,
    /// How long the call was, in seconds, as Twilio counts it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub call_duration_s: Option<u32>,
    /// The last SIP status of the carrier, where Twilio tells it: 486 busy, 487 nobody answered in time, 404 no such number, …
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub sip_code: Option<u16>,
    /// What the call cost, if Twilio knew already; else a price event tells it later.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub price: Option<String>,
    /// The price's currency, ISO 4217.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub price_unit: Option<String>,
    /// Whether nothing was called in truth: the tenant's test mode.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub test: bool,
    /// What the request carried to be echoed.
    #[serde(skip_serializing_if = "Context::is_empty", default)]
    pub context: Context,
}

/// A status event: `CloudEvents` 1.0, structured mode.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StatusEvent {
    /// Always `1.0`.
    pub specversion: String,
    /// `<delivery id>/<sequence>`; with the source it is unique, and the same when the event is sent again.
    pub id: String,
    /// `/voice-otp/<tenant id>`.
    pub source: String,
    /// Always `dev.voiceotp.delivery.status.v1`.
    #[serde(rename = "type")]
    #[schemars(regex(pattern = r"^dev\.voiceotp\.delivery\.status\.v1$"))]
    pub kind: String,
    /// The delivery id.
    pub subject: String,
    /// When it happened, RFC 3339.
    pub time: String,
    /// Always `application/json`.
    pub datacontenttype: String,
    /// The status itself.
    pub data: StatusData,
}

impl StatusEvent {
    /// Puts data into its envelope. `time` is RFC 3339.
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
