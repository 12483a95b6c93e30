//! Overview: how the tenant's calls fare.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use maud::{Markup, html};

use super::layout::{At, page as whole, pill};
use super::{Trouble, Visitor, shown};
use crate::console::Console;
use crate::console::api::{Figures, figures_of};
use crate::console::voice;

const HOURS: u64 = 24;

pub(super) async fn page(
    State(console): State<Arc<Console>>,
    Path(tenant): Path<String>,
    Visitor(caller): Visitor,
) -> Result<Response, Trouble> {
    let tenant = caller.tenant(&tenant)?;
    let configured = voice::show(&console, &tenant).await?.is_some();
    let figures = figures_of(&console, &tenant, HOURS).await?;
    let content = html! {
        h1 { "Overview" }
        p.lead { "The last 24 hours. Test calls are not counted." }
        @if !configured {
            div.note.warn { p { "No voice provider is configured yet: no calls are placed. "
                a href={ "/t/" (tenant) "/providers/voice" } { "Configure a voice provider" } } }
        }
        div.stats {
            (stat(&share(figures.success_rate), "delivered, of those that are over"))
            (stat(&figures.deliveries.to_string(), "deliveries"))
            (stat(&figures.placed.to_string(), "calls that Twilio took"))
            (stat(&spent(&figures), "told by Twilio as spent"))
            div.stat { b data-balance={ "/api/v1/tenants/" (tenant) "/voice-provider/balance" } { "–" } span { "balance of the Twilio account" } }
            (stat(&figures.to_ring_ms.map_or_else(|| "–".to_owned(), seconds), "from the call to its ringing"))
        }
        section.card {
            h2 { "By hour" }
            div.key aria-hidden="true" { span { i.good {} "delivered" } span { i {} "all" } }
            (chart(&figures))
        }
        div.grid {
            section.card { h2 { "By country" }
                @if figures.by_country.is_empty() { p.empty { "No calls yet." } }
                @else { table { thead { tr { th scope="col" { "Country" } th scope="col" { "Deliveries" } th scope="col" { "Delivered" } } }
                    tbody { @for (country, of) in &figures.by_country { tr { td { (country) } td { (of.deliveries) } td { (of.delivered) } } } } } } }
            section.card { h2 { "By outcome" }
                @if figures.by_outcome.is_empty() { p.empty { "No calls yet." } }
                @else { table { thead { tr { th scope="col" { "Outcome" } th scope="col" { "Deliveries" } } }
                    tbody { @for (outcome, count) in &figures.by_outcome { tr { td { (pill(outcome)) } td { (count) } } } } } } }
        }
    };
    Ok(shown(
        StatusCode::OK,
        &whole(&caller, Some(&tenant), At::Overview, "Overview", &content),
    ))
}

fn stat(value: &str, name: &str) -> Markup {
    html! { div.stat { b { (value) } span { (name) } } }
}

fn spent(figures: &Figures) -> String {
    let of = figures
        .spend
        .iter()
        .map(|of| format!("{:.2} {}", of.amount, of.unit))
        .collect::<Vec<_>>()
        .join(", ");
    if of.is_empty() { "–".to_owned() } else { of }
}

fn share(rate: Option<f64>) -> String {
    rate.map_or_else(|| "–".to_owned(), |rate| format!("{:.1} %", rate * 100.0))
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn seconds(ms: i64) -> String {
    format!("{:.1} s", ms as f64 / 1000.0)
}

/// A bar an hour.
fn chart(figures: &Figures) -> Markup {
    if figures.deliveries == 0 {
        return html! { p.empty { "No calls yet." } };
    }
    let most = figures
        .by_hour
        .iter()
        .map(|hour| hour.deliveries)
        .max()
        .unwrap_or(1)
        .max(1);
    let (width, height) = (720, 160);
    let step = width
        / i64::try_from(figures.by_hour.len())
            .unwrap_or(1)
            .clamp(1, 200);
    let bar = (step - 4).clamp(3, 60);
    let summary = format!(
        "{} deliveries in {} hours, at most {most} in one",
        figures.deliveries,
        figures.by_hour.len()
    );
    html! {
        svg.chart viewBox={ "0 0 " (width) " " (height + 24) } role="img" aria-label=(summary) {
            line x1="0" x2=(width) y1=(height) y2=(height) {}
            @for (n, hour) in (0_i64..).zip(&figures.by_hour) {
                @let all = hour.deliveries * (height - 8) / most;
                @let good = hour.delivered * (height - 8) / most;
                rect.all x=(n * step + 2) y=(height - all) width=(bar) height=(all) rx="2" {}
                rect.good x=(n * step + 2) y=(height - good) width=(bar) height=(good) rx="2" {}
                @if n % 4 == 0 { text x=(n * step + 2) y=(height + 16) { (hour.hour.get(11..16).unwrap_or_default()) } }
            }
        }
        details { summary { "As a table" }
            table { thead { tr { th scope="col" { "Hour (UTC)" } th scope="col" { "Deliveries" } th scope="col" { "Delivered" } } }
                tbody { @for hour in &figures.by_hour { tr { td { (hour.hour.get(..16).unwrap_or_default().replace('T', " ")) } td { (hour.deliveries) } td { (hour.delivered) } } } } } }
    }
}
