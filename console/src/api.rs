//! `/api/v1`, and the document that describes it.

mod deliveries;
mod live;
pub(super) mod operate;
mod tenants;

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use axum::http::header::{CONTENT_TYPE, ETAG, IF_MATCH, IF_NONE_MATCH};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::de::DeserializeOwned;
use serde_json::json;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use voice_otp_store::settings::Expected;

use super::Console;
use super::problem::Problem;

pub(super) use deliveries::{Delivery, Figures, Search, figures_of, find, search};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "voice-otp",
        description = "One-time passwords by phone call: a tenant's voice provider, its test calls, methods, deliveries and figures. \
                       Errors are RFC 9457 problem documents. Every change is in the audit log."
    ),
    security(("token" = [])),
    modifiers(&Token)
)]
struct Document;

struct Token;

impl Modify for Token {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some(
                "Made by voice-otp token create: an operator's, or a tenant administrator's",
            ))
            .build();
        openapi
            .components
            .get_or_insert_default()
            .add_security_scheme("token", SecurityScheme::Http(scheme));
    }
}

fn routes() -> (Router<Arc<Console>>, utoipa::openapi::OpenApi) {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(tenants::me))
        .routes(routes!(tenants::list))
        .routes(routes!(
            tenants::get_provider,
            tenants::put_provider,
            tenants::delete_provider
        ))
        .routes(routes!(tenants::check))
        .routes(routes!(tenants::balance))
        .routes(routes!(tenants::test_call))
        .routes(routes!(tenants::get_methods, tenants::put_methods))
        .routes(routes!(tenants::audit))
        .routes(routes!(deliveries::list))
        .routes(routes!(deliveries::one))
        .routes(routes!(deliveries::figures))
        .routes(routes!(live::tenant))
        .routes(routes!(live::delivery))
        .routes(routes!(operate::accounts))
        .routes(routes!(operate::change_account))
        .routes(routes!(operate::system))
        .routes(routes!(operate::audit))
        .split_for_parts()
}

/// The document, with what is the same for all operations: problems are problem documents, and anything may be unavailable.
fn complete(document: &utoipa::openapi::OpenApi) -> serde_json::Value {
    let mut document = serde_json::to_value(document).unwrap_or_default();
    let paths = document
        .get_mut("paths")
        .and_then(|paths| paths.as_object_mut());
    let operations = paths
        .into_iter()
        .flatten()
        .filter_map(|(_, operations)| operations.as_object_mut())
        .flatten();
    for responses in
        operations.filter_map(|(_, operation)| operation.get_mut("responses")?.as_object_mut())
    {
        let problem = json!({ "schema": { "$ref": "#/components/schemas/Problem" } });
        responses.insert(
            "503".to_owned(),
            json!({ "description": "The database or the broker doesn't answer.", "content": { "application/json": problem } }),
        );
        let troubles = responses
            .iter_mut()
            .filter(|(status, _)| status.starts_with(['4', '5']));
        for content in
            troubles.filter_map(|(_, response)| response.get_mut("content")?.as_object_mut())
        {
            if let Some(told) = content.remove("application/json") {
                content.insert("application/problem+json".to_owned(), told);
            }
        }
    }
    document
}

pub(super) fn router(console: Arc<Console>) -> Router {
    let (router, document) = routes();
    let document = complete(&document);
    router
        .route(
            "/api/v1/openapi.json",
            get(move || async { Json(document) }),
        )
        .route(
            "/api/{*rest}",
            axum::routing::any(|| async { Problem::not_found() }),
        )
        .method_not_allowed_fallback(|| async { Problem::method_not_allowed() })
        .with_state(console)
}

/// A JSON body. What it held is never told back: it may be a secret.
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequest<Arc<Console>> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, console: &Arc<Console>) -> Result<Self, Problem> {
        let json = request
            .headers()
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .is_some_and(|kind| {
                let kind = kind.split(';').next().unwrap_or_default().trim();
                kind.eq_ignore_ascii_case("application/json")
            });
        if !json {
            return Err(Problem::bad_request(
                "send JSON, with Content-Type: application/json",
            ));
        }
        let bytes = Bytes::from_request(request, console)
            .await
            .map_err(|_| Problem::bad_request("the body is too long, or broke off"))?;
        serde_json::from_slice(&bytes)
            .map(Body)
            .map_err(|error| Problem::bad_request(told(&error)))
    }
}

/// What is wrong with JSON, without what it held.
fn told(error: &serde_json::Error) -> String {
    let place = format!("at line {}, column {}", error.line(), error.column());
    let text = error.to_string();
    let known = ["missing field", "unknown field"]
        .iter()
        .any(|beginning| text.starts_with(beginning));
    match error.classify() {
        serde_json::error::Category::Data if known => text,
        serde_json::error::Category::Data => {
            format!("the body has a value of the wrong kind {place}")
        }
        _ => format!("the body is no JSON: {place}"),
    }
}

/// The query, or what is wrong with it.
pub(super) struct Params<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequestParts<Arc<Console>> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(
        parts: &mut Parts,
        console: &Arc<Console>,
    ) -> Result<Self, Problem> {
        let query = Query::<T>::from_request_parts(parts, console).await;
        query
            .map(|Query(query)| Self(query))
            .map_err(|error| Problem::bad_request(error.body_text()))
    }
}

/// A part of the path; what can't be read is nothing's name.
pub(super) struct Names<T>(pub(super) T);

impl<T: DeserializeOwned + Send> FromRequestParts<Arc<Console>> for Names<T> {
    type Rejection = Problem;

    async fn from_request_parts(
        parts: &mut Parts,
        console: &Arc<Console>,
    ) -> Result<Self, Problem> {
        let path = axum::extract::Path::<T>::from_request_parts(parts, console).await;
        path.map(|axum::extract::Path(names)| Self(names))
            .map_err(|_| Problem::not_found())
    }
}

/// What the headers expect to be there.
fn expected(headers: &HeaderMap) -> Result<Expected, Problem> {
    let text = |value: Option<&HeaderValue>| {
        value
            .and_then(|value| value.to_str().ok())
            .map(str::trim)
            .map(str::to_owned)
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
                .ok_or_else(Problem::changed)
        }
        (None, Some(tag)) if tag == "*" => Ok(Expected::Nothing),
        _ => Err(Problem::needs_version()),
    }
}

fn with_etag(version: i64, body: impl serde::Serialize) -> Response {
    let mut response = Json(body).into_response();
    if let Ok(tag) = HeaderValue::from_str(&format!("\"{version}\"")) {
        response.headers_mut().insert(ETAG, tag);
    }
    response
}
