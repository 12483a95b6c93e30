//! Following: what call updates, from callbacks, polls and answers to POSTs, make of deliveries.

use std::sync::Arc;

use tracing::Instrument as _;

use super::deliveries::Changed;
use super::hanging_up::must_hang_up;
use super::schedule::Held;
use super::{Engine, span};
use crate::call::Call;
use crate::call::progress::{Progress, next_poll_at, progress};
use crate::delivery::{AttemptId, Change, Delivery, State};
use crate::ports::{Attempt, Ports, Telephony as _};
use crate::settings::policy::Policy;

/// What became of a call update.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpdateOutcome {
    /// It is saved, or was known.
    Applied,
    /// The worker is stopping: another worker must apply it.
    Stopping,
}

impl<P: Ports> Engine<P> {
    /// Applies an update of the call of an attempt, from a callback with a valid signature. Returns
    /// once it is saved.
    pub async fn apply_call_update(
        self: &Arc<Self>,
        found: Attempt,
        attempt: AttemptId,
        call: &Call,
    ) -> UpdateOutcome {
        if found.ended {
            return UpdateOutcome::Applied;
        }
        let span = span::of(&found.delivery);
        self.apply_to_attempt(found.delivery, attempt, call)
            .instrument(span)
            .await
    }

    async fn apply_to_attempt(
        self: &Arc<Self>,
        delivery: Delivery,
        attempt: AttemptId,
        call: &Call,
    ) -> UpdateOutcome {
        let mut current = delivery;
        let policy = self.settings.policy_of(&current.key.tenant_id).await;
        loop {
            // The call of an attempt that ended is orphaned.
            let change = match self.progress_of(&current, Some(attempt), call, &policy) {
                Progress::Unchanged => return UpdateOutcome::Applied,
                Progress::Orphaned => {
                    let call = call.clone();
                    self.spawn(|engine| engine.hang_up_orphan(current, call));
                    return UpdateOutcome::Applied;
                }
                Progress::Change(change) => *change,
            };
            match self.deliveries.save(change).await {
                Ok(Some(saved)) => {
                    if must_hang_up(&saved) {
                        let delivery = saved.clone();
                        self.spawn(|engine| engine.hang_up_cancelled(delivery));
                    }
                    self.schedule.update(saved);
                    return UpdateOutcome::Applied;
                }
                Ok(None) => match self.deliveries.reload_attempt(attempt).await {
                    Some(newest) if newest.ended => return UpdateOutcome::Applied,
                    Some(newest) => current = newest.delivery,
                    None => return UpdateOutcome::Stopping,
                },
                Err(_) => return UpdateOutcome::Stopping,
            }
        }
    }

    /// What an update of the call of `attempt` makes of a delivery.
    fn progress_of(
        &self,
        delivery: &Delivery,
        attempt: Option<AttemptId>,
        call: &Call,
        policy: &Policy,
    ) -> Progress {
        if delivery.attempt_id != attempt {
            return Progress::Orphaned;
        }
        let callbacks = self.telephony.has_callbacks();
        progress(
            delivery,
            call,
            policy,
            &self.tuning,
            callbacks,
            self.clock.now(),
        )
    }

    /// Applies an update of its call to a held delivery, under the tenant's current policy.
    pub(super) async fn apply_update(self: &Arc<Self>, held: &mut Held, call: &Call) -> Changed {
        let policy = self.settings.policy_of(&held.delivery.key.tenant_id).await;
        self.apply_update_under(held, call, &policy).await
    }

    /// Applies an update of its call to a held delivery, under the policy that the call was placed
    /// under.
    pub(super) async fn apply_update_under(
        self: &Arc<Self>,
        held: &mut Held,
        call: &Call,
        policy: &Policy,
    ) -> Changed {
        let attempt = held.delivery.attempt_id;
        loop {
            let change = match self.progress_of(&held.delivery, attempt, call, policy) {
                Progress::Change(change) => *change,
                Progress::Unchanged if held.delivery.state == State::Calling => {
                    self.polled_change(&held.delivery, call)
                }
                Progress::Unchanged => return Changed::Done,
                Progress::Orphaned => {
                    if self.deliveries.is_known_call(&call.sid).await {
                        break;
                    }
                    let (delivery, call) = (held.delivery.as_ref().clone(), call.clone());
                    self.spawn(|engine| engine.hang_up_orphan(delivery, call));
                    return Changed::Done;
                }
            };
            match self.deliveries.save(change).await {
                Ok(Some(saved)) => {
                    held.replace(saved);
                    break;
                }
                Ok(None) => match self.deliveries.reload(&held.delivery.key).await {
                    Some(newer) => held.replace(newer),
                    None => return Changed::Lost,
                },
                Err(_) => return Changed::Lost,
            }
        }
        if must_hang_up(&held.delivery) {
            let delivery = held.delivery.as_ref().clone();
            self.spawn(|engine| engine.hang_up_cancelled(delivery));
        }
        Changed::Done
    }

    /// The change of a delivery whose call was polled without news: when to poll next.
    fn polled_change(&self, delivery: &Delivery, call: &Call) -> Change {
        let callbacks = self.telephony.has_callbacks();
        let now = self.clock.now();
        let mut change = Change::unchanged(delivery);
        change.delivery.wake_at = next_poll_at(delivery, call, &self.tuning, callbacks, now);
        change
    }
}
