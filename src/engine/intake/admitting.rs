//! Admitting requests: planning, the ledger's verdict, and what follows from it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use voice_otp_schemas::request::Incoming;
use voice_otp_schemas::{DeliveryKey, TenantId, Timestamp, UserRef};

use super::{DeadLetterReason, Disposition, Message, disposition_of, in_order, set, tenant_of};
use crate::admission::{Admission, Admitted, Plan, plan};
use crate::delivery::{CancelCause, Delivery, State};
use crate::engine::batch::{BatchError, work_on};
use crate::engine::bulkhead::Permit;
use crate::engine::deliveries::log_finished;
use crate::engine::retry::as_error;
use crate::engine::schedule::Held;
use crate::engine::settings_reader::Found;
use crate::engine::{Engine, span};
use crate::ports::{Ledger as _, LedgerError, Ports, Telephony as _, Verdict, WorkerEpoch};

/// A request on its way through admission.
struct Pending<'a> {
    /// Its position in the group of messages.
    position: usize,
    message: &'a Message,
    /// Why it must not be placed, once the ledger has said so: it is planned again, to finish.
    inadmissible: Option<CancelCause>,
    /// The permit to place the call at once, if there is one.
    permit: Option<Permit>,
}

/// What is known of a request besides its verdict.
struct Follow {
    /// Whether a cancellation of its user cancels it, or perhaps does.
    is_cancelled: bool,
    /// The delivery, if its attempt has started and is to be sent.
    held: Option<Held>,
    /// Whether an answer about its batch was lost.
    answer_lost: bool,
}

/// What the ledger's verdict means for a request.
enum Outcome<'a> {
    Done(Disposition),
    /// It must be planned and admitted again.
    Again(Pending<'a>),
}

/// The longest that admission waits for permits to place the calls at once. An attempt that starts
/// with its admission saves a statement.
const MAX_PERMIT_WAIT: Duration = Duration::from_millis(50);
/// How often admission checks for permits meanwhile.
const PERMIT_CHECK_INTERVAL: Duration = Duration::from_millis(2);

/// Settings may change between a plan and its admission; they don't this many times in a row.
const MAX_ROUNDS: usize = 5;

impl<P: Ports> Engine<P> {
    /// Admits a group of requests: one disposition each, in order.
    pub(super) async fn admit_all(self: &Arc<Self>, group: &[&Message]) -> Vec<Disposition> {
        let mut dispositions = vec![Disposition::Requeue; group.len()];
        let pending = |(position, message)| Pending {
            position,
            message,
            inadmissible: None,
            permit: None,
        };
        let mut pending: Vec<Pending<'_>> =
            group.iter().copied().enumerate().map(pending).collect();
        self.suspects.select(
            &mut pending,
            |one| one.message.incoming.key(),
            |one| set(&mut dispositions, one.position, Disposition::RetrySoon),
        );
        self.wait_for_permits(pending.len()).await;
        for _ in 0..MAX_ROUNDS {
            if pending.is_empty() || self.shutdown.hard.is_cancelled() {
                break;
            }
            pending = self.admit_round(pending, &mut dispositions).await;
        }
        dispositions
    }

    /// Waits a moment for permits to place this many calls, if there are too few.
    async fn wait_for_permits(&self, calls: usize) {
        let wanted = calls.min(self.tuning.attempt_permits);
        let mut waited = Duration::ZERO;
        while self.attempt_permits.available() < wanted && waited < MAX_PERMIT_WAIT {
            if self.shutdown.sleep_or_hard(PERMIT_CHECK_INTERVAL).await {
                return;
            }
            waited += PERMIT_CHECK_INTERVAL;
        }
    }

    /// Plans and admits requests once. Returns those that must be planned again.
    async fn admit_round<'a>(
        self: &Arc<Self>,
        pending: Vec<Pending<'a>>,
        dispositions: &mut [Disposition],
    ) -> Vec<Pending<'a>> {
        let tenants: HashSet<&TenantId> =
            pending.iter().map(|one| tenant_of(one.message)).collect();
        let tenants: Vec<TenantId> = tenants.into_iter().cloned().collect();
        let Some(settings) = self.settings.all(&tenants).await else {
            return Vec::new();
        };
        let now = self.clock.now();
        let mut planned = Vec::with_capacity(pending.len());
        for mut one in pending {
            match self.plan(&mut one, &settings, now).await {
                Ok(Some(admission)) => planned.push((one, admission)),
                // Left to another worker: the message is requeued.
                Ok(None) => {}
                Err(disposition) => set(dispositions, one.position, disposition),
            }
        }
        let (pending, admissions): (Vec<_>, Vec<_>) = planned.into_iter().unzip();
        let worker = self.lease.worker();
        let (verdicts, answer_lost) = self.admit_group(worker, &admissions).await;
        self.publish_admitted(&verdicts);
        // Held from now on: while the ledger is asked again, no other task may settle them.
        let mut begun = self.hold_begun(&admissions, &verdicts);
        let mut cancelled = self.cancelled_meanwhile(&pending, &verdicts).await;
        let (mut to_cancel, mut to_wait, mut unsent) = (Vec::new(), Vec::new(), HashSet::new());
        let mut again = Vec::new();
        let size = pending.len();
        for ((one, admission), verdict) in pending.into_iter().zip(admissions).zip(verdicts) {
            let position = one.position;
            match verdict {
                Err(BatchError::GaveUp) => self.suspects.add(&admission.key, size),
                _ => self.suspects.clear(&admission.key),
            }
            let found = cancelled.remove(&admission.key);
            let held = begun.remove(&admission.key).filter(|_| found.is_none());
            let follow = Follow {
                is_cancelled: found.is_some(),
                held,
                answer_lost,
            };
            match &found {
                Some(Ok(delivery)) => {
                    if matches!(&verdict, Ok(Verdict::Admitted(_))) {
                        unsent.insert(admission.key.clone());
                    }
                    to_cancel.push((position, delivery.clone()));
                }
                Some(Err(error)) => to_wait.push((position, disposition_of(error))),
                None => {}
            }
            match self.conclude(worker, one, admission, verdict, follow) {
                Outcome::Done(disposition) => set(dispositions, position, disposition),
                Outcome::Again(one) => again.push(one),
            }
        }
        for (position, disposition) in to_wait {
            set(dispositions, position, disposition);
        }
        let deliveries = to_cancel.iter().map(|(_, found)| found.clone()).collect();
        let compute = |delivery: &Delivery, now| {
            let cause = CancelCause::Request;
            if delivery.state == State::Placing && unsent.contains(&delivery.key) {
                Some(delivery.cancel_unsent(cause, now))
            } else {
                delivery.cancel(cause, now)
            }
        };
        let failed = self.change_all(deliveries, compute).await;
        for (position, delivery) in to_cancel {
            if let Some(disposition) = failed.get(&delivery.key) {
                set(dispositions, position, *disposition);
            }
        }
        again
    }

    /// Publishes the events of a batch that was admitted: before the ledger is asked again, since
    /// another task may change a delivery from now on, and its events must come later.
    fn publish_admitted(&self, verdicts: &[Result<Verdict, BatchError>]) {
        for verdict in verdicts {
            let events = match verdict {
                // `None` if an earlier admission wrote it, whose answer was lost: the sweeper
                // publishes it.
                Ok(Verdict::Admitted(admitted)) => admitted.event.clone().into_iter().collect(),
                Ok(Verdict::Finished(events) | Verdict::AdmittedWithoutSlot(events)) => {
                    events.clone()
                }
                _ => continue,
            };
            self.deliveries.publish_admitted(events);
        }
    }

    /// The stored requests of a batch that a cancellation of their user cancels, which was recorded
    /// while they were being admitted: see [`Ledger::find_cancelled`](crate::ports::Ledger). An
    /// error for those that can't be read now; they must not be placed.
    async fn cancelled_meanwhile(
        &self,
        pending: &[Pending<'_>],
        verdicts: &[Result<Verdict, BatchError>],
    ) -> HashMap<DeliveryKey, Result<Delivery, BatchError>> {
        let of_user = |(one, verdict): (&Pending<'_>, &Result<Verdict, BatchError>)| {
            let is_stored = matches!(
                verdict,
                Ok(Verdict::Admitted(_) | Verdict::AdmittedWithoutSlot(_) | Verdict::Duplicate)
            );
            match &one.message.incoming {
                Incoming::Requested(request) if is_stored => {
                    Some((request.key(), request.user_ref.clone()?))
                }
                _ => None,
            }
        };
        let requests: Vec<(DeliveryKey, UserRef)> =
            pending.iter().zip(verdicts).filter_map(of_user).collect();
        let work = |requests: Vec<(DeliveryKey, UserRef)>| async move {
            let found = self.ledger.find_cancelled(&requests).await;
            let keys: Vec<DeliveryKey> = requests.iter().map(|(key, _)| key.clone()).collect();
            let found = found.map(|found| in_order(&keys, found));
            (requests, found)
        };
        let answers = self
            .ask(requests.clone(), &work, "find cancelled users")
            .await;
        let keys = requests.into_iter().map(|(key, _)| key);
        keys.zip(answers)
            .filter_map(|(key, answer)| answer.transpose().map(|answer| (key, answer)))
            .collect()
    }

    /// Plans a request. `Ok(None)` if this worker can't; a disposition if it must not be admitted.
    async fn plan(
        &self,
        one: &mut Pending<'_>,
        settings: &HashMap<TenantId, Found>,
        now: Timestamp,
    ) -> Result<Option<Admission>, Disposition> {
        let incoming = &one.message.incoming;
        let settings = match settings.get(tenant_of(one.message)) {
            Some(Ok(settings)) => Some(settings.as_ref()),
            Some(Err(error)) => {
                tracing::warn!(
                    error = as_error(error),
                    "failed to open a tenant's secrets; leaving the request to another worker"
                );
                return Ok(None);
            }
            None => None,
        };
        if let Some(settings) = settings
            && !settings.may_publish(one.message.user.as_deref())
        {
            // Not `rejected`: a publisher that isn't allowed must neither claim the tenant's
            // delivery ids nor trigger its statuses.
            self.authorize_all(&[one.message]).await.remove(0)?;
        }
        let callbacks = self.telephony.has_callbacks();
        let Some(mut admission) = plan(incoming, settings, callbacks, &self.tuning, now) else {
            return Ok(None);
        };
        if let (Plan::Call(_), Some(cause)) = (&admission.plan, one.inadmissible) {
            admission.finish_inadmissible(cause, now);
        }
        if let Plan::Call(call) = &mut admission.plan
            && call.deferred.is_none()
        {
            one.permit = self.attempt_permits.try_acquire(&call.pace_key);
            call.attempt_id = one.permit.is_some().then(|| self.rng.attempt_id());
        }
        Ok(Some(admission))
    }

    /// The verdicts, and whether an answer was lost on the way to them.
    async fn admit_group(
        &self,
        worker: WorkerEpoch,
        admissions: &[Admission],
    ) -> (Vec<Result<Verdict, BatchError>>, bool) {
        if admissions.is_empty() {
            return (Vec::new(), false);
        }
        let lost = AtomicBool::new(false);
        let lost_here = &lost;
        let work = |group: Vec<Admission>| async move {
            let result = self.ledger.admit(worker, &group).await;
            let unanswered = matches!(
                result,
                Err(LedgerError::Unavailable(_) | LedgerError::GaveUp(_))
            );
            lost_here.fetch_or(unanswered, Ordering::Relaxed);
            (group, result)
        };
        // Cancel-safe: an admission whose answer isn't awaited is recognised when it is retried.
        let verdicts = tokio::select! {
            verdicts = work_on(admissions.to_vec(), &work, "admit") => verdicts,
            () = self.shutdown.hard.cancelled() => {
                admissions.iter().map(|_| Err(BatchError::Closed)).collect()
            }
        };
        (verdicts, lost.load(Ordering::Relaxed))
    }

    /// What follows from a verdict.
    fn conclude<'a>(
        self: &Arc<Self>,
        worker: WorkerEpoch,
        mut one: Pending<'a>,
        admission: Admission,
        verdict: Result<Verdict, BatchError>,
        follow: Follow,
    ) -> Outcome<'a> {
        let disposition = match verdict {
            Ok(Verdict::Admitted(admitted)) => {
                self.counts.admitted.fetch_add(1, Ordering::Relaxed);
                if admitted.has_older_requests {
                    let key = admission.key.clone();
                    self.spawn(|engine| engine.supersede(key));
                }
                match follow.held {
                    Some(held) => {
                        if let Some(permit) = one.permit.take() {
                            self.spawn_for(held, |engine, held| engine.place(worker, held, permit));
                        }
                    }
                    None if follow.is_cancelled => {}
                    None => self.schedule_waiting(admission, &admitted),
                }
                Disposition::Acknowledge
            }
            Ok(Verdict::Finished(events)) => {
                self.counts.admitted.fetch_add(1, Ordering::Relaxed);
                self.counts.final_statuses.fetch_add(1, Ordering::Relaxed);
                if let Some(last) = events.last() {
                    span::of_key(&last.key).in_scope(|| log_finished(last));
                }
                Disposition::Acknowledge
            }
            Ok(Verdict::AdmittedWithoutSlot(_)) => {
                self.counts.admitted.fetch_add(1, Ordering::Relaxed);
                Disposition::Acknowledge
            }
            Ok(Verdict::Duplicate) => {
                if follow.answer_lost && !follow.is_cancelled {
                    // Perhaps this worker's own row: the answer that admitted it was lost.
                    self.spawn(|engine| engine.schedule_if_waiting(admission.key));
                }
                Disposition::Acknowledge
            }
            Ok(Verdict::ConflictingDuplicate) => {
                Disposition::DeadLetter(DeadLetterReason::ConflictingDuplicate)
            }
            Ok(Verdict::Inadmissible(cause)) => {
                one.permit = None;
                one.inadmissible = Some(cause);
                return Outcome::Again(one);
            }
            Ok(Verdict::StaleSettings) => {
                self.settings.invalidate(&admission.key.tenant_id);
                one.permit = None;
                return Outcome::Again(one);
            }
            // Without the batch's permit.
            Ok(Verdict::RowLocked) => Disposition::RetrySoon,
            Err(error) => disposition_of(&error),
        };
        Outcome::Done(disposition)
    }

    /// Schedules a delivery if it is waiting. If another worker owns it, the revision protects it.
    async fn schedule_if_waiting(self: Arc<Self>, key: DeliveryKey) {
        if let Some(found) = self.deliveries.reload(&key).await
            && found.state == State::Waiting
        {
            self.schedule.update(found);
        }
    }

    /// Holds the deliveries of a batch whose attempts have started with their admissions.
    fn hold_begun(
        &self,
        admissions: &[Admission],
        verdicts: &[Result<Verdict, BatchError>],
    ) -> HashMap<DeliveryKey, Held> {
        let begun = |(admission, verdict): (&Admission, &Result<Verdict, BatchError>)| {
            let (Plan::Call(call), Ok(Verdict::Admitted(admitted))) = (&admission.plan, verdict)
            else {
                return None;
            };
            if !(admitted.held && admitted.begun) {
                return None;
            }
            let delivery = Delivery::admitted(admission.clone(), (**call).clone(), admitted);
            Some((admission.key.clone(), self.schedule.acquire(delivery)?))
        };
        admissions.iter().zip(verdicts).filter_map(begun).collect()
    }

    /// Schedules a delivery that was just admitted, if it waits and this worker owns it.
    fn schedule_waiting(&self, admission: Admission, admitted: &Admitted) {
        if let (Plan::Call(call), true) = (admission.plan.clone(), admitted.held && !admitted.begun)
        {
            self.schedule
                .update(Delivery::admitted(admission, *call, admitted));
        }
    }
}
