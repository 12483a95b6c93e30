//! The event that tells what a call cost, once Twilio knows: often minutes after the final status.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Context, DeliveryId, TenantId};

/// The type of a price event.
pub const PRICE: &str = "dev.voiceotp.delivery.price.v1";

/// The data of a price event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PriceData {
    /// The delivery: the id of its request.
    pub delivery_id: DeliveryId,
    /// The tenant.
    pub tenant_id: TenantId,
    /// Which placement of a call it was, from 1: each is charged for itself.
    #[schemars(range(min = 1))]
    pub attempt: u32,
    /// Twilio's SID of the call.
    pub call_sid: String,
    /// What it cost, as Twilio tells it: a negative decimal fraction, for example `-0.01400`.
    pub price: String,
    /// The currency, ISO 4217.
    pub price_unit: String,
    /// How long the call was, in seconds, as Twilio counts it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub call_duration_s: Option<u32>,
    /// The number called, at least five digits hidden.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub to_masked: Option<String>,
    /// What the request carried to be echoed.
    #[serde(skip_serializing_if = "Context::is_empty", default)]
    pub context: Context,
}

/// A price event: `CloudEvents` 1.0, structured mode.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PriceEvent {
    /// Always `1.0`.
    pub specversion: String,
    /// `<delivery id>/price/<attempt>`; with the source it is unique, and the same when the event is sent again.
    pub id: String,
    /// `/voice-otp/<tenant id>`.
    pub source: String,
    /// Always `dev.voiceotp.delivery.price.v1`.
    #[serde(rename = "type")]
    #[schemars(regex(pattern = r"^dev\.voiceotp\.delivery\.price\.v1$"))]
    pub kind: String,
    /// The delivery id.
    pub subject: String,
    /// When it was learnt, RFC 3339.
    pub time: String,
    /// Always `application/json`.
    pub datacontenttype: String,
    /// The price itself.
    pub data: PriceData,
}

impl PriceEvent {
    /// Puts data into its envelope. `time` is RFC 3339.
    pub fn new(time: String, data: PriceData) -> Self {
        Self {
            specversion: "1.0".to_owned(),
            id: format!("{}/price/{}", data.delivery_id, data.attempt),
            source: format!("/voice-otp/{}", data.tenant_id),
            kind: PRICE.to_owned(),
            subject: data.delivery_id.as_str().to_owned(),
            time,
            datacontenttype: "application/json".to_owned(),
            data,
        }
    }

    /// The routing key: `price.<tenant id>`.
    pub fn routing_key(&self) -> String {
        format!("price.{}", self.data.tenant_id)
    }
}
