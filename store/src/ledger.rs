//! Deliveries in Postgres: the core's ledger.

mod admit;
mod archive;
mod cancel;
mod find;
mod outbox;
mod pacing;
mod price;
mod row;
mod save;
mod start;
mod worker;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tokio_postgres::Row;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use voice_otp::account::{AccountSid, CallSid};
use voice_otp::admission::Admission;
use voice_otp::delivery::{AttemptId, Change, Delivery};
use voice_otp::event::Event;
use voice_otp::ports::{
    Attempt, AttemptStart, Heartbeat, Ledger, LedgerError, Marked, Saved, StartOutcome,
    UnpricedCall, UserCancellation, Verdict, WorkerEpoch,
};
use voice_otp::price::Price;
use voice_otp_schemas::{DeliveryKey, PhoneNumber, TenantId, Timestamp, UserRef};

pub use self::pacing::{CIRCUIT_FIRST, CIRCUIT_LONGEST};
use crate::health::{Health, Operation};
use crate::keys::Keyring;
use crate::pool::{self, Planning, Pool, StatementError};
use crate::sqlstate::{Remedy, remedy};

/// Durations that the ledger's statements take as parameters.
#[derive(Debug, Clone)]
pub struct Limits {
    /// How long a heartbeat extends a worker's lease.
    pub lease: Duration,
    /// How far ahead a slot may be for its attempt to start.
    pub begin_ahead: Duration,
    /// How late a slot may be used; after that it is void.
    pub slot_late: Duration,
    /// A delivery due later than this after its admission has no owner at first.
    pub hold_ahead: Duration,
    /// How long before its time a waiting delivery may be claimed.
    pub claim_ahead: Duration,
    /// How long after its start an attempt needs attention, if nothing happens to it.
    pub rescue: Duration,
    /// How overdue a worker's own delivery or event must be for the worker to read it again from
    /// the database.
    pub forgotten: Duration,
    /// How long a finished delivery stays in `deliveries` before it is archived: at least twice the
    /// longest time to live of a code.
    pub recent: Duration,
    /// How long an archived delivery is kept, for recognising duplicates.
    pub retention: Duration,
}

/// The ledger on Postgres.
#[derive(Clone)]
pub struct PgLedger {
    pool: Pool,
    /// The one connection of the heartbeats.
    heartbeats: Pool,
    health: Health,
    keys: Keyring,
    limits: Limits,
    /// Until then locked rows are skipped without waiting, since a transaction has held a lock for
    /// long. Written by [`skip_locked_for_a_while`](Self::skip_locked_for_a_while).
    skip_locked_until: Arc<Mutex<Option<Instant>>>,
}

/// How long locked rows are skipped after a lock could not be had in time.
const SKIP_LOCKED_FOR: Duration = Duration::from_secs(1);

impl PgLedger {
    /// Makes a ledger on a migrated database. `health` says what of it works.
    ///
    /// # Errors
    /// [`pool::Error`] when the connection of the heartbeats can't be set up.
    pub fn new(
        pool: Pool,
        keys: Keyring,
        limits: Limits,
        health: Health,
    ) -> Result<Self, pool::Error> {
        Ok(Self {
            heartbeats: pool.for_heartbeats()?,
            pool,
            health,
            keys,
            limits,
            skip_locked_until: Arc::default(),
        })
    }

    /// Whether to skip locked rows without waiting for them.
    fn skips_locked(&self) -> bool {
        self.skip_locked_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_some_and(|until| Instant::now() < until)
    }

    fn skip_locked_for_a_while(&self) {
        *self
            .skip_locked_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + SKIP_LOCKED_FOR);
    }

    /// Runs a statement, prepared once per connection, and returns its rows.
    async fn query(
        &self,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, LedgerError> {
        let rows = self.pool.query(Planning::Once, sql, params).await;
        rows.map_err(failed)
    }
}

/// The error of a failed statement.
fn failed(error: StatementError) -> LedgerError {
    match error {
        StatementError::Failed(error) => match remedy(&error) {
            Remedy::WithoutRow => LedgerError::InvalidRow(Box::new(error)),
            Remedy::InParts => LedgerError::GaveUp(Box::new(error)),
            Remedy::Later => LedgerError::Unavailable(Box::new(error)),
        },
        StatementError::TimedOut => LedgerError::GaveUp(Box::new(error)),
        StatementError::Connect(_) | StatementError::Abandoned => {
            LedgerError::Unavailable(Box::new(error))
        }
    }
}

/// Whether another transaction started an attempt on the same line or for the same user at this
/// moment.
fn is_line_conflict(error: &LedgerError) -> bool {
    let LedgerError::InvalidRow(source) = error else {
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
    let LedgerError::GaveUp(source) = error else {
        return false;
    };
    let database = source
        .downcast_ref::<tokio_postgres::Error>()
        .and_then(tokio_postgres::Error::code);
    database == Some(&SqlState::LOCK_NOT_AVAILABLE)
}

impl Ledger for PgLedger {
    async fn register_worker(&self, name: &str) -> Result<(WorkerEpoch, Timestamp), LedgerError> {
        worker::register_worker(self, name).await
    }

    async fn heartbeat(&self, worker: WorkerEpoch) -> Result<Heartbeat, LedgerError> {
        worker::heartbeat(self, worker).await
    }

    fn suspect_since(&self) -> Option<Timestamp> {
        self.pool.timeline_since()
    }

    async fn recent_step_back(&self) -> Result<Duration, LedgerError> {
        pacing::recent_step_back(self).await
    }

    async fn repair_clock_step(&self, step: Duration) -> Result<(), LedgerError> {
        pacing::repair_clock_step(self, step).await
    }

    async fn release_worker(&self, worker: WorkerEpoch) -> Result<(), LedgerError> {
        worker::release_worker(self, worker).await
    }

    async fn admit(
        &self,
        worker: WorkerEpoch,
        group: &[Admission],
    ) -> Result<Vec<Verdict>, LedgerError> {
        let execution = admit::admit(self, worker, group);
        self.health.watch(Operation::Admit, execution).await
    }

    async fn start_attempts(
        &self,
        worker: WorkerEpoch,
        group: &[AttemptStart],
    ) -> Result<Vec<StartOutcome>, LedgerError> {
        let execution = start::start_attempts(self, worker, group);
        self.health.watch(Operation::Start, execution).await
    }

    async fn save(&self, worker: WorkerEpoch, group: &[Change]) -> Result<Vec<Saved>, LedgerError> {
        let execution = save::save(self, worker, group);
        self.health.watch(Operation::Save, execution).await
    }

    async fn claim_due(
        &self,
        worker: WorkerEpoch,
        limit: usize,
    ) -> Result<Vec<Delivery>, LedgerError> {
        let execution = worker::claim_due(self, worker, limit);
        self.health.watch(Operation::Claim, execution).await
    }

    async fn find_all(&self, keys: &[DeliveryKey]) -> Result<Vec<Delivery>, LedgerError> {
        find::find_all(self, keys).await
    }

    async fn find_attempt(&self, attempt: AttemptId) -> Result<Option<Attempt>, LedgerError> {
        find::find_attempt(self, attempt).await
    }

    async fn cancel_users(
        &self,
        cancellations: &[UserCancellation],
    ) -> Result<Vec<bool>, LedgerError> {
        cancel::cancel_users(self, cancellations).await
    }

    async fn find_users(
        &self,
        cancellations: &[UserCancellation],
    ) -> Result<Vec<Vec<Delivery>>, LedgerError> {
        cancel::find_users(self, cancellations).await
    }

    async fn find_cancelled(
        &self,
        requests: &[(DeliveryKey, UserRef)],
    ) -> Result<Vec<Delivery>, LedgerError> {
        cancel::find_cancelled(self, requests).await
    }

    async fn find_older_requests(&self, key: &DeliveryKey) -> Result<Vec<Delivery>, LedgerError> {
        find::find_older_requests(self, key).await
    }

    async fn insert_tombstones(&self, keys: &[DeliveryKey]) -> Result<Vec<bool>, LedgerError> {
        cancel::insert_tombstones(self, keys).await
    }

    async fn archive_finished(&self) -> Result<u64, LedgerError> {
        archive::archive_finished(self).await
    }

    async fn count_overdue(
        &self,
        worker: WorkerEpoch,
        overdue: Duration,
    ) -> Result<u64, LedgerError> {
        archive::count_overdue(self, worker, overdue).await
    }

    async fn known_calls(&self, sids: &[CallSid]) -> Result<Vec<CallSid>, LedgerError> {
        find::known_calls(self, sids).await
    }

    fn was_placed_from(
        &self,
        delivery: &Delivery,
        account: &AccountSid,
        from: &PhoneNumber,
    ) -> bool {
        let (Some(line), Some(secrets)) = (&delivery.line, &delivery.secrets) else {
            return false;
        };
        start::lines(&self.keys, account.as_str(), from, &secrets.to).contains(&line.0)
    }

    async fn claim_unpriced_calls(&self, limit: usize) -> Result<Vec<UnpricedCall>, LedgerError> {
        price::claim_unpriced_calls(self, limit).await
    }

    async fn clear_unpriced_calls(&self, priced: &[(CallSid, Price)]) -> Result<(), LedgerError> {
        price::clear_unpriced_calls(self, priced).await
    }

    async fn mark_verified(&self, keys: &[DeliveryKey]) -> Result<Vec<Marked>, LedgerError> {
        save::mark_verified(self, keys).await
    }

    async fn throttle_account(&self, pace_key: &str, wait: Duration) -> Result<(), LedgerError> {
        pacing::throttle_account(self, pace_key, wait).await
    }

    async fn open_circuit(&self, pace_key: &str) -> Result<Option<Duration>, LedgerError> {
        pacing::open_circuit(self, pace_key).await
    }

    async fn close_circuit(&self, pace_key: &str) -> Result<(), LedgerError> {
        pacing::close_circuit(self, pace_key).await
    }

    async fn delete_published(&self, events: &[(DeliveryKey, u32)]) -> Result<(), LedgerError> {
        outbox::delete_published(self, events).await
    }

    async fn claim_unpublished(
        &self,
        worker: WorkerEpoch,
        limit: usize,
    ) -> Result<Vec<Event>, LedgerError> {
        let execution = outbox::claim_unpublished(self, worker, limit);
        self.health.watch(Operation::Sweep, execution).await
    }

    async fn find_own_unpublished(
        &self,
        worker: WorkerEpoch,
        after: Timestamp,
        limit: usize,
        without: &HashSet<TenantId>,
    ) -> Result<(Vec<Event>, Option<Timestamp>), LedgerError> {
        outbox::find_own_unpublished(self, worker, (after, limit), without).await
    }
}
