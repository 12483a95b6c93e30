//! The HTTP side: health, and Twilio's callbacks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, RawQuery, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use secrecy::ExposeSecret as _;
use uuid::Uuid;
use voice_otp::answer::Turn;
use voice_otp::delivery::AttemptId;
use voice_otp::engine::{Engine, News};
use voice_otp::ports::{Attempt, Directory as _, Ledger as _, Ports};
use voice_otp::progress::Call;
use voice_otp_publisher::Publisher;
use voice_otp_schemas::TenantId;
use voice_otp_twilio::client::{Client, PROBE_ANSWER, PROBE_PATH};
use voice_otp_twilio::{callback, signature, twiml};

use crate::metrics;

/// What the HTTP side needs.
pub(crate) struct Http<P: Ports> {
    pub(crate) engine: Arc<Engine<P>>,
    pub(crate) twilio: Client,
    pub(crate) publisher: Publisher,
    pub(crate) intake_up: Arc<AtomicBool>,
}

/// Twilio's callbacks have a few hundred bytes.
const LONGEST_CALLBACK_BYTES: usize = 16 * 1024;

/// The routes.
pub(crate) fn router<P: Ports>(http: Http<P>) -> Router {
    Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(ready::<P>))
        .route("/metrics", get(metrics::<P>))
        .route("/twilio/status/{attempt}", post(status::<P>))
        .route("/twilio/voice/{attempt}", post(voice::<P>))
        .route(PROBE_PATH, post(probe::<P>))
        .layer(DefaultBodyLimit::max(LONGEST_CALLBACK_BYTES))
        .with_state(Arc::new(http))
}

/// Ready means: the ledger answers, requests come in, statuses go out.
async fn ready<P: Ports>(State(http): State<Arc<Http<P>>>) -> Response {
    let parts = [
        ("database", http.engine.is_alive()),
        ("intake", http.intake_up.load(Ordering::Relaxed)),
        ("statuses", http.publisher.is_ready()),
    ];
    let text: String = parts
        .iter()
        .map(|(name, up)| format!("{name}: {}\n", if *up { "ok" } else { "down" }))
        .collect();
    let code = if parts.iter().all(|(_, up)| *up) {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (code, text).into_response()
}

/// What Prometheus reads.
async fn metrics<P: Ports>(State(http): State<Arc<Http<P>>>) -> Response {
    match metrics::text(&http.engine) {
        Ok(text) => ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        // Writing to a string doesn't fail.
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// A status callback: 204 once its change is committed. Never 429: Twilio doesn't know it from a failure.
async fn status<P: Ports>(
    State(http): State<Arc<Http<P>>>,
    Path(attempt): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> StatusCode {
    let told = async {
        let (found, attempt, params) = request(&http, &attempt, &headers, &body, |attempt| {
            http.twilio.callback_url(attempt)
        })
        .await?;
        let call = call(&found, &params)?;
        match http.engine.news(found, attempt, &call).await {
            News::Taken => Ok(StatusCode::NO_CONTENT),
            News::Stopping => Err(StatusCode::SERVICE_UNAVAILABLE),
        }
    };
    told.await.unwrap_or_else(|status| status)
}

/// A call asks what to say. What it is told is committed by then.
async fn voice<P: Ports>(
    State(http): State<Arc<Http<P>>>,
    Path(attempt): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let told = async {
        let turn = Turn::of_query(query.as_deref()).ok_or(StatusCode::NOT_FOUND)?;
        let (found, attempt, params) = request(&http, &attempt, &headers, &body, |attempt| {
            http.twilio.voice_url(attempt, turn)
        })
        .await?;
        let call = call(&found, &params)?;
        let asked = callback::asked(&params, turn);
        let answer = http
            .engine
            .answer(found, attempt, &call, &asked)
            .await
            .ok_or(StatusCode::SERVICE_UNAVAILABLE)?;
        // The URL of a worker that has one: the request has come to it.
        Ok(twiml::answer(&answer, |turn| {
            http.twilio.voice_action(attempt, turn).unwrap_or_default()
        }))
    };
    match told.await {
        Ok(xml) => (
            [(CONTENT_TYPE, "text/xml"), (CACHE_CONTROL, "no-store")],
            xml,
        )
            .into_response(),
        Err(status) => StatusCode::into_response(status),
    }
}

/// What a request of Twilio's about an attempt is about, and its form, if Twilio signed it; else what to answer.
async fn request<P: Ports>(
    http: &Http<P>,
    attempt: &str,
    headers: &HeaderMap,
    body: &[u8],
    url: impl FnOnce(AttemptId) -> Option<String>,
) -> Result<(Attempt, AttemptId, Vec<(String, String)>), StatusCode> {
    let attempt = Uuid::try_parse(attempt)
        .map(AttemptId)
        .map_err(|_| StatusCode::NOT_FOUND)?;
    let params = form(headers, body)?;
    let found = http
        .engine
        .ledger()
        .find_attempt(attempt)
        .await
        .map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
    let found = found.ok_or(StatusCode::NOT_FOUND)?;
    // The URL as Twilio was told it: headers that say otherwise are anybody's.
    let url = url(attempt).ok_or(StatusCode::NOT_FOUND)?;
    signed(http, &found.delivery.key.tenant_id, &url, &params, headers).await?;
    Ok((found, attempt, params))
}

fn call(found: &Attempt, params: &[(String, String)]) -> Result<Call, StatusCode> {
    callback::read(params).map_err(|error| {
        let tenant = &found.delivery.key.tenant_id;
        tracing::warn!(tenant.id = %tenant, error = &error as &dyn std::error::Error, "a callback can't be used");
        StatusCode::BAD_REQUEST
    })
}

/// A probe of the public URL: signed by the tenant's auth token, as a callback is. It changes nothing.
async fn probe<P: Ports>(
    State(http): State<Arc<Http<P>>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let probed = async {
        let params = form(&headers, &body)?;
        // Whoever can't sign learns nothing, not even which tenants there are.
        headers
            .get("x-twilio-signature")
            .ok_or(StatusCode::FORBIDDEN)?;
        let tenant = params
            .iter()
            .find(|(name, _)| name == "Tenant")
            .and_then(|(_, tenant)| TenantId::parse(tenant).ok());
        let tenant = tenant.ok_or(StatusCode::BAD_REQUEST)?;
        let url = http.twilio.probe_url().ok_or(StatusCode::NOT_FOUND)?;
        signed(&http, &tenant, &url, &params, &headers).await
    };
    match probed.await {
        Ok(()) => (StatusCode::OK, PROBE_ANSWER).into_response(),
        Err(StatusCode::NOT_FOUND) => StatusCode::FORBIDDEN.into_response(),
        Err(status) => status.into_response(),
    }
}

/// The fields of a form; else what to answer.
fn form(headers: &HeaderMap, body: &[u8]) -> Result<Vec<(String, String)>, StatusCode> {
    let is_form = headers.get("content-type").is_some_and(|value| {
        value
            .as_bytes()
            .starts_with(b"application/x-www-form-urlencoded")
    });
    if !is_form || std::str::from_utf8(body).is_err() {
        return Err(StatusCode::BAD_REQUEST);
    }
    Ok(form_urlencoded::parse(body).into_owned().collect())
}

/// Whether somebody who knows an auth token of the tenant has signed this; else what to answer.
async fn signed<P: Ports>(
    http: &Http<P>,
    tenant: &TenantId,
    url: &str,
    params: &[(String, String)],
    headers: &HeaderMap,
) -> Result<(), StatusCode> {
    let settings = match http
        .engine
        .directory()
        .settings(std::slice::from_ref(tenant))
        .await
    {
        Ok(mut settings) => match settings.remove(tenant) {
            Some(Ok(settings)) => settings,
            Some(Err(_)) => return Err(StatusCode::SERVICE_UNAVAILABLE),
            // The tenant is gone, and with it what could tell Twilio from anybody.
            None => return Err(StatusCode::NOT_FOUND),
        },
        Err(_) => return Err(StatusCode::SERVICE_UNAVAILABLE),
    };
    let given = headers
        .get("x-twilio-signature")
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let credentials = &settings.credentials;
    let tokens: Vec<&str> = std::iter::once(&credentials.auth_token)
        .chain(&credentials.secondary_auth_token)
        .map(secrecy::SecretString::expose_secret)
        .collect();
    if signature::verify(&tokens, url, params, given) {
        return Ok(());
    }
    tracing::warn!(tenant.id = %tenant, "a callback's signature is wrong: another auth token, another public URL, or not Twilio");
    Err(StatusCode::FORBIDDEN)
}
