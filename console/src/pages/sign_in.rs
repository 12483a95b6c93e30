//! Signing in with a token or a link, and out.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::SET_COOKIE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Redirect, Response};
use maud::{Markup, html};

use super::layout;
use super::request::{Fields, SubmittedForm};
use super::response::{ErrorPage, html_page};
use crate::access::{client_address, expired_cookie, is_cross_site, session_cookie, session_of};
use crate::problem::Problem;
use crate::services::sessions::{self, Credential};
use crate::state::Console;

pub(super) const INVALID_TOKEN: &str =
    "The token is invalid, expired or revoked. Check it, or ask an operator for a new one.";
const INVALID_LINK: &str = "The sign-in link has already been used or has expired. Sign in with \
                            a token.";

pub(super) async fn page() -> Response {
    html_page(
        StatusCode::OK,
        &layout::bare_page("Sign in", &content(None)),
    )
}

pub(super) fn content(error: Option<&str>) -> Markup {
    let invalid = error.map(|_| "true");
    html! {
        div.gate {
            (layout::brand())
            div.card {
                h1 { "Sign in" }
                p.lead { "Use the token that an operator created for you." }
                form method="post" action="/sign-in" data-sign-in {
                    div.field {
                        label for="token" { "Token" }
                        input #token type="password" name="token" autocomplete="current-password"
                            autofocus aria-describedby=[error.map(|_| "token-error")]
                            aria-invalid=[invalid];
                        @if let Some(error) = error {
                            p.error #token-error role="alert" { (error) }
                        }
                        p.hint {
                            "Starts with " code { "vot_" } ". Operators create tokens with "
                            code { "voice-otp token create" } "."
                        }
                    }
                    input type="hidden" name="code" value="";
                    button type="submit" { "Sign in" }
                }
            }
        }
    }
}

/// Signs in. A form from another site is rejected: it could sign a user in to an attacker's
/// account.
pub(super) async fn submit(
    State(console): State<Arc<Console>>,
    request: Request,
) -> Result<Response, ErrorPage> {
    if is_cross_site(request.headers()) {
        return Err(ErrorPage(Problem::invalid_csrf_token()));
    }
    let client = client_address(&console, request.extensions(), request.headers());
    let fields = Fields::read(request, &console).await?;
    let (credential, error) = match fields.filled("code") {
        Some(code) => (Credential::Code(code), INVALID_LINK),
        None => (
            Credential::Token(fields.filled("token").unwrap_or_default()),
            INVALID_TOKEN,
        ),
    };
    if let Err(problem) = console.credential_limits.admit_sign_in(client) {
        let page = layout::bare_page("Sign in", &content(Some(problem.detail())));
        let mut response = html_page(problem.status(), &page);
        response.headers_mut().extend(problem.retry_after());
        return Ok(response);
    }
    let Some(session) = sessions::sign_in(&console, credential).await? else {
        let page = layout::bare_page("Sign in", &content(Some(error)));
        return Ok(html_page(StatusCode::UNAUTHORIZED, &page));
    };
    let cookie = [(SET_COOKIE, session_cookie(&console, &session))];
    Ok((cookie, Redirect::to("/")).into_response())
}

/// Ends the session. The form proves that a page of the session asked for it.
pub(super) async fn sign_out(
    State(console): State<Arc<Console>>,
    headers: HeaderMap,
    _: SubmittedForm,
) -> Result<Response, ErrorPage> {
    if let Some(session) = session_of(&console, &headers) {
        sessions::sign_out(&console, &session).await?;
    }
    let cookie = [(SET_COOKIE, expired_cookie(&console))];
    Ok((cookie, Redirect::to("/sign-in")).into_response())
}
