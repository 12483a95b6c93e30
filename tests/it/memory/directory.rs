//! The tenants' voice settings in memory: the same tables as the ledger's, and a cache before them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use secrecy::ExposeSecret as _;
use voice_otp::ports::{Directory, DirectoryError};
use voice_otp::settings::{Draft, VoiceSettings};
use voice_otp_schemas::{TenantId, Timestamp};

use super::clock::Now;
use super::tables::{Tables, Tenant, interval_us};

/// The directory in memory. Clones share a cache.
#[derive(Clone)]
pub(crate) struct MemoryDirectory {
    tables: Arc<Mutex<Tables>>,
    cache: Arc<Mutex<HashMap<TenantId, Option<Arc<VoiceSettings>>>>>,
    now: Now,
}

impl MemoryDirectory {
    pub(super) fn new(tables: Arc<Mutex<Tables>>, now: Now) -> Self {
        Self { tables, cache: Arc::default(), now }
    }

    /// Checks and saves a tenant's settings; gives them as they are read from then on.
    pub(crate) fn save(&self, tenant: &str, draft: &Draft) -> VoiceSettings {
        let saved = self.save_untold(tenant, draft);
        // The account may have another pace now, which is its other tenants' too.
        self.cache.lock().unwrap().clear();
        saved
    }

    /// The same, but nobody tells the cache.
    pub(crate) fn save_untold(&self, tenant: &str, draft: &Draft) -> VoiceSettings {
        let tenant = TenantId::parse(tenant).unwrap();
        let settings = draft.check(tenant.clone()).expect("the draft is right");
        let mut tables = self.tables.lock().unwrap();
        write(&mut tables, settings, draft.calls_per_second, (self.now)());
        tables.settings(&tenant).expect("it was just saved")
    }

    /// Deletes a tenant's settings.
    pub(crate) fn delete(&self, tenant: &TenantId) {
        self.tables.lock().unwrap().tenants.remove(tenant);
        self.forget(tenant);
    }

    /// A tenant's settings, past the cache.
    pub(crate) fn present(&self, tenant: &TenantId) -> Option<VoiceSettings> {
        self.tables.lock().unwrap().settings(tenant)
    }

    /// Notes that Twilio took a tenant's credentials.
    pub(crate) fn prove(&self, settings: &VoiceSettings) {
        let mut tables = self.tables.lock().unwrap();
        let version = tables.versions + 1;
        if let Some(tenant) = tables.tenants.get_mut(&settings.tenant_id)
            && tenant.settings.version == settings.version
            && !tenant.proven
        {
            tenant.proven = true;
            tenant.settings.version = version;
            tables.versions = version;
            // The calls of its own pace are the account's now: the account's next slot is one interval away.
            let (now, account) = ((self.now)(), settings.account_sid.as_str());
            tables.ensure_pace(account, account, now);
            if let Some(pace) = tables.paces.get_mut(account) {
                pace.tat = pace.tat.max(pace.after(now, 1));
            }
        }
        drop(tables);
        self.forget(&settings.tenant_id);
    }
}

fn write(tables: &mut Tables, mut settings: VoiceSettings, pace: Option<f64>, now: Timestamp) {
    let account = settings.account_sid.clone();
    let rate = tables.accounts.entry(account.clone()).or_insert(1.0);
    *rate = pace.unwrap_or(*rate);
    let interval_us = interval_us(*rate);
    // Slots that were reserved at another rate are void.
    for pace in tables.paces.values_mut().filter(|pace| pace.account == account.as_str() && pace.interval_us != interval_us) {
        pace.interval_us = interval_us;
        pace.epoch += 1;
        pace.tat = now;
    }
    let before = tables.tenants.get(&settings.tenant_id);
    let proven = before.is_some_and(|before| before.proven && proves(&before.settings) == proves(&settings));
    tables.versions += 1;
    settings.version = tables.versions;
    tables.tenants.insert(settings.tenant_id.clone(), Tenant { settings, proven });
}

/// What stays proven as long as none of it changes.
fn proves(settings: &VoiceSettings) -> (&str, &str, Option<(&str, &str)>) {
    let credentials = &settings.credentials;
    let api_key = credentials.api_key.as_ref().map(|key| (key.sid.as_str(), key.secret.expose_secret()));
    (settings.account_sid.as_str(), credentials.auth_token.expose_secret(), api_key)
}

impl Directory for MemoryDirectory {
    async fn settings(
        &self,
        tenants: &[TenantId],
    ) -> Result<HashMap<TenantId, Result<Arc<VoiceSettings>, DirectoryError>>, DirectoryError> {
        let tables = self.tables.lock().unwrap();
        let mut cache = self.cache.lock().unwrap();
        let mut answer = HashMap::new();
        for tenant in tenants {
            let read = || tables.settings(tenant).map(Arc::new);
            if let Some(settings) = cache.entry(tenant.clone()).or_insert_with(read) {
                answer.insert(tenant.clone(), Ok(Arc::clone(settings)));
            }
        }
        Ok(answer)
    }

    fn forget(&self, tenant: &TenantId) {
        self.cache.lock().unwrap().remove(tenant);
    }

    async fn proven(&self, settings: &VoiceSettings) -> Result<(), DirectoryError> {
        self.prove(settings);
        Ok(())
    }
}
