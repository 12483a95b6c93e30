//! The voice settings of one worker: the ledger's, behind a cache that follows the rules of the
//! directory on Postgres.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use voice_otp::ports::{Directory, DirectoryError};
use voice_otp::settings::VoiceSettings;
use voice_otp_schemas::TenantId;

use crate::memory::MemoryDirectory;
use crate::simulation::bug::Bug;
use crate::simulation::fault_injector::{Failed, FaultInjector};
use crate::simulation::plan::LISTENER_SILENCE;

#[derive(Clone)]
pub(in crate::simulation) struct SimDirectory {
    directory: MemoryDirectory,
    faults: FaultInjector,
    bug: Option<Bug>,
    cache: Arc<Mutex<Cache>>,
}

#[derive(Default)]
struct Cache {
    known: HashMap<TenantId, Arc<VoiceSettings>>,
    /// Counts invalidations. Settings that were read across one may be stale and are not cached.
    invalidations: u64,
    /// Whether the worker believes that it hears of changes. Else nothing is cached.
    listening: bool,
    /// Whether it doesn't hear of them, whatever it believes.
    deaf: bool,
}

/// The longest time between two faults of a listener.
const LISTENER_INTERVAL: Duration = Duration::from_secs(2);
/// How long a notification is on its way.
const NOTIFICATION_DELAY: Duration = Duration::from_millis(30);

impl SimDirectory {
    pub(in crate::simulation) fn new(
        directory: MemoryDirectory,
        faults: FaultInjector,
        bug: Option<Bug>,
    ) -> Self {
        let cache = Cache {
            listening: true,
            ..Cache::default()
        };
        Self {
            directory,
            faults,
            bug,
            cache: Arc::new(Mutex::new(cache)),
        }
    }

    /// Settings were changed: the worker hears of it a moment later, if it hears.
    pub(in crate::simulation) fn notify(&self) {
        let directory = self.clone();
        let delay = self.faults.up_to(NOTIFICATION_DELAY);
        drop(tokio::task::spawn(async move {
            tokio::time::sleep(delay).await;
            let mut cache = directory.lock();
            if !cache.deaf {
                cache.clear();
            }
        }));
    }

    /// Cuts the listener off from time to time, or silences it, until the worker has crashed.
    pub(in crate::simulation) async fn disturb_listener(self) {
        loop {
            tokio::time::sleep(self.faults.up_to(LISTENER_INTERVAL)).await;
            if self.faults.is_crashed() {
                return;
            }
            if self.faults.happens(|odds| odds.listener) {
                if self.faults.up_to(LISTENER_INTERVAL) < LISTENER_INTERVAL / 2 {
                    self.cut_off();
                } else {
                    self.fall_silent().await;
                }
                let away = self.faults.up_to(LISTENER_INTERVAL);
                tokio::time::sleep(away).await;
                self.reconnect();
            }
        }
    }

    /// The listener's connection ends, and nothing is cached any more.
    fn cut_off(&self) {
        let mut cache = self.lock();
        (cache.deaf, cache.listening) = (true, false);
        cache.clear();
    }

    /// The listener's connection dies without a word. It is given up after a while.
    async fn fall_silent(&self) {
        self.lock().deaf = true;
        tokio::time::sleep(LISTENER_SILENCE).await;
        if self.bug == Some(Bug::TrustSilentListener) {
            tokio::time::sleep(LISTENER_SILENCE * 4).await;
        }
        self.cut_off();
    }

    fn reconnect(&self) {
        let mut cache = self.lock();
        (cache.deaf, cache.listening) = (false, true);
        // Changes before this moment were not notified.
        cache.clear();
    }

    fn lock(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap()
    }

    async fn pass<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, DirectoryError> {
        self.faults.perform(work).await.map_err(|why| {
            DirectoryError::Unavailable(match why {
                Failed::Unreachable => "unreachable".into(),
                Failed::NoAnswer => "no answer".into(),
            })
        })
    }
}

impl Cache {
    fn clear(&mut self) {
        self.invalidations += 1;
        self.known.clear();
    }
}

impl Directory for SimDirectory {
    async fn settings(
        &self,
        tenants: &[TenantId],
    ) -> Result<HashMap<TenantId, Result<Arc<VoiceSettings>, DirectoryError>>, DirectoryError> {
        let (mut answer, mut missing) = (HashMap::new(), Vec::new());
        let invalidations = {
            let cache = self.lock();
            for tenant in tenants {
                match cache.known.get(tenant) {
                    Some(known) => drop(answer.insert(tenant.clone(), Ok(Arc::clone(known)))),
                    None => missing.push(tenant.clone()),
                }
            }
            cache.invalidations
        };
        if missing.is_empty() {
            return Ok(answer);
        }
        let directory = self.directory.clone();
        let read = async move {
            let read = |tenant: TenantId| Some((directory.current(&tenant)?, tenant));
            missing.into_iter().filter_map(read).collect::<Vec<_>>()
        };
        let found = self.pass(read).await?;
        let mut cache = self.lock();
        let fresh = cache.invalidations == invalidations && cache.listening;
        for (settings, tenant) in found {
            let settings = Arc::new(settings);
            if fresh {
                cache.known.insert(tenant.clone(), Arc::clone(&settings));
            }
            answer.insert(tenant, Ok(settings));
        }
        Ok(answer)
    }

    fn invalidate(&self, tenant: &TenantId) {
        let mut cache = self.lock();
        cache.invalidations += 1;
        cache.known.remove(tenant);
    }

    async fn mark_credentials_verified(
        &self,
        settings: &VoiceSettings,
    ) -> Result<(), DirectoryError> {
        let (directory, marked) = (self.directory.clone(), settings.clone());
        let done = self.pass(async move { directory.mark_credentials_verified(&marked).await });
        let done = done.await;
        self.invalidate(&settings.tenant_id);
        done?
    }

    async fn mark_credentials_rejected(
        &self,
        settings: &VoiceSettings,
    ) -> Result<bool, DirectoryError> {
        let (directory, marked) = (self.directory.clone(), settings.clone());
        let done = self.pass(async move { directory.mark_credentials_rejected(&marked).await });
        let done = done.await;
        self.invalidate(&settings.tenant_id);
        done?
    }

    async fn claim_rejected_credentials(
        &self,
        limit: usize,
    ) -> Result<Vec<Arc<VoiceSettings>>, DirectoryError> {
        let directory = self.directory.clone();
        self.pass(async move { directory.claim_rejected_credentials(limit).await })
            .await?
    }

    async fn mark_credentials_accepted(
        &self,
        settings: &VoiceSettings,
    ) -> Result<(), DirectoryError> {
        let (directory, marked) = (self.directory.clone(), settings.clone());
        let done = self.pass(async move { directory.mark_credentials_accepted(&marked).await });
        let done = done.await;
        self.invalidate(&settings.tenant_id);
        done?
    }
}
