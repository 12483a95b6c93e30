//! Tenant Settings, Message Providers: voice, and a reference to SMS, which is another service.

mod actions;
mod content;
mod feedback;
mod form;
mod input;
mod submitted;

use std::sync::Arc;

use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Redirect, Response};
use voice_otp_schemas::TenantId;
use voice_otp_store::settings::Expected;

pub(super) use self::content::{content, sms_content};
pub(super) use self::feedback::Feedback;
use super::layout::{self, Section};
use super::request::{SignedIn, SubmittedForm};
use super::response::{ErrorPage, html_page};
use crate::access::Principal;
use crate::problem::{FieldError, Problem};
use crate::services::provider::{self, NewVoiceProvider};
use crate::services::test_calls::{self, NewTestCall};
use crate::state::Console;

const TITLE: &str = "Message Providers";

pub(super) async fn sms_page(
    Path(tenant): Path<String>,
    SignedIn(principal): SignedIn,
) -> Result<Response, ErrorPage> {
    let tenant = principal.authorize_tenant(&tenant)?;
    let content = sms_content(&tenant);
    let page = layout::page(
        &principal,
        Some(&tenant),
        Section::Providers,
        TITLE,
        &content,
    );
    Ok(html_page(StatusCode::OK, &page))
}

pub(super) async fn page(
    State(console): State<Arc<Console>>,
    Path(tenant): Path<String>,
    RawQuery(query): RawQuery,
    SignedIn(principal): SignedIn,
) -> Result<Response, ErrorPage> {
    let tenant = principal.authorize_tenant(&tenant)?;
    let feedback = Feedback {
        saved: query.as_deref() == Some("saved"),
        ..Feedback::default()
    };
    show(&console, &principal, &tenant, None, &feedback).await
}

pub(super) async fn submit(
    State(console): State<Arc<Console>>,
    Path(tenant): Path<String>,
    form: SubmittedForm,
) -> Result<Response, ErrorPage> {
    let SubmittedForm { principal, fields } = form;
    let tenant = principal.authorize_tenant(&tenant)?;
    let current = provider::show(&console, &tenant).await?;
    let (new, errors) = submitted::read(&fields, current.as_ref());
    let version = fields
        .filled("version")
        .and_then(|version| version.parse().ok());
    let expected = version.map_or(Expected::Nothing, Expected::Version);
    let saved = if errors.is_empty() {
        provider::save(&console, &principal, &tenant, &new, expected).await
    } else {
        // Values that can't be read are not replaced by guesses.
        Err(Problem::invalid(errors))
    };
    match saved {
        Ok(_) => Ok(Redirect::to(&format!("/t/{tenant}/providers/voice?saved")).into_response()),
        Err(problem) => {
            let feedback = Feedback {
                problem: Some(problem),
                version: Some(fields.get("version").unwrap_or_default().to_owned()),
                ..Feedback::default()
            };
            show(&console, &principal, &tenant, Some(new), &feedback).await
        }
    }
}

pub(super) async fn remove(
    State(console): State<Arc<Console>>,
    Path(tenant): Path<String>,
    form: SubmittedForm,
) -> Result<Response, ErrorPage> {
    let SubmittedForm { principal, fields } = form;
    let tenant = principal.authorize_tenant(&tenant)?;
    let version = fields
        .filled("version")
        .and_then(|version| version.parse().ok())
        .unwrap_or(0);
    let removed = if fields.get("confirm") == Some("yes") {
        provider::remove(&console, &principal, &tenant, version).await
    } else {
        let error = FieldError::new("confirm", "select the box to confirm");
        Err(Problem::invalid(vec![error]))
    };
    match removed {
        Ok(()) => Ok(Redirect::to(&format!("/t/{tenant}/providers/voice")).into_response()),
        Err(problem) => {
            let feedback = Feedback {
                problem: Some(problem),
                ..Feedback::default()
            };
            show(&console, &principal, &tenant, None, &feedback).await
        }
    }
}

pub(super) async fn check(
    State(console): State<Arc<Console>>,
    Path(tenant): Path<String>,
    form: SubmittedForm,
) -> Result<Response, ErrorPage> {
    let tenant = form.principal.authorize_tenant(&tenant)?;
    let mut feedback = Feedback::default();
    match provider::check(&console, &tenant).await {
        Ok(findings) => feedback.findings = Some(findings),
        Err(problem) => feedback.problem = Some(problem),
    }
    show(&console, &form.principal, &tenant, None, &feedback).await
}

pub(super) async fn place_test_call(
    State(console): State<Arc<Console>>,
    Path(tenant): Path<String>,
    form: SubmittedForm,
) -> Result<Response, ErrorPage> {
    let SubmittedForm { principal, fields } = form;
    let tenant = principal.authorize_tenant(&tenant)?;
    let new = NewTestCall {
        to: fields.get("to").unwrap_or_default().to_owned(),
        locale: fields.filled("locale").map(str::to_owned),
    };
    let mut feedback = Feedback::default();
    match test_calls::place(&console, &principal, &tenant, &new).await {
        Ok(call) => feedback.test_call = Some(call),
        Err(problem) => feedback.test_call_problem = Some(problem),
    }
    feedback.test_call_to = new.to;
    show(&console, &principal, &tenant, None, &feedback).await
}

/// The voice page, with the form as it was entered or else with the saved settings.
async fn show(
    console: &Console,
    principal: &Principal,
    tenant: &TenantId,
    entered: Option<NewVoiceProvider>,
    feedback: &Feedback,
) -> Result<Response, ErrorPage> {
    let current = provider::show(console, tenant).await?;
    let entered = entered
        .or_else(|| current.as_ref().map(NewVoiceProvider::from))
        .unwrap_or_default();
    let content = content(principal, tenant, current.as_ref(), &entered, feedback);
    let page = layout::page(principal, Some(tenant), Section::Providers, TITLE, &content);
    let status = feedback
        .any_problem()
        .map_or(StatusCode::OK, Problem::status);
    Ok(html_page(status, &page))
}
