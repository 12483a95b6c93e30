//! Extractors that answer with problem documents.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use crate::problem::Problem;
use crate::state::Console;

/// A JSON body. Errors never quote it: it may contain a secret.
pub(super) struct JsonBody<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequest<Arc<Console>> for JsonBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, console: &Arc<Console>) -> Result<Self, Problem> {
        let is_json = request
            .headers()
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .is_some_and(|kind| {
                let kind = kind.split(';').next().unwrap_or_default().trim();
                kind.eq_ignore_ascii_case("application/json")
            });
        if !is_json {
            return Err(Problem::bad_request(
                "The body must be JSON. Send it with Content-Type: application/json.",
            ));
        }
        let bytes = Bytes::from_request(request, console).await.map_err(|_| {
            Problem::bad_request("The body is longer than 64 KiB, or was not sent completely.")
        })?;
        serde_json::from_slice(&bytes)
            .map(JsonBody)
            .map_err(|error| Problem::bad_request(describe(&error)))
    }
}

/// What is wrong with the JSON, without its contents.
fn describe(error: &serde_json::Error) -> String {
    let place = format!("line {}, column {}", error.line(), error.column());
    let text = error.to_string();
    let is_safe = ["missing field", "unknown field"]
        .iter()
        .any(|start| text.starts_with(start));
    match error.classify() {
        serde_json::error::Category::Data if is_safe => {
            format!("The body has a wrong shape: {text}.")
        }
        serde_json::error::Category::Data => {
            format!("The body has a value of the wrong type at {place}.")
        }
        serde_json::error::Category::Io
        | serde_json::error::Category::Syntax
        | serde_json::error::Category::Eof => format!("The body is not valid JSON at {place}."),
    }
}

/// The query string.
pub(super) struct QueryParams<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequestParts<Arc<Console>> for QueryParams<T> {
    type Rejection = Problem;

    async fn from_request_parts(
        parts: &mut Parts,
        console: &Arc<Console>,
    ) -> Result<Self, Problem> {
        Query::<T>::from_request_parts(parts, console)
            .await
            .map(|Query(query)| Self(query))
            .map_err(|error| Problem::bad_request(error.body_text()))
    }
}

/// The parameters in the path. A path that can't be decoded is "not found".
pub(super) struct PathParams<T>(pub(super) T);

impl<T: DeserializeOwned + Send> FromRequestParts<Arc<Console>> for PathParams<T> {
    type Rejection = Problem;

    async fn from_request_parts(
        parts: &mut Parts,
        console: &Arc<Console>,
    ) -> Result<Self, Problem> {
        Path::<T>::from_request_parts(parts, console)
            .await
            .map(|Path(params)| Self(params))
            .map_err(|_| Problem::not_found())
    }
}
