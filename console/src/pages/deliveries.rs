//! Deliveries: filtered, and updated as statuses are published.

use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Redirect, Response};
use maud::{Markup, html};
use voice_otp_schemas::status::Status;
use voice_otp_schemas::{PhoneNumber, TenantId};

use super::labels::one_line;
use super::layout::{self, Section, csrf_field, status_label, status_name, time};
use super::request::{SignedIn, SubmittedForm};
use super::response::{ErrorPage, html_page};
use crate::access::Principal;
use crate::problem::Problem;
use crate::services::deliveries::{self, Delivery, DeliveryPage, DeliveryQuery};
use crate::state::Console;

pub(super) async fn page(
    State(console): State<Arc<Console>>,
    Path(tenant): Path<String>,
    SignedIn(principal): SignedIn,
    query: Result<Query<DeliveryQuery>, QueryRejection>,
) -> Result<Response, ErrorPage> {
    let tenant = principal.authorize_tenant(&tenant)?;
    let Query(query) = query.map_err(|error| Problem::bad_request(error.body_text()))?;
    let found = match deliveries::search(&console, &principal, &tenant, &query).await {
        Err(problem) if problem.status() != StatusCode::UNPROCESSABLE_ENTITY => {
            return Err(ErrorPage(problem));
        }
        found => found,
    };
    let status = found.as_ref().err().map_or(StatusCode::OK, Problem::status);
    let content = content(&principal, &tenant, &query, found.as_ref());
    let page = layout::page(
        &principal,
        Some(&tenant),
        Section::Deliveries,
        "Deliveries",
        &content,
    );
    Ok(html_page(status, &page))
}

/// Applies a filter. The form is sent by POST, so that a whole number doesn't appear in an
/// address.
pub(super) async fn filter(
    Path(tenant): Path<String>,
    form: SubmittedForm,
) -> Result<Response, ErrorPage> {
    let tenant = form.principal.authorize_tenant(&tenant)?;
    let mut pairs = form_urlencoded::Serializer::new(String::new());
    for name in ["status", "to", "id", "since"] {
        if let Some(value) = form.fields.filled(name) {
            let number = PhoneNumber::parse(value).ok().filter(|_| name == "to");
            let masked = number.map(|number| number.masked());
            pairs.append_pair(name, masked.as_deref().unwrap_or(value));
        }
    }
    Ok(Redirect::to(&format!("/t/{tenant}/deliveries?{}", pairs.finish())).into_response())
}

pub(super) fn content(
    principal: &Principal,
    tenant: &TenantId,
    query: &DeliveryQuery,
    found: Result<&DeliveryPage, &Problem>,
) -> Markup {
    let base = format!("/t/{tenant}/deliveries");
    let problem = found.err();
    let rows = found
        .map(|page| page.deliveries.as_slice())
        .unwrap_or_default();
    let next = found.ok().and_then(|page| page.next.as_deref());
    html! {
        h1 { "Deliveries" }
        p.lead { "Deliveries of the last 24 hours, newest first. The list updates automatically." }
        (filter_form(principal, &base, query))
        @if let Some(problem) = problem {
            div.note.bad role="alert" { p { (one_line(problem)) } }
        }
        p data-live-note aria-live="polite" {}
        section.card {
            (table(tenant, &base, query, rows))
            @if rows.is_empty() {
                p.empty data-empty {
                    "No matching deliveries. New deliveries appear here automatically."
                }
            }
            @if let Some(next) = next {
                div.actions {
                    a.button.quiet href=(next_page(&base, query, next)) { "Older deliveries" }
                }
            }
        }
    }
}

fn filter_form(principal: &Principal, base: &str, query: &DeliveryQuery) -> Markup {
    let value = |text: &Option<String>| text.clone().unwrap_or_default();
    let chosen = value(&query.status);
    let option = |status: &str| {
        html! { option value=(status) selected[chosen == status] { (status_name(status)) } }
    };
    let finals = Status::ALL.into_iter().filter(|status| status.is_final());
    html! {
        form.card method="post" action=(base) role="search" {
            (csrf_field(principal))
            div.row {
                div.field {
                    label for="status" { "Status" }
                    select #status name="status" {
                        option value="" { "All" }
                        (option("in_progress"))
                        @for status in finals { (option(status.as_str())) }
                    }
                }
                div.field {
                    label for="to" { "Number" }
                    input #to name="to" value=(value(&query.to)) placeholder="+14155552671";
                }
                div.field {
                    label for="id" { "Delivery ID starts with" }
                    input #id name="id" value=(value(&query.id));
                }
                div.field {
                    label for="since" { "Since (UTC)" }
                    input #since name="since" value=(value(&query.since))
                        placeholder="2026-01-31T09:30:00Z";
                }
            }
            div.actions {
                button type="submit" { "Filter" }
                a.button.quiet href=(base) { "Clear filters" }
            }
        }
    }
}

fn table(tenant: &TenantId, base: &str, query: &DeliveryQuery, rows: &[Delivery]) -> Markup {
    // A script adds new deliveries only to a list that no other filter restricts.
    let filters = [
        &query.id,
        &query.to,
        &query.since,
        &query.until,
        &query.after,
    ];
    let unfiltered = filters
        .iter()
        .all(|text| text.as_deref().unwrap_or_default().is_empty());
    let status = query.status.as_deref().unwrap_or_default();
    html! {
        div.scroll tabindex="0" role="region" aria-label="Deliveries" {
            table {
                thead { tr {
                    th scope="col" { "Status" }
                    th scope="col" { "Delivery" }
                    th scope="col" { "Number" }
                    th scope="col" { "Accepted" }
                    th scope="col" { "Attempts" }
                } }
                tbody data-live={ "/api/v1/tenants/" (tenant) "/events" } data-base=(base)
                    data-status=(status) data-unfiltered=(unfiltered) {
                    @for delivery in rows { (row(base, delivery)) }
                }
            }
        }
    }
}

fn row(base: &str, delivery: &Delivery) -> Markup {
    let id = &delivery.delivery_id;
    html! {
        tr data-delivery=(id) {
            td { (status_label(&delivery.status)) }
            td.wrap {
                a.mono href={ (base) "/" (path_segment(id)) } { (id) }
                @if delivery.test_call { " " span.pill { "test call" } }
            }
            td.mono {
                (delivery.to_masked.as_deref().unwrap_or_default())
                @if let Some(country) = &delivery.country { " " (country) }
            }
            td { (time(&delivery.admitted_at)) }
            td { (delivery.attempts) }
        }
    }
}

/// The address of the next page, with the same filter.
fn next_page(base: &str, query: &DeliveryQuery, next: &str) -> String {
    let filter = [
        ("status", &query.status),
        ("to", &query.to),
        ("id", &query.id),
        ("since", &query.since),
    ];
    let mut pairs = form_urlencoded::Serializer::new(String::new());
    for (name, value) in filter {
        if let Some(value) = value.as_deref().filter(|value| !value.is_empty()) {
            pairs.append_pair(name, value);
        }
    }
    format!("{base}?{}", pairs.append_pair("after", next).finish())
}

/// A delivery id as a segment of a path.
pub(super) fn path_segment(id: &str) -> String {
    form_urlencoded::byte_serialize(id.as_bytes())
        .collect::<String>()
        .replace('+', "%20")
}
