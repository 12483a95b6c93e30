//! Polling: asking Twilio about calls that have sent no update for a while.

use std::collections::HashMap;
use std::sync::Arc;

use voice_otp_schemas::reason::{Reason, ReasonCode};
use voice_otp_schemas::status::Status;
use voice_otp_schemas::{DeliveryKey, TenantId, Timestamp};

use super::Engine;
use super::deliveries::Changed;
use super::schedule::Held;
use crate::account::CallSid;
use crate::call::Call;
use crate::call::progress::{is_queued_too_long, next_account_tick};
use crate::delivery::{CancelCause, Change, Delivery, State};
use crate::ports::{Ports, Telephony as _};
use crate::settings::VoiceSettings;

impl<P: Ports> Engine<P> {
    /// Polls the calls of deliveries, those of one tenant together.
    pub(super) fn poll_all(self: &Arc<Self>, quiet: Vec<Held>) {
        let mut tenants: HashMap<TenantId, Vec<Held>> = HashMap::new();
        for held in quiet {
            tenants
                .entry(held.delivery.key.tenant_id.clone())
                .or_default()
                .push(held);
        }
        for (tenant, quiet) in tenants {
            self.spawn(|engine| engine.poll(tenant, quiet));
        }
    }

    async fn poll(self: Arc<Self>, tenant: TenantId, quiet: Vec<Held>) {
        let polled = self.still_calling(quiet).await;
        let Some((first, _)) = polled.first() else {
            return;
        };
        let account = first.delivery.pace_key.clone().unwrap_or_default();
        let settings = self.settings.of(&tenant).await.and_then(Result::ok);
        let together = polled.len() > 1;
        let mut found = HashMap::new();
        if let Some(settings) = &settings
            && together
        {
            let Some(calls) = self.poll_list(settings, &account, &polled).await else {
                // Twilio would not answer a query for each call either.
                for (held, _) in polled {
                    self.spawn_for(held, |engine, held| engine.apply_poll(held, None));
                }
                return;
            };
            found = calls;
        }
        let now = self.clock.now();
        for (mut held, sid) in polled {
            let placed_at = held.delivery.placed_at;
            let young = placed_at.is_some_and(|placed| now < placed + self.tuning.absence_after);
            match (found.remove(&sid), &settings) {
                (None, Some(_)) if together && young => {
                    // Twilio's list lags: the call will be on the next one.
                    let next = now + self.tuning.poll_after_without_callbacks;
                    held.delivery.wake_at = next_account_tick(&held.delivery, next);
                    held.release();
                }
                (None, Some(settings)) => {
                    let (settings, account) = (Arc::clone(settings), account.clone());
                    self.spawn_for(held, |engine, held| {
                        engine.poll_one(held, sid, settings, account)
                    });
                }
                (call, _) => {
                    self.spawn_for(held, |engine, held| engine.apply_poll(held, call));
                }
            }
        }
    }

    /// The deliveries that are unchanged and have a call. Whoever changed another one follows it
    /// now; if that was this worker, it comes up again as overdue.
    async fn still_calling(&self, quiet: Vec<Held>) -> Vec<(Held, CallSid)> {
        let keys: Vec<DeliveryKey> = quiet.iter().map(|held| held.delivery.key.clone()).collect();
        let newest = self.deliveries.reload_all(&keys).await;
        let mut newest: HashMap<DeliveryKey, Delivery> = newest
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
                held.replace(newest);
                polled.push((held, sid));
            }
        }
        polled
    }

    /// The calls by SID, as far as Twilio's list has them; `None` if it can't be read.
    async fn poll_list(
        &self,
        settings: &VoiceSettings,
        account: &str,
        polled: &[(Held, CallSid)],
    ) -> Option<HashMap<CallSid, Call>> {
        let (first, _) = polled.first()?;
        let oldest = polled
            .iter()
            .filter_map(|(held, _)| held.delivery.placed_at)
            .min();
        let since = oldest.unwrap_or(first.delivery.admitted_at) - self.tuning.provider_skew;
        let sids: Vec<CallSid> = polled.iter().map(|(_, sid)| sid.clone()).collect();
        let _permit = self.query_permits.acquire(account).await;
        let calls = self
            .telephony
            .fetch_all(settings, &sids, since)
            .await
            .ok()?;
        Some(
            calls
                .into_iter()
                .map(|call| (call.sid.clone(), call))
                .collect(),
        )
    }

    async fn poll_one(
        self: Arc<Self>,
        held: Held,
        sid: CallSid,
        settings: Arc<VoiceSettings>,
        account: String,
    ) {
        let permit = self.query_permits.acquire(&account).await;
        let call = self.telephony.fetch(&settings, &sid).await.ok();
        drop(permit);
        self.apply_poll(held, call).await;
    }

    /// Applies the result of a poll; `None` if Twilio gave none.
    async fn apply_poll(self: Arc<Self>, mut held: Held, call: Option<Call>) {
        held.delivery.tries += 1;
        let now = self.clock.now();
        let overdue = now > held.delivery.expires_at + self.tuning.give_up;
        let changed = match call {
            Some(call) if is_queued_too_long(&held.delivery, &call, &self.tuning, now) => {
                self.cancel_queued_call(&mut held).await
            }
            Some(call) if call.status.is_finished() || !overdue => {
                let tries = held.delivery.tries;
                let changed = self.apply_update(&mut held, &call).await;
                if held.delivery.state == State::Calling {
                    held.delivery.tries = tries;
                }
                changed
            }
            Some(_) | None if overdue => self.deliveries.change(&mut held, give_up).await,
            Some(_) | None => {
                held.delivery.wake_at = now + self.tuning.longest_poll_interval;
                Changed::Done
            }
        };
        if changed == Changed::Done {
            held.release();
        }
    }

    /// Cancels a call that Twilio still holds in its queue and that would ring too late. The
    /// delivery is marked first, since a call cancelled in the queue sends no callback.
    async fn cancel_queued_call(self: &Arc<Self>, held: &mut Held) -> Changed {
        let mark = |delivery: &Delivery, _| {
            let mut change = Change::unchanged(delivery);
            change
                .delivery
                .cancel_reason
                .get_or_insert(CancelCause::ProviderQueue);
            (delivery.cancel_reason.is_none() && delivery.state == State::Calling).then_some(change)
        };
        let changed = self.deliveries.change(held, mark).await;
        if changed == Changed::Done {
            if let Some(call) = self.hang_up(&held.delivery, false).await {
                return Box::pin(self.apply_update(held, &call)).await;
            }
            held.delivery.wake_at = self.clock.now() + self.tuning.settle_interval;
        }
        changed
    }
}

/// Finishes a delivery whose call's outcome could not be learned.
fn give_up(delivery: &Delivery, now: Timestamp) -> Option<Change> {
    if delivery.state != State::Calling {
        return None;
    }
    let (status, reason) = match delivery.cancel_reason {
        Some(cause) if delivery.answered_at.is_none() => cause.outcome(),
        Some(_) | None => {
            let why = "Twilio did not report how the call ended";
            (Status::Failed, Reason::new(ReasonCode::OutcomeUnknown, why))
        }
    };
    let mut change = Change::unchanged(delivery);
    change.finish(now, status, reason);
    Some(change)
}
