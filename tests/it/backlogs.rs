//! No statement's cost depends on how much waits, or on how small the tables were when it was
//! planned. Each test plans its statements on empty tables, as a worker that has just started does,
//! and fills the tables afterwards.

mod admission;
mod halving;
mod left_behind;
mod queue;

use std::time::{Duration, Instant};

use voice_otp::account::AccountSid;
use voice_otp::admission::Admission;
use voice_otp::ports::{Ledger as _, Verdict, WorkerEpoch};
use voice_otp::settings::VoiceSettings;
use voice_otp_schemas::TenantId;
use voice_otp_store::{Health, Keyring, PgLedger, Pool, settings};

use crate::database::{Database, keys};
use crate::memory::sample::{Request, draft, limits};

/// A migrated database with a ledger whose connections have planned nothing yet.
struct Bench {
    database: Database,
    /// One connection, so that every statement is planned once.
    pool: Pool,
    keys: Keyring,
    ledger: PgLedger,
    worker: WorkerEpoch,
}

impl Bench {
    async fn new() -> Self {
        let (database, keys) = (Database::fresh().await, keys());
        let pool = voice_otp_store::connect_worker(&database.url, 1).unwrap();
        let ledger =
            PgLedger::new(pool.clone(), keys.clone(), limits(), Health::default()).unwrap();
        let (worker, _) = ledger.register_worker("bench").await.unwrap();
        Self {
            database,
            pool,
            keys,
            ledger,
            worker,
        }
    }

    /// A tenant with verified credentials.
    async fn tenant(&self, name: &str, account: u32, rate: f64) -> VoiceSettings {
        let unverified = self
            .database
            .save_tenant(&self.keys, name, &draft(account, rate))
            .await;
        settings::mark_credentials_verified(&self.database.pool, &unverified)
            .await
            .unwrap();
        self.settings(name).await
    }

    async fn settings(&self, name: &str) -> VoiceSettings {
        let tenant = TenantId::parse(name).unwrap();
        settings::load_one(&self.database.pool, &self.keys, &tenant)
            .await
            .unwrap()
            .unwrap()
    }

    async fn execute(&self, sql: &str) {
        let client = self.database.pool.get().await.unwrap();
        client
            .batch_execute("set statement_timeout = 0")
            .await
            .unwrap();
        client.batch_execute(sql).await.unwrap();
        client
            .batch_execute("set statement_timeout = '10s'")
            .await
            .unwrap();
    }

    async fn number(&self, sql: &str) -> i64 {
        let client = self.database.pool.get().await.unwrap();
        client.query_one(sql, &[]).await.unwrap().get(0)
    }

    /// Inserts waiting deliveries of a tenant, admitted one after another, each with its slot.
    async fn insert_waiting(&self, settings: &VoiceSettings, count: u32) {
        let (tenant, account) = (&settings.tenant_id, settings.account_sid.as_str());
        let pace_key = &settings.pace_key;
        self.execute(&format!(
            "insert into deliveries (tenant_id, delivery_id, state, wake_at, identity_key, \
                 identity_mac, context, account_sid, pace_key, admitted_at, expires_at, place_by, \
                 slot_at, slot_epoch, announced_at, sequence) \
             select '{tenant}', 'waiting-' || n, 'waiting', t + p.interval_us * n * us, 'k', '', \
                    '{{}}', '{account}', p.pace_key, t + n * us, t + interval '1 hour', \
                    t + interval '59 minutes', t + p.interval_us * n * us, p.epoch, t, 1 \
               from pacing p, clock_timestamp() t, generate_series(1, {count}) n, \
                    lateral (select interval '1 microsecond' as us) u \
              where p.pace_key = '{pace_key}'; \
             update pacing set tat = clock_timestamp() + interval_us * {count} \
                 * interval '1 microsecond' where pace_key = '{pace_key}'"
        ))
        .await;
    }

    /// Admits a batch of new requests of a tenant. Returns how long that took.
    async fn admit(&self, settings: &VoiceSettings, ids: std::ops::Range<u32>) -> Duration {
        let now = chrono::DateTime::from(std::time::SystemTime::now());
        let group: Vec<Admission> = ids
            .map(|n| {
                let id = format!("new-{n}");
                let request = Request::new(settings.tenant_id.as_str(), &id)
                    .to(n % 1000)
                    .expires_in(Duration::from_mins(50));
                let tuning = voice_otp::Tuning::default();
                let incoming = request.incoming(now);
                voice_otp::admission::plan(&incoming, Some(settings), true, &tuning, now).unwrap()
            })
            .collect();
        let began = Instant::now();
        let verdicts = self.ledger.admit(self.worker, &group).await.unwrap();
        let took = began.elapsed();
        let is_new =
            |verdict: &Verdict| matches!(verdict, Verdict::Admitted(_) | Verdict::Finished(_));
        assert!(verdicts.iter().all(is_new), "{verdicts:?}");
        took
    }

    async fn stop(self) {
        drop(self.ledger);
        drop(self.pool);
        self.database.drop_schema().await;
    }
}

fn account(settings: &VoiceSettings) -> &AccountSid {
    &settings.account_sid
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}
