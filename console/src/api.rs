//! The HTTP API, `/api/v1`, and its OpenAPI document.

mod accounts;
mod audit;
mod deliveries;
mod document;
mod events;
mod extract;
mod methods;
mod principal;
mod provider;
mod system;
mod tenants;
mod test_calls;
mod version;

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::http::header::CONTENT_TYPE;
use axum::routing::{any, get};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::problem::Problem;
use crate::state::Console;

pub(crate) fn router(console: Arc<Console>) -> Router {
    let (router, document) = routes();
    let document = Bytes::from(document::complete(&document).to_string());
    let headers = [(CONTENT_TYPE, "application/json")];
    router
        .route(
            "/api/v1/openapi.json",
            get(move || async move { (headers, document) }),
        )
        .route("/api/{*rest}", any(|| async { Problem::not_found() }))
        .method_not_allowed_fallback(|| async { Problem::method_not_allowed() })
        .with_state(console)
}

fn routes() -> (Router<Arc<Console>>, utoipa::openapi::OpenApi) {
    OpenApiRouter::with_openapi(document::base())
        .routes(routes!(principal::get_principal))
        .routes(routes!(tenants::list_tenants))
        .routes(routes!(
            provider::get_voice_provider,
            provider::put_voice_provider,
            provider::delete_voice_provider
        ))
        .routes(routes!(provider::check_voice_provider))
        .routes(routes!(provider::get_balance))
        .routes(routes!(test_calls::place_test_call))
        .routes(routes!(methods::get_methods, methods::put_methods))
        .routes(routes!(audit::list_tenant_changes))
        .routes(routes!(deliveries::list_deliveries))
        .routes(routes!(deliveries::get_delivery))
        .routes(routes!(deliveries::get_figures))
        .routes(routes!(events::stream_tenant_statuses))
        .routes(routes!(events::stream_delivery_statuses))
        .routes(routes!(accounts::list_accounts))
        .routes(routes!(accounts::change_account))
        .routes(routes!(system::get_system))
        .routes(routes!(audit::list_changes))
        .split_for_parts()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_openapi_document_describes_every_operation() {
        let (_, document) = routes();
        let document = document::complete(&document);
        insta::assert_snapshot!(serde_json::to_string_pretty(&document).unwrap());
    }
}
