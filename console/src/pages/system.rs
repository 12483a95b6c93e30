//! Workers, dead letters and the latest changes, for operators.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use maud::{Markup, html};

use super::audit::all_changes;
use super::layout::{self, Section, scrolling_table, time};
use super::request::SignedIn;
use super::response::{ErrorPage, html_page};
use crate::services::audit::{self, AuditEntry};
use crate::services::system::{self, System, Worker};
use crate::state::Console;

/// Changes on the page.
const LATEST_CHANGES: i64 = 50;

pub(super) async fn page(
    State(console): State<Arc<Console>>,
    SignedIn(principal): SignedIn,
) -> Result<Response, ErrorPage> {
    principal.authorize_operator()?;
    let state = system::state(&console).await?;
    let entries = audit::list(&console, None, None, LATEST_CHANGES).await?;
    let content = content(&state, &entries);
    let page = layout::page(&principal, None, Section::System, "System", &content);
    Ok(html_page(StatusCode::OK, &page))
}

pub(super) fn content(system: &System, entries: &[AuditEntry]) -> Markup {
    let online = system.workers.iter().filter(|worker| worker.alive).count();
    let dead_letters = system
        .dead_letters
        .map_or_else(|| "–".to_owned(), |n| n.to_string());
    let headings = ["Host and process", "Started", "State", "Deliveries"];
    let rows = html! { @for worker in &system.workers { (row(worker)) } };
    html! {
        h1 { "System" }
        div.stats {
            div.stat { b { (online) } span { "Workers online" } }
            div.stat { b { (dead_letters) } span { "Dead letters" } }
        }
        @if online == 0 {
            div.note.bad role="alert" {
                p {
                    "No worker is online, so no calls are placed. Start one with "
                    code { "voice-otp worker" } "."
                }
            }
        }
        section.card { h2 { "Workers" } (scrolling_table("Workers", &headings, &rows)) }
        section.card { h2 { "Latest changes" } (all_changes(entries)) }
    }
}

fn row(worker: &Worker) -> Markup {
    html! {
        tr {
            td { (worker.name) }
            td { (time(&worker.started_at)) }
            td {
                @if worker.alive { span.pill.good { "Online" } }
                @else { span.pill { "Offline" } }
            }
            td { (worker.holds) }
        }
    }
}
