//! Errors of the API and the pages, in the form of RFC 9457.

use std::num::NonZeroU32;
use std::time::Duration;

use axum::Json;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;
use voice_otp::settings::{self, Setting};

/// A problem document, `application/problem+json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct Problem {
    /// Kind of problem: a constant URN.
    #[serde(rename = "type")]
    kind: &'static str,
    /// Kind of problem, for people.
    title: &'static str,
    /// HTTP status.
    status: u16,
    /// What happened, and what to do. Never contains a secret.
    detail: String,
    /// Fields with invalid values.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) errors: Vec<FieldError>,
    /// Page on which the problem can be resolved.
    #[serde(skip_serializing_if = "Option::is_none")]
    link: Option<String>,
    /// Time after which the request may be sent again, in seconds: the header Retry-After.
    #[serde(skip)]
    retry_after_s: Option<NonZeroU32>,
}

/// A field with an invalid value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct FieldError {
    /// Name of the field.
    pub(crate) field: String,
    /// What the value must be. Never contains the value.
    pub(crate) message: String,
}

impl FieldError {
    pub(crate) fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            message: message.into(),
        }
    }

    /// An error of a tenant's setting, under the setting's name in the API.
    pub(crate) fn of_setting(setting: Setting, message: impl Into<String>) -> Self {
        Self::new(setting.field().name, message)
    }
}

impl From<settings::Problem> for FieldError {
    fn from(problem: settings::Problem) -> Self {
        Self::of_setting(problem.setting, problem.problem)
    }
}

impl Problem {
    fn new(
        status: StatusCode,
        kind: &'static str,
        title: &'static str,
        detail: impl Into<String>,
    ) -> Self {
        Self {
            kind,
            title,
            status: status.as_u16(),
            detail: detail.into(),
            errors: Vec::new(),
            link: None,
            retry_after_s: None,
        }
    }

    pub(crate) fn unauthorized() -> Self {
        let detail = "The token or session is missing, expired or revoked. Sign in again, or send \
                      Authorization: Bearer TOKEN. Operators create tokens with voice-otp token \
                      create.";
        Self::new(
            StatusCode::UNAUTHORIZED,
            "urn:voice-otp:unauthorized",
            "Authentication required",
            detail,
        )
    }

    pub(crate) fn invalid_csrf_token() -> Self {
        let detail = "The change was not sent by a page of this session. Reload the page and try \
                      again; scripts send the session's token in the header X-CSRF-Token.";
        Self::new(
            StatusCode::FORBIDDEN,
            "urn:voice-otp:csrf",
            "Invalid CSRF token",
            detail,
        )
    }

    /// The caller has access to the resource, but only operators may make this change.
    pub(crate) fn operators_only(detail: &str) -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "urn:voice-otp:operators-only",
            "Permission denied",
            detail,
        )
    }

    /// The resource doesn't exist, or the caller has no access to it: the response must not tell
    /// which.
    pub(crate) fn not_found() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "urn:voice-otp:not-found",
            "Not found",
            "The resource does not exist, or you do not have access to it.",
        )
    }

    pub(crate) fn not_configured(tenant: &str) -> Self {
        let detail = "The tenant has no voice provider. Configure one first.";
        let link = Some(format!("/t/{tenant}/providers/voice"));
        Self {
            link,
            ..Self::new(
                StatusCode::CONFLICT,
                "urn:voice-otp:not-configured",
                "Voice provider not configured",
                detail,
            )
        }
    }

    pub(crate) fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "urn:voice-otp:bad-request",
            "Malformed request",
            detail,
        )
    }

    pub(crate) fn invalid(errors: Vec<FieldError>) -> Self {
        let detail = errors
            .iter()
            .map(|error| format!("{}: {}", error.field, error.message))
            .collect::<Vec<_>>()
            .join("; ");
        Self {
            errors,
            ..Self::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "urn:voice-otp:invalid",
                "Validation failed",
                detail,
            )
        }
    }

    /// The version in the request is not the current one.
    pub(crate) fn version_conflict() -> Self {
        let detail = "The settings were changed after you read them, so nothing was saved. Read \
                      the current settings and make your change again.";
        Self::new(
            StatusCode::PRECONDITION_FAILED,
            "urn:voice-otp:changed",
            "Conflict",
            detail,
        )
    }

    pub(crate) fn precondition_required() -> Self {
        let detail = "The request names no version, so it could overwrite another change. Send \
                      If-Match with the ETag that you read, or If-None-Match: * to create.";
        Self::new(
            StatusCode::PRECONDITION_REQUIRED,
            "urn:voice-otp:version-needed",
            "Precondition required",
            detail,
        )
    }

    pub(crate) fn too_many_requests(detail: impl Into<String>) -> Self {
        Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            "urn:voice-otp:too-many",
            "Too many requests",
            detail,
        )
    }

    /// The problem, with the time after which the request may be sent again, at least a second.
    pub(crate) fn with_retry_after(self, wait: Duration) -> Self {
        Self {
            retry_after_s: u32::try_from(wait.as_secs() + 1)
                .ok()
                .and_then(NonZeroU32::new),
            ..self
        }
    }

    pub(crate) fn method_not_allowed() -> Self {
        let detail = "The address does not support this method. /api/v1/openapi.json lists the \
                      methods of every address.";
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "urn:voice-otp:method",
            "Method not allowed",
            detail,
        )
    }

    /// The database or the broker failed. The error is logged; the response doesn't contain it.
    pub(crate) fn unavailable(error: &(dyn std::error::Error + 'static)) -> Self {
        tracing::warn!(error, "console request failed");
        let detail = "The database or the message broker is not responding. Your change may have \
                      been applied: check the current state before you try again.";
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "urn:voice-otp:unavailable",
            "Service unavailable",
            detail,
        )
    }

    /// A search or figures took too long.
    fn query_too_slow() -> Self {
        let detail = "The query took longer than 5 s and was cancelled. Choose a shorter period: \
                      since and until of a search, hours of the figures.";
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "urn:voice-otp:too-slow",
            "Query too slow",
            detail,
        )
    }

    pub(crate) fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    pub(crate) fn title(&self) -> &'static str {
        self.title
    }

    pub(crate) fn detail(&self) -> &str {
        &self.detail
    }

    /// The header Retry-After, if there is one.
    pub(crate) fn retry_after(&self) -> Option<(HeaderName, HeaderValue)> {
        Some((RETRY_AFTER, HeaderValue::from(self.retry_after_s?.get())))
    }

    pub(crate) fn link(&self) -> Option<&str> {
        self.link.as_deref()
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = self.status();
        let retry_after = self.retry_after();
        let mut response = (status, Json(self)).into_response();
        let headers = response.headers_mut();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        if status == StatusCode::UNAUTHORIZED {
            let challenge = HeaderValue::from_static("Bearer realm=\"voice-otp\"");
            headers.insert(WWW_AUTHENTICATE, challenge);
        }
        headers.extend(retry_after);
        response
    }
}

impl From<voice_otp_store::Error> for Problem {
    fn from(error: voice_otp_store::Error) -> Self {
        if let voice_otp_store::Error::TooSlow(_) = error {
            return Self::query_too_slow();
        }
        Self::unavailable(&error)
    }
}
