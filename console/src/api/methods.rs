//! `/tenants/{tenant}/methods`: the authentication methods of a tenant.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;

use super::extract::{JsonBody, PathParams};
use crate::access::Principal;
use crate::problem::Problem;
use crate::services::methods::{self, Methods, NewMethods};
use crate::state::Console;

/// Get the authentication methods that a tenant's users may choose.
#[utoipa::path(get, path = "/api/v1/tenants/{tenant}/methods", params(("tenant" = String, Path)),
    responses((status = 200, body = Methods), (status = 401, body = Problem),
        (status = 404, body = Problem)))]
pub(super) async fn get_methods(
    State(console): State<Arc<Console>>,
    PathParams(tenant): PathParams<String>,
    principal: Principal,
) -> Result<Json<Methods>, Problem> {
    let tenant = principal.authorize_tenant(&tenant)?;
    Ok(Json(methods::show(&console, &tenant).await?))
}

/// Enable or disable Voice OTP for a tenant's users.
///
/// Enabling it fails while no voice provider is configured.
#[utoipa::path(put, path = "/api/v1/tenants/{tenant}/methods", request_body = NewMethods,
    params(("tenant" = String, Path)),
    responses((status = 200, body = Methods), (status = 400, body = Problem),
        (status = 401, body = Problem), (status = 403, body = Problem),
        (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(super) async fn put_methods(
    State(console): State<Arc<Console>>,
    PathParams(tenant): PathParams<String>,
    principal: Principal,
    JsonBody(new): JsonBody<NewMethods>,
) -> Result<Json<Methods>, Problem> {
    let tenant = principal.authorize_tenant(&tenant)?;
    let enabled = new.voice_otp.enabled;
    Ok(Json(
        methods::save(&console, &principal, &tenant, enabled).await?,
    ))
}
