//! Voice settings in Postgres: reading, saving, listing, deleting. Secrets are sealed on the way
//! in.

mod credentials;
mod flags;
mod load;
mod metadata;
mod save;

use tokio_postgres::Row;
use voice_otp_schemas::TenantId;

pub use self::credentials::{
    claim_rejected_credentials, mark_credentials_accepted, mark_credentials_rejected,
    mark_credentials_verified,
};
pub use self::flags::{set_offered, set_paused};
pub use self::load::{Loaded, load, load_one};
pub use self::metadata::{SettingsMetadata, is_account_shared, metadata};
pub use self::save::{Expected, save, save_expecting};
use crate::query::{execute, query};
use crate::{Error, Pool};

/// A tenant in a list.
#[derive(Debug, Clone)]
pub struct Summary {
    /// The tenant.
    pub tenant_id: TenantId,
    /// The SID of its Twilio account.
    pub account_sid: String,
    /// Whether its requests are accepted.
    pub enabled: bool,
    /// Whether its calls are only simulated.
    pub test_mode: bool,
    /// The account's rate limit.
    pub calls_per_second: f64,
}

/// Lists tenants, in the order of their ids.
///
/// # Errors
/// [`Error`] when the database can't be asked.
pub async fn list(pool: &Pool) -> Result<Vec<Summary>, Error> {
    let sql = "select s.tenant_id, s.account_sid, s.enabled, s.test_mode, a.calls_per_second \
               from voice_settings s join accounts a using (account_sid) order by s.tenant_id";
    let rows = query(pool, "list tenants", sql, &[]).await?;
    let summary = |row: &Row| {
        Ok(Summary {
            tenant_id: tenant_id(row)?,
            account_sid: row.get("account_sid"),
            enabled: row.get("enabled"),
            test_mode: row.get("test_mode"),
            calls_per_second: row.get("calls_per_second"),
        })
    };
    rows.iter().map(summary).collect()
}

/// Deletes a tenant's settings. Deliveries in progress are finished without them, as far as that is
/// possible. Returns false if there are no settings.
///
/// # Errors
/// [`Error`] when the database can't be asked.
pub async fn delete(pool: &Pool, tenant: &TenantId) -> Result<bool, Error> {
    let sql = "delete from voice_settings where tenant_id = $1";
    let deleted = execute(pool, "delete voice settings", sql, &[&tenant.as_str()]).await?;
    Ok(deleted > 0)
}

/// Deletes a tenant's settings if they have this version. Returns false if they don't, or if there
/// are none.
///
/// # Errors
/// [`Error`] when the database can't be asked.
pub async fn delete_version(pool: &Pool, tenant: &TenantId, version: i64) -> Result<bool, Error> {
    let sql = "delete from voice_settings where tenant_id = $1 and version = $2";
    let deleted = execute(
        pool,
        "delete voice settings",
        sql,
        &[&tenant.as_str(), &version],
    )
    .await?;
    Ok(deleted > 0)
}

/// The associated data of a sealed setting: a sealed value can't be moved to another tenant or
/// column.
fn place(tenant: &TenantId, column: &str) -> String {
    format!("{tenant}/voice_settings.{column}")
}

/// The tenant of a row of `voice_settings`.
fn tenant_id(row: &Row) -> Result<TenantId, Error> {
    TenantId::parse(row.get("tenant_id")).map_err(|_| Error::InvalidRow("voice_settings.tenant_id"))
}
