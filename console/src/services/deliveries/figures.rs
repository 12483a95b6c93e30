//! Figures of a tenant: how many deliveries, with which outcome, in which country and hour.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::DurationRound as _;
use serde::Serialize;
use utoipa::ToSchema;
use voice_otp_publisher::clock;
use voice_otp_schemas::phone::country_of_masked;
use voice_otp_schemas::request::rfc3339;
use voice_otp_schemas::status::Status;
use voice_otp_schemas::{TenantId, Timestamp};
use voice_otp_store::history::{self, Spend, Tally};

use super::delivery::IN_PROGRESS;
use crate::access::Principal;
use crate::problem::Problem;
use crate::state::Console;

/// Figures of a tenant. Test calls are excluded.
#[derive(Debug, Clone, Default, Serialize, ToSchema)]
pub(crate) struct Figures {
    /// Beginning of the window, a full hour, RFC 3339.
    pub(crate) since: String,
    /// Whether there are more deliveries of the last two hours than the figures count: 100,000.
    pub(crate) partial: bool,
    /// Accepted deliveries.
    pub(crate) deliveries: i64,
    /// Deliveries for which Twilio accepted a call.
    pub(crate) placed: i64,
    /// Delivered codes.
    pub(crate) delivered: i64,
    /// Delivery rate: delivered codes per finished delivery, from 0 to 1; null before the first
    /// delivery is finished.
    pub(crate) success_rate: Option<f64>,
    /// Average time to ring: from Twilio's acceptance of a call until the phone rang, in
    /// milliseconds.
    pub(crate) to_ring_ms: Option<i64>,
    /// Deliveries by final status; `in_progress` counts those without one.
    pub(crate) by_outcome: BTreeMap<String, i64>,
    /// Figures by country, ISO 3166-1 alpha-2; `??` counts unknown countries.
    pub(crate) by_country: BTreeMap<String, CountryFigures>,
    /// Spend that Twilio has reported, by currency. Prices arrive some minutes after a call.
    pub(crate) spend: Vec<SpendFigures>,
    /// Figures by hour, in order.
    pub(crate) by_hour: Vec<HourFigures>,
}

/// Figures of a country.
#[derive(Debug, Clone, Copy, Default, Serialize, ToSchema)]
pub(crate) struct CountryFigures {
    /// Accepted deliveries.
    pub(crate) deliveries: i64,
    /// Delivered codes.
    pub(crate) delivered: i64,
    /// Finished deliveries.
    pub(crate) ended: i64,
}

/// Reported spend in one currency.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct SpendFigures {
    /// Currency, ISO 4217.
    pub(crate) unit: String,
    /// Amount, in units of the currency.
    pub(crate) amount: f64,
    /// Number of calls.
    pub(crate) calls: i64,
}

/// Figures of an hour.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct HourFigures {
    /// Beginning of the hour, RFC 3339.
    pub(crate) hour: String,
    /// Accepted deliveries.
    pub(crate) deliveries: i64,
    /// Delivered codes.
    pub(crate) delivered: i64,
}

/// The figures of the last `hours` hours.
pub(crate) async fn figures(
    console: &Console,
    principal: &Principal,
    tenant: &TenantId,
    hours: u64,
) -> Result<Figures, Problem> {
    let since = clock::now() - Duration::from_hours(hours);
    let since = since
        .duration_trunc(chrono::TimeDelta::hours(1))
        .unwrap_or(since);
    let turn = console.query_turns.take(principal.role()).await?;
    let tallies = history::tally(&console.pool, tenant, since).await?;
    drop(turn);
    let spend = history::spend(&console.pool, tenant, since).await?;
    Ok(sum(since, hours, tallies, spend))
}

#[expect(clippy::cast_precision_loss, reason = "a rate that people read")]
fn sum(since: Timestamp, hours: u64, tallies: Vec<Tally>, spend: Vec<Spend>) -> Figures {
    let mut figures = Figures {
        since: rfc3339(since),
        ..Figures::default()
    };
    let recent: i64 = tallies.iter().map(|tally| tally.recent).sum();
    figures.partial = recent >= history::MAX_COUNTED;
    let (mut ended, mut ring_ms, mut rang) = (0, 0, 0);
    // Every hour has an entry, even without deliveries.
    let mut by_hour: BTreeMap<String, (i64, i64)> = (0..=hours)
        .filter_map(|n| {
            let time = since + Duration::from_hours(n);
            time.duration_trunc(chrono::TimeDelta::hours(1)).ok()
        })
        .map(|hour| (rfc3339(hour), (0, 0)))
        .collect();
    for tally in tallies {
        let is_delivered = tally.outcome == Status::Delivered.as_str();
        let delivered = if is_delivered { tally.deliveries } else { 0 };
        let finished = if tally.outcome == IN_PROGRESS {
            0
        } else {
            tally.deliveries
        };
        figures.deliveries += tally.deliveries;
        figures.placed += tally.placed;
        figures.delivered += delivered;
        ended += finished;
        ring_ms += tally.to_ring.0;
        rang += tally.to_ring.1;
        *figures.by_outcome.entry(tally.outcome).or_default() += tally.deliveries;
        let country = tally.to_masked.as_deref().and_then(country_of_masked);
        let country = country.map_or_else(|| "??".to_owned(), |country| country.to_string());
        let of_country = figures.by_country.entry(country).or_default();
        of_country.deliveries += tally.deliveries;
        of_country.delivered += delivered;
        of_country.ended += finished;
        let of_hour = by_hour.entry(rfc3339(tally.hour)).or_insert((0, 0));
        of_hour.0 += tally.deliveries;
        of_hour.1 += delivered;
    }
    let hour = |(hour, (deliveries, delivered))| HourFigures {
        hour,
        deliveries,
        delivered,
    };
    figures.by_hour = by_hour.into_iter().map(hour).collect();
    let spend_figures = |spend: Spend| SpendFigures {
        unit: spend.unit,
        amount: spend.amount,
        calls: spend.calls,
    };
    figures.spend = spend.into_iter().map(spend_figures).collect();
    figures.success_rate = (ended > 0).then(|| figures.delivered as f64 / ended as f64);
    figures.to_ring_ms = (rang > 0).then(|| ring_ms / rang);
    figures
}
