//! The audit log: recording changes, and listing them.

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use voice_otp_schemas::TenantId;
use voice_otp_schemas::request::rfc3339;
use voice_otp_store::audit;

use crate::access::Principal;
use crate::problem::Problem;
use crate::state::Console;

/// A change.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AuditEntry {
    /// Number of the entry; later entries have greater numbers.
    pub(crate) id: i64,
    /// Time of the change, RFC 3339.
    pub(crate) at: String,
    /// Name and id of the token that made the change, or `command line`.
    pub(crate) actor: String,
    /// Tenant that was changed; null for changes to accounts and other shared things.
    pub(crate) tenant_id: Option<String>,
    /// What was changed, for example `voice_provider.changed`.
    pub(crate) action: String,
    /// Changed settings with their old and new values. Secrets appear as `replaced`.
    pub(crate) detail: Value,
}

impl From<audit::Entry> for AuditEntry {
    fn from(entry: audit::Entry) -> Self {
        Self {
            id: entry.id,
            at: rfc3339(entry.at),
            actor: entry.actor,
            tenant_id: entry.tenant_id,
            action: entry.action,
            detail: entry.detail,
        }
    }
}

/// Records a change that the caller made.
pub(crate) async fn record(
    console: &Console,
    principal: &Principal,
    tenant: Option<&TenantId>,
    action: &str,
    detail: Value,
) -> Result<(), Problem> {
    Ok(audit::write(&console.pool, &principal.actor(), tenant, action, &detail).await?)
}

/// The latest changes first: those of one tenant, or all. With `before`, only entries with a lower
/// number.
pub(crate) async fn list(
    console: &Console,
    tenant: Option<&TenantId>,
    before: Option<i64>,
    limit: i64,
) -> Result<Vec<AuditEntry>, Problem> {
    let entries = audit::read(&console.pool, tenant, before, limit).await?;
    Ok(entries.into_iter().map(AuditEntry::from).collect())
}
