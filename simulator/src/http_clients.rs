//! The HTTP clients that webhooks are requested with.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use reqwest::{Client, redirect, retry};

/// One HTTP client per connect timeout, since reqwest sets that for a client and not for a request.
#[derive(Debug, Default)]
pub(crate) struct HttpClients(Mutex<HashMap<Duration, Client>>);

impl HttpClients {
    /// The client with this connect timeout, made on first use.
    pub(crate) fn with_connect_timeout(&self, timeout: Duration) -> Result<Client, reqwest::Error> {
        let mut clients = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(&timeout) {
            return Ok(client.clone());
        }
        install_tls_provider();
        let client = Client::builder()
            .connect_timeout(timeout)
            // The webhook's connection overrides decide about retries, Twilio's redirects aren't
            // simulated, and a proxy would keep the client from loopback addresses.
            .retry(retry::never())
            .redirect(redirect::Policy::none())
            .no_proxy()
            .build()?;
        clients.insert(timeout, client.clone());
        Ok(client)
    }
}

/// Installs a rustls crypto provider for the process if it has none. This workspace builds reqwest
/// without one, and reqwest panics where it finds none.
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
