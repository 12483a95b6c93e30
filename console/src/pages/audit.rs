//! The audit log of a tenant.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use maud::{Markup, html};

use super::layout::{self, Section, scrolling_table, time};
use super::request::SignedIn;
use super::response::{ErrorPage, html_page};
use crate::services::audit::{self, AuditEntry};
use crate::state::Console;

/// Entries on the page.
const LIMIT: i64 = 100;

pub(super) async fn page(
    State(console): State<Arc<Console>>,
    Path(tenant): Path<String>,
    SignedIn(principal): SignedIn,
) -> Result<Response, ErrorPage> {
    let tenant = principal.authorize_tenant(&tenant)?;
    let entries = audit::list(&console, Some(&tenant), None, LIMIT).await?;
    let content = content(&entries);
    let page = layout::page(
        &principal,
        Some(&tenant),
        Section::Audit,
        "Audit log",
        &content,
    );
    Ok(html_page(StatusCode::OK, &page))
}

pub(super) fn content(entries: &[AuditEntry]) -> Markup {
    html! {
        h1 { "Audit log" }
        p.lead { "Changes to this tenant, latest first. Secrets are never recorded." }
        section.card { (tenant_changes(entries)) }
    }
}

fn tenant_changes(entries: &[AuditEntry]) -> Markup {
    changes(
        &["Time", "Actor", "Action", "Details"],
        entries,
        |_| html! {},
    )
}

/// Changes of every tenant, with a column for the tenant.
pub(super) fn all_changes(entries: &[AuditEntry]) -> Markup {
    let tenant = |entry: &AuditEntry| {
        html! { td { (entry.tenant_id.as_deref().unwrap_or_default()) } }
    };
    changes(
        &["Time", "Tenant", "Actor", "Action", "Details"],
        entries,
        tenant,
    )
}

fn changes(
    headings: &[&str],
    entries: &[AuditEntry],
    tenant_cell: impl Fn(&AuditEntry) -> Markup,
) -> Markup {
    let rows = html! {
        @for entry in entries {
            tr {
                td { (time(&entry.at)) }
                (tenant_cell(entry))
                td.wrap { (entry.actor) }
                td { (entry.action) }
                td.wrap { code { (entry.detail) } }
            }
        }
    };
    html! {
        @if entries.is_empty() { p.empty { "No changes yet." } }
        @else { (scrolling_table("Changes", headings, &rows)) }
    }
}
