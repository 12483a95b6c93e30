//! Deliveries in Postgres: the core's ledger.

mod admit;
mod begin;
mod outbox;
mod price;
mod row;
mod save;
mod worker;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use deadpool_postgres::Client;
use tokio::time::Instant;
use tokio_postgres::Row;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use voice_otp::account::{AccountSid, CallSid};
use voice_otp::delivery::{AttemptId, Change, Delivery, Key, Price, WorkerEpoch};
use voice_otp::event::Event;
use voice_otp::plan::Admission;
use voice_otp::ports::{
    Attempt, Beat, Begin, Begun, Ledger, LedgerError, Saved, Unpriced, Verdict,
};
use voice_otp_schemas::{PhoneNumber, TenantId, Timestamp, UserRef};

use crate::keys::Keyring;
use crate::pool::Pool;

/// Numbers that go into the ledger's statements.
#[derive(Debug, Clone)]
pub struct Limits {
    /// How long a renewal of a worker's life is good for.
    pub lease: Duration,
    /// How far ahead a slot may be for its placement to begin.
    pub begin_ahead: Duration,
    /// A slot used later than this is void.
    pub slot_late: Duration,
    /// What is due later than this from its admission is nobody's at first.
    pub hold_ahead: Duration,
    /// How long before its time what waits may be claimed.
    pub claim_ahead: Duration,
    /// When a begun placement that nobody brings to an end is taken up by somebody else.
    pub rescue: Duration,
    /// How overdue a delivery or event of one's own must be to be taken for forgotten.
    pub forgotten: Duration,
    /// How long a delivery stays at hand after its end: twice the longest life of a code, at least.
    pub recent: Duration,
    /// How long what is over is known, against repeats.
    pub retention: Duration,
}

/// The ledger on Postgres.
#[derive(Clone)]
pub struct PgLedger {
    pool: Pool,
    keys: Keyring,
    limits: Limits,
    /// Until then, what is locked is left out at once: somebody has held a lock for longer than a moment.
    impatient_until: Arc<Mutex<Option<Instant>>>,
}

/// How long a lock that was not to be had is remembered.
const IMPATIENT: Duration = Duration::from_secs(1);
/// How long an account is left alone when its circuit opens; doubled each time in a row.
pub const CIRCUIT_FIRST: Duration = Duration::from_secs(5);
/// The longest that it is left alone.
pub const CIRCUIT_LONGEST: Duration = Duration::from_mins(1);

const KNOWN_CALLS: &str = "select call_sid from deliveries where call_sid = any ($1) \
                           union all select call_sid from past_attempts where call_sid = any ($1)";

/// The most deliveries that are put away in one statement.
const TIDIED_AT_ONCE: i32 = 1_000;

impl PgLedger {
    /// A ledger on a migrated database.
    pub fn new(pool: Pool, keys: Keyring, limits: Limits) -> Self {
        Self {
            pool,
            keys,
            limits,
            impatient_until: Arc::default(),
        }
    }

    /// Whether to leave out what is locked without waiting for it.
    fn is_impatient(&self) -> bool {
        self.impatient_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_some_and(|until| Instant::now() < until)
    }

    fn lose_patience(&self) {
        *self
            .impatient_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + IMPATIENT);
    }

    async fn client(&self) -> Result<Client, LedgerError> {
        self.pool
            .get()
            .await
            .map_err(|error| LedgerError::Unavailable(Box::new(error)))
    }

    /// Runs a statement; gives how many rows it changed.
    async fn execute(&self, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Result<u64, LedgerError> {
        let client = self.client().await?;
        let statement = client.prepare_cached(sql).await.map_err(failed)?;
        client.execute(&statement, params).await.map_err(failed)
    }

    async fn query(
        &self,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, LedgerError> {
        let client = self.client().await?;
        let statement = client.prepare_cached(sql).await.map_err(failed)?;
        client.query(&statement, params).await.map_err(failed)
    }
}

/// What a failed statement means. A data error (SQLSTATE classes 22 and 23) is some row's fault; anything else is
/// taken to pass, since dropping a delivery for it would be worse than waiting.
fn failed(error: tokio_postgres::Error) -> LedgerError {
    match error.code().map(SqlState::code) {
        Some(state) if state.starts_with("22") || state.starts_with("23") => {
            LedgerError::Data(Box::new(error))
        }
        _ => LedgerError::Unavailable(Box::new(error)),
    }
}

/// Whether two placements met on one line, or at one user, which the begun and the admitted settle among themselves.
fn is_line_conflict(error: &LedgerError) -> bool {
    let LedgerError::Data(source) = error else {
        return false;
    };
    let database = source
        .downcast_ref::<tokio_postgres::Error>()
        .and_then(tokio_postgres::Error::as_db_error);
    database.is_some_and(|error| {
        matches!(
            error.constraint(),
            Some("deliveries_line" | "deliveries_user_line")
        )
    })
}

/// Whether a lock could not be had in time.
fn is_locked(error: &LedgerError) -> bool {
    let LedgerError::Unavailable(source) = error else {
        return false;
    };
    let database = source
        .downcast_ref::<tokio_postgres::Error>()
        .and_then(tokio_postgres::Error::code);
    database == Some(&SqlState::LOCK_NOT_AVAILABLE)
}

impl Ledger for PgLedger {
    async fn enlist(&self, name: &str) -> Result<(WorkerEpoch, Timestamp), LedgerError> {
        worker::enlist(self, name).await
    }

    async fn beat(&self, worker: WorkerEpoch) -> Result<Beat, LedgerError> {
        worker::beat(self, worker).await
    }

    async fn retire(&self, worker: WorkerEpoch) -> Result<(), LedgerError> {
        worker::retire(self, worker).await
    }

    async fn admit(
        &self,
        worker: WorkerEpoch,
        group: &[Admission],
    ) -> Result<Vec<Verdict>, LedgerError> {
        admit::admit(self, worker, group).await
    }

    async fn begin(&self, worker: WorkerEpoch, group: &[Begin]) -> Result<Vec<Begun>, LedgerError> {
        begin::begin(self, worker, group).await
    }

    async fn save(&self, worker: WorkerEpoch, group: &[Change]) -> Result<Vec<Saved>, LedgerError> {
        save::save(self, worker, group).await
    }

    async fn claim(&self, worker: WorkerEpoch, most: usize) -> Result<Vec<Delivery>, LedgerError> {
        worker::claim(self, worker, most).await
    }

    async fn find_all(&self, keys: &[Key]) -> Result<Vec<Delivery>, LedgerError> {
        let (tenants, ids): (Vec<&str>, Vec<&str>) = keys
            .iter()
            .map(|key| (key.tenant_id.as_str(), key.delivery_id.as_str()))
            .unzip();
        let sql = "select d.* from unnest($1::text[], $2::text[]) as k(tenant_id, delivery_id) cross join lateral \
                   (select * from deliveries d where d.tenant_id = k.tenant_id and d.delivery_id = k.delivery_id limit 1) d";
        let rows = self.query(sql, &[&tenants, &ids]).await?;
        rows.iter()
            .map(|row| row::delivery(row, &self.keys))
            .collect()
    }

    async fn find_attempt(&self, attempt: AttemptId) -> Result<Option<Attempt>, LedgerError> {
        let sql = "select d.*, false as over from deliveries d where d.attempt_id = $1 union all \
                   select d.*, p.call_sid is not null from past_attempts p join deliveries d using (tenant_id, delivery_id) \
                     where p.attempt_id = $1 limit 1";
        let rows = self.query(sql, &[&attempt.0]).await?;
        let found = |row| {
            Ok(Attempt {
                delivery: row::delivery(row, &self.keys)?,
                over: row.get("over"),
            })
        };
        rows.first().map(found).transpose()
    }

    async fn find_user(
        &self,
        tenant: &TenantId,
        user: &UserRef,
    ) -> Result<Vec<Delivery>, LedgerError> {
        let macs = self
            .keys
            .hashes("user", &format!("{tenant}\0{}", user.as_str()));
        let sql = "select * from deliveries where user_mac = any ($1) and ended is null";
        let rows = self.query(sql, &[&macs]).await?;
        rows.iter()
            .map(|row| row::delivery(row, &self.keys))
            .collect()
    }

    async fn rivals(&self, key: &Key) -> Result<Vec<Delivery>, LedgerError> {
        let sql = "select r.* from deliveries d join deliveries r on r.user_mac = d.user_mac \
                   where d.tenant_id = $1 and d.delivery_id = $2 and r.ended is null \
                     and (r.user_time, r.delivery_id) < (d.user_time, d.delivery_id)";
        let rows = self
            .query(sql, &[&key.tenant_id.as_str(), &key.delivery_id.as_str()])
            .await?;
        rows.iter()
            .map(|row| row::delivery(row, &self.keys))
            .collect()
    }

    async fn forbid(&self, key: &Key) -> Result<bool, LedgerError> {
        // Its request is told from a repeat by the empty identity.
        let sql = "insert into deliveries (tenant_id, delivery_id, state, wake_at, identity_key, identity_mac, context, admitted_at, \
                     expires_at, place_by, sequence, ended, ended_at) \
                   select $1, $2, 'final', t, '', '', '{}', t, t, t, 0, 'cancelled', t from clock_timestamp() as t \
                     where not exists (select 1 from finished where tenant_id = $1 and delivery_id = $2) \
                   on conflict (tenant_id, delivery_id) do nothing returning 1";
        Ok(!self
            .query(sql, &[&key.tenant_id.as_str(), &key.delivery_id.as_str()])
            .await?
            .is_empty())
    }

    async fn tidy(&self) -> Result<u64, LedgerError> {
        let (recent, retention) = (
            self.limits.recent.as_secs_f64(),
            self.limits.retention.as_secs_f64(),
        );
        let sql = "select tidy_days($1::double precision * interval '1 second', $2::double precision * interval '1 second')";
        match self.query(sql, &[&recent, &retention]).await {
            // Somebody reads there for long, a backup perhaps: the next time will do.
            Err(error) if is_locked(&error) => {}
            days => drop(days?),
        }
        let sql = "select tidy($1::double precision * interval '1 second', $2)";
        let rows = self.query(sql, &[&recent, &TIDIED_AT_ONCE]).await?;
        Ok(rows
            .first()
            .map_or(0, |row| row.get::<_, i64>(0))
            .unsigned_abs())
    }

    async fn finals_missing(&self, overdue: Duration) -> Result<u64, LedgerError> {
        let sql = "select count(*) from deliveries where state <> 'final' \
                   and expires_at < clock_timestamp() - $1::double precision * interval '1 second'";
        let rows = self.query(sql, &[&overdue.as_secs_f64()]).await?;
        Ok(rows
            .first()
            .map_or(0, |row| row.get::<_, i64>(0))
            .unsigned_abs())
    }

    async fn known_calls(&self, sids: &[CallSid]) -> Result<Vec<CallSid>, LedgerError> {
        let texts: Vec<&str> = sids.iter().map(CallSid::as_str).collect();
        let rows = self.query(KNOWN_CALLS, &[&texts]).await?;
        Ok(rows
            .iter()
            .filter_map(|row| CallSid::parse(row.get(0)).ok())
            .collect())
    }

    fn went_from(&self, delivery: &Delivery, account: &AccountSid, from: &PhoneNumber) -> bool {
        let (Some(line), Some(order)) = (&delivery.line, &delivery.order) else {
            return false;
        };
        begin::lines(&self.keys, account.as_str(), from, &order.to).contains(&line.0)
    }

    async fn unpriced(&self, most: usize) -> Result<Vec<Unpriced>, LedgerError> {
        price::unpriced(self, most).await
    }

    async fn priced(&self, told: &[(CallSid, Price)]) -> Result<(), LedgerError> {
        price::priced(self, told).await
    }

    async fn verified(&self, key: &Key) -> Result<bool, LedgerError> {
        let sql = "update deliveries set verified_at = coalesce(verified_at, clock_timestamp()) \
                   where tenant_id = $1 and delivery_id = $2 returning 1";
        Ok(!self
            .query(sql, &[&key.tenant_id.as_str(), &key.delivery_id.as_str()])
            .await?
            .is_empty())
    }

    async fn hold(&self, pace_key: &str, wait: Duration) -> Result<(), LedgerError> {
        let sql = "select hold($1, $2::double precision * interval '1 second')";
        self.query(sql, &[&pace_key, &wait.as_secs_f64()])
            .await
            .map(drop)
    }

    async fn trip(&self, pace_key: &str) -> Result<Option<Duration>, LedgerError> {
        let (first, longest) = (CIRCUIT_FIRST.as_secs_f64(), CIRCUIT_LONGEST.as_secs_f64());
        let sql = "select trip($1, $2::double precision * interval '1 second', $3::double precision * interval '1 second')";
        let rows = self.query(sql, &[&pace_key, &first, &longest]).await?;
        let wait_ms = rows.first().and_then(|row| row.get::<_, Option<i64>>(0));
        Ok(wait_ms.map(|wait_ms| Duration::from_millis(wait_ms.unsigned_abs())))
    }

    async fn mend(&self, pace_key: &str) -> Result<(), LedgerError> {
        self.query("select mend($1)", &[&pace_key]).await.map(drop)
    }

    async fn published(&self, events: &[(Key, u32)]) -> Result<(), LedgerError> {
        outbox::published(self, events).await
    }

    async fn unpublished(
        &self,
        worker: WorkerEpoch,
        most: usize,
    ) -> Result<Vec<Event>, LedgerError> {
        outbox::unpublished(self, worker, most).await
    }
}
