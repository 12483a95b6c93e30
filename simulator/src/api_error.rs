//! Twilio's error answers.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

/// A refused request, in the form of Twilio's older error bodies
/// (<https://www.twilio.com/docs/usage/twilios-response#response-formats-exceptions>).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    /// Twilio's error code. Twilio omits it from some answers, and so does the simulator for its
    /// own stricter checks.
    pub(crate) code: Option<u32>,
    pub(crate) message: String,
    /// The header `Retry-After`, in seconds.
    pub(crate) retry_after: Option<u32>,
}

#[derive(Serialize)]
struct Body<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<u32>,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    more_info: Option<String>,
    status: u16,
}

impl ApiError {
    /// HTTP 400 with one of Twilio's codes.
    pub(crate) fn bad_request(code: u32, message: impl Into<String>) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            code: Some(code),
            message: message.into(),
            retry_after: None,
        }
    }

    /// HTTP 400 without a code, for a mistake that Twilio has no code for or would let pass.
    pub(crate) fn strict(message: impl Into<String>) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            code: None,
            message: message.into(),
            retry_after: None,
        }
    }

    /// Wrong, missing or suspended credentials.
    pub(crate) fn unauthenticated() -> Self {
        Self::with(StatusCode::UNAUTHORIZED, 20003, "Authenticate")
    }

    /// The account has nothing at this path.
    pub(crate) fn not_found(path: &str) -> Self {
        Self::with(
            StatusCode::NOT_FOUND,
            20404,
            format!("The requested resource {path} was not found"),
        )
    }

    /// The account makes too many requests at a time. Twilio doesn't process them.
    pub(crate) fn too_many_requests(retry_after: Option<u32>) -> Self {
        Self {
            retry_after,
            ..Self::with(StatusCode::TOO_MANY_REQUESTS, 20429, "Too Many Requests")
        }
    }

    /// An internal error of Twilio's; the request may have been processed.
    pub(crate) fn internal() -> Self {
        Self::with(
            StatusCode::INTERNAL_SERVER_ERROR,
            20500,
            "An internal server error has occurred",
        )
    }

    /// Twilio is unavailable.
    pub(crate) fn unavailable() -> Self {
        Self::with(
            StatusCode::SERVICE_UNAVAILABLE,
            20503,
            "Service is unavailable. Please try again",
        )
    }

    fn with(status: StatusCode, code: u32, message: impl Into<String>) -> Self {
        Self {
            status,
            code: Some(code),
            message: message.into(),
            retry_after: None,
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = Body {
            code: self.code,
            message: &self.message,
            more_info: self
                .code
                .map(|code| format!("https://www.twilio.com/docs/errors/{code}")),
            status: self.status.as_u16(),
        };
        let mut response = (self.status, Json(body)).into_response();
        if let Some(seconds) = self.retry_after {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            let realm = HeaderValue::from_static("Basic realm=\"Twilio API\"");
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, realm);
        }
        response
    }
}
