//! Authentication by token or session, and what the caller may access.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::header::{AUTHORIZATION, COOKIE};
use axum::http::request::Parts;
use axum::http::{Extensions, HeaderMap, Method};
use secrecy::{ExposeSecret as _, SecretString};
use subtle::ConstantTimeEq as _;
use uuid::Uuid;
use voice_otp_schemas::TenantId;
use voice_otp_store::access::{self, Role, Who};

use crate::problem::Problem;
use crate::state::Console;

/// An authenticated caller: the owner of a token, or of a session that was opened with one.
pub(crate) struct Principal {
    identity: Who,
    /// The session's text, if a browser sent its cookie. Changes then need a CSRF token.
    session: Option<SecretString>,
}

/// What a request is sent with: a token or a session, and the client's address.
pub(crate) struct Credential {
    kind: Kind,
    secret: SecretString,
    client: IpAddr,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Token,
    Session,
}

const COOKIE_NAME: &str = "voice_otp";
/// Browsers accept this name only over https, for the whole host.
const SECURE_COOKIE_NAME: &str = "__Host-voice_otp";
/// The header in which a session's scripts send the CSRF token.
const CSRF_HEADER: &str = "x-csrf-token";

impl Principal {
    /// The owner of the token or session of a request; `None` if there is no valid one.
    pub(crate) async fn authenticate(
        console: &Console,
        parts: &Parts,
    ) -> Result<Option<Self>, Problem> {
        match Credential::of(console, parts) {
            Some(credential) => Self::of(console, &credential).await,
            None => Ok(None),
        }
    }

    /// The owner of a credential; `None` if it isn't valid.
    pub(crate) async fn of(
        console: &Console,
        credential: &Credential,
    ) -> Result<Option<Self>, Problem> {
        let text = credential.secret.expose_secret();
        console
            .credential_limits
            .admit_credential(credential.client, text)?;
        let identity = match credential.kind {
            Kind::Token => access::by_token(&console.pool, text).await?,
            Kind::Session => access::by_session(&console.pool, text).await?,
        };
        let Some(identity) = identity else {
            return Ok(None);
        };
        console.credential_limits.remember_valid(text);
        let session = match credential.kind {
            Kind::Token => None,
            Kind::Session => Some(credential.secret.clone()),
        };
        Ok(Some(Self { identity, session }))
    }

    /// The id of the token.
    pub(crate) fn token_id(&self) -> Uuid {
        self.identity.token_id
    }

    /// The name of the token.
    pub(crate) fn name(&self) -> &str {
        &self.identity.name
    }

    pub(crate) fn role(&self) -> &Role {
        &self.identity.role
    }

    /// The caller in the audit log: the token's name and id.
    pub(crate) fn actor(&self) -> String {
        format!("{} ({})", self.identity.name, self.identity.token_id)
    }

    pub(crate) fn is_operator(&self) -> bool {
        self.identity.role == Role::Operator
    }

    /// The CSRF token of the session; empty without one.
    pub(crate) fn csrf_token(&self) -> String {
        self.session
            .as_ref()
            .map(|session| access::csrf(session.expose_secret()))
            .unwrap_or_default()
    }

    /// Whether a page of this session sent the change. A bearer token needs no CSRF token, since
    /// browsers don't send one by themselves.
    pub(crate) fn accepts_csrf_token(&self, sent: Option<&str>) -> bool {
        let expected = self.csrf_token();
        self.session.is_none()
            || sent.is_some_and(|sent| bool::from(sent.as_bytes().ct_eq(expected.as_bytes())))
    }

    /// The tenant with this id, if the caller has access to it; otherwise "not found".
    pub(crate) fn authorize_tenant(&self, id: &str) -> Result<TenantId, Problem> {
        TenantId::parse(id)
            .ok()
            .filter(|tenant| self.identity.role.covers(tenant))
            .ok_or_else(Problem::not_found)
    }

    /// Passes operators; for all others there is nothing here.
    pub(crate) fn authorize_operator(&self) -> Result<(), Problem> {
        if self.is_operator() {
            Ok(())
        } else {
            Err(Problem::not_found())
        }
    }

    #[cfg(test)]
    pub(crate) fn for_test(role: Role) -> Self {
        Self {
            identity: Who {
                token_id: uuid::Uuid::nil(),
                name: "Ada".to_owned(),
                role,
            },
            session: None,
        }
    }
}

impl Credential {
    /// The token or session in the headers, if there is one.
    fn of(console: &Console, parts: &Parts) -> Option<Self> {
        // Another scheme belongs to another party, for example to a proxy.
        let scheme = parts
            .headers
            .get(AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|text| text.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        let (kind, secret) = match scheme {
            Some((_, token)) => (Kind::Token, SecretString::from(token.trim())),
            None => (Kind::Session, session_of(console, &parts.headers)?),
        };
        Some(Self {
            kind,
            secret,
            client: client_address(console, &parts.extensions, &parts.headers),
        })
    }
}

impl FromRequestParts<Arc<Console>> for Credential {
    type Rejection = Problem;

    async fn from_request_parts(
        parts: &mut Parts,
        console: &Arc<Console>,
    ) -> Result<Self, Problem> {
        Self::of(console, parts).ok_or_else(Problem::unauthorized)
    }
}

/// The address of the client that sent a request.
pub(crate) fn client_address(
    console: &Console,
    extensions: &Extensions,
    headers: &HeaderMap,
) -> IpAddr {
    let peer = extensions
        .get::<ConnectInfo<SocketAddr>>()
        .map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.0.ip());
    console.trusted_proxies.client_of(peer, headers)
}

impl FromRequestParts<Arc<Console>> for Principal {
    type Rejection = Problem;

    async fn from_request_parts(
        parts: &mut Parts,
        console: &Arc<Console>,
    ) -> Result<Self, Problem> {
        let principal = Self::authenticate(console, parts)
            .await?
            .ok_or_else(Problem::unauthorized)?;
        let is_read = matches!(parts.method, Method::GET | Method::HEAD);
        let sent = parts
            .headers
            .get(CSRF_HEADER)
            .and_then(|value| value.to_str().ok());
        if is_read || principal.accepts_csrf_token(sent) {
            Ok(principal)
        } else {
            Err(Problem::invalid_csrf_token())
        }
    }
}

/// Whether the browser says that another site sent the request. Such a form could sign a user in
/// to an attacker's account.
pub(crate) fn is_cross_site(headers: &HeaderMap) -> bool {
    let site = headers
        .get("sec-fetch-site")
        .and_then(|value| value.to_str().ok());
    site.is_some_and(|site| !matches!(site, "same-origin" | "none"))
}

/// The session in the cookies.
pub(crate) fn session_of(console: &Console, headers: &HeaderMap) -> Option<SecretString> {
    let cookies = headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|text| text.split(';'));
    let found = cookies
        .filter_map(|cookie| cookie.trim().split_once('='))
        .find(|(name, _)| *name == cookie_name(console));
    found.map(|(_, value)| SecretString::from(value))
}

/// The `Set-Cookie` value that stores a session.
pub(crate) fn session_cookie(console: &Console, session: &SecretString) -> String {
    set_cookie(console, session.expose_secret(), access::SESSION.as_secs())
}

/// The `Set-Cookie` value that deletes the session's cookie.
pub(crate) fn expired_cookie(console: &Console) -> String {
    set_cookie(console, "", 0)
}

fn set_cookie(console: &Console, value: &str, max_age_s: u64) -> String {
    let secure = if console.https { "; Secure" } else { "" };
    let name = cookie_name(console);
    format!("{name}={value}; Path=/; HttpOnly; SameSite=Strict; Max-Age={max_age_s}{secure}")
}

fn cookie_name(console: &Console) -> &'static str {
    if console.https {
        SECURE_COOKIE_NAME
    } else {
        COOKIE_NAME
    }
}
