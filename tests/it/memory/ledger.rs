//! The ledger in memory.

use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use voice_otp::account::{AccountSid, CallSid};
use voice_otp::delivery::{AttemptId, Change, Delivery, Key, Price, State, WorkerEpoch};
use voice_otp::event::Event;
use voice_otp::plan::Admission;
use voice_otp::ports::{
    Attempt, Beat, Begin, Begun, Ledger, LedgerError, Saved, Unpriced, Verdict,
};
use voice_otp_schemas::{PhoneNumber, TenantId, Timestamp, UserRef};
use voice_otp_store::ledger::Limits;

use super::clock::Now;
use super::directory::MemoryDirectory;
use super::tables::{Owed, Tables};
use super::{admit, begin, lives, save, tables};

/// The ledger in memory. Clones are connections to the same one.
#[derive(Clone)]
pub(crate) struct MemoryLedger {
    tables: Arc<Mutex<Tables>>,
    now: Now,
    limits: Limits,
    latency: Duration,
    faults: Arc<Faults>,
}

/// What is wrong with the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// Nothing.
    None,
    /// Nobody's life is renewed.
    NoBeats,
    /// It can't be reached.
    Away,
}

struct Faults {
    trouble: Mutex<Trouble>,
    /// Of so many answers one is lost: what was asked for is done, and the asker doesn't know. 0: none.
    lose_every: AtomicU32,
    answers: AtomicU32,
    /// The answer that is lost when this many more have been given. Negative: none.
    lose_nth: AtomicI64,
}

impl MemoryLedger {
    pub(crate) fn new(now: Now, limits: Limits) -> Self {
        let faults = Faults {
            trouble: Mutex::new(Trouble::None),
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

    /// The same, answering only after a while: so that tasks meet in between.
    pub(crate) fn with_latency(self, latency: Duration) -> Self {
        Self { latency, ..self }
    }

    /// The directory of the settings that this ledger compares plans with, with a cache of its own.
    pub(crate) fn directory(&self) -> MemoryDirectory {
        MemoryDirectory::new(Arc::clone(&self.tables), Arc::clone(&self.now))
    }

    pub(crate) fn meet(&self, trouble: Trouble) {
        *self.faults.trouble.lock().unwrap() = trouble;
    }

    /// Loses one of so many answers from now on; 0: none.
    pub(crate) fn lose_every(&self, answers: u32) {
        self.faults.lose_every.store(answers, Ordering::SeqCst);
    }

    /// Loses one answer: the one after so many others.
    pub(crate) fn lose_nth(&self, answers: u32) {
        self.faults
            .lose_nth
            .store(i64::from(answers), Ordering::SeqCst);
    }

    /// How many events are not known to be published.
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
        if *self.faults.trouble.lock().unwrap() == Trouble::Away {
            return Err(LedgerError::Unavailable("away".into()));
        }
        let done = work(&mut self.lock(), (self.now)());
        let lose_every = self.faults.lose_every.load(Ordering::SeqCst);
        let answers = self.faults.answers.fetch_add(1, Ordering::SeqCst);
        if self.faults.lose_nth.fetch_sub(1, Ordering::SeqCst) == 0 {
            return Err(LedgerError::Unavailable("the answer was lost".into()));
        }
        // Scattered, or something that is asked for in the same rhythm would never be answered.
        if lose_every > 0 && (answers.wrapping_mul(2_654_435_761) >> 16).is_multiple_of(lose_every)
        {
            return Err(LedgerError::Unavailable("the answer was lost".into()));
        }
        Ok(done)
    }
}

impl Ledger for MemoryLedger {
    async fn enlist(&self, _: &str) -> Result<(WorkerEpoch, Timestamp), LedgerError> {
        self.work(|tables, now| (tables.enlist(self.limits.lease, now), now))
            .await
    }

    async fn beat(&self, worker: WorkerEpoch) -> Result<Beat, LedgerError> {
        if *self.faults.trouble.lock().unwrap() == Trouble::NoBeats {
            return Err(LedgerError::Unavailable("no beats".into()));
        }
        self.work(|tables, now| lives::beat(tables, &self.limits, worker, now))
            .await
    }

    async fn retire(&self, worker: WorkerEpoch) -> Result<(), LedgerError> {
        self.work(|tables, now| lives::retire(tables, worker, now))
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

    async fn begin(&self, worker: WorkerEpoch, group: &[Begin]) -> Result<Vec<Begun>, LedgerError> {
        self.work(|tables, now| begin::begin(tables, &self.limits, worker, group, now))
            .await
    }

    async fn save(&self, worker: WorkerEpoch, group: &[Change]) -> Result<Vec<Saved>, LedgerError> {
        self.work(|tables, now| save::save(tables, worker, group, now))
            .await?
    }

    async fn claim(&self, worker: WorkerEpoch, most: usize) -> Result<Vec<Delivery>, LedgerError> {
        self.work(|tables, now| lives::claim(tables, &self.limits, worker, most, now))
            .await
    }

    async fn find_all(&self, keys: &[Key]) -> Result<Vec<Delivery>, LedgerError> {
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
            current.or_else(past).map(|(row, over)| Attempt {
                delivery: row.delivery.clone(),
                over,
            })
        })
        .await
    }

    async fn find_user(
        &self,
        tenant: &TenantId,
        user: &UserRef,
    ) -> Result<Vec<Delivery>, LedgerError> {
        self.work(|tables, _| {
            let rows = tables
                .of_user(tenant, user)
                .filter(|row| row.delivery.state != State::Final);
            rows.map(|row| row.delivery.clone()).collect()
        })
        .await
    }

    async fn rivals(&self, key: &Key) -> Result<Vec<Delivery>, LedgerError> {
        self.work(|tables, _| {
            let Some((row, (user, _))) = tables
                .rows
                .get(key)
                .and_then(|row| Some((row, row.user.as_ref()?)))
            else {
                return Vec::new();
            };
            let rivals = tables
                .of_user(&key.tenant_id, user)
                .filter(|other| other.delivery.state != State::Final);
            rivals
                .filter(|other| other.asked() < row.asked())
                .map(|other| other.delivery.clone())
                .collect()
        })
        .await
    }

    async fn forbid(&self, key: &Key) -> Result<bool, LedgerError> {
        self.work(|tables, now| lives::forbid(tables, key, now))
            .await
    }

    async fn tidy(&self) -> Result<u64, LedgerError> {
        self.work(|tables, now| lives::tidy(tables, &self.limits, now))
            .await
    }

    async fn finals_missing(&self, overdue: Duration) -> Result<u64, LedgerError> {
        self.work(|tables, now| {
            let missing = |row: &&tables::Row| {
                row.delivery.state != State::Final && row.delivery.expires_at < now - overdue
            };
            u64::try_from(tables.rows.values().filter(missing).count()).unwrap()
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

    async fn unpriced(&self, most: usize) -> Result<Vec<Unpriced>, LedgerError> {
        self.work(|tables, now| {
            tables
                .unpriced
                .retain(|_, owed| owed.call.ended_at >= now - Duration::from_hours(24));
            let mut due: Vec<&mut Owed> = tables
                .unpriced
                .values_mut()
                .filter(|owed| owed.ask_at <= now)
                .collect();
            due.sort_by_key(|owed| owed.ask_at);
            due.truncate(most);
            due.into_iter()
                .map(|owed| {
                    let wait = Duration::from_secs(30) * 2_u32.pow(owed.asked.min(10));
                    owed.ask_at = now + wait.min(Duration::from_hours(1));
                    owed.asked += 1;
                    owed.call.clone()
                })
                .collect()
        })
        .await
    }

    async fn priced(&self, told: &[(CallSid, Price)]) -> Result<(), LedgerError> {
        self.work(|tables, _| {
            tables
                .unpriced
                .retain(|sid, _| told.iter().all(|(told, _)| told != sid))
        })
        .await
    }

    fn went_from(&self, delivery: &Delivery, account: &AccountSid, from: &PhoneNumber) -> bool {
        let (Some(line), Some(order)) = (&delivery.line, &delivery.order) else {
            return false;
        };
        tables::Line::Numbers(account.as_str().to_owned(), from.clone(), order.to.clone()).bytes()
            == *line
    }

    async fn verified(&self, key: &Key) -> Result<bool, LedgerError> {
        self.work(|tables, _| match tables.rows.get_mut(key) {
            Some(row) => {
                row.delivery.verified = true;
                true
            }
            None => false,
        })
        .await
    }

    async fn hold(&self, pace_key: &str, wait: Duration) -> Result<(), LedgerError> {
        self.work(|tables, now| {
            if tables
                .paces
                .get(pace_key)
                .is_some_and(|pace| pace.hold_until < Some(now + wait * 9 / 10))
            {
                tables.repace(pace_key, wait, now);
            }
        })
        .await
    }

    async fn trip(&self, pace_key: &str) -> Result<Option<Duration>, LedgerError> {
        self.work(|tables, now| tables.trip(pace_key, now)).await
    }

    async fn mend(&self, pace_key: &str) -> Result<(), LedgerError> {
        self.work(|tables, now| tables.mend(pace_key, now)).await
    }

    async fn published(&self, events: &[(Key, u32)]) -> Result<(), LedgerError> {
        self.work(|tables, _| {
            for place in events {
                tables.outbox.remove(place);
            }
        })
        .await
    }

    async fn unpublished(
        &self,
        worker: WorkerEpoch,
        most: usize,
    ) -> Result<Vec<Event>, LedgerError> {
        self.work(|tables, now| lives::unpublished(tables, &self.limits, worker, most, now))
            .await
    }
}
