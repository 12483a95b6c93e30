//! Deliveries: live, filtered, and one with its timeline.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Redirect, Response};
use maud::html;
use voice_otp_schemas::PhoneNumber;
use voice_otp_schemas::status::Status;

use super::layout::{At, csrf, page as whole, pill, time};
use super::{Form, Trouble, Visitor, shown};
use crate::console::Console;
use crate::console::api::{Delivery, Params, Search, find, search};
use crate::console::problem::Problem;

pub(super) async fn page(
    State(console): State<Arc<Console>>,
    Path(tenant): Path<String>,
    Visitor(caller): Visitor,
    query: Result<Params<Search>, Problem>,
) -> Result<Response, Trouble> {
    let tenant = caller.tenant(&tenant)?;
    let Params(query) = query?;
    let (found, problem) = match search(&console, &tenant, &query).await {
        Ok(found) => (Some(found), None),
        Err(problem) if problem.status() == StatusCode::UNPROCESSABLE_ENTITY => {
            (None, Some(problem))
        }
        Err(problem) => return Err(Trouble(problem)),
    };
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let chosen = text(&query.status);
    // Only then is a delivery that comes one of those that are looked for.
    let plain = [
        &query.id,
        &query.to,
        &query.since,
        &query.until,
        &query.after,
    ]
    .iter()
    .all(|text| text.as_deref().unwrap_or_default().is_empty());
    let base = format!("/t/{tenant}/deliveries");
    let rows = found
        .as_ref()
        .map(|found| found.deliveries.as_slice())
        .unwrap_or_default();
    let next = found.as_ref().and_then(|found| found.next.as_deref());
    let finals = Status::ALL.into_iter().filter(|status| status.is_final());
    let content = html! {
        h1 { "Deliveries" }
        p.lead { "The last day's, the newest first. New ones come up as they happen." }
        form.card method="post" action=(base) role="search" {
            (csrf(&caller))
            div.row {
                div.field { label for="status" { "Status" }
                    select #status name="status" {
                        option value="" { "All" }
                        option value="in_progress" selected[chosen == "in_progress"] { "In progress" }
                        @for status in finals { option value=(status.as_str()) selected[chosen == status.as_str()] { (status.as_str().replace('_', " ")) } }
                    } }
                div.field { label for="to" { "Number" } input #to name="to" value=(text(&query.to)) placeholder="+14155552671"; }
                div.field { label for="id" { "Delivery id begins with" } input #id name="id" value=(text(&query.id)); }
                div.field { label for="since" { "Since (UTC)" } input #since name="since" value=(text(&query.since)) placeholder="2026-01-31T09:30:00Z"; }
            }
            div.actions { button type="submit" { "Filter" } a.button.quiet href=(base) { "Show all" } }
        }
        @if let Some(problem) = &problem { div.note.bad role="alert" { p { (problem.detail()) } } }
        p data-live-note aria-live="polite" {}
        section.card {
            div.scroll tabindex="0" role="region" aria-label="Deliveries" { table {
                thead { tr { th scope="col" { "Status" } th scope="col" { "Delivery" } th scope="col" { "Number" } th scope="col" { "Taken on" } th scope="col" { "Attempts" } } }
                tbody data-live={ "/api/v1/tenants/" (tenant) "/events" } data-base=(base) data-status=(chosen) data-plain=(plain) {
                    @for delivery in rows { (row(&base, delivery)) }
                }
            } }
            @if rows.is_empty() { p.empty data-empty { "Nothing fits. Deliveries appear here as soon as they are asked for." } }
            @if let Some(next) = next { div.actions { a.button.quiet href=(older(&base, &query, next)) { "Older" } } }
        }
    };
    let status = problem.as_ref().map_or(StatusCode::OK, Problem::status);
    Ok(shown(
        status,
        &whole(
            &caller,
            Some(&tenant),
            At::Deliveries,
            "Deliveries",
            &content,
        ),
    ))
}

/// A filter: by POST, so that a whole number stands in no address.
pub(super) async fn filter(Path(tenant): Path<String>, form: Form) -> Result<Response, Trouble> {
    let tenant = form.caller.tenant(&tenant)?;
    let mut pairs = form_urlencoded::Serializer::new(String::new());
    for name in ["status", "to", "id", "since"] {
        if let Some(value) = form.filled(name) {
            let masked = PhoneNumber::parse(value)
                .ok()
                .filter(|_| name == "to")
                .map(|number| number.masked());
            pairs.append_pair(name, masked.as_deref().unwrap_or(value));
        }
    }
    Ok(Redirect::to(&format!("/t/{tenant}/deliveries?{}", pairs.finish())).into_response())
}

fn older(base: &str, query: &Search, next: &str) -> String {
    let mut pairs = form_urlencoded::Serializer::new(String::new());
    for (name, value) in [
        ("status", &query.status),
        ("to", &query.to),
        ("id", &query.id),
        ("since", &query.since),
    ] {
        if let Some(value) = value.as_deref().filter(|value| !value.is_empty()) {
            pairs.append_pair(name, value);
        }
    }
    format!("{base}?{}", pairs.append_pair("after", next).finish())
}

fn row(base: &str, delivery: &Delivery) -> maud::Markup {
    html! {
        tr data-delivery=(delivery.delivery_id) {
            td { (pill(&delivery.status)) }
            td.wrap { a.mono href={ (base) "/" (encoded(&delivery.delivery_id)) } { (delivery.delivery_id) } @if delivery.test_call { " " span.pill { "test call" } } }
            td.mono { (delivery.to_masked.as_deref().unwrap_or_default()) @if let Some(country) = &delivery.country { " " (country) } }
            td { (time(&delivery.admitted_at)) }
            td { (delivery.attempts) }
        }
    }
}

/// An id as a part of a path.
fn encoded(id: &str) -> String {
    form_urlencoded::byte_serialize(id.as_bytes())
        .collect::<String>()
        .replace('+', "%20")
}

pub(super) async fn one(
    State(console): State<Arc<Console>>,
    Path((tenant, delivery)): Path<(String, String)>,
    Visitor(caller): Visitor,
) -> Result<Response, Trouble> {
    let tenant = caller.tenant(&tenant)?;
    let found = find(&console, &tenant, &delivery).await?;
    let (delivery, over) = (&found.delivery, found.delivery.ended_at.is_some());
    let events = format!(
        "/api/v1/tenants/{tenant}/deliveries/{}/events",
        encoded(&delivery.delivery_id)
    );
    let fact = |name: &str, value: Option<String>| html! { @if let Some(value) = value { tr { th scope="row" { (name) } td.wrap { (value) } } } };
    let content = html! {
        p.crumbs { a href={ "/t/" (tenant) "/deliveries" } { "Deliveries" } }
        h1 { "Delivery" }
        p.mono { (delivery.delivery_id) }
        div.grid {
            section.card { h2 { "Timeline" }
                ol.timeline data-events=[(!over).then_some(events)] aria-live="polite" {
                    @for step in &found.timeline { li { (pill(&step.status)) (time(&step.at)) @if let Some(detail) = &step.detail { p { (detail) } } } }
                } }
            section.card { h2 { "Facts" }
                table { tbody {
                    tr { th scope="row" { "Status" } td { (pill(&delivery.status)) } }
                    (fact("Number", delivery.to_masked.clone()))
                    (fact("Country", delivery.country.clone()))
                    (fact("Attempts", Some(delivery.attempts.to_string())))
                    (fact("Twilio's call", delivery.call_sid.clone()))
                    (fact("Request to call", delivery.placed_ms.map(|ms| format!("{ms} ms"))))
                    (fact("Call to ringing", delivery.to_ring_ms.map(|ms| format!("{ms} ms"))))
                    (fact("Code good until", Some(delivery.expires_at.clone())))
                    (fact("Test call", delivery.test_call.then(|| "yes".to_owned())))
                } } }
        }
    };
    Ok(shown(
        StatusCode::OK,
        &whole(&caller, Some(&tenant), At::Deliveries, "Delivery", &content),
    ))
}
