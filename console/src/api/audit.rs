//! `/audit` and `/tenants/{tenant}/audit`: the audit log.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use utoipa::IntoParams;

use super::extract::{PathParams, QueryParams};
use crate::access::Principal;
use crate::problem::Problem;
use crate::services::audit::{self, AuditEntry};
use crate::state::Console;

/// Page of the audit log.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct AuditQuery {
    /// Only entries with a lower number: the `id` of the last entry of the previous page.
    before: Option<i64>,
    /// Entries per page: 1 to 100; default: 50.
    #[param(minimum = 1, maximum = 100)]
    limit: Option<i64>,
}

impl AuditQuery {
    fn limit(&self) -> i64 {
        self.limit.unwrap_or(50).clamp(1, 100)
    }
}

/// List the changes of a tenant, latest first.
#[utoipa::path(get, path = "/api/v1/tenants/{tenant}/audit",
    params(("tenant" = String, Path), AuditQuery),
    responses((status = 200, body = [AuditEntry]), (status = 400, body = Problem),
        (status = 401, body = Problem), (status = 404, body = Problem)))]
pub(super) async fn list_tenant_changes(
    State(console): State<Arc<Console>>,
    PathParams(tenant): PathParams<String>,
    principal: Principal,
    QueryParams(query): QueryParams<AuditQuery>,
) -> Result<Json<Vec<AuditEntry>>, Problem> {
    let tenant = principal.authorize_tenant(&tenant)?;
    Ok(Json(
        audit::list(&console, Some(&tenant), query.before, query.limit()).await?,
    ))
}

/// List all changes, latest first.
///
/// Operators only.
#[utoipa::path(get, path = "/api/v1/audit", params(AuditQuery),
    responses((status = 200, body = [AuditEntry]), (status = 400, body = Problem),
        (status = 401, body = Problem), (status = 404, body = Problem)))]
pub(super) async fn list_changes(
    State(console): State<Arc<Console>>,
    principal: Principal,
    QueryParams(query): QueryParams<AuditQuery>,
) -> Result<Json<Vec<AuditEntry>>, Problem> {
    principal.authorize_operator()?;
    Ok(Json(
        audit::list(&console, None, query.before, query.limit()).await?,
    ))
}
