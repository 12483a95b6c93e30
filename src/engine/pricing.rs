//! Pricing: what calls cost, which Twilio tells a while after they are over.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::{StreamExt as _, stream};
use voice_otp_schemas::TenantId;
use voice_otp_schemas::price::PriceData;

use std::sync::atomic::Ordering;

use super::Engine;
use crate::account::CallSid;
use crate::event::Event;
use crate::ports::{Caller as _, Ledger as _, Ports, Unpriced};

/// The most calls asked for at once.
const MOST: usize = 500;
/// Tenants asked for at once.
const AT_ONCE: usize = 8;

impl<P: Ports> Engine<P> {
    /// Asks for the prices of calls that are over, those of a tenant together, until told to stop.
    pub(super) async fn price_forever(self: Arc<Self>) {
        loop {
            let owed = match self.ledger.unpriced(MOST).await {
                Ok(owed) => owed,
                Err(error) => {
                    tracing::debug!(
                        error = &error as &dyn std::error::Error,
                        "can't look for calls without a price, trying again"
                    );
                    Vec::new()
                }
            };
            let full = owed.len() >= MOST;
            let mut tenants: HashMap<TenantId, Vec<Unpriced>> = HashMap::new();
            for one in owed {
                tenants
                    .entry(one.key.tenant_id.clone())
                    .or_default()
                    .push(one);
            }
            // One that answers slowly keeps nobody else's waiting; and once the worker is told to stop no more are asked for.
            let pricing = stream::iter(tenants)
                .take_until(self.soft.cancelled())
                .for_each_concurrent(AT_ONCE, |(tenant, owed)| {
                    let engine = Arc::clone(&self);
                    async move { engine.price(&tenant, owed).await }
                });
            pricing.await;
            let pause = if full {
                self.tuning.sweep / 10
            } else {
                self.tuning.price
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.soft.cancelled() => return,
            }
        }
    }

    async fn price(&self, tenant: &TenantId, owed: Vec<Unpriced>) {
        let Some(Ok(settings)) = self.settings_of(tenant).await else {
            return;
        };
        let Some(oldest) = owed.iter().map(|one| one.ended_at).min() else {
            return;
        };
        let sids: Vec<CallSid> = owed.iter().map(|one| one.call_sid.clone()).collect();
        let since = oldest - self.tuning.call_limit - self.tuning.longest_life;
        let berth = self.looking.enter(&settings.pace_key).await;
        let calls = self.caller.fetch_all(&settings, &sids, since).await;
        drop(berth);
        let calls = match calls {
            Ok(calls) => calls,
            Err(failure) => {
                tracing::debug!(
                    error = &failure as &dyn std::error::Error,
                    "can't ask what calls cost, trying again"
                );
                return;
            }
        };
        let mut by_sid: HashMap<CallSid, _> = calls
            .into_iter()
            .map(|call| (call.sid.clone(), call))
            .collect();
        let mut events = Vec::new();
        let mut told = Vec::new();
        for one in owed {
            let call = match by_sid.remove(&one.call_sid) {
                Some(call) => call,
                None if self.soft.is_cancelled() => break,
                None => {
                    // Too far down the list by now.
                    let _berth = self.looking.enter(&settings.pace_key).await;
                    let Ok(call) = self.caller.fetch(&settings, &one.call_sid).await else {
                        continue;
                    };
                    call
                }
            };
            let Some(price) = call.price else { continue };
            told.push((one.call_sid.clone(), price.clone()));
            let data = PriceData {
                delivery_id: one.key.delivery_id,
                tenant_id: one.key.tenant_id,
                attempt: one.attempt,
                call_sid: one.call_sid.as_str().to_owned(),
                price: price.amount,
                price_unit: price.unit,
                call_duration_s: call.duration_s,
                to_masked: one.to_masked,
                context: one.context,
            };
            // At its end, as the ledger has it: told again, it is the same event.
            events.push(Event::price(one.ended_at, data));
        }
        // What isn't known to be published is asked for and told again: the same event.
        if events.is_empty() || !self.relay.aside(events).await {
            return;
        }
        self.counts
            .prices
            .fetch_add(u64::try_from(told.len()).unwrap_or(0), Ordering::Relaxed);
        if let Err(error) = self.ledger.priced(&told).await {
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                "can't clear prices that were told, they are told again"
            );
        }
    }
}
