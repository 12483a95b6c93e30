//! Settling: a POST was sent and its outcome is unknown. Twilio is asked before anything else.

use std::sync::Arc;
use std::time::Duration;

use voice_otp_schemas::Timestamp;
use voice_otp_schemas::reason::{Reason, ReasonCode};
use voice_otp_schemas::status::Status;

use super::Engine;
use super::bulkhead::Bulkhead;
use super::clock::LedgerClock;
use super::deliveries::Changed;
use super::post_history::Evidence;
use super::retry::as_error;
use super::schedule::Held;
use super::settings_reader::SettingsReader;
use crate::call::Call;
use crate::delivery::{Change, Delivery, State};
use crate::ports::{Ledger as _, Ports, Telephony as _};
use crate::tuning::Tuning;

/// How long after a code's expiry a look is given up, when the code has certainly expired.
const EXPIRY_SLACK: Duration = Duration::from_millis(1);

/// Looks for the call of an unsettled attempt in Twilio's call list.
pub(super) struct CallFinder<P: Ports> {
    pub(super) ledger: Arc<P::Ledger>,
    pub(super) telephony: Arc<P::Telephony>,
    pub(super) settings: Arc<SettingsReader<P::Directory>>,
    pub(super) query_permits: Arc<Bulkhead>,
    pub(super) clock: Arc<LedgerClock>,
    /// How far Twilio's clock may be behind the ledger's, if neither was set.
    pub(super) provider_skew: Duration,
}

const WORKER_LOST: &str =
    "the worker was lost while it placed the call; checking Twilio's call list first";
const COMMITS_LOST: &str = "the database may have lost changes in a failover; checking Twilio's \
                            call list before placing the call";

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
        let earliest =
            intent_at - self.provider_skew - self.clock.uncertainty() - Duration::from_secs(1);
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
    /// Whether a call of this delivery may have been placed that the ledger has lost: in a failover
    /// or a restoration after its admission.
    pub(super) fn is_suspect(&self, delivery: &Delivery) -> bool {
        self.ledger.suspect_since().is_some_and(|since| {
            // The clock of the former server may have been ahead.
            delivery.admitted_at < since + self.tuning.provider_skew
                && delivery.settle_after.is_none_or(|settled| settled < since)
        })
    }

    /// Has Twilio's call list searched before the call of a started attempt is placed, back to the
    /// delivery's admission.
    pub(super) async fn settle_suspect(self: Arc<Self>, mut held: Held) {
        let attempt_id = held.delivery.attempt_id;
        let since = self.ledger.suspect_since();
        let changed = self
            .deliveries
            .change(&mut held, |delivery, now| {
                if delivery.state != State::Placing || delivery.attempt_id != attempt_id {
                    return None;
                }
                let tuning = &self.tuning;
                // A worker that hasn't noticed the failover may send a POST until its lease ends.
                let sent_until = since.unwrap_or(now) + tuning.lease;
                let absent_from = sent_until + tuning.post_timeout + tuning.absence_after;
                let mut change = delivery.mark_unsettled(now, absent_from, COMMITS_LOST, now);
                change.delivery.intent_at = Some(delivery.admitted_at);
                Some(change)
            })
            .await;
        if changed == Changed::Done {
            held.release();
        }
    }

    /// Settles an attempt, as far as that is possible now.
    pub(super) async fn settle(self: Arc<Self>, mut held: Held) {
        if held.delivery.state == State::Placing {
            // A worker died after it stored the intent, or its saves were lost.
            let account = held.delivery.account_sid.as_ref();
            let is_slow = account.is_some_and(|account| self.post_history.is_slow(account));
            let changed = self
                .deliveries
                .change(&mut held, |delivery, now| {
                    take_over(delivery, is_slow, &self.tuning, now)
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
        let looking = self.call_finder.find(&held.delivery);
        let looked = tokio::time::timeout(self.time_to_look(&held.delivery), looking).await;
        // The absence counts after an interval of the ledger's time. Of this worker's own attempts
        // it has watched the clock since the intent.
        let mut interval = tuning.lease + tuning.post_timeout + tuning.absence_after;
        if self.clock.never_set()
            && let Some(intent_at) = held.delivery.intent_at
        {
            interval = interval.min((asked_at - intent_at).to_std().unwrap_or(interval));
        }
        let changed = match looked.unwrap_or(Finding::Undecided) {
            Finding::Found(call) => {
                self.record_found(&held.delivery, &call);
                self.apply_update(&mut held, &call).await
            }
            Finding::Absent if self.clock.measures(interval) => {
                let evidence = self.evidence(&held.delivery, asked_at);
                let conclude =
                    |delivery: &Delivery, now| absent(delivery, asked_at, evidence, tuning, now);
                self.deliveries.change(&mut held, conclude).await
            }
            Finding::Absent | Finding::Undecided => {
                let conclude = |delivery: &Delivery, now| undecided(delivery, tuning, now);
                self.deliveries.change(&mut held, conclude).await
            }
        };
        if changed == Changed::Done {
            held.release();
        }
    }
}

impl<P: Ports> Engine<P> {
    /// Records how late Twilio made a call whose POST had no answer.
    fn record_found(&self, delivery: &Delivery, call: &Call) {
        if let (Some(account), Some(intent_at), Some(created_at)) =
            (&delivery.account_sid, delivery.intent_at, call.created_at)
        {
            let now = self.clock.now();
            self.post_history
                .record_found(account, intent_at, created_at, now);
        }
    }

    /// What Twilio's answers of the last time say about the absence of a call on the list that was
    /// asked for at `asked_at`.
    fn evidence(&self, delivery: &Delivery, asked_at: Timestamp) -> Evidence {
        let (Some(account), Some(intent_at)) = (&delivery.account_sid, delivery.intent_at) else {
            return Evidence::Consistent;
        };
        // A worker sends a POST only while its lease is valid.
        let sent_until = intent_at + self.tuning.lease;
        self.post_history
            .evidence(account, sent_until, asked_at, self.tuning.absence_after)
    }

    /// How long a look may take, waiting for its turn included: until the code expires, when the
    /// delivery ends. A look that comes later has a moment: it may be the attempt's only one, if
    /// its worker was lost shortly before.
    fn time_to_look(&self, delivery: &Delivery) -> Duration {
        let left = self.clock.until(delivery.expires_at) + EXPIRY_SLACK;
        if delivery.wake_at > delivery.expires_at {
            left.max(self.tuning.post_timeout)
        } else {
            left.max(self.tuning.settle_interval)
        }
    }
}

/// Takes over an attempt whose intent is stored. Its POST may have been sent at any moment up to
/// the end of its worker's lease. `is_slow`: other POSTs of its account have timed out.
fn take_over(
    delivery: &Delivery,
    is_slow: bool,
    tuning: &Tuning,
    now: Timestamp,
) -> Option<Change> {
    if delivery.state != State::Placing {
        return None;
    }
    let sent_until = delivery.intent_at.unwrap_or(now) + tuning.lease;
    let absent_from = sent_until + tuning.post_timeout + tuning.absence_after;
    // The first look never counts as an absence: there is always a second one.
    let mut absent_from = absent_from.max(now + tuning.settle_interval);
    if is_slow {
        absent_from = only_by_evidence(delivery, tuning);
    }
    Some(delivery.mark_unsettled(now, absent_from, WORKER_LOST, now))
}

/// When the absence of a call is conclusive whose POST may be carried out at any time: not while
/// the code lives, unless there is [evidence](Evidence::LaterCall).
pub(super) fn only_by_evidence(delivery: &Delivery, tuning: &Tuning) -> Timestamp {
    delivery.expires_at + tuning.give_up
}

/// Twilio knows of no call. That is conclusive only late enough, since its list is eventually
/// consistent: if the look began after `settle_after`, and Twilio wasn't seen to take longer. Or if
/// Twilio has made the call of a later POST meanwhile.
fn absent(
    delivery: &Delivery,
    asked_at: Timestamp,
    evidence: Evidence,
    tuning: &Tuning,
    now: Timestamp,
) -> Option<Change> {
    if delivery.state != State::Unsettled {
        return None;
    }
    let is_late_enough = delivery.settle_after.is_some_and(|from| asked_at >= from);
    let is_conclusive = match evidence {
        Evidence::LaterCall => true,
        Evidence::Overtaken => {
            is_late_enough || delivery.settle_after == Some(only_by_evidence(delivery, tuning))
        }
        Evidence::Consistent => is_late_enough,
        Evidence::TooEarly => false,
    };
    if !is_conclusive {
        return undecided(delivery, tuning, now);
    }
    let mut change = Change::unchanged(delivery);
    change.end_attempt();
    change.delivery.settle_after = Some(asked_at);
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
    let next = if conclusive_from > now {
        again.min(conclusive_from)
    } else {
        again
    };
    change.delivery.wake_at = next.min(delivery.expires_at);
    Some(change)
}
