//! Twilio's Call resource (<https://www.twilio.com/docs/voice/api/call-resource#call-properties>).

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Deserialize;
use voice_otp::account::CallSid;
use voice_otp::call::failure::{CallFailure, Class};
use voice_otp::call::{Call, CallStatus};
use voice_otp::price::Price;

use super::response::internal_failure;

/// A page of a list of calls.
#[derive(Debug, Deserialize)]
pub(super) struct CallList {
    pub(super) calls: Vec<CallResource>,
    /// The path and query of the next page; null on the last page.
    #[serde(default)]
    pub(super) next_page_uri: Option<String>,
}

/// The fields of a Call that voice-otp uses. By Twilio's description, all of them may be null;
/// without a SID a call is useless.
#[derive(Debug, Deserialize)]
pub(super) struct CallResource {
    sid: String,
    status: Option<String>,
    direction: Option<String>,
    /// In RFC 2822's format, to the second.
    date_created: Option<String>,
    /// In seconds.
    duration: Option<String>,
    answered_by: Option<String>,
    /// In milliseconds.
    queue_time: Option<String>,
    price: Option<String>,
    price_unit: Option<String>,
}

impl CallResource {
    /// The call. A status that is missing or unknown counts as `queued`, and other values that
    /// can't be parsed as missing.
    pub(super) fn into_call(self) -> Result<Call, CallFailure> {
        let sid = CallSid::parse(&self.sid).map_err(|_| CallFailure {
            class: Class::Ambiguous,
            ..internal_failure("Twilio answered without a valid call SID")
        })?;
        let created_at = self
            .date_created
            .and_then(|text| DateTime::parse_from_rfc2822(&text).ok());
        Ok(Call {
            sid,
            status: self
                .status
                .as_deref()
                .and_then(CallStatus::parse)
                .unwrap_or(CallStatus::Queued),
            answered_by: self.answered_by,
            duration_s: self.duration.and_then(|text| text.parse().ok()),
            sip_code: None,
            created_at: created_at.map(|at| at.with_timezone(&Utc)),
            outbound_api: self.direction.as_deref() == Some("outbound-api"),
            queue_time: self
                .queue_time
                .and_then(|text| text.parse().ok())
                .map(Duration::from_millis),
            price: price(self.price, self.price_unit),
            error: None,
        })
    }
}

/// The price, if the amount is a decimal number and the unit a currency code.
fn price(amount: Option<String>, unit: Option<String>) -> Option<Price> {
    let (amount, unit) = (amount?, unit?);
    let decimal = amount.len() <= 20 && amount.parse::<f64>().is_ok_and(f64::is_finite);
    let currency = unit.len() == 3 && unit.bytes().all(|b| b.is_ascii_alphabetic());
    (decimal && currency).then(|| Price {
        amount,
        unit: unit.to_ascii_uppercase(),
    })
}
