//! Authentication, Settings, Methods.

use std::sync::Arc;

use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Redirect, Response};
use maud::{Markup, html};
use voice_otp_schemas::TenantId;

use super::layout::{self, Section, csrf_field};
use super::request::{SignedIn, SubmittedForm};
use super::response::{ErrorPage, html_page};
use crate::access::Principal;
use crate::problem::Problem;
use crate::services::methods::{self, Method};
use crate::state::Console;

/// What happened to the form that was submitted last.
pub(super) enum Outcome {
    NotSubmitted,
    Saved,
    Failed(Problem),
}

pub(super) async fn page(
    State(console): State<Arc<Console>>,
    Path(tenant): Path<String>,
    RawQuery(query): RawQuery,
    SignedIn(principal): SignedIn,
) -> Result<Response, ErrorPage> {
    let tenant = principal.authorize_tenant(&tenant)?;
    let saved = query.as_deref() == Some("saved");
    let outcome = if saved {
        Outcome::Saved
    } else {
        Outcome::NotSubmitted
    };
    show(&console, &principal, &tenant, &outcome).await
}

pub(super) async fn submit(
    State(console): State<Arc<Console>>,
    Path(tenant): Path<String>,
    form: SubmittedForm,
) -> Result<Response, ErrorPage> {
    let tenant = form.principal.authorize_tenant(&tenant)?;
    let enabled = form.fields.get("voice_otp") == Some("yes");
    match methods::save(&console, &form.principal, &tenant, enabled).await {
        Ok(_) => Ok(Redirect::to(&format!("/t/{tenant}/methods?saved")).into_response()),
        Err(problem) => {
            show(
                &console,
                &form.principal,
                &tenant,
                &Outcome::Failed(problem),
            )
            .await
        }
    }
}

async fn show(
    console: &Console,
    principal: &Principal,
    tenant: &TenantId,
    outcome: &Outcome,
) -> Result<Response, ErrorPage> {
    let voice = methods::show(console, tenant).await?.voice_otp;
    let content = content(principal, tenant, &voice, outcome);
    let page = layout::page(
        principal,
        Some(tenant),
        Section::Methods,
        "Methods",
        &content,
    );
    let status = match outcome {
        Outcome::NotSubmitted | Outcome::Saved => StatusCode::OK,
        Outcome::Failed(problem) => problem.status(),
    };
    Ok(html_page(status, &page))
}

pub(super) fn content(
    principal: &Principal,
    tenant: &TenantId,
    voice: &Method,
    outcome: &Outcome,
) -> Markup {
    html! {
        p.crumbs { "Authentication › Settings" }
        h1 { "Methods" }
        p.lead { "How your users can receive a one-time password when they sign in." }
        (outcome_note(outcome))
        @if voice.switched_off {
            div.note.warn {
                p {
                    "An operator has disabled voice for this tenant. No calls are placed, even "
                    "if Voice OTP is selected."
                }
            }
        }
        section.card {
            form method="post" action={ "/t/" (tenant) "/methods" } {
                (csrf_field(principal))
                label.check {
                    input #voice_otp type="checkbox" name="voice_otp" value="yes"
                        checked[voice.enabled] aria-describedby="voice-hint";
                    span { "Voice OTP" }
                }
                p.lead #voice-hint {
                    "A call reads the code aloud. It goes to the number that is registered for "
                    "SMS OTP; voice needs no number of its own."
                }
                @if !voice.configured {
                    p {
                        "No voice provider is configured. "
                        a href=(voice.provider) { "Configure a voice provider" }
                    }
                }
                div.actions { button type="submit" { "Save" } }
            }
        }
    }
}

fn outcome_note(outcome: &Outcome) -> Markup {
    match outcome {
        Outcome::NotSubmitted => html! {},
        Outcome::Saved => html! {
            div.note.good role="status" { p { strong { "Saved." } } }
        },
        Outcome::Failed(problem) => html! {
            div.note.bad role="alert" {
                p { strong { (problem.title()) } }
                p {
                    (problem.detail())
                    @if let Some(link) = problem.link() {
                        " " a href=(link) { "Configure a voice provider" }
                    }
                }
            }
        },
    }
}
