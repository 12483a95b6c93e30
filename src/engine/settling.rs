//! Settling: a POST went, and nobody knows what came of it. Twilio is asked before anything else is tried.

use std::sync::Arc;
use std::time::Duration;

use voice_otp_schemas::reason::{Reason, ReasonCode};
use voice_otp_schemas::status::Status;

use super::{Changed, Engine};
use crate::agenda::Held;
use crate::delivery::{Change, Delivery, State};
use crate::ports::{Caller as _, Ledger as _, Ports};
use crate::progress::Call;

/// What a look at Twilio's list shows.
enum Sight {
    /// This call.
    Found(Box<Call>),
    /// None.
    Nothing,
    /// Several, or no answer: not to be decided now.
    Unclear,
}

impl<P: Ports> Engine<P> {
    /// One look for an unsettled placement.
    pub(super) async fn settle(self: Arc<Self>, mut held: Held) {
        if held.delivery.state == State::Placing {
            // Left half done by a worker that died, or whose saves were lost. Its POST may have gone at any moment up
            // to the end of that worker's lease.
            let changed = self
                .change(&mut held, |delivery, now| {
                    self.take_half_done(delivery, now)
                })
                .await;
            if changed == Changed::Done {
                held.put_down();
            }
            return;
        }
        // Another worker may have heard of its call; and only the ledger knows its line.
        let Some(newer) = self.reload(&held.delivery.key).await else {
            return;
        };
        *held.delivery = newer;
        if held.delivery.state != State::Unsettled {
            held.put_down();
            return;
        }
        let began = self.clock.now();
        let berth = self
            .looking
            .enter(held.delivery.pace_key.as_deref().unwrap_or_default())
            .await;
        let sight = self.look(&held.delivery).await;
        drop(berth);
        let changed = match sight {
            Sight::Found(call) => self.work_in(&mut held, &call).await,
            Sight::Nothing => {
                // Only a look that began after the moment counts.
                self.change(&mut held, |delivery, now| {
                    self.found_nothing(delivery, began, now)
                })
                .await
            }
            Sight::Unclear => {
                self.change(&mut held, |delivery, now| self.undecided(delivery, now))
                    .await
            }
        };
        if changed == Changed::Done {
            held.put_down();
        }
    }

    fn take_half_done(
        &self,
        delivery: &Delivery,
        now: voice_otp_schemas::Timestamp,
    ) -> Option<Change> {
        if delivery.state != State::Placing {
            return None;
        }
        let tuning = &self.tuning;
        let sent_until = delivery.intent_at.unwrap_or(now) + tuning.lease;
        let absent_from = sent_until + tuning.post_timeout + tuning.settle_absent;
        // The first look never counts as an absence: there is always a second.
        Some(delivery.unsettle(now, absent_from.max(now + tuning.settle_look), now))
    }

    async fn look(&self, delivery: &Delivery) -> Sight {
        let (Some(order), Some(intent_at)) = (&delivery.order, delivery.intent_at) else {
            return Sight::Unclear;
        };
        let Some(Ok(settings)) = self.settings_of(&delivery.key.tenant_id).await else {
            return Sight::Unclear;
        };
        if !self
            .ledger
            .went_from(delivery, &settings.account_sid, &settings.from)
        {
            // The tenant has another account or number now: its calls say nothing about this one.
            return Sight::Unclear;
        }
        let calls = match self.caller.list(&settings, &order.to).await {
            Ok(calls) => calls,
            Err(failure) => {
                tracing::debug!(
                    error = &failure as &dyn std::error::Error,
                    "can't list calls, trying again"
                );
                return Sight::Unclear;
            }
        };
        // Twilio tells the time to the second.
        let from = intent_at - self.tuning.provider_skew - Duration::from_secs(1);
        let candidates: Vec<Call> = calls
            .into_iter()
            .filter(|call| call.outbound_api && call.created_at.is_some_and(|at| at >= from))
            .collect();
        let sids: Vec<_> = candidates.iter().map(|call| call.sid.clone()).collect();
        let known = match self.ledger.known_calls(&sids).await {
            Ok(known) => known,
            Err(error) => {
                tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    "can't compare calls, trying again"
                );
                return Sight::Unclear;
            }
        };
        let mut unknown = candidates
            .into_iter()
            .filter(|call| !known.contains(&call.sid));
        match (unknown.next(), unknown.next()) {
            (None, _) => Sight::Nothing,
            (Some(call), None) => Sight::Found(Box::new(call)),
            (Some(_), Some(_)) => Sight::Unclear,
        }
    }

    /// Twilio knows of no call. That counts only late enough, since its list lags.
    fn found_nothing(
        &self,
        delivery: &Delivery,
        looked_at: voice_otp_schemas::Timestamp,
        now: voice_otp_schemas::Timestamp,
    ) -> Option<Change> {
        if delivery.state != State::Unsettled {
            return None;
        }
        let counts = delivery.settle_after.is_some_and(|from| looked_at >= from);
        if !counts {
            return self.undecided(delivery, now);
        }
        let mut change = Change::of(delivery);
        change.retire_attempt();
        change.delivery.state = State::Waiting;
        change.delivery.wake_at = now;
        if let Some(why) = delivery.withdrawn {
            change.end_withdrawn(now, why);
        } else if delivery.spent() >= self.tuning.attempts {
            let why = "Twilio was in trouble until the attempts were used up, and made no call";
            change.end(
                now,
                Status::Failed,
                Reason::new(ReasonCode::ProviderTrouble, why),
            );
        } else if delivery.too_late(now) {
            change.expire(now);
        }
        Some(change)
    }

    /// Looks again later, until the code is worth nothing any more.
    fn undecided(&self, delivery: &Delivery, now: voice_otp_schemas::Timestamp) -> Option<Change> {
        if delivery.state != State::Unsettled {
            return None;
        }
        let mut change = Change::of(delivery);
        if now >= delivery.expires_at {
            let why = "it could not be found out whether Twilio took the call, so it was not placed again";
            change.retire_attempt();
            change.end(
                now,
                Status::Failed,
                Reason::new(ReasonCode::OutcomeUnknown, why),
            );
            return Some(change);
        }
        let again = now + self.tuning.settle_look;
        let counts_from = delivery.settle_after.unwrap_or(again);
        change.delivery.wake_at = if counts_from > now {
            again.min(counts_from)
        } else {
            again
        };
        Some(change)
    }
}
