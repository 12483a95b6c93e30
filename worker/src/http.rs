//! The HTTP side: health, and Twilio's callbacks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use secrecy::ExposeSecret as _;
use uuid::Uuid;
use voice_otp::delivery::AttemptId;
use voice_otp::engine::{Engine, News};
use voice_otp::ports::{Directory as _, Ledger as _, Ports};
use voice_otp_publisher::Publisher;
use voice_otp_schemas::TenantId;
use voice_otp_twilio::client::{Client, PROBE_ANSWER, PROBE_PATH};
use voice_otp_twilio::{callback, signature};

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
    let text: String = parts.iter().map(|(name, up)| format!("{name}: {}\n", if *up { "ok" } else { "down" })).collect();
    let code = if parts.iter().all(|(_, up)| *up) { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
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
    let Ok(attempt) = Uuid::try_parse(&attempt).map(AttemptId) else { return StatusCode::NOT_FOUND };
    let params = match form(&headers, &body) {
        Ok(params) => params,
        Err(status) => return status,
    };
    let delivery = match http.engine.ledger().find_attempt(attempt).await {
        Ok(Some(delivery)) => delivery,
        Ok(None) => return StatusCode::NOT_FOUND,
        Err(_) => return StatusCode::SERVICE_UNAVAILABLE,
    };
    let tenant = delivery.key.tenant_id.clone();
    // The URL as Twilio was told it: headers that say otherwise are anybody's.
    let Some(url) = http.twilio.callback_url(attempt) else { return StatusCode::NOT_FOUND };
    if let Err(status) = signed(&http, &tenant, &url, &params, &headers).await {
        return status;
    }
    let call = match callback::read(&params) {
        Ok(call) => call,
        Err(error) => {
            tracing::warn!(tenant.id = %tenant, error = &error as &dyn std::error::Error, "a callback can't be used");
            return StatusCode::BAD_REQUEST;
        }
    };
    match http.engine.news(delivery, attempt, &call).await {
        News::Taken => StatusCode::NO_CONTENT,
        News::Stopping => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// A probe of the public URL: signed by the tenant's auth token, as a callback is. It changes nothing.
async fn probe<P: Ports>(State(http): State<Arc<Http<P>>>, headers: HeaderMap, body: Bytes) -> Response {
    let probed = async {
        let params = form(&headers, &body)?;
        // Whoever can't sign learns nothing, not even which tenants there are.
        headers.get("x-twilio-signature").ok_or(StatusCode::FORBIDDEN)?;
        let tenant = params.iter().find(|(name, _)| name == "Tenant").and_then(|(_, tenant)| TenantId::parse(tenant).ok());
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
    let is_form =
        headers.get("content-type").is_some_and(|value| value.as_bytes().starts_with(b"application/x-www-form-urlencoded"));
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
    let settings = match http.engine.directory().settings(std::slice::from_ref(tenant)).await {
        Ok(mut settings) => match settings.remove(tenant) {
            Some(Ok(settings)) => settings,
            Some(Err(_)) => return Err(StatusCode::SERVICE_UNAVAILABLE),
            // The tenant is gone, and with it what could tell Twilio from anybody.
            None => return Err(StatusCode::NOT_FOUND),
        },
        Err(_) => return Err(StatusCode::SERVICE_UNAVAILABLE),
    };
    let given = headers.get("x-twilio-signature").and_then(|value| value.to_str().ok()).unwrap_or_default();
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
