//! The ledger, as one worker reaches it: what stands here for the store gives a statement up after
//! [`CALL_TIMEOUT`](crate::simulation::plan::CALL_TIMEOUT), as the store does.

use std::collections::HashSet;
use std::time::Duration;

use voice_otp::account::{AccountSid, CallSid};
use voice_otp::admission::Admission;
use voice_otp::delivery::{AttemptId, Change, Delivery};
use voice_otp::event::Event;
use voice_otp::ports::WorkerEpoch;
use voice_otp::ports::{
    Attempt, AttemptStart, Heartbeat, Ledger, LedgerError, Marked, Saved, StartOutcome,
    StatusSink as _, UnpricedCall, UserCancellation, Verdict,
};
use voice_otp::price::Price;
use voice_otp_schemas::DeliveryKey;
use voice_otp_schemas::{PhoneNumber, TenantId, Timestamp, UserRef};

use crate::memory::clock::Now;
use crate::memory::{MemoryLedger, MemorySink};
use crate::simulation::bug::Bug;
use crate::simulation::fault_injector::{Failed, FaultInjector};

#[derive(Clone)]
pub(in crate::simulation) struct SimLedger {
    pub(in crate::simulation) ledger: MemoryLedger,
    pub(in crate::simulation) sink: MemorySink,
    pub(in crate::simulation) faults: FaultInjector,
    /// The true time, which a planted bug shows instead of the ledger's.
    pub(in crate::simulation) true_time: Now,
    pub(in crate::simulation) bug: Option<Bug>,
}

impl SimLedger {
    /// Performs a statement.
    async fn pass<T, F>(&self, work: impl FnOnce(MemoryLedger) -> F) -> Result<T, LedgerError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, LedgerError>> + Send + 'static,
    {
        match self.faults.perform(work(self.ledger.clone())).await {
            Ok(answer) => answer,
            Err(Failed::Unreachable) => Err(LedgerError::Unavailable("unreachable".into())),
            Err(Failed::NoAnswer) => Err(LedgerError::Unavailable("no answer".into())),
        }
    }

    /// Performs a statement on a group, some of whose rows other transactions have locked.
    async fn pass_group<I, O, F>(
        &self,
        group: Vec<I>,
        locked: O,
        work: impl FnOnce(MemoryLedger, Vec<I>) -> F,
    ) -> Result<Vec<O>, LedgerError>
    where
        O: Clone + Send + 'static,
        F: Future<Output = Result<Vec<O>, LedgerError>> + Send + 'static,
    {
        let is_locked: Vec<bool> = group
            .iter()
            .map(|_| self.faults.happens(|odds| odds.locked))
            .collect();
        let free = group.into_iter().zip(&is_locked);
        let free = free.filter(|(_, locked)| !**locked).map(|(row, _)| row);
        let free: Vec<I> = free.collect();
        let mut answers = self.pass(|ledger| work(ledger, free)).await?.into_iter();
        let answer = |is_locked: bool| {
            if is_locked {
                Some(locked.clone())
            } else {
                answers.next()
            }
        };
        Ok(is_locked.into_iter().filter_map(answer).collect())
    }

    /// A delivery as the engine sees it under the planted bug.
    fn as_seen(&self, delivery: Delivery) -> Delivery {
        if self.bug != Some(Bug::ForgetExpiry) {
            return delivery;
        }
        Delivery {
            place_by: delivery.place_by + Duration::from_hours(1),
            ..delivery
        }
    }
}

impl Ledger for SimLedger {
    async fn register_worker(&self, name: &str) -> Result<(WorkerEpoch, Timestamp), LedgerError> {
        let name = name.to_owned();
        let (worker, now) = self
            .pass(|ledger| async move { ledger.register_worker(&name).await })
            .await?;
        let hidden = self.bug == Some(Bug::IgnoreClockSteps);
        Ok((worker, if hidden { (self.true_time)() } else { now }))
    }

    async fn heartbeat(&self, worker: WorkerEpoch) -> Result<Heartbeat, LedgerError> {
        let mut answer = self
            .pass(|ledger| async move { ledger.heartbeat(worker).await })
            .await?;
        if self.bug == Some(Bug::IgnoreClockSteps) {
            answer.now = (self.true_time)();
        }
        Ok(answer)
    }

    fn suspect_since(&self) -> Option<Timestamp> {
        self.ledger.suspect_since()
    }

    async fn recent_step_back(&self) -> Result<Duration, LedgerError> {
        self.pass(|ledger| async move { ledger.recent_step_back().await })
            .await
    }

    async fn repair_clock_step(&self, step: Duration) -> Result<(), LedgerError> {
        self.pass(|ledger| async move { ledger.repair_clock_step(step).await })
            .await
    }

    async fn release_worker(&self, worker: WorkerEpoch) -> Result<(), LedgerError> {
        self.pass(|ledger| async move { ledger.release_worker(worker).await })
            .await
    }

    async fn admit(
        &self,
        worker: WorkerEpoch,
        group: &[Admission],
    ) -> Result<Vec<Verdict>, LedgerError> {
        let mut group = group.to_vec();
        if self.bug == Some(Bug::ForgetUsers) {
            for admission in &mut group {
                admission.user_ref = None;
            }
        }
        self.pass_group(group, Verdict::RowLocked, |ledger, group| async move {
            ledger.admit(worker, &group).await
        })
        .await
    }

    async fn start_attempts(
        &self,
        worker: WorkerEpoch,
        group: &[AttemptStart],
    ) -> Result<Vec<StartOutcome>, LedgerError> {
        let group = group.to_vec();
        self.pass_group(group, StartOutcome::RowLocked, |ledger, group| async move {
            ledger.start_attempts(worker, &group).await
        })
        .await
    }

    async fn save(&self, worker: WorkerEpoch, group: &[Change]) -> Result<Vec<Saved>, LedgerError> {
        let mut group = group.to_vec();
        if self.bug == Some(Bug::PublishBeforeCommit) {
            for change in &group {
                for event in &change.events {
                    drop(self.sink.publish(event).await);
                }
            }
        }
        if self.bug == Some(Bug::NoFence) {
            for change in &mut group {
                if let Some(row) = self.ledger.find(&change.delivery.key).await? {
                    change.delivery.revision = row.revision;
                }
            }
        }
        self.pass_group(group, Saved::RowLocked, |ledger, group| async move {
            ledger.save(worker, &group).await
        })
        .await
    }

    async fn claim_due(
        &self,
        worker: WorkerEpoch,
        limit: usize,
    ) -> Result<Vec<Delivery>, LedgerError> {
        let claimed = self
            .pass(|ledger| async move { ledger.claim_due(worker, limit).await })
            .await?;
        Ok(claimed
            .into_iter()
            .map(|delivery| self.as_seen(delivery))
            .collect())
    }

    async fn find_all(&self, keys: &[DeliveryKey]) -> Result<Vec<Delivery>, LedgerError> {
        let keys = keys.to_vec();
        Ok(self
            .pass(|ledger| async move { ledger.find_all(&keys).await })
            .await?
            .into_iter()
            .map(|delivery| self.as_seen(delivery))
            .collect())
    }

    async fn find_attempt(&self, attempt: AttemptId) -> Result<Option<Attempt>, LedgerError> {
        self.pass(|ledger| async move { ledger.find_attempt(attempt).await })
            .await
    }

    async fn cancel_users(
        &self,
        cancellations: &[UserCancellation],
    ) -> Result<Vec<bool>, LedgerError> {
        let work = |ledger: MemoryLedger, group: Vec<UserCancellation>| async move {
            ledger.cancel_users(&group).await
        };
        self.pass_group(cancellations.to_vec(), false, work).await
    }

    async fn find_users(
        &self,
        cancellations: &[UserCancellation],
    ) -> Result<Vec<Vec<Delivery>>, LedgerError> {
        let cancellations = cancellations.to_vec();
        self.pass(|ledger| async move { ledger.find_users(&cancellations).await })
            .await
    }

    async fn find_cancelled(
        &self,
        requests: &[(DeliveryKey, UserRef)],
    ) -> Result<Vec<Delivery>, LedgerError> {
        let requests = requests.to_vec();
        self.pass(|ledger| async move { ledger.find_cancelled(&requests).await })
            .await
    }

    async fn find_older_requests(&self, key: &DeliveryKey) -> Result<Vec<Delivery>, LedgerError> {
        let key = key.clone();
        self.pass(|ledger| async move { ledger.find_older_requests(&key).await })
            .await
    }

    async fn insert_tombstones(&self, keys: &[DeliveryKey]) -> Result<Vec<bool>, LedgerError> {
        if self.bug == Some(Bug::ForgetCancellations) {
            return Ok(vec![true; keys.len()]);
        }
        let keys = keys.to_vec();
        self.pass(|ledger| async move { ledger.insert_tombstones(&keys).await })
            .await
    }

    async fn archive_finished(&self) -> Result<u64, LedgerError> {
        self.pass(|ledger| async move { ledger.archive_finished().await })
            .await
    }

    async fn count_overdue(
        &self,
        worker: WorkerEpoch,
        overdue: Duration,
    ) -> Result<u64, LedgerError> {
        self.pass(|ledger| async move { ledger.count_overdue(worker, overdue).await })
            .await
    }

    async fn known_calls(&self, sids: &[CallSid]) -> Result<Vec<CallSid>, LedgerError> {
        let sids = sids.to_vec();
        self.pass(|ledger| async move { ledger.known_calls(&sids).await })
            .await
    }

    fn was_placed_from(
        &self,
        delivery: &Delivery,
        account: &AccountSid,
        from: &PhoneNumber,
    ) -> bool {
        self.ledger.was_placed_from(delivery, account, from)
    }

    async fn claim_unpriced_calls(&self, limit: usize) -> Result<Vec<UnpricedCall>, LedgerError> {
        self.pass(|ledger| async move { ledger.claim_unpriced_calls(limit).await })
            .await
    }

    async fn clear_unpriced_calls(&self, priced: &[(CallSid, Price)]) -> Result<(), LedgerError> {
        let priced = priced.to_vec();
        self.pass(|ledger| async move { ledger.clear_unpriced_calls(&priced).await })
            .await
    }

    async fn mark_verified(&self, keys: &[DeliveryKey]) -> Result<Vec<Marked>, LedgerError> {
        if self.bug == Some(Bug::ForgetVerified) {
            return Ok(vec![Marked::Unknown; keys.len()]);
        }
        let work = |ledger: MemoryLedger, keys: Vec<DeliveryKey>| async move {
            ledger.mark_verified(&keys).await
        };
        self.pass_group(keys.to_vec(), Marked::RowLocked, work)
            .await
    }

    async fn throttle_account(&self, pace_key: &str, wait: Duration) -> Result<(), LedgerError> {
        let pace_key = pace_key.to_owned();
        self.pass(|ledger| async move { ledger.throttle_account(&pace_key, wait).await })
            .await
    }

    async fn open_circuit(&self, pace_key: &str) -> Result<Option<Duration>, LedgerError> {
        let pace_key = pace_key.to_owned();
        self.pass(|ledger| async move { ledger.open_circuit(&pace_key).await })
            .await
    }

    async fn close_circuit(&self, pace_key: &str) -> Result<(), LedgerError> {
        let pace_key = pace_key.to_owned();
        self.pass(|ledger| async move { ledger.close_circuit(&pace_key).await })
            .await
    }

    async fn delete_published(&self, events: &[(DeliveryKey, u32)]) -> Result<(), LedgerError> {
        let events = events.to_vec();
        self.pass(|ledger| async move { ledger.delete_published(&events).await })
            .await
    }

    async fn claim_unpublished(
        &self,
        worker: WorkerEpoch,
        limit: usize,
    ) -> Result<Vec<Event>, LedgerError> {
        self.pass(|ledger| async move { ledger.claim_unpublished(worker, limit).await })
            .await
    }

    async fn find_own_unpublished(
        &self,
        worker: WorkerEpoch,
        after: Timestamp,
        limit: usize,
        without: &HashSet<TenantId>,
    ) -> Result<(Vec<Event>, Option<Timestamp>), LedgerError> {
        let without = without.clone();
        self.pass(|ledger| async move {
            ledger
                .find_own_unpublished(worker, after, limit, &without)
                .await
        })
        .await
    }
}
