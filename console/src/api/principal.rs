//! `/me`: the caller.

use axum::Json;
use serde::Serialize;
use utoipa::ToSchema;
use voice_otp_store::access::Role;

use crate::access::Principal;
use crate::problem::Problem;

/// The authenticated caller.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Me {
    /// Name of the token.
    name: String,
    /// `operator` or `tenant_admin`.
    role: &'static str,
    /// Tenant of a tenant administrator; null for operators.
    tenant_id: Option<String>,
}

/// Get the authenticated caller.
#[utoipa::path(get, path = "/api/v1/me",
    responses((status = 200, body = Me), (status = 401, body = Problem)))]
pub(super) async fn get_principal(principal: Principal) -> Json<Me> {
    let tenant_id = match principal.role() {
        Role::Operator => None,
        Role::TenantAdmin(tenant) => Some(tenant.to_string()),
    };
    Json(Me {
        name: principal.name().to_owned(),
        role: principal.role().as_str(),
        tenant_id,
    })
}
