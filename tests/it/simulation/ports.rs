//! The in-memory ports of one worker, behind its fate, with room for a planted bug.

use std::time::Duration;

use voice_otp::account::{AccountSid, CallSid};
use voice_otp::clock::Steady;
use voice_otp::delivery::{AttemptId, Change, Delivery, Key, Price, WorkerEpoch};
use voice_otp::event::Event;
use voice_otp::failure::{CallFailure, Class};
use voice_otp::plan::Admission;
use voice_otp::ports::{
    Attempt, Beat, Begin, Begun, CallOrder, Caller, Ledger, LedgerError, Ports, Saved, SinkError,
    StatusSink, Unpriced, Verdict,
};
use voice_otp::progress::Call;
use voice_otp::settings::VoiceSettings;
use voice_otp_schemas::{PhoneNumber, TenantId, Timestamp, UserRef};

use super::bug::Bug;
use super::seat::Seat;
use crate::memory::{MemoryCaller, MemoryDirectory, MemoryLedger, MemorySink};

/// The ports of a simulated worker.
pub(super) struct SimPorts;

impl Ports for SimPorts {
    type Ledger = SimLedger;
    type Directory = MemoryDirectory;
    type Caller = SimCaller;
    type Sink = SimSink;
}

#[derive(Clone)]
pub(super) struct SimLedger {
    pub(super) ledger: MemoryLedger,
    pub(super) sink: MemorySink,
    pub(super) seat: Seat,
    pub(super) bug: Option<Bug>,
}

impl SimLedger {
    async fn pass<T>(
        &self,
        work: impl Future<Output = Result<T, LedgerError>>,
    ) -> Result<T, LedgerError> {
        let nth = self.seat.before(true).await?;
        let done = work.await;
        self.seat.after(nth).await?;
        done
    }

    fn seen(&self, delivery: Delivery) -> Delivery {
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
    async fn enlist(&self, name: &str) -> Result<(WorkerEpoch, Timestamp), LedgerError> {
        self.pass(self.ledger.enlist(name)).await
    }

    async fn beat(&self, worker: WorkerEpoch) -> Result<Beat, LedgerError> {
        self.pass(self.ledger.beat(worker)).await
    }

    async fn retire(&self, worker: WorkerEpoch) -> Result<(), LedgerError> {
        self.pass(self.ledger.retire(worker)).await
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

    async fn begin(&self, worker: WorkerEpoch, group: &[Begin]) -> Result<Vec<Begun>, LedgerError> {
        self.pass(self.ledger.begin(worker, group)).await
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

    async fn claim(&self, worker: WorkerEpoch, most: usize) -> Result<Vec<Delivery>, LedgerError> {
        let claimed = self.pass(self.ledger.claim(worker, most)).await?;
        Ok(claimed
            .into_iter()
            .map(|delivery| self.seen(delivery))
            .collect())
    }

    async fn find_all(&self, keys: &[Key]) -> Result<Vec<Delivery>, LedgerError> {
        Ok(self
            .pass(self.ledger.find_all(keys))
            .await?
            .into_iter()
            .map(|delivery| self.seen(delivery))
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

    async fn rivals(&self, key: &Key) -> Result<Vec<Delivery>, LedgerError> {
        self.pass(self.ledger.rivals(key)).await
    }

    async fn forbid(&self, key: &Key) -> Result<bool, LedgerError> {
        if self.bug == Some(Bug::ForgetCancellations) {
            return Ok(true);
        }
        self.pass(self.ledger.forbid(key)).await
    }

    async fn tidy(&self) -> Result<u64, LedgerError> {
        self.pass(self.ledger.tidy()).await
    }

    async fn finals_missing(&self, overdue: Duration) -> Result<u64, LedgerError> {
        self.pass(self.ledger.finals_missing(overdue)).await
    }

    async fn known_calls(&self, sids: &[CallSid]) -> Result<Vec<CallSid>, LedgerError> {
        self.pass(self.ledger.known_calls(sids)).await
    }

    fn went_from(&self, delivery: &Delivery, account: &AccountSid, from: &PhoneNumber) -> bool {
        self.ledger.went_from(delivery, account, from)
    }

    async fn unpriced(&self, most: usize) -> Result<Vec<Unpriced>, LedgerError> {
        self.pass(self.ledger.unpriced(most)).await
    }

    async fn priced(&self, told: &[(CallSid, Price)]) -> Result<(), LedgerError> {
        self.pass(self.ledger.priced(told)).await
    }

    async fn verified(&self, key: &Key) -> Result<bool, LedgerError> {
        self.pass(self.ledger.verified(key)).await
    }

    async fn hold(&self, pace_key: &str, wait: Duration) -> Result<(), LedgerError> {
        self.pass(self.ledger.hold(pace_key, wait)).await
    }

    async fn trip(&self, pace_key: &str) -> Result<Option<Duration>, LedgerError> {
        self.pass(self.ledger.trip(pace_key)).await
    }

    async fn mend(&self, pace_key: &str) -> Result<(), LedgerError> {
        self.pass(self.ledger.mend(pace_key)).await
    }

    async fn published(&self, events: &[(Key, u32)]) -> Result<(), LedgerError> {
        self.pass(self.ledger.published(events)).await
    }

    async fn unpublished(
        &self,
        worker: WorkerEpoch,
        most: usize,
    ) -> Result<Vec<Event>, LedgerError> {
        self.pass(self.ledger.unpublished(worker, most)).await
    }
}

#[derive(Clone)]
pub(super) struct SimCaller {
    pub(super) caller: MemoryCaller,
    pub(super) seat: Seat,
    pub(super) bug: Option<Bug>,
}

impl SimCaller {
    async fn pass(
        &self,
        work: impl Future<Output = Result<Call, CallFailure>>,
    ) -> Result<Call, CallFailure> {
        let Ok(nth) = self.seat.before(true).await else {
            return Err(failure(Class::Transient));
        };
        let done = work.await;
        if self.seat.after(nth).await.is_err() {
            Err(failure(Class::Ambiguous))
        } else {
            done
        }
    }
}

impl Caller for SimCaller {
    fn has_callbacks(&self) -> bool {
        self.caller.has_callbacks()
    }

    async fn place(
        &self,
        settings: &VoiceSettings,
        order: &CallOrder<'_>,
    ) -> Result<Call, CallFailure> {
        // No wait: between the check of the lease and the bytes there is nothing here. The hair's breadth that there is in truth
        // is stated in the README.
        let Ok(nth) = self.seat.before(false).await else {
            return Err(failure(Class::Transient));
        };
        let placed = self.caller.place(settings, order).await;
        let heard = self.seat.after(nth).await;
        let placed = if heard.is_err() {
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
        self.pass(self.caller.fetch(settings, sid)).await
    }

    async fn fetch_all(
        &self,
        settings: &VoiceSettings,
        sids: &[CallSid],
        since: Timestamp,
    ) -> Result<Vec<Call>, CallFailure> {
        let Ok(nth) = self.seat.before(true).await else {
            return Err(failure(Class::Transient));
        };
        let found = self.caller.fetch_all(settings, sids, since).await;
        if self.seat.after(nth).await.is_err() {
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
        let Ok(nth) = self.seat.before(true).await else {
            return Err(failure(Class::Transient));
        };
        let listed = self.caller.list(settings, to).await;
        if self.seat.after(nth).await.is_err() {
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
        self.pass(self.caller.hang_up(settings, sid, even_answered))
            .await
    }
}

fn failure(class: Class) -> CallFailure {
    let text = || "the simulation wants it so".to_owned();
    CallFailure {
        class,
        provider_code: None,
        http_status: None,
        request_id: None,
        tenant: text(),
        operator: text(),
    }
}

#[derive(Clone)]
pub(super) struct SimSink {
    pub(super) sink: MemorySink,
    pub(super) seat: Seat,
}

impl StatusSink for SimSink {
    async fn publish(&self, events: &[Event]) -> Vec<Result<(), SinkError>> {
        let all_fail = || {
            events
                .iter()
                .map(|_| Err(SinkError("away".into())))
                .collect()
        };
        let Ok(nth) = self.seat.before(true).await else {
            return all_fail();
        };
        let published = self.sink.publish(events).await;
        // Published, and not confirmed.
        if self.seat.after(nth).await.is_err() {
            all_fail()
        } else {
            published
        }
    }
}

/// A worker's clock, which goes a little faster or slower than the ledger's.
pub(super) struct SkewedSteady {
    start: tokio::time::Instant,
    rate: f64,
}

impl SkewedSteady {
    pub(super) fn new(rate: f64) -> Self {
        Self {
            start: tokio::time::Instant::now(),
            rate,
        }
    }
}

impl Steady for SkewedSteady {
    fn elapsed(&self) -> Duration {
        self.start.elapsed().mul_f64(self.rate)
    }
}
