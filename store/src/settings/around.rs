//! What stands around a tenant's settings: since when, who else uses the account, whether voice is offered.

use voice_otp::account::AccountSid;
use voice_otp_schemas::{TenantId, Timestamp};

use super::Error;
use crate::pool::Pool;

/// Since when a tenant's secrets are the ones that they are, and who else uses its account.
#[derive(Debug, Clone)]
pub struct Circumstances {
    /// Of the auth token.
    pub auth_token_since: Option<Timestamp>,
    /// Of the secondary auth token.
    pub secondary_auth_token_since: Option<Timestamp>,
    /// Of the API key's secret.
    pub api_key_since: Option<Timestamp>,
    /// When anything was changed.
    pub updated_at: Timestamp,
    /// Whether other tenants use the same account, so that its pace is not this one's to change.
    pub shared: bool,
}

/// Reads a tenant's circumstances; none if it has no settings.
///
/// # Errors
/// [`Error`] when the database can't be asked.
pub async fn circumstances(pool: &Pool, tenant: &TenantId) -> Result<Option<Circumstances>, Error> {
    let client = pool.get().await.map_err(Error::Connect)?;
    let sql = "select s.auth_token_since, s.secondary_auth_token_since, s.api_key_since, s.updated_at, \
                 exists (select 1 from voice_settings o where o.account_sid = s.account_sid and o.tenant_id <> s.tenant_id and o.proven) as shared \
               from voice_settings s where s.tenant_id = $1";
    let row = client
        .query_opt(sql, &[&tenant.as_str()])
        .await
        .map_err(|error| Error::Query("read the settings' circumstances", error))?;
    Ok(row.map(|row| Circumstances {
        auth_token_since: row.get("auth_token_since"),
        secondary_auth_token_since: row.get("secondary_auth_token_since"),
        api_key_since: row.get("api_key_since"),
        updated_at: row.get("updated_at"),
        shared: row.get("shared"),
    }))
}

/// Whether other tenants than this one use an account: such whose credentials Twilio has taken, since anybody may claim one.
///
/// # Errors
/// [`Error`] when the database can't be asked.
pub async fn uses(pool: &Pool, account: &AccountSid, besides: &TenantId) -> Result<bool, Error> {
    let client = pool.get().await.map_err(Error::Connect)?;
    let sql = "select exists (select 1 from voice_settings where account_sid = $1 and tenant_id <> $2 and proven)";
    let row = client
        .query_one(sql, &[&account.as_str(), &besides.as_str()])
        .await
        .map_err(|error| Error::Query("ask who uses the account", error))?;
    Ok(row.get(0))
}

/// Lets a tenant's users pick voice, or not: only test calls are placed then. False if the settings are not of this version any more.
///
/// # Errors
/// [`Error`] when the database can't be asked.
pub async fn offer(
    pool: &Pool,
    tenant: &TenantId,
    offered: bool,
    version: i64,
) -> Result<bool, Error> {
    let client = pool.get().await.map_err(Error::Connect)?;
    let sql = "update voice_settings set offered = $2, version = nextval('voice_settings_version'), updated_at = clock_timestamp() \
               where tenant_id = $1 and version = $3";
    let changed = client
        .execute(sql, &[&tenant.as_str(), &offered, &version])
        .await
        .map_err(|error| Error::Query("offer voice, or not", error))?;
    Ok(changed > 0)
}
