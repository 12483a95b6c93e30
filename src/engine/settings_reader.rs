//! Reading the tenants' settings, through the directory's cache.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use voice_otp_schemas::TenantId;

use super::retry::as_error;
use super::shutdown::Shutdown;
use crate::ports::{Directory, DirectoryError};
use crate::settings::VoiceSettings;
use crate::settings::policy::Policy;

/// The settings of one tenant, or why they can't be used here.
pub(super) type Found = Result<Arc<VoiceSettings>, DirectoryError>;

/// Reads settings; waits for an unavailable database.
pub(super) struct SettingsReader<D> {
    directory: Arc<D>,
    shutdown: Shutdown,
    /// Whether reading fails now: so that an outage is logged once, and so is its end.
    failing: AtomicBool,
}

/// The pause before a failed read is repeated.
const RETRY_PAUSE: Duration = Duration::from_millis(250);

impl<D: Directory> SettingsReader<D> {
    pub(super) fn new(directory: Arc<D>, shutdown: Shutdown) -> Self {
        Self {
            directory,
            shutdown,
            failing: AtomicBool::new(false),
        }
    }

    /// The settings of tenants. Tenants without settings are missing from the map. `None` if the
    /// worker must stop before the database answers.
    pub(super) async fn all(&self, tenants: &[TenantId]) -> Option<HashMap<TenantId, Found>> {
        loop {
            match self.directory.settings(tenants).await {
                Ok(settings) => {
                    if self.failing.swap(false, Ordering::Relaxed) {
                        tracing::info!("voice settings are readable again");
                    }
                    return Some(settings);
                }
                Err(error) => {
                    if !self.failing.swap(true, Ordering::Relaxed) {
                        tracing::warn!(
                            error = as_error(&error),
                            "failed to read voice settings; retrying"
                        );
                    }
                }
            }
            if self.shutdown.sleep_or_hard(RETRY_PAUSE).await {
                return None;
            }
        }
    }

    /// The settings of one tenant. `None` if there are none, or if the worker must stop.
    pub(super) async fn of(&self, tenant: &TenantId) -> Option<Found> {
        self.all(std::slice::from_ref(tenant)).await?.remove(tenant)
    }

    /// The settings of tenants to place calls with. A cached setting that would block or end a
    /// delivery is read again first, since the cache may be stale.
    pub(super) async fn to_place(&self, tenants: &[TenantId]) -> Option<HashMap<TenantId, Found>> {
        let mut settings = self.all(tenants).await?;
        let blocks = |found: &Found| {
            found.as_ref().is_ok_and(|found| {
                found.paused.is_some() || found.credentials_rejected || !found.enabled
            })
        };
        let blocked: Vec<TenantId> = settings
            .iter()
            .filter(|(_, found)| blocks(found))
            .map(|(tenant, _)| tenant.clone())
            .collect();
        if !blocked.is_empty() {
            for tenant in &blocked {
                self.directory.invalidate(tenant);
            }
            settings.extend(self.all(&blocked).await?);
        }
        Some(settings)
    }

    /// The tenant's policy; the default one if its settings can't be read.
    pub(super) async fn policy_of(&self, tenant: &TenantId) -> Policy {
        match self.of(tenant).await {
            Some(Ok(settings)) => settings.policy(),
            Some(Err(_)) | None => Policy::default(),
        }
    }

    /// Removes a tenant from the cache.
    pub(super) fn invalidate(&self, tenant: &TenantId) {
        self.directory.invalidate(tenant);
    }
}
