//! The ledger in memory.

use std::collections::HashSet;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use voice_otp::account::{AccountSid, CallSid};
use voice_otp::admission::Admission;
use voice_otp::delivery::{AttemptId, Change, Delivery, State};
use voice_otp::event::Event;
use voice_otp::ports::WorkerEpoch;
use voice_otp::ports::{
    Attempt, AttemptStart, Heartbeat, Ledger, LedgerError, Marked, Saved, StartOutcome,
    UnpricedCall, UserCancellation, Verdict,
};
use voice_otp::price::Price;
use voice_otp_schemas::DeliveryKey;
use voice_otp_schemas::{PhoneNumber, TenantId, Timestamp, UserRef};
use voice_otp_store::ledger::Limits;

use super::clock::Now;
use super::directory::MemoryDirectory;
use super::tables::{PriceQuery, Tables};
use super::{admit, archive, outbox, save, start, tables, workers};

/// The ledger in memory. Clones share the same tables.
#[derive(Clone)]
pub(crate) struct MemoryLedger {
    tables: Arc<Mutex<Tables>>,
    now: Now,
    limits: Limits,
    /// How long each answer takes.
    latency: Duration,
    faults: Arc<Faults>,
}

/// Which operations of the ledger fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outage {
    /// No operation fails.
    None,
    /// Heartbeats, so that leases expire.
    NoHeartbeats,
    /// All operations.
    Unreachable,
}

struct Faults {
    outage: Mutex<Outage>,
    /// One in this many answers is lost: the operation is applied, and the caller gets an error. 0:
    /// none.
    lose_every: AtomicU32,
    /// The number of answers so far.
    answers: AtomicU32,
    /// Loses the answer that follows this many others. Negative: none.
    lose_nth: AtomicI64,
}

impl MemoryLedger {
    pub(crate) fn new(now: Now, limits: Limits) -> Self {
        let faults = Faults {
            outage: Mutex::new(Outage::None),
            lose_every: AtomicU32::new(0),
            answers: AtomicU32::new(0),
            lose_nth: AtomicI64::new(-1),
        };
        Self {
            tables: Arc::default(),
            now,
            limits,
            latency: Duration::ZERO,
            faults: Arc::new(faults),
        }
    }

    /// Delays every answer, so that other tasks run in between.
    pub(crate) fn with_latency(self, latency: Duration) -> Self {
        Self { latency, ..self }
    }

    /// A directory of the settings that this ledger compares plans with, with its own cache.
    pub(crate) fn directory(&self) -> MemoryDirectory {
        MemoryDirectory::new(Arc::clone(&self.tables), Arc::clone(&self.now))
    }

    pub(crate) fn set_outage(&self, outage: Outage) {
        *self.faults.outage.lock().unwrap() = outage;
    }

    /// Loses one in this many answers from now on; 0: none.
    pub(crate) fn lose_every(&self, answers: u32) {
        self.faults.lose_every.store(answers, Ordering::SeqCst);
    }

    /// Loses one answer: the one that follows this many others.
    pub(crate) fn lose_nth(&self, answers: u32) {
        self.faults
            .lose_nth
            .store(i64::from(answers), Ordering::SeqCst);
    }

    /// What calls cost, one line for each tenant, hour and currency.
    pub(crate) fn spend(&self) -> Vec<String> {
        let tables = self.lock();
        let line =
            |((tenant, hour, unit), (amount, calls)): (&(_, Timestamp, String), &(f64, u64))| {
                let tenant: &voice_otp_schemas::TenantId = tenant;
                format!("{tenant} {} {unit} {amount} {calls}", hour.timestamp())
            };
        tables.spend.iter().map(line).collect()
    }

    /// The number of statements so far.
    pub(crate) fn statements(&self) -> u32 {
        self.faults.answers.load(Ordering::SeqCst)
    }

    /// The number of events in the outbox.
    pub(crate) fn outbox_len(&self) -> usize {
        self.lock().outbox.len()
    }

    fn lock(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap()
    }

    async fn work<T>(
        &self,
        work: impl FnOnce(&mut Tables, Timestamp) -> T + Send,
    ) -> Result<T, LedgerError> {
        if !self.latency.is_zero() {
            tokio::time::sleep(self.latency).await;
        }
        if *self.faults.outage.lock().unwrap() == Outage::Unreachable {
            return Err(LedgerError::Unavailable("unreachable".into()));
        }
        let done = work(&mut self.lock(), (self.now)());
        let lose_every = self.faults.lose_every.load(Ordering::SeqCst);
        let answers = self.faults.answers.fetch_add(1, Ordering::SeqCst);
        if self.faults.lose_nth.fetch_sub(1, Ordering::SeqCst) == 0 {
            return Err(LedgerError::Unavailable("the answer was lost".into()));
        }
        // Scattered by a hash. At regular intervals, an operation that is retried in the same
        // rhythm would never get an answer.
        if lose_every > 0 && (answers.wrapping_mul(2_654_435_761) >> 16).is_multiple_of(lose_every)
        {
            return Err(LedgerError::Unavailable("the answer was lost".into()));
        }
        Ok(done)
    }
}

impl Ledger for MemoryLedger {
    async fn register_worker(&self, _: &str) -> Result<(WorkerEpoch, Timestamp), LedgerError> {
        let lease = self.limits.lease;
        self.work(|tables, now| {
            let worker = tables.register_worker(lease, now);
            tables.repair_if_behind(lease, now);
            (worker, now)
        })
        .await
    }

    async fn heartbeat(&self, worker: WorkerEpoch) -> Result<Heartbeat, LedgerError> {
        if *self.faults.outage.lock().unwrap() == Outage::NoHeartbeats {
            return Err(LedgerError::Unavailable("heartbeats fail".into()));
        }
        self.work(|tables, now| workers::heartbeat(tables, &self.limits, worker, now))
            .await
    }

    async fn release_worker(&self, worker: WorkerEpoch) -> Result<(), LedgerError> {
        self.work(|tables, now| workers::release(tables, worker, now))
            .await
    }

    async fn admit(
        &self,
        worker: WorkerEpoch,
        group: &[Admission],
    ) -> Result<Vec<Verdict>, LedgerError> {
        self.work(|tables, now| admit::admit(tables, &self.limits, worker, group, now))
            .await
    }

    async fn start_attempts(
        &self,
        worker: WorkerEpoch,
        group: &[AttemptStart],
    ) -> Result<Vec<StartOutcome>, LedgerError> {
        self.work(|tables, now| start::start_attempts(tables, &self.limits, worker, group, now))
            .await
    }

    async fn save(&self, worker: WorkerEpoch, group: &[Change]) -> Result<Vec<Saved>, LedgerError> {
        self.work(|tables, now| save::save(tables, worker, group, now))
            .await?
    }

    async fn claim_due(
        &self,
        worker: WorkerEpoch,
        limit: usize,
    ) -> Result<Vec<Delivery>, LedgerError> {
        self.work(|tables, now| workers::claim_due(tables, &self.limits, worker, limit, now))
            .await
    }

    async fn find_all(&self, keys: &[DeliveryKey]) -> Result<Vec<Delivery>, LedgerError> {
        self.work(|tables, _| {
            keys.iter()
                .filter_map(|key| tables.rows.get(key))
                .map(|row| row.delivery.clone())
                .collect()
        })
        .await
    }

    async fn find_attempt(&self, attempt: AttemptId) -> Result<Option<Attempt>, LedgerError> {
        self.work(|tables, _| {
            let current = tables
                .rows
                .values()
                .find(|row| row.delivery.attempt_id == Some(attempt))
                .map(|row| (row, false));
            let past = || {
                let (key, _, call) = tables.past_attempts.get(&attempt)?;
                Some((tables.rows.get(key)?, call.is_some()))
            };
            current.or_else(past).map(|(row, ended)| Attempt {
                delivery: row.delivery.clone(),
                ended,
            })
        })
        .await
    }

    async fn cancel_users(
        &self,
        cancellations: &[UserCancellation],
    ) -> Result<Vec<bool>, LedgerError> {
        self.work(|tables, now| archive::cancel_users(tables, cancellations, now))
            .await
    }

    async fn find_users(
        &self,
        cancellations: &[UserCancellation],
    ) -> Result<Vec<Vec<Delivery>>, LedgerError> {
        self.work(|tables, _| {
            let found = cancellations.iter();
            found.map(|one| archive::find_user(tables, one)).collect()
        })
        .await
    }

    async fn find_cancelled(
        &self,
        requests: &[(DeliveryKey, UserRef)],
    ) -> Result<Vec<Delivery>, LedgerError> {
        self.work(|tables, _| archive::find_cancelled(tables, requests))
            .await
    }

    async fn find_older_requests(&self, key: &DeliveryKey) -> Result<Vec<Delivery>, LedgerError> {
        self.work(|tables, _| {
            let Some((row, (user, _))) = tables
                .rows
                .get(key)
                .and_then(|row| Some((row, row.user.as_ref()?)))
            else {
                return Vec::new();
            };
            let others = tables
                .of_user(&key.tenant_id, user)
                .filter(|other| other.delivery.state != State::Final);
            others
                .filter(|other| other.request_order() < row.request_order())
                .map(|other| other.delivery.clone())
                .collect()
        })
        .await
    }

    async fn insert_tombstones(&self, keys: &[DeliveryKey]) -> Result<Vec<bool>, LedgerError> {
        self.work(|tables, now| archive::insert_tombstones(tables, keys, now))
            .await
    }

    async fn archive_finished(&self) -> Result<u64, LedgerError> {
        self.work(|tables, now| archive::archive_finished(tables, &self.limits, now))
            .await
    }

    async fn count_overdue(
        &self,
        worker: WorkerEpoch,
        overdue: Duration,
    ) -> Result<u64, LedgerError> {
        self.work(|tables, now| {
            if tables.alive(now).first() != Some(&worker) {
                return 0;
            }
            let is_overdue = |row: &&tables::Row| {
                row.delivery.state != State::Final && row.delivery.expires_at < now - overdue
            };
            u64::try_from(tables.rows.values().filter(is_overdue).count()).unwrap()
        })
        .await
    }

    async fn known_calls(&self, sids: &[CallSid]) -> Result<Vec<CallSid>, LedgerError> {
        self.work(|tables, _| {
            let known = tables
                .rows
                .values()
                .filter_map(|row| row.delivery.call_sid.clone());
            let known = known.chain(
                tables
                    .past_attempts
                    .values()
                    .filter_map(|(_, _, call)| call.clone()),
            );
            known.filter(|sid| sids.contains(sid)).collect()
        })
        .await
    }

    async fn claim_unpriced_calls(&self, limit: usize) -> Result<Vec<UnpricedCall>, LedgerError> {
        self.work(|tables, now| {
            tables
                .unpriced_calls
                .retain(|_, query| query.call.ended_at >= now - Duration::from_hours(24));
            let mut due: Vec<&mut PriceQuery> = tables
                .unpriced_calls
                .values_mut()
                .filter(|query| query.query_at <= now)
                .collect();
            due.sort_by_key(|query| query.query_at);
            due.truncate(limit);
            due.into_iter()
                .map(|query| {
                    let wait = Duration::from_secs(30) * 2_u32.pow(query.queries.min(10));
                    query.query_at = now + wait.min(Duration::from_hours(1));
                    query.queries += 1;
                    query.call.clone()
                })
                .collect()
        })
        .await
    }

    async fn clear_unpriced_calls(&self, priced: &[(CallSid, Price)]) -> Result<(), LedgerError> {
        self.work(|tables, _| save::clear_unpriced_calls(tables, priced))
            .await
    }

    fn was_placed_from(
        &self,
        delivery: &Delivery,
        account: &AccountSid,
        from: &PhoneNumber,
    ) -> bool {
        let (Some(line), Some(request)) = (&delivery.line, &delivery.secrets) else {
            return false;
        };
        tables::Line::Numbers(
            account.as_str().to_owned(),
            from.clone(),
            request.to.clone(),
        )
        .bytes()
            == *line
    }

    async fn mark_verified(&self, keys: &[DeliveryKey]) -> Result<Vec<Marked>, LedgerError> {
        self.work(|tables, _| {
            let marked = keys.iter();
            marked.map(|key| save::mark_verified(tables, key)).collect()
        })
        .await
    }

    fn suspect_since(&self) -> Option<Timestamp> {
        self.lock().suspect_since
    }

    async fn recent_step_back(&self) -> Result<Duration, LedgerError> {
        self.work(|tables, _| tables.clock_went_back).await
    }

    async fn repair_clock_step(&self, step: Duration) -> Result<(), LedgerError> {
        self.work(|tables, now| tables.repair_clock_step(step, self.limits.lease, now))
            .await
    }

    async fn throttle_account(&self, pace_key: &str, wait: Duration) -> Result<(), LedgerError> {
        self.work(|tables, now| {
            if tables
                .paces
                .get(pace_key)
                .is_some_and(|pace| pace.hold_until < Some(now + wait * 9 / 10))
            {
                tables.void_slots(pace_key, wait, false, now);
            }
        })
        .await
    }

    async fn open_circuit(&self, pace_key: &str) -> Result<Option<Duration>, LedgerError> {
        self.work(|tables, now| tables.open_circuit(pace_key, now))
            .await
    }

    async fn close_circuit(&self, pace_key: &str) -> Result<(), LedgerError> {
        self.work(|tables, now| tables.close_circuit(pace_key, now))
            .await
    }

    async fn delete_published(&self, events: &[(DeliveryKey, u32)]) -> Result<(), LedgerError> {
        self.work(|tables, _| {
            for event in events {
                tables.outbox.remove(event);
            }
        })
        .await
    }

    async fn claim_unpublished(
        &self,
        worker: WorkerEpoch,
        limit: usize,
    ) -> Result<Vec<Event>, LedgerError> {
        self.work(|tables, now| outbox::claim_unpublished(tables, worker, limit, now))
            .await
    }

    async fn find_own_unpublished(
        &self,
        worker: WorkerEpoch,
        after: Timestamp,
        limit: usize,
        without: &HashSet<TenantId>,
    ) -> Result<(Vec<Event>, Option<Timestamp>), LedgerError> {
        self.work(|tables, now| {
            let page = (after, limit, without);
            outbox::find_own_unpublished(tables, &self.limits, worker, page, now)
        })
        .await
    }
}
