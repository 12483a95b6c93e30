//! One delivery with its timeline.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use maud::{Markup, html};
use voice_otp_schemas::TenantId;

use super::deliveries::path_segment;
use super::layout::{self, Section, status_label, time};
use super::request::SignedIn;
use super::response::{ErrorPage, html_page};
use crate::services::deliveries::{self, Delivery, DeliveryDetails};
use crate::state::Console;

pub(super) async fn page(
    State(console): State<Arc<Console>>,
    Path((tenant, delivery)): Path<(String, String)>,
    SignedIn(principal): SignedIn,
) -> Result<Response, ErrorPage> {
    let tenant = principal.authorize_tenant(&tenant)?;
    let found = deliveries::find(&console, &tenant, &delivery).await?;
    let content = content(&tenant, &found);
    let page = layout::page(
        &principal,
        Some(&tenant),
        Section::Deliveries,
        "Delivery",
        &content,
    );
    Ok(html_page(StatusCode::OK, &page))
}

pub(super) fn content(tenant: &TenantId, found: &DeliveryDetails) -> Markup {
    let delivery = &found.delivery;
    let id = path_segment(&delivery.delivery_id);
    // A finished delivery has no further statuses to wait for.
    let events = delivery
        .ended_at
        .is_none()
        .then(|| format!("/api/v1/tenants/{tenant}/deliveries/{id}/events"));
    html! {
        p.crumbs { a href={ "/t/" (tenant) "/deliveries" } { "Deliveries" } }
        h1 { "Delivery" }
        p.mono { (delivery.delivery_id) }
        div.grid {
            section.card {
                h2 { "Timeline" }
                ol.timeline data-events=[events] aria-live="polite" {
                    @for step in &found.timeline {
                        li {
                            (status_label(&step.status))
                            (time(&step.at))
                            @if let Some(detail) = &step.detail { p { (detail) } }
                        }
                    }
                }
            }
            section.card { h2 { "Details" } (details(delivery)) }
        }
    }
}

fn details(delivery: &Delivery) -> Markup {
    let row = |name: &str, value: Option<String>| {
        html! {
            @if let Some(value) = value {
                tr { th scope="row" { (name) } td.wrap { (value) } }
            }
        }
    };
    let duration = |ms: Option<i64>| ms.map(|ms| format!("{ms} ms"));
    html! {
        table { tbody {
            tr { th scope="row" { "Status" } td { (status_label(&delivery.status)) } }
            (row("Number", delivery.to_masked.clone()))
            (row("Country", delivery.country.clone()))
            (row("Attempts", Some(delivery.attempts.to_string())))
            (row("Call SID", delivery.call_sid.clone()))
            (row("Time to call", duration(delivery.placed_ms)))
            (row("Time to ring", duration(delivery.to_ring_ms)))
            (row("Code expires", Some(delivery.expires_at.clone())))
            (row("Test call", delivery.test_call.then(|| "yes".to_owned())))
        } }
    }
}
