//! The directory: the tenants' voice settings.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;

use voice_otp_schemas::TenantId;

use crate::settings::VoiceSettings;

/// Why voice settings can't be read.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// The database is unreachable. Retry later.
    #[error("read voice settings")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The tenant's secrets are sealed with a key that this worker doesn't have. Another worker may
    /// have it.
    #[error(
        "the tenant's secrets are sealed with key {0}, which is not in this worker's VOICE_OTP_KEYS"
    )]
    UnknownKey(String),
}

/// Stores the tenants' voice settings.
pub trait Directory: Send + Sync + 'static {
    /// Reads the settings of these tenants, from the cache where it is current. Tenants without
    /// settings are missing from the map; a tenant whose secrets can't be opened here has an error
    /// of its own.
    fn settings(
        &self,
        tenants: &[TenantId],
    ) -> impl Future<
        Output = Result<
            HashMap<TenantId, Result<Arc<VoiceSettings>, DirectoryError>>,
            DirectoryError,
        >,
    > + Send;

    /// Removes a tenant from the cache.
    fn invalidate(&self, tenant: &TenantId);

    /// Records that Twilio accepted the tenant's credentials for a call. From now on the tenant
    /// uses its account's shared rate limit.
    fn mark_credentials_verified(
        &self,
        settings: &VoiceSettings,
    ) -> impl Future<Output = Result<(), DirectoryError>> + Send;

    /// Records that Twilio rejected these credentials. No call is placed with them until Twilio
    /// accepts them again or they change. Returns false if that was known, or if they have changed
    /// since.
    fn mark_credentials_rejected(
        &self,
        settings: &VoiceSettings,
    ) -> impl Future<Output = Result<bool, DirectoryError>> + Send;

    /// Claims up to `limit` tenants whose rejected credentials should be probed now. Each goes to
    /// one worker.
    fn claim_rejected_credentials(
        &self,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<Arc<VoiceSettings>>, DirectoryError>> + Send;

    /// Records that Twilio accepts credentials that it had rejected.
    fn mark_credentials_accepted(
        &self,
        settings: &VoiceSettings,
    ) -> impl Future<Output = Result<(), DirectoryError>> + Send;
}
