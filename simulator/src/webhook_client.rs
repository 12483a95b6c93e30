//! Posts to webhooks: signed, and with the timeouts and retries that the URL's connection overrides
//! ask for.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use reqwest::header::{CONTENT_TYPE, USER_AGENT};
use tokio::time::Instant;
use voice_otp_twilio::signature;

use crate::connection_overrides::WebhookFailure;
use crate::rng::RngPurpose;
use crate::state::SimulatorState;
use crate::webhook::Webhook;

/// A POST to a webhook.
#[derive(Debug, Clone)]
pub(crate) struct WebhookRequest {
    pub(crate) webhook: Webhook,
    /// The SID of the account whose auth token signs the request.
    pub(crate) account_sid: String,
    /// The number of the call in this run.
    pub(crate) call_number: u64,
    /// Which of the call's requests it is. Random decisions and the idempotency token are derived
    /// from it.
    pub(crate) request_number: u32,
    /// The names and values of the form.
    pub(crate) fields: Vec<(String, String)>,
}

/// Posts a callback until it is answered with 2xx or Twilio would give up, and counts the outcome.
pub(crate) async fn post(state: Arc<SimulatorState>, request: WebhookRequest) {
    let halt = state.halt.clone();
    let Some(body) = halt.run_until_cancelled(fetch(&state, &request)).await else {
        return;
    };
    let counter = if body.is_some() {
        &state.counters.callbacks_sent
    } else {
        &state.counters.callbacks_failed
    };
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Posts until the answer is 2xx, and returns its body. Returns `None` when Twilio would give up.
pub(crate) async fn fetch(state: &SimulatorState, request: &WebhookRequest) -> Option<String> {
    let account = state.accounts().get(&request.account_sid)?;
    let Webhook { url, overrides } = &request.webhook;
    let client = match state.clients.with_connect_timeout(overrides.connect) {
        Ok(client) => client,
        Err(error) => {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "failed to build an HTTP client for webhooks"
            );
            return None;
        }
    };
    // The retries of one request share a token.
    let token = state.rng.id(
        RngPurpose::IdempotencyToken,
        request.call_number,
        request.request_number.into(),
    );
    let signature = signature::sign(
        &account.auth_token,
        &signature::as_signed(url),
        &request.fields,
    );
    let body = form_urlencoded::Serializer::new(String::new())
        .extend_pairs(&request.fields)
        .finish();
    let deadline = Instant::now() + overrides.total;
    for _ in 0..=overrides.retries {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return None;
        }
        let attempt = client
            .post(url)
            .header(
                CONTENT_TYPE,
                "application/x-www-form-urlencoded; charset=UTF-8",
            )
            .header(USER_AGENT, "TwilioProxy/1.1")
            .header("I-Twilio-Idempotency-Token", &token)
            .header("X-Twilio-Signature", &signature)
            .timeout(overrides.read.min(left))
            .body(body.clone());
        match send(attempt).await {
            Ok(body) => return Some(body),
            Err(failure) if !overrides.retries_after(failure) => return None,
            Err(_) => {}
        }
    }
    None
}

/// Makes one attempt, and returns the body of a 2xx answer.
async fn send(request: reqwest::RequestBuilder) -> Result<String, WebhookFailure> {
    let failed = |error: reqwest::Error| {
        let failure = if error.is_connect() {
            WebhookFailure::Connect
        } else {
            WebhookFailure::Read
        };
        tracing::debug!(error = %error.without_url(), "webhook request failed");
        failure
    };
    let answer = request.send().await.map_err(failed)?;
    let status = answer.status();
    // Reading the body to its end keeps the connection for the next request.
    let body = answer.text().await.map_err(failed)?;
    if status.is_success() {
        Ok(body)
    } else if status.is_client_error() {
        Err(WebhookFailure::ClientError)
    } else {
        Err(WebhookFailure::ServerError)
    }
}
