//! Signing in with a token or a link, and out.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::SET_COOKIE;
use axum::response::{IntoResponse as _, Redirect, Response};
use maud::{Markup, html};
use secrecy::ExposeSecret as _;
use voice_otp_store::access;

use super::{Form, Trouble, fields, layout, shown};
use crate::console::Console;
use crate::console::access::{cookie, is_from_elsewhere, session_of};
use crate::console::problem::Problem;

pub(super) async fn page() -> Response {
    shown(StatusCode::OK, &form(None))
}

fn form(error: Option<&str>) -> Markup {
    let content = html! {
        div.gate {
            (layout::brand())
            div.card {
                h1 { "Sign in" }
                p.lead { "With the token that an operator made for you." }
                form method="post" action="/sign-in" data-sign-in {
                    div.field {
                        label for="token" { "Token" }
                        input #token type="password" name="token" autocomplete="current-password" autofocus
                            aria-describedby=[error.map(|_| "token-error")] aria-invalid=[error.map(|_| "true")];
                        @if let Some(error) = error { p.error #token-error role="alert" { (error) } }
                        p.hint { "It begins with " code { "vot_" } ". Operators: " code { "voice-otp token create" } }
                    }
                    input type="hidden" name="code" value="";
                    button type="submit" { "Sign in" }
                }
            }
        }
    };
    layout::bare("Sign in", &content)
}

/// Not from another site, which could sign somebody in as somebody else.
pub(super) async fn submit(State(console): State<Arc<Console>>, request: Request) -> Response {
    if is_from_elsewhere(request.headers()) {
        return Trouble(Problem::forged()).into_response();
    }
    let fields = match fields(request, &console).await {
        Ok(fields) => fields,
        Err(response) => return response,
    };
    let field = |name: &str| {
        fields
            .iter()
            .find(|(field, _)| field == name)
            .map(|(_, value)| value.trim())
            .unwrap_or_default()
    };
    let (token, code) = (field("token"), field("code"));
    let who = if code.is_empty() {
        access::by_token(&console.pool, token).await
    } else {
        access::by_code(&console.pool, code).await
    };
    let who = match who {
        Ok(Some(who)) => who,
        Ok(None) if code.is_empty() => {
            return shown(
                StatusCode::UNAUTHORIZED,
                &form(Some(
                    "This token is not good: it may be mistyped, revoked or expired.",
                )),
            );
        }
        Ok(None) => {
            let why = "This link has been used, or is older than a minute: sign in with a token.";
            return shown(StatusCode::UNAUTHORIZED, &form(Some(why)));
        }
        Err(error) => return Trouble(Problem::from(error)).into_response(),
    };
    match access::sign_in(&console.pool, who.token_id).await {
        Ok(session) => (
            [(SET_COOKIE, cookie(&console, Some(&session)))],
            Redirect::to("/"),
        )
            .into_response(),
        Err(error) => Trouble(Problem::from(error)).into_response(),
    }
}

pub(super) async fn leave(
    State(console): State<Arc<Console>>,
    headers: axum::http::HeaderMap,
    _: Form,
) -> Response {
    if let Some(session) = session_of(&console, &headers)
        && let Err(error) = access::sign_out(&console.pool, session.expose_secret()).await
    {
        return Trouble(Problem::from(error)).into_response();
    }
    (
        [(SET_COOKIE, cookie(&console, None))],
        Redirect::to("/sign-in"),
    )
        .into_response()
}
