//! Responses of Twilio's REST API, and what a missing or refusing one means.

use std::time::Duration;

use reqwest::{RequestBuilder, Response, StatusCode};
use serde::Deserialize;
use voice_otp::call::failure::{CallFailure, Class, Fault};

use crate::catalogue::{ErrorResponse, INTERNAL_ERROR, OUTCOME_UNKNOWN, classify};

/// The longest `Retry-After` that is honoured.
const MAX_RETRY_AFTER: Duration = Duration::from_mins(5);

/// A response with a 2xx status, not yet parsed.
pub(crate) struct ApiResponse {
    body: Vec<u8>,
    http_status: u16,
    request_id: Option<String>,
}

/// Both forms of Twilio's error bodies: the older one (`code`, `message`) and RFC 9457's (`code`,
/// `title`, `detail`).
#[derive(Debug, Default, Deserialize)]
struct ErrorBody {
    code: Option<u32>,
    message: Option<String>,
    detail: Option<String>,
}

impl ApiResponse {
    /// Sends a request.
    ///
    /// # Errors
    /// There was no response, or its status isn't 2xx.
    pub(crate) async fn of(request: RequestBuilder) -> Result<Self, CallFailure> {
        let response = request
            .send()
            .await
            .map_err(|error| transport_failure(&error))?;
        let status = response.status();
        let request_id = header(&response, "twilio-request-id");
        let retry_after = header(&response, "retry-after")
            .and_then(|text| text.parse().ok())
            .map(|seconds| Duration::from_secs(seconds).min(MAX_RETRY_AFTER));
        let body = match response.bytes().await {
            Ok(body) => body.to_vec(),
            // The 4xx status has arrived, so Twilio refused the request, whatever the body is.
            Err(_) if status.is_client_error() => Vec::new(),
            Err(error) => {
                return Err(CallFailure {
                    request_id,
                    ..transport_failure(&error)
                });
            }
        };
        if status.is_success() {
            return Ok(Self {
                body,
                http_status: status.as_u16(),
                request_id,
            });
        }
        let error: ErrorBody = serde_json::from_slice(&body).unwrap_or_default();
        let failure = if status.is_redirection() {
            // Redirects aren't followed. One means that there is nothing at this URL.
            classify(ErrorResponse {
                http_status: StatusCode::NOT_FOUND.as_u16(),
                code: None,
                message: "",
                retry_after,
            })
        } else {
            let message = error.message.or(error.detail).unwrap_or_default();
            classify(ErrorResponse {
                http_status: status.as_u16(),
                code: error.code,
                message: &message,
                retry_after,
            })
        };
        Err(CallFailure {
            request_id,
            http_status: Some(status.as_u16()),
            ..failure
        })
    }

    /// Parses the body.
    ///
    /// # Errors
    /// The body has another form. Since the status was 2xx, the request may have been processed.
    pub(crate) fn parse<T: for<'de> Deserialize<'de>>(&self) -> Result<T, CallFailure> {
        serde_json::from_slice(&self.body).map_err(|_| CallFailure {
            class: Class::Ambiguous,
            provider_code: None,
            http_status: Some(self.http_status),
            request_id: self.request_id.clone(),
            tenant_message: OUTCOME_UNKNOWN.to_owned(),
            operator_message: format!(
                "Twilio answered {} with a body that can't be parsed",
                self.http_status
            ),
        })
    }
}

/// The value of a header, unless it is longer than any that is expected.
fn header(response: &Response, name: &str) -> Option<String> {
    let text = response.headers().get(name)?.to_str().ok()?;
    (text.len() <= 64).then(|| text.to_owned())
}

/// The failure of a request without a response. Without a connection nothing was sent; otherwise
/// Twilio may have processed the request.
fn transport_failure(error: &reqwest::Error) -> CallFailure {
    if error.is_builder() {
        return internal_failure("the request could not be built");
    }
    let (class, tenant, operator) = if error.is_connect() {
        (
            Class::Transient,
            "Twilio could not be reached; the call will be retried",
            "failed to connect to Twilio",
        )
    } else if error.is_timeout() {
        (
            Class::Ambiguous,
            OUTCOME_UNKNOWN,
            "Twilio did not answer before the timeout",
        )
    } else {
        (
            Class::Ambiguous,
            OUTCOME_UNKNOWN,
            "the connection to Twilio broke",
        )
    };
    CallFailure {
        class,
        provider_code: None,
        http_status: None,
        request_id: None,
        tenant_message: tenant.to_owned(),
        operator_message: operator.to_owned(),
    }
}

/// The failure of a request that voice-otp could not make correctly.
pub(super) fn internal_failure(operator_message: &str) -> CallFailure {
    CallFailure {
        class: Class::Permanent(Fault::Internal),
        provider_code: None,
        http_status: None,
        request_id: None,
        tenant_message: INTERNAL_ERROR.to_owned(),
        operator_message: operator_message.to_owned(),
    }
}
