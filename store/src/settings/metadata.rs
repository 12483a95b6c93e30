//! What is known about a tenant's settings beside their values.

use voice_otp::account::AccountSid;
use voice_otp_schemas::{TenantId, Timestamp};

use crate::query::query;
use crate::{Error, Pool};

/// When a tenant's settings were changed, and whether other tenants use its account.
#[derive(Debug, Clone)]
pub struct SettingsMetadata {
    /// When the auth token was last changed.
    pub auth_token_since: Option<Timestamp>,
    /// When the secondary auth token was last changed; `None`: there is none.
    pub secondary_auth_token_since: Option<Timestamp>,
    /// When the API key was last changed; `None`: there is none.
    pub api_key_since: Option<Timestamp>,
    /// When any setting was last changed.
    pub updated_at: Timestamp,
    /// Whether other tenants with verified credentials use the account. Its rate limit is then not
    /// this tenant's to change.
    pub shared: bool,
}

/// Reads the metadata of a tenant's settings; `None` if it has no settings.
///
/// # Errors
/// [`Error`] when the database can't be asked.
pub async fn metadata(pool: &Pool, tenant: &TenantId) -> Result<Option<SettingsMetadata>, Error> {
    let rows = query(
        pool,
        "read the settings' metadata",
        include_str!("../../sql/statements/find_settings_metadata.sql"),
        &[&tenant.as_str()],
    )
    .await?;
    Ok(rows.first().map(|row| SettingsMetadata {
        auth_token_since: row.get("auth_token_since"),
        secondary_auth_token_since: row.get("secondary_auth_token_since"),
        api_key_since: row.get("api_key_since"),
        updated_at: row.get("updated_at"),
        shared: row.get("shared"),
    }))
}

/// Whether tenants other than this one use an account. Only tenants whose credentials Twilio has
/// accepted count, since any tenant's settings can name any account.
///
/// # Errors
/// [`Error`] when the database can't be asked.
pub async fn is_account_shared(
    pool: &Pool,
    account: &AccountSid,
    besides: &TenantId,
) -> Result<bool, Error> {
    let sql = "select 1 from voice_settings \
               where account_sid = $1 and tenant_id <> $2 and credentials_verified limit 1";
    let rows = query(
        pool,
        "find the account's other tenants",
        sql,
        &[&account.as_str(), &besides.as_str()],
    )
    .await?;
    Ok(!rows.is_empty())
}
