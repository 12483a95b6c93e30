//! The in-memory ports of one worker, behind its fault injector, with planted bugs.

use std::time::Duration;

use voice_otp::account::{AccountSid, CallSid};
use voice_otp::admission::Admission;
use voice_otp::call::Call;
use voice_otp::call::failure::{CallFailure, Class};
use voice_otp::delivery::{AttemptId, Change, Delivery};
use voice_otp::engine::clock::MonotonicClock;
use voice_otp::event::Event;
use voice_otp::ports::WorkerEpoch;
use voice_otp::ports::{
    Attempt, AttemptStart, CallRequest, Heartbeat, Ledger, LedgerError, Ports, Saved, SinkError,
    StartOutcome, StatusSink, Telephony, UnpricedCall, Verdict,
};
use voice_otp::price::Price;
use voice_otp::settings::VoiceSettings;
use voice_otp_schemas::DeliveryKey;
use voice_otp_schemas::{PhoneNumber, TenantId, Timestamp, UserRef};

use super::bug::Bug;
use super::fault_injector::FaultInjector;
use crate::memory::{MemoryDirectory, MemoryLedger, MemorySink, MemoryTelephony};

/// The ports of a simulated worker.
pub(super) struct SimPorts;

impl Ports for SimPorts {
    type Ledger = SimLedger;
    type Directory = MemoryDirectory;
    type Telephony = SimTelephony;
    type Sink = SimSink;
}

#[derive(Clone)]
pub(super) struct SimLedger {
    pub(super) ledger: MemoryLedger,
    pub(super) sink: MemorySink,
    pub(super) faults: FaultInjector,
    pub(super) bug: Option<Bug>,
}

impl SimLedger {
    async fn pass<T>(
        &self,
        work: impl Future<Output = Result<T, LedgerError>>,
    ) -> Result<T, LedgerError> {
        let nth = self.faults.before(true).await?;
        let done = work.await;
        self.faults.after(nth).await?;
        done
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
        self.pass(self.ledger.register_worker(name)).await
    }

    async fn heartbeat(&self, worker: WorkerEpoch) -> Result<Heartbeat, LedgerError> {
        self.pass(self.ledger.heartbeat(worker)).await
    }

    async fn release_worker(&self, worker: WorkerEpoch) -> Result<(), LedgerError> {
        self.pass(self.ledger.release_worker(worker)).await
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
        self.pass(self.ledger.admit(worker, &group)).await
    }

    async fn start_attempts(
        &self,
        worker: WorkerEpoch,
        group: &[AttemptStart],
    ) -> Result<Vec<StartOutcome>, LedgerError> {
        self.pass(self.ledger.start_attempts(worker, group)).await
    }

    async fn save(&self, worker: WorkerEpoch, group: &[Change]) -> Result<Vec<Saved>, LedgerError> {
        let mut group = group.to_vec();
        if self.bug == Some(Bug::PublishBeforeCommit) {
            for change in &group {
                drop(self.sink.publish(&change.events).await);
            }
        }
        if self.bug == Some(Bug::NoFence) {
            for change in &mut group {
                if let Some(row) = self.ledger.find(&change.delivery.key).await? {
                    change.delivery.revision = row.revision;
                }
            }
        }
        self.pass(self.ledger.save(worker, &group)).await
    }

    async fn claim_due(
        &self,
        worker: WorkerEpoch,
        limit: usize,
    ) -> Result<Vec<Delivery>, LedgerError> {
        let claimed = self.pass(self.ledger.claim_due(worker, limit)).await?;
        Ok(claimed
            .into_iter()
            .map(|delivery| self.as_seen(delivery))
            .collect())
    }

    async fn find_all(&self, keys: &[DeliveryKey]) -> Result<Vec<Delivery>, LedgerError> {
        Ok(self
            .pass(self.ledger.find_all(keys))
            .await?
            .into_iter()
            .map(|delivery| self.as_seen(delivery))
            .collect())
    }

    async fn find_attempt(&self, attempt: AttemptId) -> Result<Option<Attempt>, LedgerError> {
        self.pass(self.ledger.find_attempt(attempt)).await
    }

    async fn find_user(
        &self,
        tenant: &TenantId,
        user: &UserRef,
    ) -> Result<Vec<Delivery>, LedgerError> {
        self.pass(self.ledger.find_user(tenant, user)).await
    }

    async fn find_older_requests(&self, key: &DeliveryKey) -> Result<Vec<Delivery>, LedgerError> {
        self.pass(self.ledger.find_older_requests(key)).await
    }

    async fn insert_tombstone(&self, key: &DeliveryKey) -> Result<bool, LedgerError> {
        if self.bug == Some(Bug::ForgetCancellations) {
            return Ok(true);
        }
        self.pass(self.ledger.insert_tombstone(key)).await
    }

    async fn archive_finished(&self) -> Result<u64, LedgerError> {
        self.pass(self.ledger.archive_finished()).await
    }

    async fn count_overdue(&self, overdue: Duration) -> Result<u64, LedgerError> {
        self.pass(self.ledger.count_overdue(overdue)).await
    }

    async fn known_calls(&self, sids: &[CallSid]) -> Result<Vec<CallSid>, LedgerError> {
        self.pass(self.ledger.known_calls(sids)).await
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
        self.pass(self.ledger.claim_unpriced_calls(limit)).await
    }

    async fn clear_unpriced_calls(&self, priced: &[(CallSid, Price)]) -> Result<(), LedgerError> {
        self.pass(self.ledger.clear_unpriced_calls(priced)).await
    }

    async fn mark_verified(&self, key: &DeliveryKey) -> Result<bool, LedgerError> {
        self.pass(self.ledger.mark_verified(key)).await
    }

    async fn throttle_account(&self, pace_key: &str, wait: Duration) -> Result<(), LedgerError> {
        self.pass(self.ledger.throttle_account(pace_key, wait))
            .await
    }

    async fn open_circuit(&self, pace_key: &str) -> Result<Option<Duration>, LedgerError> {
        self.pass(self.ledger.open_circuit(pace_key)).await
    }

    async fn close_circuit(&self, pace_key: &str) -> Result<(), LedgerError> {
        self.pass(self.ledger.close_circuit(pace_key)).await
    }

    async fn delete_published(&self, events: &[(DeliveryKey, u32)]) -> Result<(), LedgerError> {
        self.pass(self.ledger.delete_published(events)).await
    }

    async fn claim_unpublished(
        &self,
        worker: WorkerEpoch,
        limit: usize,
    ) -> Result<Vec<Event>, LedgerError> {
        self.pass(self.ledger.claim_unpublished(worker, limit))
            .await
    }
}

#[derive(Clone)]
pub(super) struct SimTelephony {
    pub(super) telephony: MemoryTelephony,
    pub(super) faults: FaultInjector,
    pub(super) bug: Option<Bug>,
}

impl SimTelephony {
    async fn pass(
        &self,
        work: impl Future<Output = Result<Call, CallFailure>>,
    ) -> Result<Call, CallFailure> {
        let Ok(nth) = self.faults.before(true).await else {
            return Err(failure(Class::Transient));
        };
        let done = work.await;
        if self.faults.after(nth).await.is_err() {
            Err(failure(Class::Ambiguous))
        } else {
            done
        }
    }
}

impl Telephony for SimTelephony {
    fn has_callbacks(&self) -> bool {
        self.telephony.has_callbacks()
    }

    async fn place(
        &self,
        settings: &VoiceSettings,
        request: &CallRequest<'_>,
    ) -> Result<Call, CallFailure> {
        // No pause is injected here, so the POST follows the check of the lease at once. The small
        // gap that exists in production is documented in docs/limits.md.
        let Ok(nth) = self.faults.before(false).await else {
            return Err(failure(Class::Transient));
        };
        let placed = self.telephony.place(settings, request).await;
        let answered = self.faults.after(nth).await;
        let placed = if answered.is_err() {
            Err(failure(Class::Ambiguous))
        } else {
            placed
        };
        match placed {
            Err(lost) if lost.class == Class::Ambiguous && self.bug == Some(Bug::SkipSettling) => {
                Err(failure(Class::Transient))
            }
            placed => placed,
        }
    }

    async fn fetch(&self, settings: &VoiceSettings, sid: &CallSid) -> Result<Call, CallFailure> {
        self.pass(self.telephony.fetch(settings, sid)).await
    }

    async fn fetch_all(
        &self,
        settings: &VoiceSettings,
        sids: &[CallSid],
        since: Timestamp,
    ) -> Result<Vec<Call>, CallFailure> {
        let Ok(nth) = self.faults.before(true).await else {
            return Err(failure(Class::Transient));
        };
        let found = self.telephony.fetch_all(settings, sids, since).await;
        if self.faults.after(nth).await.is_err() {
            Err(failure(Class::Ambiguous))
        } else {
            found
        }
    }

    async fn list(
        &self,
        settings: &VoiceSettings,
        to: &PhoneNumber,
    ) -> Result<Vec<Call>, CallFailure> {
        let Ok(nth) = self.faults.before(true).await else {
            return Err(failure(Class::Transient));
        };
        let listed = self.telephony.list(settings, to).await;
        if self.faults.after(nth).await.is_err() {
            Err(failure(Class::Ambiguous))
        } else {
            listed
        }
    }

    async fn hang_up(
        &self,
        settings: &VoiceSettings,
        sid: &CallSid,
        even_answered: bool,
    ) -> Result<Call, CallFailure> {
        self.pass(self.telephony.hang_up(settings, sid, even_answered))
            .await
    }
}

fn failure(class: Class) -> CallFailure {
    let text = || "failure injected by the simulation".to_owned();
    CallFailure {
        class,
        provider_code: None,
        http_status: None,
        request_id: None,
        tenant_message: text(),
        operator_message: text(),
    }
}

#[derive(Clone)]
pub(super) struct SimSink {
    pub(super) sink: MemorySink,
    pub(super) faults: FaultInjector,
}

impl StatusSink for SimSink {
    async fn publish(&self, events: &[Event]) -> Vec<Result<(), SinkError>> {
        let all_fail = || {
            events
                .iter()
                .map(|_| Err(SinkError("unreachable".into())))
                .collect()
        };
        let Ok(nth) = self.faults.before(true).await else {
            return all_fail();
        };
        let published = self.sink.publish(events).await;
        // Published, but the confirm is lost.
        if self.faults.after(nth).await.is_err() {
            all_fail()
        } else {
            published
        }
    }
}

/// A worker's clock, which runs a little faster or slower than the ledger's.
pub(super) struct SkewedClock {
    start: tokio::time::Instant,
    rate: f64,
}

impl SkewedClock {
    pub(super) fn new(rate: f64) -> Self {
        Self {
            start: tokio::time::Instant::now(),
            rate,
        }
    }
}

impl MonotonicClock for SkewedClock {
    fn elapsed(&self) -> Duration {
        self.start.elapsed().mul_f64(self.rate)
    }
}
