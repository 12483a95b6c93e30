//! The tenants' voice settings in memory: the same tables as the ledger's, and a cache before them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use secrecy::ExposeSecret as _;
use voice_otp::account::AccountSid;
use voice_otp::ports::{Directory, DirectoryError};
use voice_otp::settings::{Draft, VoiceSettings, unproven_pace_key};
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

impl MemoryDirectory {
    /// Changes a tenant whose settings are still these; a change is a new version.
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
        self.forget(&settings.tenant_id);
        changed
    }

    /// Pauses a tenant or resumes it.
    pub(crate) fn pause(&self, tenant: &TenantId, paused: bool) {
        let (mut tables, now) = (self.tables.lock().unwrap(), (self.now)());
        tables.versions += 1;
        let version = tables.versions;
        let row = tables.tenants.get_mut(tenant).expect("the tenant is there");
        row.paused = paused;
        row.settings.version = version;
        let account = row.settings.account_sid.clone();
        if !paused {
            for pace_key in [
                account.as_str().to_owned(),
                unproven_pace_key(&account, tenant),
            ] {
                tables.repace(&pace_key, Duration::ZERO, now);
            }
        }
        drop(tables);
        self.forget(tenant);
    }

    /// Pauses an account or resumes it.
    pub(crate) fn pause_account(&self, account: &AccountSid, paused: bool) {
        let (mut tables, now) = (self.tables.lock().unwrap(), (self.now)());
        tables
            .accounts
            .get_mut(account)
            .expect("the account is there")
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
                tables.repace(&pace_key, Duration::ZERO, now);
            }
        }
        drop(tables);
        self.cache.lock().unwrap().clear();
    }

    /// Limits an account's calls in progress, and what share of the slots one tenant may hold.
    pub(crate) fn limit(&self, account: &AccountSid, max_calls: Option<i32>, tenant_share: f64) {
        let mut tables = self.tables.lock().unwrap();
        let row = tables
            .accounts
            .get_mut(account)
            .expect("the account is there");
        row.max_calls = max_calls.map(i64::from);
        row.tenant_share = tenant_share;
    }
}

/// How long refused credentials are left alone.
const REFUSED_FOR: Duration = Duration::from_mins(1);

fn write(tables: &mut Tables, mut settings: VoiceSettings, pace: Option<f64>, now: Timestamp) {
    let account = settings.account_sid.clone();
    let row = tables.accounts.entry(account.clone()).or_insert(Account {
        calls_per_second: 1.0,
        paused: false,
        max_calls: None,
        tenant_share: 0.5,
    });
    row.calls_per_second = pace.unwrap_or(row.calls_per_second);
    let interval_us = interval_us(row.calls_per_second);
    // Slots that were reserved at another rate are void.
    let changed = tables
        .paces
        .iter()
        .filter(|(_, pace)| pace.account == account.as_str() && pace.interval_us != interval_us);
    for pace_key in changed.map(|(key, _)| key.clone()).collect::<Vec<_>>() {
        tables.repace(&pace_key, Duration::ZERO, now);
    }
    let before = tables.tenants.get(&settings.tenant_id);
    let proven =
        before.is_some_and(|before| before.proven && proves(&before.settings) == proves(&settings));
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
            proven,
            paused,
            refused_until: None,
        },
    );
}

/// What stays proven as long as none of it changes.
fn proves(settings: &VoiceSettings) -> (&str, &str, Option<(&str, &str)>) {
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

    fn forget(&self, tenant: &TenantId) {
        self.cache.lock().unwrap().remove(tenant);
    }

    async fn proven(&self, settings: &VoiceSettings) -> Result<(), DirectoryError> {
        self.prove(settings);
        Ok(())
    }

    async fn refused(&self, settings: &VoiceSettings) -> Result<bool, DirectoryError> {
        let until = (self.now)() + REFUSED_FOR;
        Ok(self.change(settings, |tenant| {
            tenant.refused_until.is_none() && tenant.refused_until.replace(until).is_none()
        }))
    }

    async fn suspects(&self, most: usize) -> Result<Vec<Arc<VoiceSettings>>, DirectoryError> {
        let (mut tables, now) = (self.tables.lock().unwrap(), (self.now)());
        let due = tables
            .tenants
            .iter_mut()
            .filter(|(_, tenant)| tenant.refused_until.is_some_and(|until| until <= now));
        let mut due: Vec<_> = due.collect();
        due.sort_by_key(|(_, tenant)| tenant.refused_until);
        let mut names = Vec::new();
        for (name, tenant) in due.into_iter().take(most) {
            tenant.refused_until = Some(now + REFUSED_FOR);
            names.push(name.clone());
        }
        Ok(names
            .iter()
            .filter_map(|name| tables.settings(name))
            .map(Arc::new)
            .collect())
    }

    async fn taken(&self, settings: &VoiceSettings) -> Result<(), DirectoryError> {
        self.change(settings, |tenant| tenant.refused_until.take().is_some());
        Ok(())
    }
}
