//! `/tenants`: every tenant with a voice provider.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use crate::access::Principal;
use crate::problem::Problem;
use crate::services::tenants::{self, Summary};
use crate::state::Console;

/// A tenant with a voice provider.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct TenantSummary {
    /// Id of the tenant.
    tenant_id: String,
    /// Twilio account that places the tenant's calls.
    account_sid: String,
    /// Whether calls are placed for the tenant.
    enabled: bool,
    /// Whether calls are simulated.
    test_mode: bool,
}

/// List the tenants that have a voice provider.
///
/// Operators only.
#[utoipa::path(get, path = "/api/v1/tenants",
    responses((status = 200, body = [TenantSummary]), (status = 401, body = Problem),
        (status = 404, body = Problem)))]
pub(super) async fn list_tenants(
    State(console): State<Arc<Console>>,
    principal: Principal,
) -> Result<Json<Vec<TenantSummary>>, Problem> {
    principal.authorize_operator()?;
    let summary = |tenant: Summary| TenantSummary {
        tenant_id: tenant.tenant_id.to_string(),
        account_sid: tenant.account_sid,
        enabled: tenant.enabled,
        test_mode: tenant.test_mode,
    };
    let tenants = tenants::list(&console).await?;
    Ok(Json(tenants.into_iter().map(summary).collect()))
}
