//! The OpenAPI document, but for the operations: those describe themselves.

use serde_json::{Value, json};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "voice-otp",
        description = "One-time passwords by phone call: voice providers, test calls, \
                       authentication methods, deliveries and figures of tenants. Errors are RFC \
                       9457 problem documents. Every change is recorded in the audit log."
    ),
    security(("token" = [])),
    modifiers(&Token)
)]
struct Document;

struct Token;

impl Modify for Token {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let description = "Token of an operator or a tenant administrator, created with voice-otp \
                           token create.";
        let scheme = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some(description))
            .build();
        openapi
            .components
            .get_or_insert_default()
            .add_security_scheme("token", SecurityScheme::Http(scheme));
    }
}

/// The document without operations.
pub(super) fn base() -> utoipa::openapi::OpenApi {
    Document::openapi()
}

/// The document with what holds for every operation: errors are problem documents, and any
/// operation may be unavailable, or refused to a client that sends too many.
#[expect(clippy::expect_used, reason = "the document is JSON by definition")]
pub(super) fn complete(document: &utoipa::openapi::OpenApi) -> Value {
    let mut document = serde_json::to_value(document).expect("the document has a JSON form");
    let paths = document.get_mut("paths").and_then(Value::as_object_mut);
    let operations = paths
        .into_iter()
        .flatten()
        .filter_map(|(_, path)| path.as_object_mut())
        .flatten();
    let all_responses =
        operations.filter_map(|(_, operation)| operation.get_mut("responses")?.as_object_mut());
    for responses in all_responses {
        let problem = json!({ "schema": { "$ref": "#/components/schemas/Problem" } });
        let unavailable = json!({
            "description": "The database or the message broker is not responding.",
            "content": { "application/json": problem },
        });
        responses.insert("503".to_owned(), unavailable);
        let too_many = json!({
            "description": "Too many requests. Retry-After says when to send the next one.",
            "content": { "application/json": problem },
        });
        responses.insert("429".to_owned(), too_many);
        let errors = responses
            .iter_mut()
            .filter(|(status, _)| status.starts_with(['4', '5']));
        let contents =
            errors.filter_map(|(_, response)| response.get_mut("content")?.as_object_mut());
        for content in contents {
            if let Some(body) = content.remove("application/json") {
                content.insert("application/problem+json".to_owned(), body);
            }
        }
    }
    document
}
