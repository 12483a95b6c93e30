//! Deliveries: searched, one with its timeline, and figures over many.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use chrono::{DateTime, DurationRound as _, Utc};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use voice_otp_schemas::phone::country_of_masked;
use voice_otp_schemas::request::rfc3339;
use voice_otp_schemas::status::Status;
use voice_otp_schemas::{DeliveryId, PhoneNumber, TenantId, Timestamp};
use voice_otp_store::history::{self, Filter, Seen};

use super::{Names, Params};
use crate::console::Console;
use crate::console::access::Caller;
use crate::console::problem::{FieldError, Problem};
use crate::verb::publish_clock;

/// A delivery.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[expect(clippy::struct_field_names, reason = "as everywhere on the wire")]
pub(crate) struct Delivery {
    /// The id of its request.
    pub(crate) delivery_id: String,
    /// Its final status; `in_progress` while there is none.
    pub(crate) status: String,
    /// The number, masked.
    pub(crate) to_masked: Option<String>,
    /// The country that the number seems to be in, ISO 3166-1 alpha-2.
    pub(crate) country: Option<String>,
    /// Twilio's SID of its last call.
    pub(crate) call_sid: Option<String>,
    /// How many placements there were.
    pub(crate) attempts: i32,
    /// Whether it is a test call.
    pub(crate) test_call: bool,
    /// When it was taken on, RFC 3339.
    pub(crate) admitted_at: String,
    /// When its code ends, or ended.
    pub(crate) expires_at: String,
    /// When it was over.
    pub(crate) ended_at: Option<String>,
    /// From the request to the call's placement, in milliseconds.
    pub(crate) placed_ms: Option<i64>,
    /// From the call's placement to its ringing.
    pub(crate) to_ring_ms: Option<i64>,
}

/// A step of a delivery.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct Step {
    /// The status.
    pub(crate) status: String,
    /// When, RFC 3339.
    pub(crate) at: String,
    /// Why, or what more is known: a sentence.
    pub(crate) detail: Option<String>,
}

/// A delivery with its timeline.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct Whole {
    /// The delivery.
    #[serde(flatten)]
    pub(crate) delivery: Delivery,
    /// Its steps, in order. With their reasons while they are fresh; later those whose times are kept.
    pub(crate) timeline: Vec<Step>,
}

/// A page of deliveries.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct Page {
    /// The newest first.
    pub(crate) deliveries: Vec<Delivery>,
    /// For the next page: the query's `after`. None where this is the last one.
    pub(crate) next: Option<String>,
}

/// Which deliveries.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Search {
    /// Beginning of the id.
    pub(crate) id: Option<String>,
    /// A final status, or `in_progress`; several with commas between them.
    pub(crate) status: Option<String>,
    /// The number, better masked as shown than whole: it stands in the address.
    pub(crate) to: Option<String>,
    /// Taken on at or after this, RFC 3339; a day ago, where not given.
    pub(crate) since: Option<String>,
    /// Taken on before this, RFC 3339.
    pub(crate) until: Option<String>,
    /// From the page before.
    pub(crate) after: Option<String>,
    /// How many, 200 at the most.
    #[param(minimum = 1, maximum = 200)]
    pub(crate) limit: Option<i64>,
}

/// Deliveries of the tenant, the newest first. Codes and whole numbers are not told.
#[utoipa::path(get, path = "/api/v1/tenants/{tenant}/deliveries", params(("tenant" = String, Path), Search),
    responses((status = 200, body = Page), (status = 400, body = Problem), (status = 401, body = Problem),
        (status = 404, body = Problem), (status = 422, body = Problem)))]
pub(super) async fn list(
    State(console): State<Arc<Console>>,
    Names(tenant): Names<String>,
    caller: Caller,
    Params(query): Params<Search>,
) -> Result<Json<Page>, Problem> {
    let tenant = caller.tenant(&tenant)?;
    Ok(Json(search(&console, &tenant, &query).await?))
}

/// One delivery, and its timeline.
#[utoipa::path(get, path = "/api/v1/tenants/{tenant}/deliveries/{delivery}",
    params(("tenant" = String, Path), ("delivery" = String, Path)),
    responses((status = 200, body = Whole), (status = 401, body = Problem), (status = 404, body = Problem)))]
pub(super) async fn one(
    State(console): State<Arc<Console>>,
    Names((tenant, delivery)): Names<(String, String)>,
    caller: Caller,
) -> Result<Json<Whole>, Problem> {
    let tenant = caller.tenant(&tenant)?;
    find(&console, &tenant, &delivery).await.map(Json)
}

/// Whose id begins with, or is: in words of ours nothing else may stand.
pub(crate) async fn search(
    console: &Console,
    tenant: &TenantId,
    query: &Search,
) -> Result<Page, Problem> {
    let mut errors = Vec::new();
    let mut wrong = |field: &str, message: &str| {
        errors.push(FieldError {
            field: field.to_owned(),
            message: message.to_owned(),
        });
    };
    let given = |text: &Option<String>| {
        text.as_deref()
            .map(str::trim)
            .filter(|text| !text.is_empty())
            .map(str::to_owned)
    };
    let mut time = |field: &str, text: Option<String>| {
        let parsed = text.map(|text| moment(&text).ok_or(()));
        parsed.transpose().unwrap_or_else(|()| {
            wrong(
                field,
                "a time such as 2026-01-31T09:30:00Z, from the year 2000 to 2100",
            );
            None
        })
    };
    let (since, until) = (
        time("since", given(&query.since)),
        time("until", given(&query.until)),
    );
    let statuses: Vec<String> = given(&query.status)
        .map(|text| text.split(',').map(str::to_owned).collect())
        .unwrap_or_default();
    let known = |word: &String| {
        word == "in_progress" || Status::from_word(word).is_some_and(Status::is_final)
    };
    if !statuses.iter().all(known) {
        wrong(
            "status",
            "final statuses such as delivered or busy, or in_progress, with commas between them",
        );
    }
    let to_masked = given(&query.to)
        .map(|text| PhoneNumber::parse(&text).map_or(text, |number| number.masked()));
    let after = given(&query.after).map(|text| {
        let (at, id) = text.split_once('~')?;
        Some((moment(at)?, id.to_owned()))
    });
    if after.as_ref().is_some_and(Option::is_none) {
        wrong("after", "as the page before told it");
    }
    let texts = [
        given(&query.id),
        to_masked.clone(),
        after.clone().flatten().map(|(_, id)| id),
    ];
    if texts.iter().flatten().any(|text| text.contains('\0')) {
        wrong("id", "no NUL characters");
    }
    if !errors.is_empty() {
        return Err(Problem::invalid(errors));
    }
    let since = since.or_else(|| Some(publish_clock() - Duration::from_hours(24)));
    let filter = Filter {
        since,
        until,
        statuses,
        to_masked,
        id: given(&query.id),
        after: after.flatten(),
    };
    let most = query.limit.unwrap_or(50).clamp(1, 200);
    let turn = console.looking.acquire().await;
    let mut found = history::list(&console.pool, tenant, &filter, most + 1).await?;
    let more = i64::try_from(found.len()).unwrap_or(0) > most;
    drop(turn);
    found.truncate(usize::try_from(most).unwrap_or(0));
    let last = found.last().filter(|_| more);
    let next = last.map(|last| {
        format!(
            "{}~{}",
            last.admitted_at.format("%Y-%m-%dT%H:%M:%S%.6fZ"),
            last.delivery_id
        )
    });
    Ok(Page {
        deliveries: found.iter().map(delivery).collect(),
        next,
    })
}

/// A time that Postgres has too.
fn moment(text: &str) -> Option<Timestamp> {
    let time = DateTime::parse_from_rfc3339(text).ok()?.with_timezone(&Utc);
    (2000..2100)
        .contains(&chrono::Datelike::year(&time))
        .then_some(time)
}

pub(crate) async fn find(console: &Console, tenant: &TenantId, id: &str) -> Result<Whole, Problem> {
    let id = DeliveryId::parse(id).map_err(|_| Problem::not_found())?;
    let found = history::find(&console.pool, tenant, &id)
        .await?
        .ok_or_else(Problem::not_found)?;
    Ok(Whole {
        timeline: steps(console, tenant, &found),
        delivery: delivery(&found),
    })
}

/// The steps as they were said, where all are known; else those whose times the ledger keeps.
pub(crate) fn steps(console: &Console, tenant: &TenantId, seen: &Seen) -> Vec<Step> {
    let said = console.hub.of(tenant, &seen.delivery_id);
    let whole = (1..).zip(&said).all(|(n, live)| live.data.sequence == n)
        && (seen.ended.is_none() || said.last().is_some_and(|live| live.data.is_final));
    if whole && !said.is_empty() {
        let step = |live: &Arc<crate::console::hub::Live>| Step {
            status: live.data.status.as_str().to_owned(),
            at: live.time.clone(),
            detail: live
                .data
                .reason
                .as_ref()
                .map(|reason| reason.message.clone()),
        };
        return said.iter().map(step).collect();
    }
    let step = |status: &str, at: Option<Timestamp>| {
        at.map(|at| Step {
            status: status.to_owned(),
            at: rfc3339(at),
            detail: None,
        })
    };
    let steps = [
        step("accepted", Some(seen.admitted_at)),
        step("placed", seen.placed_at),
        step("ringing", seen.ringing_at),
        step("answered", seen.answered_at),
        seen.ended
            .as_deref()
            .and_then(|ended| step(ended, seen.ended_at)),
    ];
    steps.into_iter().flatten().collect()
}

fn delivery(seen: &Seen) -> Delivery {
    let asked_at = seen.requested_at.unwrap_or(seen.admitted_at);
    Delivery {
        delivery_id: seen.delivery_id.clone(),
        status: seen
            .ended
            .clone()
            .unwrap_or_else(|| "in_progress".to_owned()),
        to_masked: seen.to_masked.clone(),
        country: seen
            .to_masked
            .as_deref()
            .and_then(country_of_masked)
            .map(|country| country.to_string()),
        call_sid: seen.call_sid.clone(),
        attempts: seen.attempt,
        test_call: seen
            .context
            .get("test_call")
            .is_some_and(|value| value == "true"),
        admitted_at: rfc3339(seen.admitted_at),
        expires_at: rfc3339(seen.expires_at),
        ended_at: seen.ended_at.map(rfc3339),
        placed_ms: seen
            .placed_at
            .map(|placed| (placed - asked_at).num_milliseconds()),
        to_ring_ms: seen
            .placed_at
            .zip(seen.ringing_at)
            .map(|(placed, rang)| (rang - placed).num_milliseconds()),
    }
}

/// Figures of a tenant. Test calls are not in them.
#[derive(Debug, Clone, Default, Serialize, ToSchema)]
pub(crate) struct Figures {
    /// From when on, RFC 3339.
    pub(crate) since: String,
    /// Deliveries taken on.
    pub(crate) deliveries: i64,
    /// Of how many Twilio took a call.
    pub(crate) placed: i64,
    /// How many were delivered.
    pub(crate) delivered: i64,
    /// Delivered, of those that are over; from 0 to 1. None before the first is.
    pub(crate) success_rate: Option<f64>,
    /// From the call's placement to its ringing, on average, in milliseconds.
    pub(crate) to_ring_ms: Option<i64>,
    /// How many ended how.
    pub(crate) by_outcome: BTreeMap<String, i64>,
    /// By country, ISO 3166-1 alpha-2; `??` where it isn't known.
    pub(crate) by_country: BTreeMap<String, CountryFigures>,
    /// What calls cost, by currency, as far as Twilio has told: it takes minutes to.
    pub(crate) spend: Vec<SpendFigures>,
    /// By hour, in order.
    pub(crate) by_hour: Vec<HourFigures>,
}

/// Figures of a country.
#[derive(Debug, Clone, Copy, Default, Serialize, ToSchema)]
pub(crate) struct CountryFigures {
    /// Deliveries taken on.
    pub(crate) deliveries: i64,
    /// How many were delivered.
    pub(crate) delivered: i64,
    /// How many are over.
    pub(crate) ended: i64,
}

/// What calls cost.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct SpendFigures {
    /// The currency, ISO 4217.
    pub(crate) unit: String,
    /// How much.
    pub(crate) amount: f64,
    /// How many calls.
    pub(crate) calls: i64,
}

/// Figures of an hour.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct HourFigures {
    /// Its beginning, RFC 3339.
    pub(crate) hour: String,
    /// Deliveries taken on.
    pub(crate) deliveries: i64,
    /// How many were delivered.
    pub(crate) delivered: i64,
}

/// Over which time.
#[derive(Debug, Clone, Copy, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Window {
    /// The last so many hours: 1 to 168; 24 where not given.
    #[param(minimum = 1, maximum = 168)]
    hours: Option<u64>,
}

/// How many were placed and delivered, by outcome, country and hour.
#[utoipa::path(get, path = "/api/v1/tenants/{tenant}/figures", params(("tenant" = String, Path), Window),
    responses((status = 200, body = Figures), (status = 400, body = Problem), (status = 401, body = Problem),
        (status = 404, body = Problem)))]
pub(super) async fn figures(
    State(console): State<Arc<Console>>,
    Names(tenant): Names<String>,
    caller: Caller,
    Params(window): Params<Window>,
) -> Result<Json<Figures>, Problem> {
    let tenant = caller.tenant(&tenant)?;
    Ok(Json(
        figures_of(&console, &tenant, window.hours.unwrap_or(24).clamp(1, 168)).await?,
    ))
}

#[expect(clippy::cast_precision_loss, reason = "a share, for people")]
pub(crate) async fn figures_of(
    console: &Console,
    tenant: &TenantId,
    hours: u64,
) -> Result<Figures, Problem> {
    let since = publish_clock() - Duration::from_hours(hours);
    let mut figures = Figures {
        since: rfc3339(since),
        ..Figures::default()
    };
    let (mut ended, mut ring_ms, mut rang) = (0, 0, 0);
    // Every hour has its place, also one without calls.
    let mut hours_seen: BTreeMap<String, (i64, i64)> = (0..=hours)
        .filter_map(|n| {
            (since + Duration::from_hours(n))
                .duration_trunc(chrono::TimeDelta::hours(1))
                .ok()
        })
        .map(|hour| (rfc3339(hour), (0, 0)))
        .collect();
    let turn = console.looking.acquire().await;
    let tallies = history::tally(&console.pool, tenant, since).await?;
    drop(turn);
    for tally in tallies {
        let delivered = if tally.outcome == Status::Delivered.as_str() {
            tally.deliveries
        } else {
            0
        };
        let over = if tally.outcome == "in_progress" {
            0
        } else {
            tally.deliveries
        };
        figures.deliveries += tally.deliveries;
        figures.placed += tally.placed;
        figures.delivered += delivered;
        ended += over;
        ring_ms += tally.to_ring.0;
        rang += tally.to_ring.1;
        *figures.by_outcome.entry(tally.outcome).or_default() += tally.deliveries;
        let country = tally.to_masked.as_deref().and_then(country_of_masked);
        let of = figures
            .by_country
            .entry(country.map_or_else(|| "??".to_owned(), |country| country.to_string()))
            .or_default();
        of.deliveries += tally.deliveries;
        of.delivered += delivered;
        of.ended += over;
        let of = hours_seen.entry(rfc3339(tally.hour)).or_insert((0, 0));
        of.0 += tally.deliveries;
        of.1 += delivered;
    }
    figures.by_hour = hours_seen
        .into_iter()
        .map(|(hour, (deliveries, delivered))| HourFigures {
            hour,
            deliveries,
            delivered,
        })
        .collect();
    let spend = history::spend(&console.pool, tenant, since).await?;
    figures.spend = spend
        .into_iter()
        .map(|of| SpendFigures {
            unit: of.unit,
            amount: of.amount,
            calls: of.calls,
        })
        .collect();
    figures.success_rate = (ended > 0).then(|| figures.delivered as f64 / ended as f64);
    figures.to_ring_ms = (rang > 0).then(|| ring_ms / rang);
    Ok(figures)
}
