//! Who asks: by a token, or by the session that a browser has after signing in with one.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::header::{AUTHORIZATION, COOKIE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;
use subtle::ConstantTimeEq as _;
use voice_otp_schemas::TenantId;
use voice_otp_store::access::{self, Role, Who};
use voice_otp_store::audit;

use super::Console;
use super::problem::Problem;

/// Somebody who may ask. Of a session, a change is only taken with what its pages know.
pub(super) struct Caller {
    pub(super) who: Who,
    /// The session's text, where it is a browser.
    session: Option<SecretString>,
}

const COOKIE_NAME: &str = "voice_otp";
const SECURE_COOKIE_NAME: &str = "__Host-voice_otp";
/// The header that a session's changes by script come with.
const CSRF: &str = "x-csrf-token";

impl Caller {
    /// Who asks with these headers; none if nobody that we know.
    pub(super) async fn of(
        console: &Console,
        headers: &HeaderMap,
    ) -> Result<Option<Self>, access::Error> {
        // Another scheme's is somebody else's: a proxy's, say.
        let scheme = headers
            .get(AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|text| text.split_once(' '));
        if let Some((_, token)) = scheme.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        {
            let who = access::by_token(&console.pool, token.trim()).await?;
            return Ok(who.map(|who| Self { who, session: None }));
        }
        let Some(session) = session_of(console, headers) else {
            return Ok(None);
        };
        let who = access::by_session(&console.pool, session.expose_secret()).await?;
        Ok(who.map(|who| Self {
            who,
            session: Some(session),
        }))
    }

    /// What this session's forms and scripts send back.
    pub(super) fn csrf(&self) -> String {
        self.session
            .as_ref()
            .map(|session| access::csrf(session.expose_secret()))
            .unwrap_or_default()
    }

    /// Whether a form or script of ours sent this. A token needs no such proof: no browser sends one by itself.
    pub(super) fn proves(&self, sent: Option<&str>) -> bool {
        self.session.is_none()
            || sent.is_some_and(|sent| bool::from(sent.as_bytes().ct_eq(self.csrf().as_bytes())))
    }

    /// The tenant, if it is the caller's to see.
    pub(super) fn tenant(&self, text: &str) -> Result<TenantId, Problem> {
        TenantId::parse(text)
            .ok()
            .filter(|tenant| self.who.role.covers(tenant))
            .ok_or_else(Problem::not_found)
    }

    /// Passes operators only.
    pub(super) fn operator(&self) -> Result<(), Problem> {
        if self.who.role == Role::Operator {
            Ok(())
        } else {
            Err(Problem::not_found())
        }
    }

    /// Writes down what the caller changed.
    pub(super) async fn note(
        &self,
        console: &Console,
        tenant: Option<&TenantId>,
        action: &str,
        detail: Value,
    ) -> Result<(), Problem> {
        let actor = format!("{} ({})", self.who.name, self.who.token_id);
        Ok(audit::write(&console.pool, &actor, tenant, action, &detail).await?)
    }
}

impl FromRequestParts<Arc<Console>> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(
        parts: &mut Parts,
        console: &Arc<Console>,
    ) -> Result<Self, Problem> {
        let caller = Self::of(console, &parts.headers)
            .await?
            .ok_or_else(Problem::unauthorized)?;
        let reads = matches!(parts.method, Method::GET | Method::HEAD);
        let sent = parts
            .headers
            .get(CSRF)
            .and_then(|value| value.to_str().ok());
        if reads || caller.proves(sent) {
            Ok(caller)
        } else {
            Err(Problem::forged())
        }
    }
}

/// Whether a browser says that another site sent this: nobody is to be signed in by that, as somebody else.
pub(super) fn is_from_elsewhere(headers: &HeaderMap) -> bool {
    let site = headers
        .get("sec-fetch-site")
        .and_then(|value| value.to_str().ok());
    site.is_some_and(|site| !matches!(site, "same-origin" | "none"))
}

fn cookie_name(console: &Console) -> &'static str {
    if console.https {
        SECURE_COOKIE_NAME
    } else {
        COOKIE_NAME
    }
}

/// The session in the headers.
pub(super) fn session_of(console: &Console, headers: &HeaderMap) -> Option<SecretString> {
    let cookies = headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|text| text.split(';'));
    let ours = cookies
        .filter_map(|cookie| cookie.trim().split_once('='))
        .find(|(name, _)| *name == cookie_name(console));
    ours.map(|(_, value)| SecretString::from(value))
}

/// The cookie of a session; of none, one that takes it away.
pub(super) fn cookie(console: &Console, session: Option<&SecretString>) -> String {
    let secure = if console.https { "; Secure" } else { "" };
    let life = if session.is_some() {
        access::SESSION.as_secs()
    } else {
        0
    };
    let value = session
        .map(secrecy::ExposeSecret::expose_secret)
        .unwrap_or_default();
    format!(
        "{}={value}; Path=/; HttpOnly; SameSite=Strict; Max-Age={life}{secure}",
        cookie_name(console)
    )
}
