//! A delivery, as the API and the pages show it.

use serde::Serialize;
use utoipa::ToSchema;
use voice_otp_schemas::phone::country_of_masked;
use voice_otp_schemas::request::rfc3339;
use voice_otp_store::history::Seen;

/// The status of a delivery without a final one.
pub(super) const IN_PROGRESS: &str = "in_progress";

/// A delivery.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[expect(
    clippy::struct_field_names,
    reason = "the name that requests and statuses have for it"
)]
pub(crate) struct Delivery {
    /// Id that the publisher gave the delivery.
    pub(crate) delivery_id: String,
    /// Final status, or `in_progress`.
    pub(crate) status: String,
    /// Called number, masked.
    pub(crate) to_masked: Option<String>,
    /// Country of the called number, ISO 3166-1 alpha-2; null if unknown.
    pub(crate) country: Option<String>,
    /// Twilio call SID of the last attempt.
    pub(crate) call_sid: Option<String>,
    /// Number of attempts.
    pub(crate) attempts: i32,
    /// Whether the delivery is a test call.
    pub(crate) test_call: bool,
    /// Time at which the request was accepted, RFC 3339.
    pub(crate) admitted_at: String,
    /// Time at which the code expires, RFC 3339.
    pub(crate) expires_at: String,
    /// Time of the final status, RFC 3339.
    pub(crate) ended_at: Option<String>,
    /// Time to call: from the request until Twilio accepted the call, in milliseconds.
    pub(crate) placed_ms: Option<i64>,
    /// Time to ring: from Twilio's acceptance of the call until the phone rang, in milliseconds.
    pub(crate) to_ring_ms: Option<i64>,
}

impl From<&Seen> for Delivery {
    fn from(row: &Seen) -> Self {
        let requested_at = row.requested_at.unwrap_or(row.admitted_at);
        let country = row.to_masked.as_deref().and_then(country_of_masked);
        let rang = row.placed_at.zip(row.ringing_at);
        Self {
            delivery_id: row.delivery_id.clone(),
            status: row
                .final_status
                .clone()
                .unwrap_or_else(|| IN_PROGRESS.to_owned()),
            to_masked: row.to_masked.clone(),
            country: country.map(|country| country.to_string()),
            call_sid: row.call_sid.clone(),
            attempts: row.attempt,
            test_call: row
                .context
                .get("test_call")
                .is_some_and(|value| value == "true"),
            admitted_at: rfc3339(row.admitted_at),
            expires_at: rfc3339(row.expires_at),
            ended_at: row.ended_at.map(rfc3339),
            placed_ms: row
                .placed_at
                .map(|placed| (placed - requested_at).num_milliseconds()),
            to_ring_ms: rang.map(|(placed, ringing)| (ringing - placed).num_milliseconds()),
        }
    }
}
