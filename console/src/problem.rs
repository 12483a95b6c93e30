//! Errors, as RFC 9457 has them.

use axum::http::header::{CONTENT_TYPE, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

/// A problem document, `application/problem+json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct Problem {
    /// Which kind of problem: a constant URN.
    #[serde(rename = "type")]
    kind: &'static str,
    /// The same for people.
    title: &'static str,
    /// The HTTP status.
    status: u16,
    /// What it is this time, and what to do. Never a secret.
    detail: String,
    /// What is wrong with which field.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) errors: Vec<FieldError>,
    /// Where to go to mend it.
    #[serde(skip_serializing_if = "Option::is_none")]
    link: Option<String>,
}

/// What is wrong with a field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct FieldError {
    /// The field's name.
    pub(crate) field: String,
    /// What it must be.
    pub(crate) message: String,
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
        }
    }

    pub(super) fn unauthorized() -> Self {
        let detail = "send a token that is good: Authorization: Bearer …; an operator makes one with voice-otp token create";
        Self::new(
            StatusCode::UNAUTHORIZED,
            "urn:voice-otp:unauthorized",
            "Sign in first",
            detail,
        )
    }

    pub(super) fn forged() -> Self {
        let detail = "a change by a session needs the header X-CSRF-Token, or the field csrf, with the session's value";
        Self::new(
            StatusCode::FORBIDDEN,
            "urn:voice-otp:csrf",
            "This did not come from our page",
            detail,
        )
    }

    /// It is the caller's, but this of it is for operators.
    pub(super) fn operators_only(detail: &str) -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "urn:voice-otp:operators-only",
            "Ask an operator",
            detail,
        )
    }

    /// It isn't there, or is nothing of the caller's: which, is not told.
    pub(super) fn not_found() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "urn:voice-otp:not-found",
            "Not found",
            "there is no such thing, or it isn't yours to see",
        )
    }

    pub(super) fn not_configured(tenant: &str) -> Self {
        let detail = "no voice provider is configured for the tenant: configure one first";
        let link = Some(format!("/t/{tenant}/providers/voice"));
        Self {
            link,
            ..Self::new(
                StatusCode::CONFLICT,
                "urn:voice-otp:not-configured",
                "No voice provider",
                detail,
            )
        }
    }

    pub(super) fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "urn:voice-otp:bad-request",
            "The request can't be read",
            detail,
        )
    }

    pub(super) fn invalid(errors: Vec<FieldError>) -> Self {
        let detail = errors
            .iter()
            .map(|error| format!("{}: {}", error.field, error.message))
            .collect::<Vec<_>>()
            .join("; ");
        let title = "Some fields can't be taken";
        Self {
            errors,
            ..Self::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "urn:voice-otp:invalid",
                title,
                detail,
            )
        }
    }

    pub(super) fn changed() -> Self {
        let detail = "somebody changed this since you read it; nothing was saved: read it again, and make your change there";
        Self::new(
            StatusCode::PRECONDITION_FAILED,
            "urn:voice-otp:changed",
            "Changed meanwhile",
            detail,
        )
    }

    pub(super) fn needs_version() -> Self {
        let detail = "send If-Match with the ETag that was read, so that nobody's change is lost; If-None-Match: * to create";
        Self::new(
            StatusCode::PRECONDITION_REQUIRED,
            "urn:voice-otp:version-needed",
            "Which version?",
            detail,
        )
    }

    pub(super) fn too_many(detail: impl Into<String>) -> Self {
        Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            "urn:voice-otp:too-many",
            "Too many",
            detail,
        )
    }

    pub(super) fn method_not_allowed() -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "urn:voice-otp:method",
            "Not like this",
            "this address doesn't know that method",
        )
    }

    /// Something that we stand on doesn't work. What, is logged, and not told.
    pub(super) fn unavailable(error: &(dyn std::error::Error + 'static)) -> Self {
        tracing::warn!(error, "the console can't answer");
        let detail = "the database or the broker doesn't answer just now: look what is there, then try again";
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "urn:voice-otp:unavailable",
            "Not just now",
            detail,
        )
    }

    pub(super) fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    pub(super) fn title(&self) -> &'static str {
        self.title
    }

    pub(super) fn detail(&self) -> &str {
        &self.detail
    }

    pub(super) fn link(&self) -> Option<&str> {
        self.link.as_deref()
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = self.status();
        // A struct of strings and numbers always has a JSON form.
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let mut response =
            (status, [(CONTENT_TYPE, "application/problem+json")], body).into_response();
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(
                WWW_AUTHENTICATE,
                HeaderValue::from_static("Bearer realm=\"voice-otp\""),
            );
        }
        response
    }
}

impl From<voice_otp_store::access::Error> for Problem {
    fn from(error: voice_otp_store::access::Error) -> Self {
        Self::unavailable(&error)
    }
}

impl From<voice_otp_store::settings::Error> for Problem {
    fn from(error: voice_otp_store::settings::Error) -> Self {
        Self::unavailable(&error)
    }
}
