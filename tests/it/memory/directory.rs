//! The tenants' voice settings in memory: the ledger's tables, behind a cache.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use secrecy::ExposeSecret as _;
use voice_otp::account::AccountSid;
use voice_otp::ports::{Directory, DirectoryError};
use voice_otp::settings::{Draft, VoiceSettings, unverified_pace_key};
use voice_otp_schemas::{TenantId, Timestamp};

use super::clock::Now;
use super::tables::{Account, Tables, Tenant, interval_us};

/// The directory in memory. Clones share a cache.
#[derive(Clone)]
pub(crate) struct MemoryDirectory {
    tables: Arc<Mutex<Tables>>,
    cache: Arc<Mutex<HashMap<TenantId, Option<Arc<VoiceSettings>>>>>,
    now: Now,
}

impl MemoryDirectory {
    pub(super) fn new(tables: Arc<Mutex<Tables>>, now: Now) -> Self {
        Self {
            tables,
            cache: Arc::default(),
            now,
        }
    }

    /// Checks and saves a tenant's settings. Returns them as they are read from then on.
    pub(crate) fn save(&self, tenant: &str, draft: &Draft) -> VoiceSettings {
        let saved = self.save_without_notice(tenant, draft);
        // The account's rate may have changed, which concerns its other tenants too.
        self.cache.lock().unwrap().clear();
        saved
    }

    /// Saves settings like [`save`](Self::save), without invalidating the cache.
    pub(crate) fn save_without_notice(&self, tenant: &str, draft: &Draft) -> VoiceSettings {
        let tenant = TenantId::parse(tenant).unwrap();
        let settings = draft.check(tenant.clone()).expect("the draft is valid");
        let mut tables = self.tables.lock().unwrap();
        write(&mut tables, settings, draft.calls_per_second, (self.now)());
        tables.settings(&tenant).expect("it was just saved")
    }

    /// Deletes a tenant's settings.
    pub(crate) fn delete(&self, tenant: &TenantId) {
        self.tables.lock().unwrap().tenants.remove(tenant);
        self.invalidate(tenant);
    }

    /// Reads a tenant's settings without the cache.
    pub(crate) fn current(&self, tenant: &TenantId) -> Option<VoiceSettings> {
        self.tables.lock().unwrap().settings(tenant)
    }

    /// Records that Twilio accepted a tenant's credentials.
    pub(crate) fn verify_credentials(&self, settings: &VoiceSettings) {
        let mut tables = self.tables.lock().unwrap();
        let version = tables.versions + 1;
        if let Some(tenant) = tables.tenants.get_mut(&settings.tenant_id)
            && tenant.settings.version == settings.version
            && !tenant.verified
        {
            tenant.verified = true;
            tenant.settings.version = version;
            tables.versions = version;
            // Calls under the tenant's own rate count for the account from now on, so the account's
            // next slot is one interval away.
            let (now, account) = ((self.now)(), settings.account_sid.as_str());
            tables.ensure_pace(account, account, now);
            if let Some(pace) = tables.paces.get_mut(account) {
                pace.tat = pace.tat.max(pace.after(now, 1));
            }
        }
        drop(tables);
        self.invalidate(&settings.tenant_id);
    }
}

impl MemoryDirectory {
    /// Changes a tenant if its settings still have this version. A change makes a new version.
    fn change(&self, settings: &VoiceSettings, change: impl FnOnce(&mut Tenant) -> bool) -> bool {
        let mut tables = self.tables.lock().unwrap();
        let version = tables.versions + 1;
        let tenant = tables
            .tenants
            .get_mut(&settings.tenant_id)
            .filter(|tenant| tenant.settings.version == settings.version);
        let changed = tenant.is_some_and(|tenant| {
            let changed = change(tenant);
            if changed {
                tenant.settings.version = version;
            }
            changed
        });
        tables.versions += i64::from(changed);
        drop(tables);
        self.invalidate(&settings.tenant_id);
        changed
    }

    /// Pauses or resumes a tenant.
    pub(crate) fn set_tenant_paused(&self, tenant: &TenantId, paused: bool) {
        let (mut tables, now) = (self.tables.lock().unwrap(), (self.now)());
        tables.versions += 1;
        let version = tables.versions;
        let row = tables.tenants.get_mut(tenant).expect("the tenant exists");
        row.paused = paused;
        row.settings.version = version;
        let account = row.settings.account_sid.clone();
        if !paused {
            for pace_key in [
                account.as_str().to_owned(),
                unverified_pace_key(&account, tenant),
            ] {
                tables.void_slots(&pace_key, Duration::ZERO, true, now);
            }
        }
        drop(tables);
        self.invalidate(tenant);
    }

    /// Pauses or resumes an account.
    pub(crate) fn set_account_paused(&self, account: &AccountSid, paused: bool) {
        let (mut tables, now) = (self.tables.lock().unwrap(), (self.now)());
        tables
            .accounts
            .get_mut(account)
            .expect("the account exists")
            .paused = paused;
        let mut version = tables.versions;
        for tenant in tables
            .tenants
            .values_mut()
            .filter(|tenant| tenant.settings.account_sid == *account)
        {
            version += 1;
            tenant.settings.version = version;
        }
        tables.versions = version;
        if !paused {
            let keys: Vec<String> = tables
                .paces
                .iter()
                .filter(|(_, pace)| pace.account == account.as_str())
                .map(|(key, _)| key.clone())
                .collect();
            for pace_key in keys {
                tables.void_slots(&pace_key, Duration::ZERO, true, now);
            }
        }
        drop(tables);
        self.cache.lock().unwrap().clear();
    }

    /// Limits an account's calls in progress, and the share of its slots that one tenant may hold.
    pub(crate) fn set_limits(
        &self,
        account: &AccountSid,
        max_calls: Option<i32>,
        tenant_share: f64,
    ) {
        let mut tables = self.tables.lock().unwrap();
        let row = tables
            .accounts
            .get_mut(account)
            .expect("the account exists");
        row.max_calls = max_calls.map(i64::from);
        row.tenant_share = tenant_share;
    }
}

/// How long after a rejection, or a probe, rejected credentials are probed next.
const PROBE_INTERVAL: Duration = Duration::from_mins(1);

fn write(tables: &mut Tables, mut settings: VoiceSettings, rate: Option<f64>, now: Timestamp) {
    let account = settings.account_sid.clone();
    let row = tables.accounts.entry(account.clone()).or_insert(Account {
        calls_per_second: 1.0,
        paused: false,
        max_calls: None,
        tenant_share: 0.5,
    });
    row.calls_per_second = rate.unwrap_or(row.calls_per_second);
    let interval_us = interval_us(row.calls_per_second);
    // Slots that were reserved at another rate become void.
    let changed = tables
        .paces
        .iter()
        .filter(|(_, pace)| pace.account == account.as_str() && pace.interval_us != interval_us);
    for pace_key in changed.map(|(key, _)| key.clone()).collect::<Vec<_>>() {
        tables.void_slots(&pace_key, Duration::ZERO, false, now);
    }
    let before = tables.tenants.get(&settings.tenant_id);
    let verified = before.is_some_and(|before| {
        before.verified && credentials_of(&before.settings) == credentials_of(&settings)
    });
    tables.versions += 1;
    settings.version = tables.versions;
    let paused = tables
        .tenants
        .get(&settings.tenant_id)
        .is_some_and(|before| before.paused);
    tables.tenants.insert(
        settings.tenant_id.clone(),
        Tenant {
            settings,
            verified,
            paused,
            rejected_until: None,
        },
    );
}

/// The credentials, which stay verified as long as none of them changes.
fn credentials_of(settings: &VoiceSettings) -> (&str, &str, Option<(&str, &str)>) {
    let credentials = &settings.credentials;
    let api_key = credentials
        .api_key
        .as_ref()
        .map(|key| (key.sid.as_str(), key.secret.expose_secret()));
    (
        settings.account_sid.as_str(),
        credentials.auth_token.expose_secret(),
        api_key,
    )
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

    fn invalidate(&self, tenant: &TenantId) {
        self.cache.lock().unwrap().remove(tenant);
    }

    async fn mark_credentials_verified(
        &self,
        settings: &VoiceSettings,
    ) -> Result<(), DirectoryError> {
        self.verify_credentials(settings);
        Ok(())
    }

    async fn mark_credentials_rejected(
        &self,
        settings: &VoiceSettings,
    ) -> Result<bool, DirectoryError> {
        let until = (self.now)() + PROBE_INTERVAL;
        Ok(self.change(settings, |tenant| {
            tenant.rejected_until.is_none() && tenant.rejected_until.replace(until).is_none()
        }))
    }

    async fn claim_rejected_credentials(
        &self,
        limit: usize,
    ) -> Result<Vec<Arc<VoiceSettings>>, DirectoryError> {
        let (mut tables, now) = (self.tables.lock().unwrap(), (self.now)());
        let due = tables
            .tenants
            .iter_mut()
            .filter(|(_, tenant)| tenant.rejected_until.is_some_and(|until| until <= now));
        let mut due: Vec<_> = due.collect();
        due.sort_by_key(|(_, tenant)| tenant.rejected_until);
        let mut names = Vec::new();
        for (name, tenant) in due.into_iter().take(limit) {
            tenant.rejected_until = Some(now + PROBE_INTERVAL);
            names.push(name.clone());
        }
        Ok(names
            .iter()
            .filter_map(|name| tables.settings(name))
            .map(Arc::new)
            .collect())
    }

    async fn mark_credentials_accepted(
        &self,
        settings: &VoiceSettings,
    ) -> Result<(), DirectoryError> {
        self.change(settings, |tenant| tenant.rejected_until.take().is_some());
        Ok(())
    }
}
