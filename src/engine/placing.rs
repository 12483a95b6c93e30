//! Placing: from due to a started attempt.

use std::collections::HashSet;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use voice_otp_schemas::reason::{Reason, ReasonCode};
use voice_otp_schemas::status::Status;
use voice_otp_schemas::{DeliveryKey, Timestamp};

use super::Engine;
use super::batch::{BatchError, alone_pause, smaller_parts, work_on};
use super::bulkhead::Permit;
use super::due::Due;
use super::schedule::Held;
use super::settings_reader::Found;
use crate::admission::CREDENTIALS_REJECTED;
use crate::delivery::{CancelCause, Delivery, State};
use crate::ports::{AttemptStart, Ledger as _, Ports, StartOutcome, WorkerEpoch};
use crate::settings::VoiceSettings;

/// How long after a deadline it is checked, when it has certainly passed.
const DEADLINE_SLACK: Duration = Duration::from_millis(1);
/// How long an attempt waits for another call on its line, or for a locked row.
const LINE_PAUSE: Duration = Duration::from_millis(250);
/// How long an attempt waits while its account is at its concurrency limit.
const CONCURRENCY_PAUSE: Duration = Duration::from_millis(500);
/// How long a retry waits while its account's retry budget is spent.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// How long an attempt waits whose tenant's secrets can't be opened by this worker.
const SECRETS_PAUSE: Duration = Duration::from_secs(2);
const WAITS_FOR_SLOT: &str = "waiting for a slot under the account's rate limit";
const WAITS_FOR_LINE: &str = "another call from the same number to the same number is being placed";
const WAITS_FOR_USER: &str = "an earlier call to the same user is still in progress";
const WAITS_FOR_CONCURRENCY: &str = "the account is at its limit of calls in progress";

/// Why an attempt can't be started, or a started one can't be sent.
pub(super) enum Unplaceable {
    /// The delivery can't be placed any more, and finishes with this outcome.
    Final(Status, Reason),
    /// This worker can't place it, or not now.
    Later,
}

impl<P: Ports> Engine<P> {
    /// Acts on due deliveries, until asked to stop: as far as there are permits, the earliest
    /// deadline first.
    pub(super) async fn run_schedule(self: Arc<Self>) {
        let mut due = Due::default();
        loop {
            let released = self.attempt_permits.released();
            tokio::pin!(released);
            // Before the check for permits, so that one released right after it is not missed.
            released.as_mut().enable();
            if !self.start_due(&mut due).await {
                return;
            }
            let deadline = due.first_deadline().map(|at| self.clock.until(at));
            let deadline_passed = tokio::time::sleep(deadline.unwrap_or_default() + DEADLINE_SLACK);
            // Cancel-safe: deliveries are acquired only by the arm that completes.
            let more = tokio::select! {
                more = self.schedule.next_due(&self.clock, self.tuning.max_batch) => more,
                () = &mut released, if !due.is_empty() => Vec::new(),
                () = deadline_passed, if deadline.is_some() => Vec::new(),
                () = self.shutdown.soft.cancelled() => return,
            };
            let mut quiet = Vec::new();
            for held in more {
                match held.delivery.state {
                    State::Waiting => due.push(held),
                    State::Placing | State::Unsettled => self.spawn_for(held, Self::settle),
                    State::Calling => quiet.push(held),
                    State::Final => {}
                }
            }
            self.poll_all(quiet);
        }
    }

    /// Starts the attempts that there are permits for, and expires what is too late. Returns false
    /// if asked to stop.
    async fn start_due(self: &Arc<Self>, due: &mut Due) -> bool {
        while let Some(late) = due.pop_late(self.clock.now()) {
            self.spawn_for(late, Self::expire_waiting);
        }
        loop {
            if due.is_empty() {
                return true;
            }
            // Cancel-safe: both arms only wait.
            let start_permit = tokio::select! {
                permit = Arc::clone(&self.start_permits).acquire_owned() => permit,
                () = self.shutdown.soft.cancelled() => return false,
            };
            let group = due.take(&self.attempt_permits, self.tuning.max_batch);
            if group.is_empty() {
                return true;
            }
            self.spawn(|engine| async move {
                engine.start_attempts(group, 0).await;
                drop(start_permit);
            });
        }
    }

    /// Starts the attempts of deliveries that the database gave up on: in smaller parts, and one
    /// alone after a growing pause, until it is started or too late.
    fn start_apart(self: &Arc<Self>, mut due: Vec<(Held, Permit)>, failures_alone: u32) {
        if due.len() > 1 {
            for part in smaller_parts(due) {
                self.spawn(|engine| engine.start_attempts(part, 0));
            }
        } else if let Some((held, permit)) = due.pop() {
            drop(permit);
            self.spawn_for(held, move |engine, held| {
                engine.start_alone(held, failures_alone)
            });
        }
    }

    /// Starts an attempt that failed alone, after a pause.
    fn start_alone(
        self: Arc<Self>,
        held: Held,
        failures_alone: u32,
    ) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move {
            if self
                .shutdown
                .sleep_or_soft(alone_pause(failures_alone))
                .await
            {
                return;
            }
            let account = held.delivery.pace_key.clone().unwrap_or_default();
            let permit = self.attempt_permits.acquire(&account).await;
            self.start_attempts(vec![(held, permit)], failures_alone + 1)
                .await;
        })
    }

    /// Starts the attempts of due deliveries, in one statement. `failures_alone` is how often the
    /// database gave up on a single one.
    async fn start_attempts(self: Arc<Self>, due: Vec<(Held, Permit)>, failures_alone: u32) {
        let now = self.clock.latest();
        let tenants: Vec<_> = due
            .iter()
            .map(|(held, _)| held.delivery.key.tenant_id.clone())
            .collect();
        let Some(settings) = self.settings.to_place(&tenants).await else {
            return;
        };
        let verified = self.verified_of(&due).await;
        let mut ready = Vec::with_capacity(due.len());
        for (mut held, permit) in due {
            if held.delivery.is_too_late(now) {
                self.spawn_for(held, Self::expire_waiting);
                continue;
            }
            if verified.contains(&held.delivery.key) {
                let outcome = CancelCause::Verified.outcome();
                self.spawn_for(held, |engine, held| engine.finish_waiting(held, outcome));
                continue;
            }
            let account = held.delivery.pace_key.as_deref().unwrap_or_default();
            if held.delivery.attempts_spent() > 0 && !self.retry_budget.spend(account) {
                let until = now + RETRY_PAUSE;
                held.delivery.wake_at = until.min(held.delivery.place_by);
                held.release();
                continue;
            }
            let found = settings.get(&held.delivery.key.tenant_id);
            if let Some((held, start)) = self.prepare(held, found, now) {
                ready.push((held, permit, start));
            }
        }
        if ready.is_empty() {
            return;
        }
        let group: Vec<AttemptStart> = ready.iter().map(|(_, _, start)| start.clone()).collect();
        let worker = self.lease.worker();
        let ledger = &self.ledger;
        let work = |group: Vec<AttemptStart>| async move {
            let result = ledger.start_attempts(worker, &group).await;
            (group, result)
        };
        // Cancel-safe: what was started is settled by the worker that claims it.
        let outcomes = tokio::select! {
            outcomes = work_on(group, &work, "start attempts") => outcomes,
            () = self.shutdown.hard.cancelled() => return,
        };
        let mut apart = Vec::new();
        for ((held, permit, start), outcome) in ready.into_iter().zip(outcomes) {
            match outcome {
                Ok(outcome) => self.on_start_outcome(worker, held, permit, &start, outcome),
                Err(BatchError::GaveUp) => apart.push((held, permit)),
                // A delivery that the database rejects is released; it is claimed when it is
                // overdue.
                Err(BatchError::Refused(_) | BatchError::Closed) => {}
            }
        }
        self.start_apart(apart, failures_alone);
    }

    /// The start of a delivery's attempt; `None` if it can't be started now.
    fn prepare(
        self: &Arc<Self>,
        mut held: Held,
        settings: Option<&Found>,
        now: Timestamp,
    ) -> Option<(Held, AttemptStart)> {
        match usable(settings) {
            Ok(settings) if settings.paused.is_some() => {
                self.spawn_for(held, |engine, held| {
                    engine.defer_while_paused(held, settings)
                });
            }
            Ok(settings) => {
                let start = AttemptStart {
                    delivery: Arc::new(held.delivery.as_ref().clone()),
                    attempt_id: self.rng.attempt_id(),
                    account_sid: settings.account_sid.clone(),
                    from: settings.from.clone(),
                    pace_key: settings.pace_key.clone(),
                };
                return Some((held, start));
            }
            Err(Unplaceable::Final(status, reason)) => {
                let outcome = (status, reason);
                self.spawn_for(held, |engine, held| engine.finish_waiting(held, outcome));
            }
            Err(Unplaceable::Later) => {
                held.delivery.wake_at = now + SECRETS_PAUSE;
                held.release();
            }
        }
        None
    }

    /// The deliveries to be redialled whose code has been entered meanwhile: no one is called for
    /// them any more.
    async fn verified_of(&self, due: &[(Held, Permit)]) -> HashSet<DeliveryKey> {
        let redials: Vec<DeliveryKey> = due
            .iter()
            .filter(|(held, _)| held.delivery.redials > 0)
            .map(|(held, _)| held.delivery.key.clone())
            .collect();
        if redials.is_empty() {
            return HashSet::new();
        }
        let newest = self.deliveries.reload_all(&redials).await;
        newest
            .into_iter()
            .filter(|newest| newest.verified)
            .map(|newest| newest.key)
            .collect()
    }

    /// What follows from the ledger's answer to the start of an attempt.
    fn on_start_outcome(
        self: &Arc<Self>,
        worker: WorkerEpoch,
        mut held: Held,
        permit: Permit,
        start: &AttemptStart,
        outcome: StartOutcome,
    ) {
        let announce = |mut held: Held, pause: Duration, code, why: &str| {
            held.delivery.wake_at = (self.clock.now() + pause).min(held.delivery.place_by);
            (held, Reason::new(code, why))
        };
        match outcome {
            StartOutcome::Started { slot, revision } => {
                held.replace(Delivery {
                    revision,
                    state: State::Placing,
                    slot: Some(slot),
                    attempt: held.delivery.attempt + 1,
                    attempt_id: Some(start.attempt_id),
                    intent_at: Some(self.clock.now()),
                    pace_key: Some(start.pace_key.clone()),
                    account_sid: Some(start.account_sid.clone()),
                    ..held.delivery.as_ref().clone()
                });
                if self.is_suspect(&held.delivery) {
                    self.spawn_for(held, Self::settle_suspect);
                } else {
                    self.spawn_for(held, |engine, held| engine.place(worker, held, permit));
                }
            }
            StartOutcome::Rescheduled { slot, revision } => {
                let delivery = &mut held.delivery;
                delivery.revision = revision;
                delivery.slot = Some(slot);
                delivery.wake_at = slot.at.min(delivery.place_by);
                delivery.pace_key = Some(start.pace_key.clone());
                if slot.at > delivery.place_by {
                    self.spawn_for(held, Self::expire_waiting);
                } else {
                    let reason = Reason::new(ReasonCode::Pace, WAITS_FOR_SLOT);
                    self.spawn_for(held, |engine, held| engine.announce_wait(held, reason));
                }
            }
            StartOutcome::LineBusy => {
                let (held, reason) =
                    announce(held, LINE_PAUSE, ReasonCode::LineBusy, WAITS_FOR_LINE);
                self.spawn_for(held, |engine, held| engine.announce_wait(held, reason));
            }
            StartOutcome::UserBusy => {
                let key = held.delivery.key.clone();
                self.spawn(|engine| engine.supersede(key));
                let (held, reason) =
                    announce(held, LINE_PAUSE, ReasonCode::LineBusy, WAITS_FOR_USER);
                self.spawn_for(held, |engine, held| engine.announce_busy(held, reason));
            }
            StartOutcome::AtConcurrencyLimit => {
                let (held, reason) = announce(
                    held,
                    CONCURRENCY_PAUSE,
                    ReasonCode::Pace,
                    WAITS_FOR_CONCURRENCY,
                );
                self.spawn_for(held, |engine, held| engine.announce_busy(held, reason));
            }
            StartOutcome::RowLocked => {
                let until = self.clock.now() + LINE_PAUSE;
                held.delivery.wake_at = until.min(held.delivery.place_by);
                held.release();
            }
            StartOutcome::Superseded => self.spawn_for(held, Self::finish_superseded),
            StartOutcome::Conflict => {
                let attempt_id = start.attempt_id;
                self.spawn_for(held, |engine, held| {
                    engine.resume_after_conflict(worker, held, permit, attempt_id)
                });
            }
        }
    }
}

/// The settings to place a call with, or why no call can be placed.
pub(super) fn usable(settings: Option<&Found>) -> Result<Arc<VoiceSettings>, Unplaceable> {
    let end =
        |status, code, message: &str| Err(Unplaceable::Final(status, Reason::new(code, message)));
    match settings {
        Some(Ok(settings)) if settings.credentials_rejected => end(
            Status::Failed,
            ReasonCode::TenantCredentials,
            CREDENTIALS_REJECTED,
        ),
        Some(Ok(settings)) if settings.enabled => Ok(Arc::clone(settings)),
        Some(Ok(_)) => {
            let why = "voice was disabled for the tenant while the delivery waited";
            end(Status::Rejected, ReasonCode::VoiceDisabled, why)
        }
        Some(Err(_)) => Err(Unplaceable::Later),
        None => {
            let why = "the tenant was deleted while the delivery waited";
            end(Status::Rejected, ReasonCode::UnknownTenant, why)
        }
    }
}
