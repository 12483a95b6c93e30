//! Sending: from a started attempt to Twilio's answer.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;
use voice_otp_schemas::reason::{Reason, ReasonCode};
use voice_otp_schemas::status::Status;
use voice_otp_schemas::{Extension, Timestamp};

use super::adaptive_limit::Answer;
use super::bulkhead::Permit;
use super::deliveries::Changed;
use super::placing::{Unplaceable, usable};
use super::retry::as_error;
use super::schedule::Held;
use super::settling::only_by_evidence;
use super::{Engine, backoff};
use crate::admission::NO_PUBLIC_URL;
use crate::call::Call;
use crate::call::failure::{self, CallFailure, Class, Next};
use crate::delivery::{CancelCause, Change, Delivery, State};
use crate::ports::{CallRequest, Instructions, Ports, Telephony as _, WorkerEpoch};
use crate::settings::VoiceSettings;
use crate::settings::policy::{Policy, Voicemail};
use crate::tuning::Tuning;

/// Twilio may let a phone ring this much longer than requested
/// (<https://www.twilio.com/docs/voice/api/call-resource>).
const RING_BUFFER: Duration = Duration::from_secs(5);
/// A POST that fails this shortly before its timeout, or later, counts as timed out.
const TIMEOUT_SLACK: Duration = Duration::from_millis(100);
/// The shortest pause before an attempt that Twilio did not process is repeated.
const MIN_SNOOZE: Duration = Duration::from_millis(100);

const NO_ANSWER: &str = "Twilio did not answer; checking its call list before placing another call";

/// Why no call was placed, as far as is known.
enum SendFailure {
    /// Nothing was sent, and the attempt doesn't count.
    NotSent,
    /// Nothing was sent, and the delivery finishes with this outcome.
    Final(Status, Reason),
    /// The lease expired. Another worker may own the delivery, so nothing is saved.
    LeaseExpired,
    /// Twilio, or the way to it, failed.
    Failed(CallFailure),
    /// No answer came within the POST's timeout. Twilio may still carry it out.
    TimedOut(CallFailure),
}

impl<P: Ports> Engine<P> {
    /// Places the call of a started attempt, and saves the outcome.
    pub(super) async fn place(
        self: Arc<Self>,
        worker: WorkerEpoch,
        mut held: Held,
        permit: Permit,
    ) {
        let changed = match self.send(worker, &mut held, &permit).await {
            Ok((call, policy)) => {
                self.counts.placed.fetch_add(1, Ordering::Relaxed);
                self.apply_update_under(&mut held, &call, &policy).await
            }
            Err(SendFailure::LeaseExpired) => Changed::Lost,
            Err(failure) => self.apply_failure(&mut held, &failure).await,
        };
        // Kept until now, so that calls are never placed faster than their outcomes are saved.
        drop(permit);
        if changed == Changed::Done {
            held.release();
        }
    }

    /// Waits for the slot, passes the safety limiter, and sends the POST, if it is still right to
    /// send it then.
    async fn send(
        self: &Arc<Self>,
        worker: WorkerEpoch,
        held: &mut Held,
        permit: &Permit,
    ) -> Result<(Call, Policy), SendFailure> {
        let delivery = held.delivery.as_ref();
        let (Some(secrets), Some(attempt_id), Some(slot)) =
            (delivery.secrets.clone(), delivery.attempt_id, delivery.slot)
        else {
            return Err(SendFailure::NotSent);
        };
        // The report that the code was entered changes no revision, so what is held may lack it.
        if delivery.redials > 0 {
            match self.deliveries.reload(&delivery.key).await {
                Some(newest) if newest.verified => {
                    let (status, reason) = CancelCause::Verified.outcome();
                    return Err(SendFailure::Final(status, reason));
                }
                Some(_) => {}
                None => return Err(SendFailure::NotSent),
            }
        }
        let early = self.clock.until(slot.at);
        // A timer takes at least a millisecond, even one that has passed.
        if !early.is_zero() {
            tokio::time::sleep(early).await;
        }
        let settings = self.settings_to_send(delivery).await?;
        if self
            .gate
            .pass(&settings.pace_key, settings.calls_per_second)
            .await
        {
            tracing::warn!(
                account.sid = %settings.account_sid,
                "safety limiter engaged: slots exceed the account's rate"
            );
        }
        // By two clocks: if the database's is behind, the code may have expired all the same.
        let now = self.clock.latest();
        let ring_timeout = delivery.ring_timeout(settings.ring_timeout, now);
        // The call may be answered as late as that, and what it says about the code's expiry must
        // be true then.
        let latest_answer = ring_timeout + RING_BUFFER;
        let left = (delivery.expires_at - now).to_std().unwrap_or_default();
        let script = settings
            .speaker(&secrets.to, delivery.locale.as_ref())
            .message(&secrets.code, left.saturating_sub(latest_answer));
        let is_slot_used_late = self.clock.now() > slot.at + self.tuning.slot_late;
        if held.is_outdated() || delivery.is_too_late(now) || is_slot_used_late {
            return Err(SendFailure::NotSent);
        }
        let request = CallRequest {
            to: &secrets.to,
            instructions: match settings.voicemail {
                Voicemail::Speak => Instructions::Inline(&script),
                policy => Instructions::OnRequest(policy),
            },
            ring_timeout,
            limit: self.tuning.call_limit,
            extension: secrets.extension.as_ref().map(Extension::expose),
            attempt_id,
        };
        // Once the lease has expired, another worker may be settling this very attempt. Between
        // this check and the POST nothing waits for anything but the socket.
        if !self.lease.is_valid(worker) {
            tracing::warn!("lease expired before the call was sent");
            return Err(SendFailure::LeaseExpired);
        }
        let (sent, sent_at) = (Instant::now(), self.clock.now());
        let placed = self.telephony.place(&settings, &request).await;
        let timed_out = self.record_latency(&settings, permit, &placed, sent, sent_at);
        match placed {
            Ok(call) => {
                self.retry_budget.earn(&settings.pace_key);
                self.circuits.record_success(&settings).await;
                Ok((call, settings.policy()))
            }
            Err(failure) => {
                self.circuits.record_failure(&settings, &failure).await;
                Err(if timed_out {
                    SendFailure::TimedOut(failure)
                } else {
                    SendFailure::Failed(failure)
                })
            }
        }
    }

    /// Records how soon a POST was answered that was sent at `sent`, by the ledger's clock at
    /// `sent_at`. Returns whether it wasn't within its timeout.
    fn record_latency(
        &self,
        settings: &VoiceSettings,
        permit: &Permit,
        placed: &Result<Call, CallFailure>,
        sent: Instant,
        sent_at: Timestamp,
    ) -> bool {
        let (account, now) = (&settings.account_sid, self.clock.now());
        match placed {
            Ok(_) => {
                permit.record(Answer::Received, sent);
                self.post_history.record_call(account, sent_at, now);
            }
            // The connection failed: Twilio has no request to answer.
            Err(failure) if failure.class == Class::Transient => {}
            Err(failure) if failure.class == Class::Ambiguous && failure.http_status.is_none() => {
                permit.record(Answer::None, sent);
                let timed_out = sent.elapsed() + TIMEOUT_SLACK >= self.tuning.post_timeout;
                self.post_history
                    .record_no_answer(account, sent_at, now, timed_out);
                return timed_out;
            }
            Err(_) => {
                permit.record(Answer::Received, sent);
                self.post_history.record_error(account, sent_at, now);
            }
        }
        false
    }

    /// The settings to send the POST with: those of now, not those of the admission.
    async fn settings_to_send(
        &self,
        delivery: &Delivery,
    ) -> Result<Arc<VoiceSettings>, SendFailure> {
        let tenant = &delivery.key.tenant_id;
        let found = self.settings.to_place(std::slice::from_ref(tenant)).await;
        let settings = match usable(found.as_ref().and_then(|found| found.get(tenant))) {
            Ok(settings) => settings,
            Err(Unplaceable::Final(status, reason)) => {
                return Err(SendFailure::Final(status, reason));
            }
            Err(Unplaceable::Later) => return Err(SendFailure::NotSent),
        };
        if delivery.account_sid.as_ref() != Some(&settings.account_sid) || settings.paused.is_some()
        {
            // The slot is one of another account, or of none while it is paused.
            return Err(SendFailure::NotSent);
        }
        if settings.voicemail.needs_public_url() && !self.telephony.has_callbacks() {
            let reason = Reason::new(ReasonCode::VoiceNotConfigured, NO_PUBLIC_URL);
            return Err(SendFailure::Final(Status::Failed, reason));
        }
        Ok(settings)
    }

    /// Saves the outcome of an attempt that placed no call, as far as is known.
    async fn apply_failure(self: &Arc<Self>, held: &mut Held, failure: &SendFailure) -> Changed {
        let attempt_id = held.delivery.attempt_id;
        let next = match failure {
            SendFailure::NotSent | SendFailure::Final(..) | SendFailure::LeaseExpired => None,
            SendFailure::Failed(failure) | SendFailure::TimedOut(failure) => {
                Some(self.next(&held.delivery, failure))
            }
        };
        let compute = |delivery: &Delivery, now| {
            if delivery.state != State::Placing || delivery.attempt_id != attempt_id {
                // A callback was faster, or another worker owns the delivery now.
                return None;
            }
            Some(match (failure, &next) {
                (SendFailure::Final(status, reason), _) => {
                    let mut change = delivery.revert_start(now);
                    change.finish(now, *status, reason.clone());
                    change
                }
                (SendFailure::TimedOut(_), Some((Next::SettleFirst, _))) => {
                    let absent_from = only_by_evidence(delivery, &self.tuning);
                    settle_first(delivery, absent_from, &self.tuning, now)
                }
                (SendFailure::Failed(_) | SendFailure::TimedOut(_), Some((next, delay))) => {
                    after_failure(delivery, next, *delay, &self.tuning, now)
                }
                (_, None) => finished_if_cancelled(delivery.revert_start(now), now),
                (SendFailure::NotSent | SendFailure::LeaseExpired, Some(_)) => return None,
            })
        };
        self.deliveries.change(held, compute).await
    }

    /// What happens next after a failed request, and the delay by the retry schedule.
    fn next(&self, delivery: &Delivery, failure: &CallFailure) -> (Next, Duration) {
        let delay = backoff::delay(
            self.tuning.first_retry_delay,
            self.tuning.longest_retry_delay,
            delivery.tries + 1,
            &self.rng,
        );
        tracing::warn!(
            failure.class = failure.class.as_str(),
            provider.code = failure.provider_code,
            http.status = failure.http_status,
            provider.request_id = failure.request_id,
            error = as_error(failure),
            "failed to place a call"
        );
        let spent = delivery.attempts_spent();
        (
            failure::next(failure, spent, self.tuning.attempts, delay),
            delay,
        )
    }
}

/// The change that follows from [`Next`].
fn after_failure(
    delivery: &Delivery,
    next: &Next,
    delay: Duration,
    tuning: &Tuning,
    now: Timestamp,
) -> Change {
    let mut change = Change::unchanged(delivery);
    change.delivery.tries += 1;
    match next {
        Next::Final { status, reason } => {
            change.end_attempt();
            change.finish(now, *status, reason.clone());
            change
        }
        Next::SettleFirst => settle_first(delivery, now + tuning.absence_after, tuning, now),
        Next::Retry { after, reason } => {
            change.end_attempt();
            change.delivery.state = State::Waiting;
            wait_again(change, *after, reason, now)
        }
        Next::Snooze { wait, reason } => {
            change.end_attempt();
            change.delivery.state = State::Waiting;
            change.delivery.attempt = change.delivery.attempt.saturating_sub(1);
            let wait = wait.unwrap_or(Duration::ZERO) + delay.max(MIN_SNOOZE);
            wait_again(change, wait, reason, now)
        }
    }
}

/// Looks for the call of an attempt before anything else. Its absence counts from `absent_from`.
fn settle_first(
    delivery: &Delivery,
    absent_from: Timestamp,
    tuning: &Tuning,
    now: Timestamp,
) -> Change {
    delivery.mark_unsettled(now + tuning.settle_interval, absent_from, NO_ANSWER, now)
}

/// Waits for another attempt, unless the delivery was cancelled meanwhile, or the wait would end
/// after its deadline.
fn wait_again(mut change: Change, wait: Duration, reason: &Reason, now: Timestamp) -> Change {
    change = finished_if_cancelled(change, now);
    if change.delivery.state == State::Final {
        return change;
    }
    change.delivery.wake_at = now + wait;
    if change.delivery.wake_at > change.delivery.place_by {
        let message = format!(
            "the code expires before another attempt could be heard; the last attempt failed: {}",
            reason.code.as_str()
        );
        let provider_code = reason.provider_code;
        let reason = Reason {
            provider_code,
            ..Reason::new(ReasonCode::ExpiredWaiting, message)
        };
        change.finish(now, Status::Expired, reason);
    } else {
        change.defer(now, reason.clone());
    }
    change
}

fn finished_if_cancelled(mut change: Change, now: Timestamp) -> Change {
    if let Some(cause) = change.delivery.cancel_reason {
        change.finish_cancelled(now, cause);
    }
    change
}
