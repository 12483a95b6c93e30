//! Posts a callback: signed, as patiently as its URL says, and tried again after what its URL says.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, USER_AGENT};
use reqwest::{Client, redirect, retry};
use tokio::time::Instant;

use super::dice::Concern;
use super::overrides::{Failure, Overrides};
use super::world::World;
use crate::signature;

/// A callback to be posted.
#[derive(Debug, Clone)]
pub(crate) struct Notice {
    /// Where to, with its fragment.
    pub(crate) url: String,
    pub(crate) overrides: Overrides,
    /// The account that signs.
    pub(crate) account: String,
    /// The number of the call in this run.
    pub(crate) call: u64,
    /// Which of the call's callbacks it is.
    pub(crate) which: u32,
    pub(crate) fields: Vec<(String, String)>,
}

/// HTTP clients, one for each time they wait for a connection.
#[derive(Debug, Default)]
pub(crate) struct Clients(Mutex<HashMap<Duration, Client>>);

impl Clients {
    fn get(&self, connect: Duration) -> Result<Client, reqwest::Error> {
        let mut clients = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(&connect) {
            return Ok(client.clone());
        }
        install_tls_provider();
        let client = Client::builder()
            .connect_timeout(connect)
            // Retries and redirects are Twilio's to decide, and a proxy would keep us from loopback addresses.
            .retry(retry::never())
            .redirect(redirect::Policy::none())
            .no_proxy()
            .build()?;
        clients.insert(connect, client.clone());
        Ok(client)
    }
}

/// Gives the process a TLS provider: reqwest comes without one here, and panics where it finds none.
pub(crate) fn install_tls_provider() {
    let missing = rustls::crypto::CryptoProvider::get_default().is_none();
    if missing
        && rustls::crypto::ring::default_provider()
            .install_default()
            .is_err()
    {
        tracing::debug!("another part of the process installed its TLS provider first");
    }
}

/// Posts until it is delivered or Twilio would give up.
pub(crate) async fn post(world: Arc<World>, notice: Notice) {
    let halt = world.halt.clone();
    let Some(delivered) = halt.run_until_cancelled(deliver(&world, &notice)).await else {
        return;
    };
    let count = if delivered {
        &world.tally.callbacks_sent
    } else {
        &world.tally.callbacks_failed
    };
    count.fetch_add(1, Ordering::Relaxed);
}

async fn deliver(world: &World, notice: &Notice) -> bool {
    fetch(world, notice).await.is_some()
}

/// Posts until there is an answer that is good, or Twilio would give up. Gives the answer's body.
pub(crate) async fn fetch(world: &World, notice: &Notice) -> Option<String> {
    let account = world.directory().get(&notice.account)?;
    let client = match world.clients.get(notice.overrides.connect) {
        Ok(client) => client,
        Err(error) => {
            tracing::warn!(error = %error, "build callback client");
            return None;
        }
    };
    // Retries of one event share a token.
    let token = world
        .dice
        .id(Concern::Token, notice.call, notice.which.into());
    let signature = signature::sign(
        &account.auth_token,
        &signature::as_signed(&notice.url),
        &notice.fields,
    );
    let body = form_urlencoded::Serializer::new(String::new())
        .extend_pairs(&notice.fields)
        .finish();
    let deadline = Instant::now() + notice.overrides.total;
    for _ in 0..=notice.overrides.retries {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return None;
        }
        let request = client
            .post(&notice.url)
            .header(
                CONTENT_TYPE,
                "application/x-www-form-urlencoded; charset=UTF-8",
            )
            .header(USER_AGENT, "TwilioProxy/1.1")
            .header("I-Twilio-Idempotency-Token", &token)
            .header("X-Twilio-Signature", &signature)
            .timeout(notice.overrides.read.min(left))
            .body(body.clone());
        match sent(request).await {
            Ok(body) => return Some(body),
            Err(failure) if !notice.overrides.retries_after(failure) => return None,
            Err(_) => {}
        }
    }
    None
}

/// One attempt.
async fn sent(request: reqwest::RequestBuilder) -> Result<String, Failure> {
    let failed = |error: reqwest::Error| {
        let failure = if error.is_connect() {
            Failure::Connect
        } else {
            Failure::Read
        };
        tracing::debug!(error = %error.without_url(), "callback failed");
        failure
    };
    let answer = request.send().await.map_err(failed)?;
    let status = answer.status();
    // Reading the body to its end keeps the connection for the next callback.
    let body = answer.text().await.map_err(failed)?;
    if status.is_success() {
        Ok(body)
    } else if status.is_client_error() {
        Err(Failure::ClientError)
    } else {
        Err(Failure::ServerError)
    }
}
