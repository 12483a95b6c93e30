//! Settling: a POST was sent and its outcome is unknown. Twilio is asked before anything else.

use std::sync::Arc;
use std::time::Duration;

use voice_otp_schemas::Timestamp;
use voice_otp_schemas::reason::{Reason, ReasonCode};
use voice_otp_schemas::status::Status;

use super::Engine;
use super::bulkhead::Bulkhead;
use super::deliveries::Changed;
use super::retry::as_error;
use super::schedule::Held;
use super::settings_reader::SettingsReader;
use crate::call::Call;
use crate::delivery::{Change, Delivery, State};
use crate::ports::{Ledger as _, Ports, Telephony as _};
use crate::tuning::Tuning;

/// Looks for the call of an unsettled attempt in Twilio's call list.
pub(super) struct CallFinder<P: Ports> {
    pub(super) ledger: Arc<P::Ledger>,
    pub(super) telephony: Arc<P::Telephony>,
    pub(super) settings: Arc<SettingsReader<P::Directory>>,
    pub(super) query_permits: Arc<Bulkhead>,
    /// How far Twilio's clock may be behind the ledger's.
    pub(super) provider_skew: Duration,
}

/// What Twilio's call list shows of an attempt.
enum Finding {
    /// This call.
    Found(Box<Call>),
    /// No call.
    Absent,
    /// Several calls, or no answer: it can't be decided now.
    Undecided,
}

impl<P: Ports> CallFinder<P> {
    async fn find(&self, delivery: &Delivery) -> Finding {
        let account = delivery.pace_key.as_deref().unwrap_or_default();
        let _permit = self.query_permits.acquire(account).await;
        let (Some(secrets), Some(intent_at)) = (&delivery.secrets, delivery.intent_at) else {
            return Finding::Undecided;
        };
        let Some(Ok(settings)) = self.settings.of(&delivery.key.tenant_id).await else {
            return Finding::Undecided;
        };
        if !self
            .ledger
            .was_placed_from(delivery, &settings.account_sid, &settings.from)
        {
            // The tenant has another account or From number now, whose calls prove nothing.
            return Finding::Undecided;
        }
        let calls = match self.telephony.list(&settings, &secrets.to).await {
            Ok(calls) => calls,
            Err(failure) => {
                tracing::debug!(error = as_error(&failure), "failed to list calls; retrying");
                return Finding::Undecided;
            }
        };
        // Twilio reports times in whole seconds.
        let earliest = intent_at - self.provider_skew - Duration::from_secs(1);
        let candidates: Vec<Call> = calls
            .into_iter()
            .filter(|call| call.outbound_api && call.created_at.is_some_and(|at| at >= earliest))
            .collect();
        let sids: Vec<_> = candidates.iter().map(|call| call.sid.clone()).collect();
        let known = match self.ledger.known_calls(&sids).await {
            Ok(known) => known,
            Err(error) => {
                tracing::debug!(
                    error = as_error(&error),
                    "failed to compare calls; retrying"
                );
                return Finding::Undecided;
            }
        };
        let mut unknown = candidates
            .into_iter()
            .filter(|call| !known.contains(&call.sid));
        match (unknown.next(), unknown.next()) {
            (None, _) => Finding::Absent,
            (Some(call), None) => Finding::Found(Box::new(call)),
            (Some(_), Some(_)) => Finding::Undecided,
        }
    }
}

impl<P: Ports> Engine<P> {
    /// Settles an attempt, as far as that is possible now.
    pub(super) async fn settle(self: Arc<Self>, mut held: Held) {
        if held.delivery.state == State::Placing {
            // A worker died after it stored the intent, or its saves were lost.
            let changed = self
                .deliveries
                .change(&mut held, |delivery, now| {
                    take_over(delivery, &self.tuning, now)
                })
                .await;
            if changed == Changed::Done {
                held.release();
            }
            return;
        }
        // Another worker may have learned of the call; and only the ledger knows the line.
        let Some(newer) = self.deliveries.reload(&held.delivery.key).await else {
            return;
        };
        held.replace(newer);
        if held.delivery.state != State::Unsettled {
            held.release();
            return;
        }
        let asked_at = self.clock.now();
        let tuning = &self.tuning;
        let changed = match self.call_finder.find(&held.delivery).await {
            Finding::Found(call) => self.apply_update(&mut held, &call).await,
            Finding::Absent => {
                let conclude = |delivery: &Delivery, now| absent(delivery, asked_at, tuning, now);
                self.deliveries.change(&mut held, conclude).await
            }
            Finding::Undecided => {
                let conclude = |delivery: &Delivery, now| undecided(delivery, tuning, now);
                self.deliveries.change(&mut held, conclude).await
            }
        };
        if changed == Changed::Done {
            held.release();
        }
    }
}

/// Takes over an attempt whose intent is stored. Its POST may have been sent at any moment up to
/// the end of its worker's lease.
fn take_over(delivery: &Delivery, tuning: &Tuning, now: Timestamp) -> Option<Change> {
    if delivery.state != State::Placing {
        return None;
    }
    let sent_until = delivery.intent_at.unwrap_or(now) + tuning.lease;
    let absent_from = sent_until + tuning.post_timeout + tuning.absence_after;
    // The first look never counts as an absence: there is always a second one.
    Some(delivery.mark_unsettled(now, absent_from.max(now + tuning.settle_interval), now))
}

/// Twilio knows of no call. That is conclusive only late enough, since its list is eventually
/// consistent: if the look began after `settle_after`.
fn absent(
    delivery: &Delivery,
    asked_at: Timestamp,
    tuning: &Tuning,
    now: Timestamp,
) -> Option<Change> {
    if delivery.state != State::Unsettled {
        return None;
    }
    if delivery.settle_after.is_none_or(|from| asked_at < from) {
        return undecided(delivery, tuning, now);
    }
    let mut change = Change::unchanged(delivery);
    change.end_attempt();
    change.delivery.state = State::Waiting;
    change.delivery.wake_at = now;
    if let Some(cause) = delivery.cancel_reason {
        change.finish_cancelled(now, cause);
    } else if delivery.attempts_spent() >= tuning.attempts {
        let why = "Twilio failed until the attempts were used up, and placed no call";
        change.finish(
            now,
            Status::Failed,
            Reason::new(ReasonCode::ProviderTrouble, why),
        );
    } else if delivery.is_too_late(now) {
        change.expire(now);
    }
    Some(change)
}

/// Asks again later, until the code has expired.
fn undecided(delivery: &Delivery, tuning: &Tuning, now: Timestamp) -> Option<Change> {
    if delivery.state != State::Unsettled {
        return None;
    }
    let mut change = Change::unchanged(delivery);
    if now >= delivery.expires_at {
        let why = "it could not be determined whether Twilio placed the call, so it was not \
                   placed again";
        change.end_attempt();
        change.finish(
            now,
            Status::Failed,
            Reason::new(ReasonCode::OutcomeUnknown, why),
        );
        return Some(change);
    }
    let again = now + tuning.settle_interval;
    let conclusive_from = delivery.settle_after.unwrap_or(again);
    change.delivery.wake_at = if conclusive_from > now {
        again.min(conclusive_from)
    } else {
        again
    };
    Some(change)
}
