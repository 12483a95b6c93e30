//! Versions of settings as entity tags.

use axum::Json;
use axum::http::header::{ETAG, IF_MATCH, IF_NONE_MATCH};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse as _, Response};
use voice_otp_store::settings::Expected;

use crate::problem::Problem;

/// The version that the request expects to be the current one.
pub(super) fn expected_version(headers: &HeaderMap) -> Result<Expected, Problem> {
    let text = |value: Option<&HeaderValue>| {
        let text = value.and_then(|value| value.to_str().ok());
        text.map(str::trim).map(str::to_owned)
    };
    match (
        text(headers.get(IF_MATCH)),
        text(headers.get(IF_NONE_MATCH)),
    ) {
        (Some(tag), None) => {
            let version = tag
                .strip_prefix('"')
                .and_then(|tag| tag.strip_suffix('"'))
                .and_then(|tag| tag.parse().ok());
            version
                .filter(|version| *version > 0)
                .map(Expected::Version)
                .ok_or_else(Problem::version_conflict)
        }
        (None, Some(tag)) if tag == "*" => Ok(Expected::Nothing),
        _ => Err(Problem::precondition_required()),
    }
}

/// A JSON response with the version as its `ETag`.
#[expect(
    clippy::expect_used,
    reason = "a quoted number is a valid header value"
)]
pub(super) fn with_etag(version: i64, body: impl serde::Serialize) -> Response {
    let tag = HeaderValue::from_str(&format!("\"{version}\"")).expect("a number is valid");
    let mut response = Json(body).into_response();
    response.headers_mut().insert(ETAG, tag);
    response
}
