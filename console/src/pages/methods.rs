//! Authentication, Settings, Methods.

use std::sync::Arc;

use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Redirect, Response};
use maud::html;
use voice_otp_schemas::TenantId;

use super::layout::{At, csrf, page as whole};
use super::{Form, Trouble, Visitor, shown};
use crate::console::Console;
use crate::console::access::Caller;
use crate::console::methods;
use crate::console::problem::Problem;

pub(super) async fn page(
    State(console): State<Arc<Console>>,
    Path(tenant): Path<String>,
    RawQuery(query): RawQuery,
    Visitor(caller): Visitor,
) -> Result<Response, Trouble> {
    let tenant = caller.tenant(&tenant)?;
    draw(
        &console,
        &caller,
        &tenant,
        None,
        query.as_deref() == Some("saved"),
    )
    .await
}

pub(super) async fn submit(
    State(console): State<Arc<Console>>,
    Path(tenant): Path<String>,
    form: Form,
) -> Result<Response, Trouble> {
    let tenant = form.caller.tenant(&tenant)?;
    match methods::save(
        &console,
        &form.caller,
        &tenant,
        form.text("voice_otp") == Some("yes"),
    )
    .await
    {
        Ok(_) => Ok(Redirect::to(&format!("/t/{tenant}/methods?saved")).into_response()),
        Err(problem) => draw(&console, &form.caller, &tenant, Some(problem), false).await,
    }
}

async fn draw(
    console: &Console,
    caller: &Caller,
    tenant: &TenantId,
    problem: Option<Problem>,
    saved: bool,
) -> Result<Response, Trouble> {
    let voice = methods::show(console, tenant).await?.voice_otp;
    let content = html! {
        p.crumbs { "Authentication › Settings" }
        h1 { "Methods" }
        p.lead { "Which ways of getting a one-time password your users may pick when they sign in." }
        @if saved { div.note.good role="status" { p { strong { "Saved." } } } }
        @if let Some(problem) = &problem {
            div.note.bad role="alert" {
                p { strong { (problem.title()) } }
                p { (problem.detail()) @if let Some(link) = problem.link() { " " a href=(link) { "Configure a voice provider" } } }
            }
        }
        @if voice.switched_off { div.note.warn { p { "An operator has switched voice off for this tenant: nobody is called, whatever is ticked here." } } }
        section.card {
            form method="post" action={ "/t/" (tenant) "/methods" } {
                (csrf(caller))
                label.check { input #voice_otp type="checkbox" name="voice_otp" value="yes" checked[voice.enabled] aria-describedby="voice-hint"; span { "Voice OTP" } }
                p.lead #voice-hint { "The code is read aloud in a call to the number that is registered for SMS OTP: no other number is configured for voice." }
                @if !voice.configured {
                    p { "No voice provider is configured yet. " a href=(voice.provider) { "Configure a voice provider" } }
                }
                div.actions { button type="submit" { "Save" } }
            }
        }
    };
    let status = problem.as_ref().map_or(StatusCode::OK, Problem::status);
    Ok(shown(
        status,
        &whole(caller, Some(tenant), At::Methods, "Methods", &content),
    ))
}
