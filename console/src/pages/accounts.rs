//! Twilio accounts, for operators.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Redirect, Response};
use maud::{Markup, html};

use super::labels::one_line;
use super::layout::{self, Section, csrf_field, scrolling_table, seconds};
use super::request::{SignedIn, SubmittedForm};
use super::response::{ErrorPage, html_page};
use crate::access::Principal;
use crate::problem::Problem;
use crate::services::accounts::{self, Account, AccountChange};
use crate::state::Console;

const HEADINGS: [&str; 6] = [
    "Twilio account",
    "Tenants",
    "Queueing delay",
    "State",
    "Calls per second",
    "Actions",
];

pub(super) async fn page(
    State(console): State<Arc<Console>>,
    SignedIn(principal): SignedIn,
) -> Result<Response, ErrorPage> {
    principal.authorize_operator()?;
    show(&console, &principal, None).await
}

pub(super) async fn submit(
    State(console): State<Arc<Console>>,
    form: SubmittedForm,
) -> Result<Response, ErrorPage> {
    form.principal.authorize_operator()?;
    let account = form.fields.get("account").unwrap_or_default();
    let rate = form.fields.filled("calls_per_second");
    let change = AccountChange {
        // What is no number is out of range, too.
        calls_per_second: rate.map(|text| text.parse().unwrap_or(f64::NAN)),
        paused: match form.fields.get("paused") {
            Some("yes") => Some(true),
            Some("no") => Some(false),
            _ => None,
        },
    };
    match accounts::change(&console, &form.principal, account, &change).await {
        Ok(_) => Ok(Redirect::to("/operate/accounts").into_response()),
        Err(problem) => show(&console, &form.principal, Some(&problem)).await,
    }
}

async fn show(
    console: &Console,
    principal: &Principal,
    problem: Option<&Problem>,
) -> Result<Response, ErrorPage> {
    let content = content(principal, &accounts::list(console).await?, problem);
    let page = layout::page(principal, None, Section::Accounts, "Accounts", &content);
    Ok(html_page(
        problem.map_or(StatusCode::OK, Problem::status),
        &page,
    ))
}

pub(super) fn content(principal: &Principal, all: &[Account], problem: Option<&Problem>) -> Markup {
    let rows = html! { @for account in all { (row(principal, account)) } };
    html! {
        h1 { "Accounts" }
        p.lead {
            "The rate limit of a Twilio account holds for all workers and tenants together. "
            "A change takes effect at once, for queued deliveries too."
        }
        @if let Some(problem) = problem {
            div.note.bad role="alert" { p { (one_line(problem)) } }
        }
        section.card {
            (scrolling_table("Accounts", &HEADINGS, &rows))
            @if all.is_empty() { p.empty { "No accounts yet." } }
        }
    }
}

fn row(principal: &Principal, account: &Account) -> Markup {
    let sid = &account.account_sid;
    html! {
        tr {
            td.mono { (sid) }
            td { (account.tenants) }
            td { (seconds(account.backlog_ms)) }
            td { (state(account)) }
            td {
                form.actions method="post" action="/operate/accounts" {
                    (csrf_field(principal))
                    input type="hidden" name="account" value=(sid);
                    input type="text" inputmode="decimal" name="calls_per_second" size="6"
                        value=(account.calls_per_second)
                        aria-label={ "Calls per second of " (sid) };
                    button.quiet type="submit" aria-label={ "Save calls per second of " (sid) } {
                        "Save"
                    }
                }
            }
            td { (pause_form(principal, account)) }
        }
    }
}

fn state(account: &Account) -> Markup {
    html! {
        @if account.paused { span.pill.warn { "Paused" } }
        @else if account.circuit_open { span.pill.bad { "Circuit open" } }
        @else { span.pill.good { "Active" } }
    }
}

fn pause_form(principal: &Principal, account: &Account) -> Markup {
    let (paused, action) = if account.paused {
        ("no", "Resume")
    } else {
        ("yes", "Pause")
    };
    let sid = &account.account_sid;
    html! {
        form method="post" action="/operate/accounts" {
            (csrf_field(principal))
            input type="hidden" name="account" value=(sid);
            input type="hidden" name="paused" value=(paused);
            button.quiet type="submit" aria-label={ (action) " " (sid) } { (action) }
        }
    }
}
