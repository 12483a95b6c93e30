//! Single flags of a tenant's settings, which are changed without its secrets.

use voice_otp_schemas::TenantId;

use crate::query::{execute, query};
use crate::{Error, Pool};

/// Pauses a tenant: its requests are admitted and wait. Or resumes it and reschedules what waits.
/// Returns false if the tenant has no settings.
///
/// # Errors
/// [`Error`] when the database can't be asked.
pub async fn set_paused(pool: &Pool, tenant: &TenantId, paused: bool) -> Result<bool, Error> {
    let rows = query(
        pool,
        "pause or resume the tenant",
        "select set_tenant_paused($1, $2)",
        &[&tenant.as_str(), &paused],
    )
    .await?;
    Ok(rows.first().is_some_and(|row| row.get(0)))
}

/// Offers voice to a tenant's users, or stops offering it: only test calls are placed then. Returns
/// false if the settings no longer have this version.
///
/// # Errors
/// [`Error`] when the database can't be asked.
pub async fn set_offered(
    pool: &Pool,
    tenant: &TenantId,
    offered: bool,
    version: i64,
) -> Result<bool, Error> {
    let changed = execute(
        pool,
        "offer voice, or stop offering it",
        include_str!("../../sql/statements/set_offered.sql"),
        &[&tenant.as_str(), &offered, &version],
    )
    .await?;
    Ok(changed > 0)
}
