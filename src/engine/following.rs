//! Following up: what becomes of a call that Twilio took.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use voice_otp_schemas::reason::{Reason, ReasonCode};
use voice_otp_schemas::status::Status;
use voice_otp_schemas::{TenantId, Timestamp};

use super::{Changed, Engine};
use crate::account::CallSid;
use crate::agenda::Held;
use crate::delivery::{AttemptId, Change, Delivery, Details, Key, State, withdrawal};
use crate::policy::Policy;
use crate::ports::{Attempt, Caller as _, Ledger as _, Ports};
use crate::progress::{Call, Progress, progress, quiet_until, together_after, waits_too_long};
use crate::settings::VoiceSettings;

/// What came of news.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// It is saved, or was known.
    Taken,
    /// The worker is stopping: tell another.
    Stopping,
}

impl<P: Ports> Engine<P> {
    /// Takes news of the call of an attempt, from a callback whose signature holds. Returns when it is saved.
    pub async fn news(self: &Arc<Self>, found: Attempt, attempt: AttemptId, call: &Call) -> News {
        if found.over {
            return News::Taken;
        }
        let mut current = found.delivery;
        let policy = self.policy_of(&current).await;
        loop {
            // An attempt that is over can't bring its delivery news: its call is nobody's.
            let ours = current.attempt_id == Some(attempt);
            let result = if ours {
                self.progress_of(&current, call, &policy)
            } else {
                Progress::Stray
            };
            let change = match result {
                Progress::Known => return News::Taken,
                Progress::Stray => {
                    drop(
                        self.tasks
                            .spawn(Arc::clone(self).hang_up_stray(current, call.clone())),
                    );
                    return News::Taken;
                }
                Progress::Change(change) => *change,
            };
            match self.save_one(change).await {
                Ok(Some(saved)) => {
                    let taken_back = saved.withdrawn.is_some()
                        && saved.state == State::Calling
                        && saved.answered_at.is_none();
                    if taken_back {
                        drop(
                            self.tasks
                                .spawn(Arc::clone(self).hang_up_withdrawn(saved.clone())),
                        );
                    }
                    self.agenda.learn(saved);
                    return News::Taken;
                }
                Ok(None) => match self.find_again_by(attempt).await {
                    Some(newest) if newest.over => return News::Taken,
                    Some(newest) => current = newest.delivery,
                    None => return News::Stopping,
                },
                Err(_) => return News::Stopping,
            }
        }
    }

    /// Reads an attempt's delivery anew; waits for an unavailable ledger. None when it is gone or time is up.
    async fn find_again_by(&self, attempt: AttemptId) -> Option<Attempt> {
        loop {
            match self.ledger.find_attempt(attempt).await {
                Ok(found) => return found,
                Err(error) => tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    "can't read a delivery, trying again"
                ),
            }
            if self.pause_or_hard(Duration::from_millis(250)).await {
                return None;
            }
        }
    }

    /// Whether a call was some delivery's, which has another now: nothing of it is news, and nobody need hang it up.
    async fn was_ours(&self, sid: &CallSid) -> bool {
        self.ledger
            .known_calls(std::slice::from_ref(sid))
            .await
            .is_ok_and(|known| !known.is_empty())
    }

    fn progress_of(&self, delivery: &Delivery, call: &Call, policy: &Policy) -> Progress {
        progress(
            delivery,
            call,
            policy,
            &self.tuning,
            self.caller.has_callbacks(),
            self.clock.now(),
        )
    }

    /// The tenant's policy; one without any wishes, where it can't be had.
    pub(super) async fn policy_of(&self, delivery: &Delivery) -> Policy {
        match self.settings_of(&delivery.key.tenant_id).await {
            Some(Ok(settings)) => settings.policy(),
            Some(Err(_)) | None => Policy::default(),
        }
    }

    /// Works news of its call into a delivery in hand.
    pub(super) async fn work_in(self: &Arc<Self>, held: &mut Held, call: &Call) -> Changed {
        let policy = self.policy_of(&held.delivery).await;
        self.work_in_under(held, call, &policy).await
    }

    /// The same, for a call that was placed under this policy.
    pub(super) async fn work_in_under(
        self: &Arc<Self>,
        held: &mut Held,
        call: &Call,
        policy: &Policy,
    ) -> Changed {
        let attempt_id = held.delivery.attempt_id;
        let mut stray = false;
        loop {
            let (delivery, now) = (held.delivery.as_ref().clone(), self.clock.now());
            let same = delivery.attempt_id == attempt_id;
            let change = match if same {
                self.progress_of(&delivery, call, policy)
            } else {
                Progress::Stray
            } {
                Progress::Change(change) => *change,
                Progress::Known if delivery.state == State::Calling => {
                    let mut change = Change::of(&delivery);
                    change.delivery.wake_at = quiet_until(
                        &delivery,
                        call,
                        &self.tuning,
                        self.caller.has_callbacks(),
                        now,
                    );
                    change
                }
                Progress::Known => return Changed::Done,
                Progress::Stray => {
                    stray = true;
                    break;
                }
            };
            match self.save_one(change).await {
                Ok(Some(saved)) => {
                    *held.delivery = saved;
                    break;
                }
                Ok(None) => match self.reload(&held.delivery.key).await {
                    Some(newer) => *held.delivery = newer,
                    None => return Changed::Lost,
                },
                Err(_) => return Changed::Lost,
            }
        }
        if stray && !self.was_ours(&call.sid).await {
            drop(self.tasks.spawn(
                Arc::clone(self).hang_up_stray(held.delivery.as_ref().clone(), call.clone()),
            ));
        } else if held.delivery.withdrawn.is_some()
            && held.delivery.state == State::Calling
            && held.delivery.answered_at.is_none()
        {
            drop(
                self.tasks
                    .spawn(Arc::clone(self).hang_up_withdrawn(held.delivery.as_ref().clone())),
            );
        }
        Changed::Done
    }

    /// Asks Twilio about calls that have gone quiet: those of one tenant together.
    pub(super) fn poll_all(self: &Arc<Self>, quiet: Vec<Held>) {
        let mut tenants: HashMap<TenantId, Vec<Held>> = HashMap::new();
        for held in quiet {
            tenants
                .entry(held.delivery.key.tenant_id.clone())
                .or_default()
                .push(held);
        }
        for (tenant, quiet) in tenants {
            drop(self.tasks.spawn(Arc::clone(self).poll(tenant, quiet)));
        }
    }

    async fn poll(self: Arc<Self>, tenant: TenantId, quiet: Vec<Held>) {
        // A callback may have told another worker meanwhile. Whoever changed one follows it now; if that was this worker, it comes
        // up again as overdue.
        let keys: Vec<Key> = quiet.iter().map(|held| held.delivery.key.clone()).collect();
        let newest = self.reload_all(&keys).await;
        let mut newest: HashMap<Key, Delivery> = newest
            .into_iter()
            .map(|delivery| (delivery.key.clone(), delivery))
            .collect();
        let mut polled = Vec::with_capacity(quiet.len());
        for mut held in quiet {
            if let Some(newest) = newest.remove(&held.delivery.key)
                && newest.revision == held.delivery.revision
                && newest.state == State::Calling
                && let Some(sid) = newest.call_sid.clone()
            {
                *held.delivery = newest;
                polled.push((held, sid));
            }
        }
        let Some((first, _)) = polled.first() else {
            return;
        };
        let pace_key = first.delivery.pace_key.clone().unwrap_or_default();
        let settings = match self.settings_of(&tenant).await {
            Some(Ok(settings)) => Some(settings),
            Some(Err(_)) | None => None,
        };
        let together = polled.len() > 1;
        let mut found = HashMap::new();
        if let Some(settings) = &settings
            && together
        {
            let oldest = polled
                .iter()
                .filter_map(|(held, _)| held.delivery.placed_at)
                .min();
            let since = oldest.unwrap_or(first.delivery.admitted_at) - self.tuning.provider_skew;
            let sids: Vec<CallSid> = polled.iter().map(|(_, sid)| sid.clone()).collect();
            let berth = self.looking.enter(&pace_key).await;
            let calls = self.caller.fetch_all(settings, &sids, since).await;
            drop(berth);
            let Ok(calls) = calls else {
                // Nor would Twilio say it of each of them.
                for (held, _) in polled {
                    drop(self.tasks.spawn(Arc::clone(&self).polled(held, None)));
                }
                return;
            };
            found.extend(calls.into_iter().map(|call| (call.sid.clone(), call)));
        }
        let now = self.clock.now();
        for (mut held, sid) in polled {
            let young = held
                .delivery
                .placed_at
                .is_some_and(|placed| now < placed + self.tuning.settle_absent);
            match (found.remove(&sid), &settings) {
                (None, Some(_)) if together && young => {
                    // Twilio's list lags: it will be on the next one.
                    held.delivery.wake_at =
                        together_after(&held.delivery, now + self.tuning.quiet_without_callbacks);
                    held.put_down();
                }
                (None, Some(settings)) => {
                    drop(self.tasks.spawn(Arc::clone(&self).poll_one(
                        held,
                        sid,
                        Arc::clone(settings),
                        pace_key.clone(),
                    )));
                }
                (call, _) => drop(self.tasks.spawn(Arc::clone(&self).polled(held, call))),
            }
        }
    }

    async fn poll_one(
        self: Arc<Self>,
        held: Held,
        sid: CallSid,
        settings: Arc<VoiceSettings>,
        pace_key: String,
    ) {
        let berth = self.looking.enter(&pace_key).await;
        let call = self.caller.fetch(&settings, &sid).await.ok();
        drop(berth);
        self.polled(held, call).await;
    }

    /// Works in what Twilio said about a call that had gone quiet; nothing, if it said nothing.
    async fn polled(self: Arc<Self>, mut held: Held, call: Option<Call>) {
        held.delivery.tries += 1;
        let now = self.clock.now();
        let overdue = now > held.delivery.expires_at + self.tuning.give_up;
        let changed = match call {
            Some(call) if waits_too_long(&held.delivery, &call, &self.tuning, now) => {
                self.too_long_in_queue(&mut held).await
            }
            Some(call) if call.status.is_over() || !overdue => {
                let tries = held.delivery.tries;
                let changed = self.work_in(&mut held, &call).await;
                if held.delivery.state == State::Calling {
                    held.delivery.tries = tries;
                }
                changed
            }
            Some(_) | None if overdue => self.change(&mut held, give_up).await,
            Some(_) | None => {
                held.delivery.wake_at = now + self.tuning.quiet_longest;
                Changed::Done
            }
        };
        if changed == Changed::Done {
            held.put_down();
        }
    }

    /// Twilio still holds a call that would now ring too late: it is cancelled, and the ending said by us, since a
    /// call cancelled while queued tells nothing.
    async fn too_long_in_queue(self: &Arc<Self>, held: &mut Held) -> Changed {
        let changed = self
            .change(held, |delivery, _| {
                let mut change = Change::of(delivery);
                change
                    .delivery
                    .withdrawn
                    .get_or_insert(ReasonCode::ProviderQueue);
                (delivery.withdrawn.is_none() && delivery.state == State::Calling).then_some(change)
            })
            .await;
        if changed == Changed::Done {
            if let Some(call) = self.hang_up(&held.delivery, false).await {
                return Box::pin(self.work_in(held, &call)).await;
            }
            held.delivery.wake_at = self.clock.now() + self.tuning.settle_look;
        }
        changed
    }

    /// Takes a delivery back. Lost if that can't be saved by this worker any more.
    pub(super) async fn withdraw(self: &Arc<Self>, delivery: Delivery, why: ReasonCode) -> Changed {
        let mut current = delivery;
        loop {
            let Some(change) = current.withdraw(why, self.clock.now()) else {
                return Changed::Done;
            };
            match self.save_one(change).await {
                Ok(Some(saved)) => {
                    if saved.state == State::Calling && saved.answered_at.is_none() {
                        drop(
                            self.tasks
                                .spawn(Arc::clone(self).hang_up_withdrawn(saved.clone())),
                        );
                    }
                    self.agenda.learn(saved);
                    return Changed::Done;
                }
                Ok(None) => match self.reload(&current.key).await {
                    Some(newer) => current = newer,
                    None => return Changed::Lost,
                },
                Err(_) => return Changed::Lost,
            }
        }
    }

    /// Hangs up a call that was taken back before its answer, and says so once Twilio does.
    fn hang_up_withdrawn(
        self: Arc<Self>,
        delivery: Delivery,
    ) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        // Boxed, since it brings news, and news may hang up.
        Box::pin(async move {
            let Some(attempt) = delivery.attempt_id else {
                return;
            };
            if let Some(call) = self.hang_up(&delivery, false).await {
                self.news(
                    Attempt {
                        delivery,
                        over: false,
                    },
                    attempt,
                    &call,
                )
                .await;
            }
        })
    }

    /// Hangs up a call that is no delivery's: the callee must not hear a second one.
    async fn hang_up_stray(self: Arc<Self>, delivery: Delivery, call: Call) {
        if call.status.is_over() {
            return;
        }
        self.counts.strays.fetch_add(1, Ordering::Relaxed);
        tracing::error!(
            tenant.id = %delivery.key.tenant_id,
            delivery.id = %delivery.key.delivery_id,
            call.sid = %call.sid,
            "a call turned up that is not its delivery's any more; hanging it up"
        );
        let stray = Delivery {
            call_sid: Some(call.sid),
            ..delivery
        };
        self.hang_up(&stray, true).await;
    }

    async fn hang_up(&self, delivery: &Delivery, even_answered: bool) -> Option<Call> {
        let sid = delivery.call_sid.as_ref()?;
        let settings = self.settings_of(&delivery.key.tenant_id).await?.ok()?;
        match self.caller.hang_up(&settings, sid, even_answered).await {
            Ok(call) => Some(call),
            Err(failure) => {
                // Answered or over meanwhile; its own ending will come.
                tracing::debug!(call.sid = %sid, error = &failure as &dyn std::error::Error, "can't hang a call up");
                None
            }
        }
    }
}

/// The call's ending could not be learnt.
fn give_up(delivery: &Delivery, now: Timestamp) -> Option<Change> {
    if delivery.state != State::Calling {
        return None;
    }
    let mut change = Change::of(delivery);
    let (status, reason) = match delivery.withdrawn {
        Some(why) if delivery.answered_at.is_none() => withdrawal(why),
        Some(_) | None => (
            Status::Failed,
            Reason::new(
                ReasonCode::OutcomeUnknown,
                "Twilio could not be asked what became of the call",
            ),
        ),
    };
    change.tell(
        now,
        status,
        Details {
            reason: Some(reason),
            ..Details::default()
        },
    );
    Some(change)
}
