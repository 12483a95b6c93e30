//! Pages for browsers. They work without scripts; those make some of them live.

mod deliveries;
mod layout;
mod methods;
mod operate;
mod overview;
mod providers;
mod sign_in;

use std::sync::Arc;

use axum::Router;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{Method, StatusCode};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use maud::{Markup, html};
use voice_otp_store::access::Role;

use super::Console;
use super::access::Caller;
use super::problem::Problem;

pub(super) fn router(console: Arc<Console>) -> Router {
    Router::new()
        .route("/", get(home))
        .route("/sign-in", get(sign_in::page).post(sign_in::submit))
        .route("/sign-out", post(sign_in::leave))
        .route("/t/{tenant}/overview", get(overview::page))
        .route("/t/{tenant}/providers/sms", get(providers::sms))
        .route(
            "/t/{tenant}/providers/voice",
            get(providers::page).post(providers::submit),
        )
        .route(
            "/t/{tenant}/providers/voice/remove",
            post(providers::remove),
        )
        .route("/t/{tenant}/providers/voice/check", post(providers::check))
        .route(
            "/t/{tenant}/providers/voice/test-call",
            post(providers::test_call),
        )
        .route(
            "/t/{tenant}/methods",
            get(methods::page).post(methods::submit),
        )
        .route(
            "/t/{tenant}/deliveries",
            get(deliveries::page).post(deliveries::filter),
        )
        .route("/t/{tenant}/deliveries/{delivery}", get(deliveries::one))
        .route("/t/{tenant}/audit", get(operate::tenant_audit))
        .route("/operate/tenants", get(operate::tenants))
        .route(
            "/operate/accounts",
            get(operate::accounts).post(operate::change_account),
        )
        .route("/operate/system", get(operate::system))
        .fallback(|| async { Trouble(Problem::not_found()) })
        .with_state(console)
}

/// A browser whose session is good; else it is sent to sign in.
pub(super) struct Visitor(pub(super) Caller);

impl FromRequestParts<Arc<Console>> for Visitor {
    type Rejection = Response;

    async fn from_request_parts(
        parts: &mut Parts,
        console: &Arc<Console>,
    ) -> Result<Self, Response> {
        match Caller::of(console, &parts.headers).await {
            Ok(Some(caller)) => Ok(Self(caller)),
            Ok(None) if parts.method == Method::GET => {
                Err(Redirect::to("/sign-in").into_response())
            }
            Ok(None) => Err(Trouble(Problem::unauthorized()).into_response()),
            Err(error) => Err(Trouble(Problem::from(error)).into_response()),
        }
    }
}

/// A form of a page of ours, from a browser whose session is good.
pub(super) struct Form {
    pub(super) caller: Caller,
    fields: Vec<(String, String)>,
}

impl FromRequest<Arc<Console>> for Form {
    type Rejection = Response;

    async fn from_request(request: Request, console: &Arc<Console>) -> Result<Self, Response> {
        let (mut parts, body) = request.into_parts();
        let Visitor(caller) = Visitor::from_request_parts(&mut parts, console).await?;
        let fields = fields(Request::from_parts(parts, body), console).await?;
        let form = Self { caller, fields };
        if form.caller.proves(form.text("csrf")) {
            Ok(form)
        } else {
            Err(Trouble(Problem::forged()).into_response())
        }
    }
}

async fn fields(
    request: Request,
    console: &Arc<Console>,
) -> Result<Vec<(String, String)>, Response> {
    let bytes = axum::body::Bytes::from_request(request, console)
        .await
        .map_err(|_| {
            Trouble(Problem::bad_request("the form is too long, or broke off")).into_response()
        })?;
    Ok(form_urlencoded::parse(&bytes).into_owned().collect())
}

impl Form {
    /// A field, if the form has it.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.fields
            .iter()
            .find(|(field, _)| field == name)
            .map(|(_, value)| value.as_str())
    }

    /// A field that isn't empty.
    pub(super) fn filled(&self, name: &str) -> Option<&str> {
        self.text(name)
            .map(str::trim)
            .filter(|text| !text.is_empty())
    }
}

/// A page that can't be shown, as a page.
pub(super) struct Trouble(pub(super) Problem);

impl From<Problem> for Trouble {
    fn from(problem: Problem) -> Self {
        Self(problem)
    }
}

impl IntoResponse for Trouble {
    fn into_response(self) -> Response {
        let content = html! {
            div.gate {
                (layout::brand())
                div.card {
                    h1 { (self.0.title()) }
                    p { (self.0.detail()) }
                    a.button href="/" { "To the start" }
                }
            }
        };
        shown(self.0.status(), &layout::bare(self.0.title(), &content))
    }
}

pub(super) fn shown(status: StatusCode, page: &Markup) -> Response {
    (status, Html(page.0.clone())).into_response()
}

/// Where somebody begins: at the tenant, or at all of them.
async fn home(Visitor(caller): Visitor) -> Redirect {
    match &caller.who.role {
        Role::Operator => Redirect::to("/operate/tenants"),
        Role::TenantAdmin(tenant) => Redirect::to(&format!("/t/{tenant}/overview")),
    }
}
