//! Pages for browsers. They work without scripts; scripts keep some of them up to date.

mod accounts;
mod audit;
mod deliveries;
mod delivery;
mod labels;
mod layout;
mod methods;
mod overview;
mod providers;
mod request;
mod response;
mod sign_in;
mod system;
mod tenants;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::Router;
use axum::response::Redirect;
use axum::routing::{get, post};
use voice_otp_store::access::Role;

use self::request::SignedIn;
use self::response::ErrorPage;
use crate::problem::Problem;
use crate::state::Console;

pub(crate) fn router(console: Arc<Console>) -> Router {
    Router::new()
        .route("/", get(home))
        .route("/sign-in", get(sign_in::page).post(sign_in::submit))
        .route("/sign-out", post(sign_in::sign_out))
        .route("/t/{tenant}/overview", get(overview::page))
        .route("/t/{tenant}/providers/sms", get(providers::sms_page))
        .route(
            "/t/{tenant}/providers/voice",
            get(providers::page).post(providers::submit),
        )
        .route(
            "/t/{tenant}/providers/voice/remove",
            post(providers::remove),
        )
        .route("/t/{tenant}/providers/voice/check", post(providers::check))
        .route(
            "/t/{tenant}/providers/voice/test-call",
            post(providers::place_test_call),
        )
        .route(
            "/t/{tenant}/methods",
            get(methods::page).post(methods::submit),
        )
        .route(
            "/t/{tenant}/deliveries",
            get(deliveries::page).post(deliveries::filter),
        )
        .route("/t/{tenant}/deliveries/{delivery}", get(delivery::page))
        .route("/t/{tenant}/audit", get(audit::page))
        .route("/operate/tenants", get(tenants::page))
        .route(
            "/operate/accounts",
            get(accounts::page).post(accounts::submit),
        )
        .route("/operate/system", get(system::page))
        .fallback(|| async { ErrorPage(Problem::not_found()) })
        .with_state(console)
}

/// The first page: the tenant's for its administrator, the list of tenants for operators.
async fn home(SignedIn(principal): SignedIn) -> Redirect {
    match principal.role() {
        Role::Operator => Redirect::to("/operate/tenants"),
        Role::TenantAdmin(tenant) => Redirect::to(&format!("/t/{tenant}/overview")),
    }
}
