//! Placing: from due to Twilio's answer.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use voice_otp_schemas::reason::{Reason, ReasonCode};
use voice_otp_schemas::status::Status;

use super::{Changed, Engine};
use crate::agenda::Held;
use crate::batch::work_on;
use crate::bulkhead::Berth;
use crate::delivery::{Change, Delivery, Key, State, WorkerEpoch, withdrawal};
use crate::due::Due;
use crate::failure::{self, CallFailure, Next};
use crate::plan::{NO_PUBLIC_URL, speaker};
use crate::policy::{Policy, Voicemail};
use crate::ports::{
    Begin, Begun, CallOrder, Caller as _, DirectoryError, Ledger as _, Ports, Speech,
};
use crate::progress::Call;
use crate::settings::VoiceSettings;
use crate::spacing;

/// A deadline is looked at this long after it, when it has certainly passed.
const DEADLINE_SLACK: Duration = Duration::from_millis(1);
/// How long a placement waits for the other call on its line.
const LINE_PAUSE: Duration = Duration::from_millis(250);
/// How long a placement waits while its account has as many calls in progress as it may.
const FULL_PAUSE: Duration = Duration::from_millis(500);
/// Twilio may let a phone ring this much longer than it was told
/// (<https://www.twilio.com/docs/voice/api/call-resource>).
const RING_BUFFER: Duration = Duration::from_secs(5);
const WAITS_FOR_PACE: &str = "it waits for its turn at the account's pace";

/// What may go wrong before anything is sent.
enum NotSent {
    /// The delivery can't be placed any more.
    End(Status, Reason),
    /// Not by this worker, or not now.
    Later,
}

impl<P: Ports> Engine<P> {
    /// Takes up what is due, until told to stop: as there is room, the earliest deadline first.
    pub(super) async fn run_agenda(self: Arc<Self>) {
        let mut due = Due::default();
        loop {
            let freed = self.placing.freed();
            tokio::pin!(freed);
            // Before the look for room, so that a berth freed right after it is not missed.
            freed.as_mut().enable();
            if !self.begin_due(&mut due).await {
                return;
            }
            let deadline = due.first_deadline().map(|at| self.clock.until(at));
            // Cancel-safe: what is due is only taken up by the arm that wins.
            let more = tokio::select! {
                more = self.agenda.due(&self.clock, self.tuning.group) => more,
                () = &mut freed, if !due.is_empty() => Vec::new(),
                () = tokio::time::sleep(deadline.unwrap_or_default() + DEADLINE_SLACK), if deadline.is_some() => Vec::new(),
                () = self.soft.cancelled() => return,
            };
            let mut quiet = Vec::new();
            for held in more {
                match held.delivery.state {
                    State::Waiting => due.push(held),
                    State::Placing | State::Unsettled => {
                        drop(self.tasks.spawn(Arc::clone(&self).settle(held)))
                    }
                    State::Calling => quiet.push(held),
                    State::Final => {}
                }
            }
            self.poll_all(quiet);
        }
    }

    /// Begins what there is room for, and ends what is too late. False if told to stop.
    async fn begin_due(self: &Arc<Self>, due: &mut Due) -> bool {
        while let Some(late) = due.pop_late(self.clock.now()) {
            drop(self.tasks.spawn(Arc::clone(self).end_waiting(late, None)));
        }
        loop {
            if due.is_empty() {
                return true;
            }
            let permit = tokio::select! {
                permit = Arc::clone(&self.beginning).acquire_owned() => permit,
                () = self.soft.cancelled() => return false,
            };
            let group = due.take(&self.placing, self.tuning.group);
            if group.is_empty() {
                return true;
            }
            let engine = Arc::clone(self);
            drop(self.tasks.spawn(async move {
                engine.begin(group).await;
                drop(permit);
            }));
        }
    }

    /// Begins placements that are due.
    async fn begin(self: Arc<Self>, due: Vec<(Held, Berth)>) {
        let now = self.clock.now();
        let tenants: Vec<_> = due
            .iter()
            .map(|(held, _)| held.delivery.key.tenant_id.clone())
            .collect();
        let Some(settings) = self.settings_to_place(&tenants).await else {
            return;
        };
        let mut ready = Vec::with_capacity(due.len());
        let verified = self.verified_of(&due).await;
        for (mut held, berth) in due {
            if held.delivery.too_late(now) {
                self.tasks.spawn(Arc::clone(&self).end_waiting(held, None));
                continue;
            }
            if verified.contains(&held.delivery.key) {
                let why = Some(withdrawal(ReasonCode::Verified));
                drop(self.tasks.spawn(Arc::clone(&self).end_waiting(held, why)));
                continue;
            }
            match usable(settings.get(&held.delivery.key.tenant_id)) {
                Ok(settings) if settings.paused.is_some() => {
                    drop(self.tasks.spawn(Arc::clone(&self).park(held, settings)));
                }
                Ok(settings) => {
                    let begin = Begin {
                        delivery: Arc::new(held.delivery.as_ref().clone()),
                        attempt_id: self.dice.attempt_id(),
                        account_sid: settings.account_sid.clone(),
                        from: settings.from.clone(),
                        pace_key: settings.pace_key.clone(),
                    };
                    ready.push((held, berth, begin));
                }
                Err(NotSent::End(status, reason)) => {
                    drop(
                        self.tasks
                            .spawn(Arc::clone(&self).end_waiting(held, Some((status, reason)))),
                    );
                }
                Err(NotSent::Later) => {
                    held.delivery.wake_at = now + Duration::from_secs(2);
                    held.put_down();
                }
            }
        }
        if ready.is_empty() {
            return;
        }
        let group: Vec<Begin> = ready.iter().map(|(_, _, begin)| begin.clone()).collect();
        let worker = self.life.worker();
        let ledger = &self.ledger;
        let work = |group: Vec<Begin>| async move {
            let result = ledger.begin(worker, &group).await;
            (group, result)
        };
        let answers = tokio::select! {
            answers = work_on(group, &work, "begin") => answers,
            () = self.hard.cancelled() => return,
        };
        for ((held, berth, begin), answer) in ready.into_iter().zip(answers) {
            // What the ledger refuses is let go of; it comes up again when it is overdue.
            let Ok(answer) = answer else { continue };
            self.begun(worker, held, berth, &begin, answer);
        }
    }

    /// Those to be called again whose code has been entered meanwhile: nobody is woken for that.
    async fn verified_of(&self, due: &[(Held, Berth)]) -> HashSet<Key> {
        let again = due.iter().filter(|(held, _)| held.delivery.redials > 0);
        let again: Vec<Key> = again.map(|(held, _)| held.delivery.key.clone()).collect();
        if again.is_empty() {
            return HashSet::new();
        }
        self.reload_all(&again)
            .await
            .into_iter()
            .filter(|newest| newest.verified)
            .map(|newest| newest.key)
            .collect()
    }

    fn begun(
        self: &Arc<Self>,
        worker: WorkerEpoch,
        mut held: Held,
        berth: Berth,
        begin: &Begin,
        answer: Begun,
    ) {
        let delivery = &mut held.delivery;
        match answer {
            Begun::Go { slot, revision } => {
                delivery.revision = revision;
                delivery.state = State::Placing;
                delivery.slot = Some(slot);
                delivery.attempt += 1;
                delivery.attempt_id = Some(begin.attempt_id);
                delivery.intent_at = Some(self.clock.now());
                delivery.pace_key = Some(begin.pace_key.clone());
                delivery.account_sid = Some(begin.account_sid.clone());
                self.tasks
                    .spawn(Arc::clone(self).place(worker, held, berth));
            }
            Begun::Wait { slot, revision } => {
                delivery.revision = revision;
                delivery.slot = Some(slot);
                delivery.wake_at = slot.at.min(delivery.place_by);
                delivery.pace_key = Some(begin.pace_key.clone());
                if slot.at > delivery.place_by {
                    drop(self.tasks.spawn(Arc::clone(self).end_waiting(held, None)));
                } else {
                    drop(
                        self.tasks.spawn(
                            Arc::clone(self)
                                .announce_wait(held, Reason::new(ReasonCode::Pace, WAITS_FOR_PACE)),
                        ),
                    );
                }
            }
            Begun::LineBusy => {
                delivery.wake_at = (self.clock.now() + LINE_PAUSE).min(delivery.place_by);
                let why =
                    "another call from the same number to the same number is just being placed";
                drop(self.tasks.spawn(
                    Arc::clone(self).announce_wait(held, Reason::new(ReasonCode::LineBusy, why)),
                ));
            }
            Begun::UserBusy => {
                delivery.wake_at = (self.clock.now() + LINE_PAUSE).min(delivery.place_by);
                let why = "an earlier call to the same user is not over yet";
                drop(
                    self.tasks
                        .spawn(Arc::clone(self).supersede(delivery.key.clone())),
                );
                drop(self.tasks.spawn(
                    Arc::clone(self).announce_busy(held, Reason::new(ReasonCode::LineBusy, why)),
                ));
            }
            Begun::Full => {
                delivery.wake_at = (self.clock.now() + FULL_PAUSE).min(delivery.place_by);
                let why = "the account has as many calls in progress as it may";
                drop(self.tasks.spawn(
                    Arc::clone(self).announce_busy(held, Reason::new(ReasonCode::Pace, why)),
                ));
            }
            Begun::Busy => {
                delivery.wake_at = (self.clock.now() + LINE_PAUSE).min(delivery.place_by);
                held.put_down();
            }
            Begun::Superseded => drop(self.tasks.spawn(Arc::clone(self).end_superseded(held))),
            Begun::Conflict => drop(self.tasks.spawn(Arc::clone(self).look_again(
                worker,
                held,
                berth,
                begin.attempt_id,
            ))),
        }
    }

    /// Places a call whose intent is saved, and saves what came of it.
    pub(super) async fn place(self: Arc<Self>, worker: WorkerEpoch, mut held: Held, berth: Berth) {
        let outcome = self.send(worker, &mut held).await;
        let changed = match outcome {
            Ok((call, policy)) => {
                self.counts.placed.fetch_add(1, Ordering::Relaxed);
                self.work_in_under(&mut held, &call, &policy).await
            }
            Err(Some(next)) => self.apply(&mut held, next).await,
            Err(None) => Changed::Lost,
        };
        // Kept until now, so that what is placed never runs ahead of what can be saved.
        drop(berth);
        if changed == Changed::Done {
            held.put_down();
        }
    }

    /// Waits for the slot, passes the gate, and sends the POST, if that is still right when the bytes go.
    async fn send(
        self: &Arc<Self>,
        worker: WorkerEpoch,
        held: &mut Held,
    ) -> Result<(Call, Policy), Option<Sent>> {
        let delivery = held.delivery.as_ref();
        let (Some(order), Some(attempt_id), Some(slot)) =
            (delivery.order.clone(), delivery.attempt_id, delivery.slot)
        else {
            return Err(Some(Sent::Not));
        };
        let early = self.clock.until(slot.at);
        // A timer's tick is a millisecond, and one of no time takes one.
        if !early.is_zero() {
            tokio::time::sleep(early).await;
        }
        let tenant = &delivery.key.tenant_id;
        let settings = self
            .settings_to_place(std::slice::from_ref(tenant))
            .await
            .and_then(|mut all| all.remove(tenant));
        let settings = match usable(settings.as_ref()) {
            Ok(settings) => settings,
            Err(NotSent::End(status, reason)) => return Err(Some(Sent::End(status, reason))),
            Err(NotSent::Later) => return Err(Some(Sent::Not)),
        };
        if delivery.account_sid.as_ref() != Some(&settings.account_sid) || settings.paused.is_some()
        {
            // The slot is another account's, or nobody's for now.
            return Err(Some(Sent::Not));
        }
        if settings.voicemail.needs_public_url() && !self.caller.has_callbacks() {
            return Err(Some(Sent::End(
                Status::Failed,
                Reason::new(ReasonCode::VoiceNotConfigured, NO_PUBLIC_URL),
            )));
        }
        if self
            .gate
            .pass(&settings.pace_key, settings.calls_per_second)
            .await
        {
            tracing::warn!(account.sid = %settings.account_sid, "the last gate had to hold a call: slots run ahead of the account's pace");
        }
        let now = self.clock.now();
        let ring_timeout = delivery.ring_timeout(settings.ring_timeout, now);
        // Somebody may answer as late as that: what is said about the code's life must be true then.
        let life = (delivery.expires_at - now)
            .to_std()
            .unwrap_or_default()
            .saturating_sub(ring_timeout + RING_BUFFER);
        let script =
            speaker(&order, delivery.locale.as_ref(), &settings).message(&order.code, life);
        if held.is_outdated() || delivery.too_late(now) || now > slot.at + self.tuning.slot_late {
            return Err(Some(Sent::Not));
        }
        let call_order = CallOrder {
            to: &order.to,
            speech: match settings.voicemail {
                Voicemail::Speak => Speech::Inline(&script),
                policy => Speech::Ask(policy),
            },
            ring_timeout,
            limit: self.tuning.call_limit,
            extension: order
                .extension
                .as_ref()
                .map(voice_otp_schemas::Extension::expose),
            attempt_id,
        };
        // After the lease's end another worker may be settling this very attempt: nothing between this check and the
        // POST waits for anything but the socket.
        if !self.life.may_send(worker, self.clock.elapsed()) {
            tracing::warn!(delivery.id = %delivery.key.delivery_id, "the lease ran out before the call was sent");
            return Err(None);
        }
        match self.caller.place(&settings, &call_order).await {
            Ok(call) => {
                self.note_success(&settings).await;
                Ok((call, settings.policy()))
            }
            Err(failure) => {
                self.note_failure(&settings, &failure).await;
                Err(Some(Sent::Failed(failure)))
            }
        }
    }

    /// Saves what came of a placement that made no call that is known.
    async fn apply(self: &Arc<Self>, held: &mut Held, sent: Sent) -> Changed {
        let (key, attempt_id) = (held.delivery.key.clone(), held.delivery.attempt_id);
        let next = match &sent {
            Sent::Not | Sent::End(..) => None,
            Sent::Failed(failure) => {
                let spent = held.delivery.attempt;
                let tries = held.delivery.tries + 1;
                let pause = spacing::pause(
                    self.tuning.retry_first,
                    self.tuning.retry_longest,
                    tries,
                    &self.dice,
                );
                let next =
                    failure::next(failure, held.delivery.spent(), self.tuning.attempts, pause);
                tracing::warn!(
                    tenant.id = %key.tenant_id,
                    delivery.id = %key.delivery_id,
                    delivery.attempt = spent,
                    failure.class = failure.class.word(),
                    provider.code = failure.provider_code,
                    http.status = failure.http_status,
                    provider.request_id = failure.request_id,
                    error = failure as &dyn std::error::Error,
                    "a call could not be placed"
                );
                Some((next, pause))
            }
        };
        self.change(held, |delivery, now| {
            if delivery.state != State::Placing || delivery.attempt_id != attempt_id {
                // A callback was faster, or it is somebody else's now.
                return None;
            }
            Some(match (&sent, &next) {
                (Sent::End(status, reason), _) => {
                    let mut change = delivery.unbegin(now);
                    change.end(now, *status, reason.clone());
                    change
                }
                (_, Some((next, pause))) => self.after(delivery, next, *pause, now),
                (Sent::Not | Sent::Failed(_), _) => ended_if_withdrawn(delivery.unbegin(now), now),
            })
        })
        .await
    }

    /// The change that follows from [`Next`].
    fn after(
        &self,
        delivery: &Delivery,
        next: &Next,
        pause: Duration,
        now: voice_otp_schemas::Timestamp,
    ) -> Change {
        let mut change = Change::of(delivery);
        change.delivery.tries += 1;
        match next {
            Next::Final { status, reason } => {
                change.retire_attempt();
                change.end(now, *status, reason.clone());
                change
            }
            Next::SettleFirst => delivery.unsettle(
                now + self.tuning.settle_look,
                now + self.tuning.settle_absent,
                now,
            ),
            Next::Retry { after, reason } => {
                change.retire_attempt();
                change.delivery.state = State::Waiting;
                Self::wait_again(change, *after, reason, now)
            }
            Next::Snooze { wait, reason } => {
                change.retire_attempt();
                change.delivery.state = State::Waiting;
                change.delivery.attempt = change.delivery.attempt.saturating_sub(1);
                let wait = wait.unwrap_or(Duration::ZERO) + pause.max(Duration::from_millis(100));
                Self::wait_again(change, wait, reason, now)
            }
        }
    }

    /// Waits, unless the wait would end too late, or it was taken back meanwhile.
    fn wait_again(
        mut change: Change,
        wait: Duration,
        reason: &Reason,
        now: voice_otp_schemas::Timestamp,
    ) -> Change {
        change = ended_if_withdrawn(change, now);
        if change.delivery.state == State::Final {
            return change;
        }
        change.delivery.wake_at = now + wait;
        if change.delivery.wake_at > change.delivery.place_by {
            let mut reason = reason.clone();
            "the code expires before another try could be heard; the last try: "
                .clone_into(&mut reason.message);
            reason.message.push_str(&reason_text(&reason));
            let mut told = Reason::new(ReasonCode::ExpiredWaiting, reason.message);
            told.provider_code = reason.provider_code;
            change.end(now, Status::Expired, told);
        } else {
            change.defer(now, reason.clone());
        }
        change
    }
}

/// What came of a placement that made no call that is known.
pub(super) enum Sent {
    /// Nothing was sent.
    Not,
    /// Nothing was sent, and nothing ever will be.
    End(Status, Reason),
    /// Twilio, or the way to it, failed.
    Failed(CallFailure),
}

fn ended_if_withdrawn(mut change: Change, now: voice_otp_schemas::Timestamp) -> Change {
    if let Some(why) = change.delivery.withdrawn {
        change.end_withdrawn(now, why);
    }
    change
}

fn reason_text(reason: &Reason) -> String {
    serde_json::to_value(reason.code)
        .ok()
        .and_then(|word| word.as_str().map(str::to_owned))
        .unwrap_or_default()
}

/// The settings to place a call with, or why not.
fn usable(
    settings: Option<&Result<Arc<VoiceSettings>, DirectoryError>>,
) -> Result<Arc<VoiceSettings>, NotSent> {
    let end = |code, message: &str| Err(NotSent::End(Status::Rejected, Reason::new(code, message)));
    match settings {
        Some(Ok(settings)) if settings.refused => Err(NotSent::End(
            Status::Failed,
            Reason::new(
                ReasonCode::TenantCredentials,
                "Twilio refuses the tenant's credentials: check them with voice-otp tenant check",
            ),
        )),
        Some(Ok(settings)) if settings.enabled => Ok(Arc::clone(settings)),
        Some(Ok(_)) => end(
            ReasonCode::VoiceDisabled,
            "voice was switched off for the tenant while the delivery waited",
        ),
        Some(Err(_)) => Err(NotSent::Later),
        None => end(
            ReasonCode::UnknownTenant,
            "the tenant was deleted while the delivery waited",
        ),
    }
}
