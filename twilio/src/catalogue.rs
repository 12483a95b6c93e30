//! Twilio's error codes: the class of each, and the texts for tenant and operator.
//!
//! The codes and their meanings are from Twilio's error dictionary
//! (<https://www.twilio.com/docs/api/errors>). Twilio's own messages aren't passed on, since some
//! quote the number called.

use std::time::Duration;

use voice_otp::call::ProviderError;
use voice_otp::call::failure::{CallFailure, Class};

pub use self::call_codes::CALL_CODES;
pub use self::request_codes::REQUEST_CODES;

pub(crate) use self::texts::{INTERNAL_ERROR, OUTCOME_UNKNOWN};

use self::entry::{CREDENTIALS, INTERNAL, TENANT};
use self::texts::{CHECK_CREDENTIALS, SLOW_DOWN, UPGRADE_TRIAL};

pub use self::entry::Entry;

mod call_codes;
mod entry;
mod request_codes;
mod texts;

/// A response whose status isn't 2xx, as far as it could be parsed.
#[derive(Debug, Clone, Copy)]
pub struct ErrorResponse<'a> {
    /// The HTTP status.
    pub http_status: u16,
    /// Twilio's error code. Refusals for trial accounts have 0 or none.
    pub code: Option<u32>,
    /// Twilio's message. It is examined and never passed on.
    pub message: &'a str,
    /// The `Retry-After` header, if there is one.
    pub retry_after: Option<Duration>,
}

/// The entry for a code with which Twilio refuses a request.
pub fn lookup(code: u32) -> Option<&'static Entry> {
    REQUEST_CODES.iter().find(|entry| entry.code == code)
}

/// The error of a call that Twilio had accepted, by the code that Twilio reports for it.
pub fn provider_error(code: u32) -> Option<ProviderError> {
    let entry = CALL_CODES
        .iter()
        .find(|entry| entry.code == code)
        .or_else(|| lookup(code))?;
    Some(ProviderError {
        code,
        class: entry.class,
        tenant_message: entry.tenant_message,
    })
}

/// Classifies an error response by its code, or by its HTTP status if the code is missing or
/// unknown.
pub fn classify(response: ErrorResponse<'_>) -> CallFailure {
    let known = response.code.and_then(lookup);
    let trial = response.http_status == 400
        && response.code.unwrap_or(0) == 0
        && response.message.contains("trial");
    let (class, operator, tenant) = match (response.http_status, known) {
        // Twilio doesn't process such a request, so a retry can't place a second call
        // (<https://www.twilio.com/docs/api/errors/20429>).
        (429, _) => (
            Class::Throttled(response.retry_after),
            "too many requests",
            SLOW_DOWN,
        ),
        (_, Some(entry)) => (entry.class, entry.operator_message, entry.tenant_message),
        (_, None) if trial => (
            TENANT,
            "the trial account allows limited parameters",
            UPGRADE_TRIAL,
        ),
        (401, None) => (CREDENTIALS, "not authorized", CHECK_CREDENTIALS),
        (403, None) => (TENANT, "forbidden", CHECK_CREDENTIALS),
        (404, None) => (TENANT, "not found", CHECK_CREDENTIALS),
        (408 | 500.., None) => (Class::Ambiguous, "an error at Twilio", OUTCOME_UNKNOWN),
        (_, None) => (
            INTERNAL,
            "an error code that the catalogue does not have",
            INTERNAL_ERROR,
        ),
    };
    CallFailure {
        class,
        provider_code: response.code.filter(|code| *code != 0),
        http_status: Some(response.http_status),
        request_id: None,
        tenant_message: tenant.to_owned(),
        operator_message: format!("Twilio answered {}: {operator}", response.http_status),
    }
}

#[cfg(test)]
mod tests;
