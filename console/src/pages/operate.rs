//! For operators: tenants, accounts, what runs; and the audit log, which a tenant's administrator has too.

use std::sync::Arc;

use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Redirect, Response};
use maud::{Markup, html};
use voice_otp_schemas::TenantId;
use voice_otp_schemas::request::rfc3339;
use voice_otp_store::{audit, settings};

use super::layout::{At, csrf, page as whole, time};
use super::{Form, Trouble, Visitor, shown};
use crate::console::Console;
use crate::console::api::operate::{AccountChange, list_accounts, look, save_account};
use crate::console::problem::Problem;

pub(super) async fn tenants(
    State(console): State<Arc<Console>>,
    RawQuery(query): RawQuery,
    Visitor(caller): Visitor,
) -> Result<Response, Trouble> {
    caller.operator()?;
    let wanted = form_urlencoded::parse(query.unwrap_or_default().as_bytes())
        .find(|(name, _)| name == "tenant")
        .map(|(_, value)| value.trim().to_owned())
        .filter(|wanted| !wanted.is_empty());
    let error = match wanted.as_deref().map(TenantId::parse) {
        Some(Ok(tenant)) => {
            return Ok(Redirect::to(&format!("/t/{tenant}/providers/voice")).into_response());
        }
        Some(Err(error)) => Some(error.to_string()),
        None => None,
    };
    let all = settings::list(&console.pool).await.map_err(Problem::from)?;
    let content = html! {
        h1 { "Tenants" }
        p.lead { "Those with a voice provider. Any other one gets its own when it is opened and saved." }
        form.card method="get" action="/operate/tenants" {
            div.field { label for="tenant" { "Open a tenant by its id, known or new" }
                input #tenant name="tenant" required value=(wanted.unwrap_or_default()) aria-invalid=[error.as_ref().map(|_| "true")] aria-describedby=[error.as_ref().map(|_| "tenant-error")];
                @if let Some(error) = &error { p.error #tenant-error role="alert" { (error) } } }
            button type="submit" { "Open" }
        }
        section.card { div.scroll tabindex="0" role="region" aria-label="Tenants" { table {
            thead { tr { th scope="col" { "Tenant" } th scope="col" { "Twilio account" } th scope="col" { "Calls per second" } th scope="col" { "Voice" } } }
            tbody { @for tenant in all.iter().take(1_000) { tr {
                td { a href={ "/t/" (tenant.tenant_id) "/overview" } { (tenant.tenant_id) } }
                td.mono { (tenant.account_sid) } td { (tenant.calls_per_second) }
                td { @match (tenant.enabled, tenant.test_mode) { (false, _) => span.pill.bad { "off" }, (true, true) => span.pill.warn { "test mode" }, (true, false) => span.pill.good { "on" } } }
            } } }
        } }
        @if all.is_empty() { p.empty { "None yet." } }
        @if all.len() > 1_000 { p { "The first thousand of " (all.len()) ": open others by their id." } } }
    };
    Ok(shown(
        StatusCode::OK,
        &whole(&caller, None, At::Tenants, "Tenants", &content),
    ))
}

pub(super) async fn accounts(
    State(console): State<Arc<Console>>,
    Visitor(caller): Visitor,
) -> Result<Response, Trouble> {
    caller.operator()?;
    draw_accounts(&console, &caller, None).await
}

pub(super) async fn change_account(
    State(console): State<Arc<Console>>,
    form: Form,
) -> Result<Response, Trouble> {
    form.caller.operator()?;
    let account = form.text("account").unwrap_or_default();
    let change = AccountChange {
        calls_per_second: form
            .filled("calls_per_second")
            .map(|text| text.parse().unwrap_or(f64::NAN)),
        paused: match form.text("paused") {
            Some("yes") => Some(true),
            Some("no") => Some(false),
            _ => None,
        },
    };
    match save_account(&console, &form.caller, account, &change).await {
        Ok(_) => Ok(Redirect::to("/operate/accounts").into_response()),
        Err(problem) => draw_accounts(&console, &form.caller, Some(problem)).await,
    }
}

async fn draw_accounts(
    console: &Console,
    caller: &crate::console::access::Caller,
    problem: Option<Problem>,
) -> Result<Response, Trouble> {
    let all = list_accounts(console).await?;
    let content = html! {
        h1 { "Accounts" }
        p.lead { "A Twilio account's pace holds over all workers and tenants together; a change counts at once for all that waits." }
        @if let Some(problem) = &problem { div.note.bad role="alert" { p { (problem.detail()) } } }
        section.card { div.scroll tabindex="0" role="region" aria-label="Accounts" { table {
            thead { tr { th scope="col" { "Twilio account" } th scope="col" { "Tenants" } th scope="col" { "Backlog" } th scope="col" { "State" } th scope="col" { "Calls per second" } th scope="col" { "Calls" } } }
            tbody { @for account in &all { tr {
                td.mono { (account.account_sid) } td { (account.tenants) } td { (format!("{:.1} s", f64::from(i32::try_from(account.backlog_ms).unwrap_or(i32::MAX)) / 1000.0)) }
                td { @if account.paused { span.pill.warn { "paused" } } @else if account.circuit_open { span.pill.bad { "circuit open" } } @else { span.pill.good { "going" } } }
                td { form.actions method="post" action="/operate/accounts" { (csrf(caller)) input type="hidden" name="account" value=(account.account_sid);
                    input type="text" inputmode="decimal" name="calls_per_second" size="6" value=(account.calls_per_second) aria-label={ "Calls per second of " (account.account_sid) };
                    button.quiet type="submit" { "Change" } } }
                td { form method="post" action="/operate/accounts" { (csrf(caller)) input type="hidden" name="account" value=(account.account_sid);
                    input type="hidden" name="paused" value=(if account.paused { "no" } else { "yes" });
                    button.quiet type="submit" aria-label={ (if account.paused { "Resume " } else { "Pause " }) (account.account_sid) } { (if account.paused { "Resume" } else { "Pause" }) } } }
            } } }
        } }
        @if all.is_empty() { p.empty { "None yet." } } }
    };
    let status = problem.as_ref().map_or(StatusCode::OK, Problem::status);
    Ok(shown(
        status,
        &whole(caller, None, At::Accounts, "Accounts", &content),
    ))
}

pub(super) async fn system(
    State(console): State<Arc<Console>>,
    Visitor(caller): Visitor,
) -> Result<Response, Trouble> {
    caller.operator()?;
    let system = look(&console).await?;
    let entries = audit::read(&console.pool, None, None, 50)
        .await
        .map_err(Problem::from)?;
    let alive = system.workers.iter().filter(|worker| worker.alive).count();
    let content = html! {
        h1 { "System" }
        div.stats {
            div.stat { b { (alive) } span { "workers alive" } }
            div.stat { b { (system.dead_letters.map_or_else(|| "–".to_owned(), |count| count.to_string())) } span { "dead letters" } }
        }
        @if alive == 0 { div.note.bad role="alert" { p { "No worker is alive: nothing is called. Start one: " code { "voice-otp worker" } } } }
        section.card { h2 { "Workers" } div.scroll tabindex="0" role="region" aria-label="Workers" { table {
            thead { tr { th scope="col" { "Host and process" } th scope="col" { "Since" } th scope="col" { "State" } th scope="col" { "Holds" } } }
            tbody { @for worker in &system.workers { tr { td { (worker.name) } td { (time(&worker.started_at)) }
                td { @if worker.alive { span.pill.good { "alive" } } @else { span.pill { "gone" } } } td { (worker.holds) } } } }
        } } }
        section.card { h2 { "Latest changes" } (changes(&entries, true)) }
    };
    Ok(shown(
        StatusCode::OK,
        &whole(&caller, None, At::System, "System", &content),
    ))
}

pub(super) async fn tenant_audit(
    State(console): State<Arc<Console>>,
    Path(tenant): Path<String>,
    Visitor(caller): Visitor,
) -> Result<Response, Trouble> {
    let tenant = caller.tenant(&tenant)?;
    let entries = audit::read(&console.pool, Some(&tenant), None, 100)
        .await
        .map_err(Problem::from)?;
    let content = html! {
        h1 { "Audit log" }
        p.lead { "Who changed what, the latest first. Secrets are never in it." }
        section.card { (changes(&entries, false)) }
    };
    Ok(shown(
        StatusCode::OK,
        &whole(&caller, Some(&tenant), At::Audit, "Audit log", &content),
    ))
}

fn changes(entries: &[audit::Entry], with_tenant: bool) -> Markup {
    html! {
        @if entries.is_empty() { p.empty { "Nothing was changed yet." } }
        @else { div.scroll tabindex="0" role="region" aria-label="Changes" { table {
            thead { tr { th scope="col" { "When" } @if with_tenant { th scope="col" { "Tenant" } } th scope="col" { "Who" } th scope="col" { "What" } th scope="col" { "Exactly" } } }
            tbody { @for entry in entries { tr {
                td { (time(&rfc3339(entry.at))) } @if with_tenant { td { (entry.tenant_id.as_deref().unwrap_or_default()) } }
                td.wrap { (entry.actor) } td { (entry.action) } td.wrap { code { (entry.detail) } }
            } } }
        } } }
    }
}
