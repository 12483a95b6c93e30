//! What Twilio thinks of a tenant's credentials: verified, rejected, accepted again.

use std::time::Duration;

use voice_otp::settings::VoiceSettings;
use voice_otp_schemas::TenantId;

use super::tenant_id;
use crate::query::{execute, query};
use crate::{Error, Pool};

/// How long rejected credentials are left alone before they are probed, and between two probes.
const PROBE_INTERVAL: Duration = Duration::from_mins(1);

/// Records that Twilio accepted a call with these credentials. From now on the tenant's calls count
/// against its account's rate limit. Does nothing if the settings have another version.
///
/// # Errors
/// [`Error`] when the database can't be asked.
pub async fn mark_credentials_verified(pool: &Pool, settings: &VoiceSettings) -> Result<(), Error> {
    execute(
        pool,
        "record that Twilio accepts the credentials",
        include_str!("../../sql/statements/mark_credentials_verified.sql"),
        &[&settings.tenant_id.as_str(), &settings.version],
    )
    .await
    .map(drop)
}

/// Records that Twilio rejected these credentials. Returns false if that was known, or if the
/// settings have another version.
///
/// # Errors
/// [`Error`] when the database can't be asked.
pub async fn mark_credentials_rejected(
    pool: &Pool,
    settings: &VoiceSettings,
) -> Result<bool, Error> {
    let marked = execute(
        pool,
        "record that Twilio rejects the credentials",
        include_str!("../../sql/statements/mark_credentials_rejected.sql"),
        &[
            &settings.tenant_id.as_str(),
            &settings.version,
            &PROBE_INTERVAL.as_secs_f64(),
        ],
    )
    .await?;
    Ok(marked > 0)
}

/// Records that Twilio accepts credentials that it had rejected. Does nothing if the settings have
/// another version.
///
/// # Errors
/// [`Error`] when the database can't be asked.
pub async fn mark_credentials_accepted(pool: &Pool, settings: &VoiceSettings) -> Result<(), Error> {
    execute(
        pool,
        "record that Twilio accepts the credentials again",
        include_str!("../../sql/statements/mark_credentials_accepted.sql"),
        &[&settings.tenant_id.as_str(), &settings.version],
    )
    .await
    .map(drop)
}

/// Claims up to `limit` tenants whose rejected credentials should be probed now. The next claim of
/// each is possible a minute later.
///
/// # Errors
/// [`Error`] when the database can't be asked.
pub async fn claim_rejected_credentials(pool: &Pool, limit: usize) -> Result<Vec<TenantId>, Error> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = query(
        pool,
        "find rejected credentials",
        include_str!("../../sql/statements/claim_rejected_credentials.sql"),
        &[&limit, &PROBE_INTERVAL.as_secs_f64()],
    )
    .await?;
    rows.iter().map(tenant_id).collect()
}
