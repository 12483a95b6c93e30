//! Requests from Twilio: status callbacks, and calls that request their instructions. Each must be
//! signed with an auth token of the tenant.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, RawQuery, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use secrecy::ExposeSecret as _;
use uuid::Uuid;
use voice_otp::call::Call;
use voice_otp::call::answer::CallStep;
use voice_otp::delivery::AttemptId;
use voice_otp::engine::UpdateOutcome;
use voice_otp::ports::{Attempt, Directory as _, Ports};
use voice_otp_schemas::TenantId;
use voice_otp_twilio::client::PROBE_ANSWER;
use voice_otp_twilio::{callback, signature, twiml};

use super::Http;

const SIGNATURE: &str = "x-twilio-signature";

/// A request about an attempt, with a valid signature.
struct SignedRequest {
    attempt_id: AttemptId,
    attempt: Attempt,
    /// The fields of the form.
    params: Vec<(String, String)>,
}

/// A status callback. Answers 204 once its change is committed; never 429, because Twilio handles
/// it like any other failure.
pub(super) async fn status<P: Ports>(
    State(http): State<Arc<Http<P>>>,
    Path(attempt): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> StatusCode {
    let applied = async {
        let url = |attempt| http.twilio.callback_url(attempt);
        let request = read_signed(&http, &attempt, &headers, &body, url).await?;
        let call = read_call(&request)?;
        let outcome = http
            .engine
            .apply_call_update(request.attempt, request.attempt_id, &call)
            .await;
        match outcome {
            UpdateOutcome::Applied => Ok(StatusCode::NO_CONTENT),
            UpdateOutcome::Stopping => Err(StatusCode::SERVICE_UNAVAILABLE),
        }
    };
    applied.await.unwrap_or_else(|status| status)
}

/// A call that requests its instructions. They are committed before they are sent.
pub(super) async fn voice<P: Ports>(
    State(http): State<Arc<Http<P>>>,
    Path(attempt): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let answered = async {
        let step = CallStep::parse_query(query.as_deref()).ok_or(StatusCode::NOT_FOUND)?;
        let url = |attempt| http.twilio.voice_url(attempt, step);
        let request = read_signed(&http, &attempt, &headers, &body, url).await?;
        let call = read_call(&request)?;
        let asked = callback::read_instruction_request(&request.params, step);
        let attempt_id = request.attempt_id;
        let answer = http
            .engine
            .answer(request.attempt, attempt_id, &call, &asked)
            .await
            .ok_or(StatusCode::SERVICE_UNAVAILABLE)?;
        // The signature was made over the public URL, so there is one. An empty action would have
        // Twilio request the present URL again.
        Ok(twiml::render_instructions(&answer, |step| {
            http.twilio
                .voice_action(attempt_id, step)
                .unwrap_or_default()
        }))
    };
    match answered.await {
        Ok(xml) => {
            let headers = [(CONTENT_TYPE, "text/xml"), (CACHE_CONTROL, "no-store")];
            (headers, xml).into_response()
        }
        Err(status) => StatusCode::into_response(status),
    }
}

/// A probe of the public URL by `voice-otp tenant check`, signed as a callback is. It changes
/// nothing.
pub(super) async fn probe<P: Ports>(
    State(http): State<Arc<Http<P>>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let probed = async {
        let params = read_form(&headers, &body)?;
        // An unsigned request learns nothing, not even which tenants exist.
        headers.get(SIGNATURE).ok_or(StatusCode::FORBIDDEN)?;
        http.callbacks.admit_probe()?;
        let tenant = params.iter().find(|(name, _)| name == "Tenant");
        let tenant = tenant.and_then(|(_, tenant)| TenantId::parse(tenant).ok());
        let tenant = tenant.ok_or(StatusCode::BAD_REQUEST)?;
        let url = http.twilio.probe_url().ok_or(StatusCode::NOT_FOUND)?;
        verify_signature(&http, &tenant, &url, &params, &headers).await
    };
    match probed.await {
        Ok(()) => (StatusCode::OK, PROBE_ANSWER).into_response(),
        Err(StatusCode::NOT_FOUND) => StatusCode::FORBIDDEN.into_response(),
        Err(status) => status.into_response(),
    }
}

/// The attempt in a path and the form of its request, if the signature is valid; else the status to
/// answer with. `url` is the URL that Twilio was given for the attempt.
async fn read_signed<P: Ports>(
    http: &Http<P>,
    attempt: &str,
    headers: &HeaderMap,
    body: &[u8],
    url: impl FnOnce(AttemptId) -> Option<String>,
) -> Result<SignedRequest, StatusCode> {
    let attempt_id = Uuid::try_parse(attempt)
        .map(AttemptId)
        .map_err(|_| StatusCode::NOT_FOUND)?;
    let params = read_form(headers, body)?;
    // Before the database is asked. The signature is checked with the tenant's token, below.
    headers.get(SIGNATURE).ok_or(StatusCode::FORBIDDEN)?;
    http.callbacks.admit_attempt(attempt_id)?;
    let attempt = http
        .engine
        .attempt(attempt_id)
        .await
        .map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?
        .ok_or(StatusCode::NOT_FOUND)?;
    // Not the URL of the request: its host and scheme come from headers that any client can set.
    let url = url(attempt_id).ok_or(StatusCode::NOT_FOUND)?;
    let tenant = &attempt.delivery.key.tenant_id;
    verify_signature(http, tenant, &url, &params, headers).await?;
    Ok(SignedRequest {
        attempt_id,
        attempt,
        params,
    })
}

fn read_call(request: &SignedRequest) -> Result<Call, StatusCode> {
    callback::read(&request.params).map_err(|error| {
        tracing::warn!(
            tenant.id = %request.attempt.delivery.key.tenant_id,
            error = &error as &dyn std::error::Error,
            "callback rejected: malformed form"
        );
        StatusCode::BAD_REQUEST
    })
}

/// The fields of a form, or the status to answer with.
fn read_form(headers: &HeaderMap, body: &[u8]) -> Result<Vec<(String, String)>, StatusCode> {
    let is_form = headers.get(CONTENT_TYPE).is_some_and(|value| {
        value
            .as_bytes()
            .starts_with(b"application/x-www-form-urlencoded")
    });
    if !is_form || std::str::from_utf8(body).is_err() {
        return Err(StatusCode::BAD_REQUEST);
    }
    Ok(form_urlencoded::parse(body).into_owned().collect())
}

/// Accepts a request that is signed with an auth token of the tenant; else returns the status to
/// answer with.
async fn verify_signature<P: Ports>(
    http: &Http<P>,
    tenant: &TenantId,
    url: &str,
    params: &[(String, String)],
    headers: &HeaderMap,
) -> Result<(), StatusCode> {
    let settings = match http.directory.settings(std::slice::from_ref(tenant)).await {
        Ok(mut settings) => match settings.remove(tenant) {
            Some(Ok(settings)) => settings,
            Some(Err(_)) => return Err(StatusCode::SERVICE_UNAVAILABLE),
            // The tenant was deleted, and its auth token with it.
            None => return Err(StatusCode::NOT_FOUND),
        },
        Err(_) => return Err(StatusCode::SERVICE_UNAVAILABLE),
    };
    // A missing or unreadable header is an invalid signature.
    let given = headers
        .get(SIGNATURE)
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
    tracing::warn!(
        tenant.id = %tenant,
        "callback rejected: invalid signature; the auth token or the public URL differs from \
         Twilio's, or the request isn't from Twilio"
    );
    Err(StatusCode::FORBIDDEN)
}
