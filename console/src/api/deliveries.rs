//! `/tenants/{tenant}/deliveries` and `/tenants/{tenant}/figures`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use utoipa::IntoParams;

use super::extract::{PathParams, QueryParams};
use crate::access::Principal;
use crate::problem::Problem;
use crate::services::deliveries::{self, DeliveryDetails, DeliveryPage, DeliveryQuery, Figures};
use crate::state::Console;

/// List the deliveries of a tenant, newest first.
///
/// Codes are omitted and numbers are masked.
#[utoipa::path(get, path = "/api/v1/tenants/{tenant}/deliveries",
    params(("tenant" = String, Path), DeliveryQuery),
    responses((status = 200, body = DeliveryPage), (status = 400, body = Problem),
        (status = 401, body = Problem), (status = 404, body = Problem),
        (status = 422, body = Problem)))]
pub(super) async fn list_deliveries(
    State(console): State<Arc<Console>>,
    PathParams(tenant): PathParams<String>,
    principal: Principal,
    QueryParams(query): QueryParams<DeliveryQuery>,
) -> Result<Json<DeliveryPage>, Problem> {
    let tenant = principal.authorize_tenant(&tenant)?;
    Ok(Json(
        deliveries::search(&console, &principal, &tenant, &query).await?,
    ))
}

/// Get a delivery with its timeline.
#[utoipa::path(get, path = "/api/v1/tenants/{tenant}/deliveries/{delivery}",
    params(("tenant" = String, Path), ("delivery" = String, Path)),
    responses((status = 200, body = DeliveryDetails), (status = 401, body = Problem),
        (status = 404, body = Problem)))]
pub(super) async fn get_delivery(
    State(console): State<Arc<Console>>,
    PathParams((tenant, delivery)): PathParams<(String, String)>,
    principal: Principal,
) -> Result<Json<DeliveryDetails>, Problem> {
    let tenant = principal.authorize_tenant(&tenant)?;
    deliveries::find(&console, &tenant, &delivery)
        .await
        .map(Json)
}

/// Window of the figures.
#[derive(Debug, Clone, Copy, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct FiguresQuery {
    /// Length of the window, which ends now, in hours: 1 to 168; default: 24.
    #[param(minimum = 1, maximum = 168)]
    hours: Option<u64>,
}

/// Get the figures of a tenant.
///
/// Deliveries by outcome, country and hour, delivery rate, and reported spend.
#[utoipa::path(get, path = "/api/v1/tenants/{tenant}/figures",
    params(("tenant" = String, Path), FiguresQuery),
    responses((status = 200, body = Figures), (status = 400, body = Problem),
        (status = 401, body = Problem), (status = 404, body = Problem)))]
pub(super) async fn get_figures(
    State(console): State<Arc<Console>>,
    PathParams(tenant): PathParams<String>,
    principal: Principal,
    QueryParams(query): QueryParams<FiguresQuery>,
) -> Result<Json<Figures>, Problem> {
    let tenant = principal.authorize_tenant(&tenant)?;
    let hours = query.hours.unwrap_or(24).clamp(1, 168);
    Ok(Json(
        deliveries::figures(&console, &principal, &tenant, hours).await?,
    ))
}
