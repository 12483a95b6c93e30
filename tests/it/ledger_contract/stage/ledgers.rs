//! The two ledgers under test.

use std::time::Duration;

use voice_otp::account::AccountSid;
use voice_otp::ports::Directory as _;
use voice_otp::settings::{Draft, VoiceSettings};
use voice_otp_schemas::{TenantId, Timestamp};
use voice_otp_store::{Health, Keyring, PgLedger, Pool, accounts, settings};

use super::{ALL, Stage};
use crate::database::{Database, keys};
use crate::memory::clock::ManualClock;
use crate::memory::sample::limits;
use crate::memory::{MemoryDirectory, MemoryLedger};

/// The ledger in memory.
pub(crate) struct MemoryStage {
    clock: ManualClock,
    ledger: MemoryLedger,
    second: MemoryLedger,
    directory: MemoryDirectory,
}

impl MemoryStage {
    pub(crate) fn new() -> Self {
        let clock = ManualClock::new();
        let ledger = MemoryLedger::new(clock.reader(), limits());
        Self {
            clock,
            second: ledger.clone(),
            directory: ledger.directory(),
            ledger,
        }
    }
}

impl Stage for MemoryStage {
    type Ledger = MemoryLedger;

    fn ledger(&self) -> &MemoryLedger {
        &self.ledger
    }

    fn second(&self) -> &MemoryLedger {
        &self.second
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    async fn advance(&self, by: Duration) {
        self.clock.advance(by);
    }

    async fn save_tenant(&self, tenant: &str, draft: &Draft) -> VoiceSettings {
        self.directory.save(tenant, draft)
    }

    async fn settings(&self, tenant: &TenantId) -> Option<VoiceSettings> {
        self.directory.current(tenant)
    }

    async fn verify_credentials(&self, settings: &VoiceSettings) {
        self.directory.verify_credentials(settings);
    }

    async fn pause(&self, tenant: &TenantId, paused: bool) {
        self.directory.set_tenant_paused(tenant, paused);
    }

    async fn pause_account(&self, account: &AccountSid, paused: bool) {
        self.directory.set_account_paused(account, paused);
    }

    async fn limit(&self, account: &AccountSid, max_calls: Option<i32>, tenant_share: f64) {
        self.directory.set_limits(account, max_calls, tenant_share);
    }

    async fn delete(&self, tenant: &TenantId) {
        self.directory.delete(tenant);
    }

    async fn reject_credentials(&self, settings: &VoiceSettings) -> bool {
        self.directory
            .mark_credentials_rejected(settings)
            .await
            .expect("it is answered")
    }

    async fn claim_rejected(&self) -> Vec<TenantId> {
        let claimed = self.directory.claim_rejected_credentials(ALL).await;
        let claimed = claimed.expect("it is answered").into_iter();
        claimed.map(|settings| settings.tenant_id.clone()).collect()
    }

    async fn accept_credentials(&self, settings: &VoiceSettings) {
        self.directory
            .mark_credentials_accepted(settings)
            .await
            .expect("it is answered");
    }

    async fn spend(&self) -> Vec<String> {
        self.ledger.spend()
    }
}

/// The ledger on Postgres, in a schema with its own clock.
pub(crate) struct PgStage {
    clock: ManualClock,
    database: Database,
    keys: Keyring,
    ledger: PgLedger,
    second: PgLedger,
}

impl PgStage {
    pub(crate) async fn new() -> Self {
        let (clock, keys) = (ManualClock::new(), keys());
        let database = Database::with_clock(clock.now()).await;
        let ledger = ledger_on(database.pool.clone(), &keys);
        let second = ledger_on(database.another_pool(), &keys);
        Self {
            clock,
            database,
            keys,
            ledger,
            second,
        }
    }

    /// Runs a statement.
    pub(crate) async fn execute(&self, sql: &str) {
        self.database
            .pool
            .get()
            .await
            .expect("Postgres answers")
            .batch_execute(sql)
            .await
            .expect("the statement succeeds");
    }

    /// Replaces a part of a function, which must occur in it.
    pub(crate) async fn change_function(&self, function: &str, from: &str, to: &str) {
        let client = self.database.pool.get().await.expect("Postgres answers");
        let text = client
            .query_one("select pg_get_functiondef($1::text::regproc)", &[&function])
            .await
            .expect("it is there");
        let text: String = text.get(0);
        assert!(text.contains(from), "{function} has no: {from}");
        drop(client);
        self.execute(&text.replace(from, to)).await;
    }

    /// The database's connections.
    pub(crate) fn pool(&self) -> &Pool {
        &self.database.pool
    }

    pub(crate) async fn close(self) {
        self.database.drop_schema().await;
    }
}

impl Stage for PgStage {
    type Ledger = PgLedger;

    fn ledger(&self) -> &PgLedger {
        &self.ledger
    }

    fn second(&self) -> &PgLedger {
        &self.second
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    async fn advance(&self, by: Duration) {
        self.clock.advance(by);
        self.database.set_time(self.clock.now()).await;
    }

    async fn save_tenant(&self, tenant: &str, draft: &Draft) -> VoiceSettings {
        self.database.save_tenant(&self.keys, tenant, draft).await
    }

    async fn settings(&self, tenant: &TenantId) -> Option<VoiceSettings> {
        settings::load_one(&self.database.pool, &self.keys, tenant)
            .await
            .expect("the settings can be read")
    }

    async fn verify_credentials(&self, settings: &VoiceSettings) {
        settings::mark_credentials_verified(&self.database.pool, settings)
            .await
            .expect("the write succeeds");
    }

    async fn pause(&self, tenant: &TenantId, paused: bool) {
        assert!(
            settings::set_paused(&self.database.pool, tenant, paused)
                .await
                .expect("the change succeeds")
        );
    }

    async fn pause_account(&self, account: &AccountSid, paused: bool) {
        assert!(
            accounts::set_paused(&self.database.pool, account, paused)
                .await
                .expect("the change succeeds")
        );
    }

    async fn limit(&self, account: &AccountSid, max_calls: Option<i32>, tenant_share: f64) {
        let pool = &self.database.pool;
        assert!(
            accounts::set_max_calls(pool, account, max_calls)
                .await
                .expect("the change succeeds")
        );
        assert!(
            accounts::set_tenant_share(pool, account, tenant_share)
                .await
                .expect("the change succeeds")
        );
    }

    async fn delete(&self, tenant: &TenantId) {
        settings::delete(&self.database.pool, tenant)
            .await
            .expect("the change succeeds");
    }

    async fn reject_credentials(&self, settings: &VoiceSettings) -> bool {
        settings::mark_credentials_rejected(&self.database.pool, settings)
            .await
            .expect("the write succeeds")
    }

    async fn claim_rejected(&self) -> Vec<TenantId> {
        settings::claim_rejected_credentials(&self.database.pool, ALL)
            .await
            .expect("it is answered")
    }

    async fn accept_credentials(&self, settings: &VoiceSettings) {
        settings::mark_credentials_accepted(&self.database.pool, settings)
            .await
            .expect("the write succeeds");
    }

    async fn spend(&self) -> Vec<String> {
        let client = self.database.pool.get().await.expect("Postgres answers");
        let sql = "select tenant_id || ' ' || extract(epoch from hour)::bigint || ' ' || unit \
                     || ' ' || amount || ' ' || calls as line \
                   from spend order by tenant_id collate \"C\", hour, unit";
        let rows = client.query(sql, &[]).await.expect("it is answered");
        rows.iter().map(|row| row.get("line")).collect()
    }
}

fn ledger_on(pool: Pool, keys: &Keyring) -> PgLedger {
    PgLedger::new(pool, keys.clone(), limits(), Health::default()).expect("the URL has been used")
}
