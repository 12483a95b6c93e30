//! Overview: a tenant's figures of the last 24 hours.

mod chart;

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use maud::{Markup, html};
use voice_otp_schemas::TenantId;

use super::layout::{self, Section, seconds, status_label};
use super::request::SignedIn;
use super::response::{ErrorPage, html_page};
use crate::services::deliveries::{self, Figures};
use crate::services::provider;
use crate::state::Console;

/// The window of the figures.
const HOURS: u64 = 24;
/// Stands for a figure that isn't known.
const UNKNOWN: &str = "–";

pub(super) async fn page(
    State(console): State<Arc<Console>>,
    Path(tenant): Path<String>,
    SignedIn(principal): SignedIn,
) -> Result<Response, ErrorPage> {
    let tenant = principal.authorize_tenant(&tenant)?;
    let configured = provider::show(&console, &tenant).await?.is_some();
    let figures = deliveries::figures(&console, &principal, &tenant, HOURS).await?;
    let content = content(&tenant, configured, &figures);
    let page = layout::page(
        &principal,
        Some(&tenant),
        Section::Overview,
        "Overview",
        &content,
    );
    Ok(html_page(StatusCode::OK, &page))
}

pub(super) fn content(tenant: &TenantId, configured: bool, figures: &Figures) -> Markup {
    html! {
        h1 { "Overview" }
        p.lead {
            "Last 24 hours, without test calls. The delivery rate counts finished deliveries."
        }
        @if !configured {
            div.note.warn {
                p {
                    "No calls are placed, because no voice provider is configured. "
                    a href={ "/t/" (tenant) "/providers/voice" } { "Configure a voice provider" }
                }
            }
        }
        @if figures.partial {
            div.note {
                p {
                    "The figures are incomplete: of the last two hours they count 100,000 \
                     deliveries, and there were more."
                }
            }
        }
        div.stats {
            (stat(&delivery_rate(figures.success_rate), "Delivery rate"))
            (stat(&figures.deliveries.to_string(), "Deliveries"))
            (stat(&figures.placed.to_string(), "Calls accepted by Twilio"))
            (stat(&reported_spend(figures), "Reported spend"))
            div.stat {
                b data-balance={ "/api/v1/tenants/" (tenant) "/voice-provider/balance" } {
                    (UNKNOWN)
                }
                span { "Twilio account balance" }
            }
            (stat(&figures.to_ring_ms.map_or_else(|| UNKNOWN.to_owned(), seconds), "Time to ring"))
        }
        section.card {
            h2 { "By hour" }
            div.key aria-hidden="true" {
                span { i.good {} "Delivered" }
                span { i {} "All" }
            }
            (chart::deliveries_by_hour(figures))
        }
        div.grid {
            section.card { h2 { "By country" } (by_country(figures)) }
            section.card { h2 { "By outcome" } (by_outcome(figures)) }
        }
    }
}

fn stat(value: &str, name: &str) -> Markup {
    html! { div.stat { b { (value) } span { (name) } } }
}

fn by_country(figures: &Figures) -> Markup {
    html! {
        @if figures.by_country.is_empty() { p.empty { "No deliveries yet." } }
        @else {
            table {
                thead { tr {
                    th scope="col" { "Country" }
                    th scope="col" { "Deliveries" }
                    th scope="col" { "Delivered" }
                } }
                tbody {
                    @for (country, of) in &figures.by_country {
                        tr { td { (country) } td { (of.deliveries) } td { (of.delivered) } }
                    }
                }
            }
        }
    }
}

fn by_outcome(figures: &Figures) -> Markup {
    html! {
        @if figures.by_outcome.is_empty() { p.empty { "No deliveries yet." } }
        @else {
            table {
                thead { tr { th scope="col" { "Outcome" } th scope="col" { "Deliveries" } } }
                tbody {
                    @for (outcome, count) in &figures.by_outcome {
                        tr { td { (status_label(outcome)) } td { (count) } }
                    }
                }
            }
        }
    }
}

fn reported_spend(figures: &Figures) -> String {
    let amounts: Vec<String> = figures
        .spend
        .iter()
        .map(|spend| format!("{:.2} {}", spend.amount, spend.unit))
        .collect();
    if amounts.is_empty() {
        UNKNOWN.to_owned()
    } else {
        amounts.join(", ")
    }
}

fn delivery_rate(rate: Option<f64>) -> String {
    rate.map_or_else(
        || UNKNOWN.to_owned(),
        |rate| format!("{:.1} %", rate * 100.0),
    )
}
