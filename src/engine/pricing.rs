//! Prices: what calls cost, which Twilio reports some time after they end.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use voice_otp_schemas::TenantId;
use voice_otp_schemas::price::PriceData;

use super::bulkhead::Bulkhead;
use super::counts::Counts;
use super::relay::Relay;
use super::retry::as_error;
use super::settings_reader::SettingsReader;
use super::shutdown::Shutdown;
use crate::account::CallSid;
use crate::call::Call;
use crate::event::Event;
use crate::ports::{Ledger as _, Ports, Telephony as _, UnpricedCall};
use crate::price::Price;
use crate::settings::VoiceSettings;

/// How many calls one round queries.
const MAX_CALLS: usize = 500;
/// How many tenants' calls are queried at the same time.
const MAX_TENANTS: usize = 8;

/// Queries the prices of completed calls, and publishes them.
pub(super) struct Pricer<P: Ports> {
    pub(super) ledger: Arc<P::Ledger>,
    pub(super) telephony: Arc<P::Telephony>,
    pub(super) settings: Arc<SettingsReader<P::Directory>>,
    pub(super) relay: Arc<Relay>,
    pub(super) query_permits: Arc<Bulkhead>,
    pub(super) counts: Arc<Counts>,
    pub(super) shutdown: Shutdown,
    /// The pause between rounds.
    pub(super) interval: Duration,
    /// The pause between rounds while there is more to do than one round holds.
    pub(super) busy_interval: Duration,
    /// The longest time between the placing of a call and its end.
    pub(super) longest_call: Duration,
}

impl<P: Ports> Pricer<P> {
    /// Queries prices until asked to stop.
    pub(super) async fn run(self) {
        loop {
            let unpriced = match self.ledger.claim_unpriced_calls(MAX_CALLS).await {
                Ok(unpriced) => unpriced,
                Err(error) => {
                    tracing::debug!(
                        error = as_error(&error),
                        "failed to read calls without a price; retrying"
                    );
                    Vec::new()
                }
            };
            let full = unpriced.len() >= MAX_CALLS;
            let mut tenants: HashMap<TenantId, Vec<UnpricedCall>> = HashMap::new();
            for call in unpriced {
                tenants
                    .entry(call.key.tenant_id.clone())
                    .or_default()
                    .push(call);
            }
            // Side by side, so that an account that answers slowly delays no other; and none is
            // begun once the worker is asked to stop.
            stream::iter(tenants)
                .take_until(self.shutdown.soft.cancelled())
                .for_each_concurrent(MAX_TENANTS, |(tenant, calls)| self.price(tenant, calls))
                .await;
            let pause = if full {
                self.busy_interval
            } else {
                self.interval
            };
            if self.shutdown.sleep_or_soft(pause).await {
                return;
            }
        }
    }

    /// Queries and publishes the prices of one tenant's calls. What isn't published now is claimed
    /// again later: the event will be the same.
    async fn price(&self, tenant: TenantId, unpriced: Vec<UnpricedCall>) {
        let Some(Ok(settings)) = self.settings.of(&tenant).await else {
            return;
        };
        let Some(mut found) = self.list(&settings, &unpriced).await else {
            return;
        };
        let (mut priced, mut events) = (Vec::new(), Vec::new());
        for unpriced in unpriced {
            let call = match found.remove(&unpriced.call_sid) {
                Some(call) => call,
                None if self.shutdown.soft.is_cancelled() => break,
                // The list doesn't reach back far enough.
                None => match self.fetch(&settings, &unpriced.call_sid).await {
                    Some(call) => call,
                    None => continue,
                },
            };
            let Some(price) = call.price else { continue };
            priced.push((unpriced.call_sid.clone(), price.clone()));
            events.push(event(unpriced, price, call.duration_s));
        }
        if events.is_empty() {
            return;
        }
        let mut published = self.relay.publish_prices(events).await.into_iter();
        priced.retain(|_| published.next() == Some(true));
        if priced.is_empty() {
            return;
        }
        let count = u64::try_from(priced.len()).unwrap_or(u64::MAX);
        self.counts.call_prices.fetch_add(count, Ordering::Relaxed);
        if let Err(error) = self.ledger.clear_unpriced_calls(&priced).await {
            tracing::debug!(
                error = as_error(&error),
                "failed to clear published prices; they are published again"
            );
        }
    }

    /// The calls by SID, as far as Twilio's list has them; `None` if it can't be read.
    async fn list(
        &self,
        settings: &VoiceSettings,
        unpriced: &[UnpricedCall],
    ) -> Option<HashMap<CallSid, Call>> {
        let oldest = unpriced.iter().map(|call| call.ended_at).min()?;
        let sids: Vec<CallSid> = unpriced.iter().map(|call| call.call_sid.clone()).collect();
        let since = oldest - self.longest_call;
        let permit = self.query_permits.acquire(&settings.pace_key).await;
        let calls = self.telephony.fetch_all(settings, &sids, since).await;
        drop(permit);
        match calls {
            Ok(calls) => Some(
                calls
                    .into_iter()
                    .map(|call| (call.sid.clone(), call))
                    .collect(),
            ),
            Err(failure) => {
                tracing::debug!(
                    error = as_error(&failure),
                    "failed to query prices; retrying"
                );
                None
            }
        }
    }

    async fn fetch(&self, settings: &VoiceSettings, sid: &CallSid) -> Option<Call> {
        let _permit = self.query_permits.acquire(&settings.pace_key).await;
        self.telephony.fetch(settings, sid).await.ok()
    }
}

/// The price event. It carries the time at which the call ended, so that it is the same event each
/// time it is published.
fn event(unpriced: UnpricedCall, price: Price, call_duration_s: Option<u32>) -> Event {
    let data = PriceData {
        delivery_id: unpriced.key.delivery_id,
        tenant_id: unpriced.key.tenant_id,
        attempt: unpriced.attempt,
        call_sid: unpriced.call_sid.as_str().to_owned(),
        price: price.amount,
        price_unit: price.unit,
        call_duration_s,
        to_masked: unpriced.to_masked,
        context: unpriced.context,
    };
    Event::price(unpriced.ended_at, data)
}
