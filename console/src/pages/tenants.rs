//! Tenants, for operators.

use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Redirect, Response};
use maud::{Markup, html};
use voice_otp_schemas::TenantId;

use super::layout::{self, Section, scrolling_table};
use super::request::SignedIn;
use super::response::{ErrorPage, html_page};
use crate::services::tenants::{self, Summary};
use crate::state::Console;

/// Tenants on the page; others are opened by their id.
const MAX_LISTED: usize = 1_000;

/// An id that was entered and is not valid.
pub(super) struct InvalidId {
    pub(super) entered: String,
    pub(super) message: String,
}

pub(super) async fn page(
    State(console): State<Arc<Console>>,
    RawQuery(query): RawQuery,
    SignedIn(principal): SignedIn,
) -> Result<Response, ErrorPage> {
    principal.authorize_operator()?;
    let entered = form_urlencoded::parse(query.unwrap_or_default().as_bytes())
        .find(|(name, _)| name == "tenant")
        .map(|(_, value)| value.trim().to_owned())
        .filter(|entered| !entered.is_empty());
    let invalid = match entered {
        Some(entered) => match TenantId::parse(&entered) {
            Ok(tenant) => {
                let path = format!("/t/{tenant}/providers/voice");
                return Ok(Redirect::to(&path).into_response());
            }
            Err(error) => Some(InvalidId {
                entered,
                message: error.to_string(),
            }),
        },
        None => None,
    };
    let content = content(&tenants::list(&console).await?, invalid.as_ref());
    let page = layout::page(&principal, None, Section::Tenants, "Tenants", &content);
    Ok(html_page(StatusCode::OK, &page))
}

pub(super) fn content(all: &[Summary], invalid: Option<&InvalidId>) -> Markup {
    let headings = ["Tenant", "Twilio account", "Calls per second", "Voice"];
    let rows = html! { @for tenant in all.iter().take(MAX_LISTED) { (row(tenant)) } };
    html! {
        h1 { "Tenants" }
        p.lead {
            "Tenants with a voice provider. To add one, open a tenant by ID and save its settings."
        }
        (open_form(invalid))
        section.card {
            (scrolling_table("Tenants", &headings, &rows))
            @if all.is_empty() { p.empty { "No tenants yet." } }
            @if all.len() > MAX_LISTED {
                p { "Showing " (MAX_LISTED) " of " (all.len()) " tenants. Open others by ID." }
            }
        }
    }
}

fn open_form(invalid: Option<&InvalidId>) -> Markup {
    let (described_by, is_invalid) = (invalid.map(|_| "tenant-error"), invalid.map(|_| "true"));
    html! {
        form.card method="get" action="/operate/tenants" {
            div.field {
                label for="tenant" { "Tenant ID" }
                input #tenant name="tenant" required
                    value=(invalid.map(|invalid| invalid.entered.as_str()).unwrap_or_default())
                    aria-invalid=[is_invalid] aria-describedby=[described_by];
                @if let Some(invalid) = invalid {
                    p.error #tenant-error role="alert" { (invalid.message) }
                }
            }
            button type="submit" { "Open" }
        }
    }
}

fn row(tenant: &Summary) -> Markup {
    html! {
        tr {
            td { a href={ "/t/" (tenant.tenant_id) "/overview" } { (tenant.tenant_id) } }
            td.mono { (tenant.account_sid) }
            td { (tenant.calls_per_second) }
            td {
                @match (tenant.enabled, tenant.test_mode) {
                    (false, _) => span.pill.bad { "Disabled" },
                    (true, true) => span.pill.warn { "Test mode" },
                    (true, false) => span.pill.good { "Enabled" },
                }
            }
        }
    }
}
