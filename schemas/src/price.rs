//! The price event: what a call cost, published once Twilio knows, often minutes after the final
//! status.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Context, DeliveryId, TenantId};

/// The `CloudEvents` `type` of a price event.
pub const PRICE: &str = "dev.voiceotp.delivery.price.v1";

/// The `data` of a price event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PriceData {
    /// The delivery: the `id` of its request.
    pub delivery_id: DeliveryId,
    /// The tenant that the delivery belongs to.
    pub tenant_id: TenantId,
    /// The attempt that placed the call, from 1. Each call of a delivery is charged separately.
    #[schemars(range(min = 1))]
    pub attempt: u32,
    /// The call SID of Twilio.
    pub call_sid: String,
    /// The price as Twilio reports it: a negative decimal fraction, for example `-0.01400`.
    pub price: String,
    /// The currency of `price`, ISO 4217.
    pub price_unit: String,
    /// The length of the call in seconds, as Twilio counts it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub call_duration_s: Option<u32>,
    /// The number called, with at least five digits hidden: `+1415*****71`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub to_masked: Option<String>,
    /// The request's `context`, unchanged.
    #[serde(skip_serializing_if = "Context::is_empty", default)]
    pub context: Context,
}

/// A price event: CloudEvents 1.0 in structured mode.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PriceEvent {
    /// Always `1.0`.
    pub specversion: String,
    /// `<delivery id>/price/<attempt>`. Unique together with `source`, and unchanged when the event
    /// is published again.
    pub id: String,
    /// The tenant's events: `/voice-otp/<tenant id>`.
    pub source: String,
    /// Always `dev.voiceotp.delivery.price.v1`.
    #[serde(rename = "type")]
    #[schemars(regex(pattern = r"^dev\.voiceotp\.delivery\.price\.v1$"))]
    pub kind: String,
    /// The id of the delivery.
    pub subject: String,
    /// When the worker received the price, RFC 3339.
    pub time: String,
    /// Always `application/json`.
    pub datacontenttype: String,
    /// The price and its call.
    pub data: PriceData,
}

impl PriceEvent {
    /// A price event with this data. `time` is RFC 3339.
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
