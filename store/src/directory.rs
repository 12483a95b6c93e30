//! Voice settings for the pipeline: cached, with Postgres notifying of changes.
//!
//! A notification can be lost with its connection, so every new listener clears the cache. A
//! connection can also fall silent: the listener notifies itself every five seconds, and when it
//! hears nothing for fifteen, it is replaced. Admission compares versions, so a plan made from
//! stale settings never counts.

use std::collections::{BTreeSet, HashMap};
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use secrecy::SecretString;
use tokio::time::Instant;
use tokio_postgres::{AsyncMessage, Client};
use tokio_util::sync::CancellationToken;
use voice_otp::ports::{self, DirectoryError};
use voice_otp::settings::VoiceSettings;
use voice_otp_schemas::TenantId;

use crate::connect::{ConnectError, Connection};
use crate::health::{self, Health, Operation};
use crate::keys::{Keyring, OpenError};
use crate::pool::Pool;
use crate::url::{self, DatabaseUrl};
use crate::{Error, settings};

/// The directory on Postgres: the tenants' voice settings, behind a cache.
#[derive(Clone)]
pub struct Directory {
    pool: Pool,
    health: Health,
    keys: Keyring,
    cache: Arc<Cache>,
}

#[derive(Default)]
struct Cache {
    entries: Mutex<Entries>,
    listening: AtomicBool,
}

#[derive(Default)]
struct Entries {
    known: HashMap<TenantId, Arc<VoiceSettings>>,
    /// Counts invalidations. Settings that were read across one may be stale and are not cached.
    invalidations: u64,
}

/// The limit of cached tenants. Beyond it the cache is cleared, and fills with the next requests.
const MAX_TENANTS: usize = 200_000;
/// How long to wait before a lost listener is replaced.
const LISTEN_RETRY: Duration = Duration::from_millis(500);
/// The channel of changed settings.
const CHANNEL: &str = "voice_otp_settings";
/// The listener also listens to itself, so that it hears something regularly.
const LISTEN: &str = "listen voice_otp_settings; listen voice_otp_listener";
const NOTIFY_SELF: &str = "notify voice_otp_listener";
/// The pause between two notifications to itself.
const BEAT: Duration = Duration::from_secs(5);
/// A connection on which nothing was heard for this long is given up.
const SILENCE: Duration = Duration::from_secs(15);

impl Directory {
    /// Makes a directory that caches nothing until [`listen`](Self::listen) runs. `health` says
    /// whether it listens.
    pub fn new(pool: Pool, keys: Keyring, health: Health) -> Self {
        Self {
            pool,
            health,
            keys,
            cache: Arc::default(),
        }
    }

    /// Listens for changes until `stop` is cancelled. Nothing is cached while no listener is
    /// connected.
    pub async fn listen(self, url: SecretString, stop: CancellationToken) {
        loop {
            let began = Instant::now();
            // Cancel-safe: a listener that is being set up is dropped with its connection.
            let error = tokio::select! {
                error = self.listen_once(&url) => error,
                () = stop.cancelled() => return,
            };
            let listened = self.cache.listening.swap(false, Ordering::SeqCst);
            self.invalidate_all();
            if listened {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "settings listener disconnected; settings are read from the database"
                );
            }
            let since = if listened { Instant::now() } else { began };
            self.health
                .failed(Operation::Listen, since, health::reason(&error));
            tokio::select! {
                () = tokio::time::sleep(LISTEN_RETRY) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    async fn listen_once(&self, url: &SecretString) -> ListenError {
        let connecting = async {
            let url = DatabaseUrl::parse(url).map_err(ListenError::Url)?;
            url.connect().await.map_err(ListenError::Connect)
        };
        match tokio::time::timeout(SILENCE, connecting).await {
            Ok(Ok((client, connection))) => self.hear(&client, connection).await,
            Ok(Err(error)) => error,
            Err(_) => ListenError::Silent,
        }
    }

    /// Hears notifications until the connection is lost or silent.
    async fn hear(&self, client: &Client, mut connection: Connection) -> ListenError {
        let mut request = std::pin::pin!(Some(client.batch_execute(LISTEN)));
        let mut next_beat = tokio::time::interval(BEAT);
        let mut heard = Instant::now();
        loop {
            let message = poll_fn(|context| connection.poll_message(context));
            tokio::select! {
                done = async {
                    match request.as_mut().as_pin_mut() {
                        Some(request) => request.await,
                        None => std::future::pending().await,
                    }
                } => {
                    if let Err(error) = done {
                        return ListenError::Listen(error);
                    }
                    request.set(None);
                    if !self.cache.listening.swap(true, Ordering::SeqCst) {
                        // Changes before this moment were not notified.
                        self.invalidate_all();
                        self.health.succeeded(Operation::Listen);
                        tracing::debug!("settings listener connected");
                    }
                }
                message = message => match message {
                    Some(Ok(AsyncMessage::Notification(notification))) => {
                        heard = Instant::now();
                        if notification.channel() == CHANNEL {
                            self.invalidate_notified(notification.payload());
                        }
                    }
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return ListenError::Listen(error),
                    None => return ListenError::Ended,
                },
                _ = next_beat.tick() => {
                    if request.is_none() {
                        request.set(Some(client.batch_execute(NOTIFY_SELF)));
                    }
                }
                () = tokio::time::sleep_until(heard + SILENCE) => return ListenError::Silent,
            }
        }
    }

    /// Removes from the cache what a notification names: a tenant, or an account after an `@`. A
    /// payload that is neither clears the cache.
    fn invalidate_notified(&self, payload: &str) {
        if let Some(account) = payload.strip_prefix('@') {
            self.invalidate_where(|settings| settings.account_sid.as_str() == account);
        } else if let Ok(tenant) = TenantId::parse(payload) {
            ports::Directory::invalidate(self, &tenant);
        } else {
            self.invalidate_all();
        }
    }

    fn invalidate_where(&self, changed: impl Fn(&VoiceSettings) -> bool) {
        let mut entries = self
            .cache
            .entries
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        entries.invalidations += 1;
        entries.known.retain(|_, settings| !changed(settings));
    }

    fn invalidate_all(&self) {
        self.invalidate_where(|_| true);
    }
}

/// Why listening ended.
#[derive(Debug, thiserror::Error)]
enum ListenError {
    #[error("read the database URL")]
    Url(#[source] url::Error),
    #[error("connect to Postgres")]
    Connect(#[source] ConnectError),
    #[error("listen to Postgres")]
    Listen(#[source] tokio_postgres::Error),
    #[error("Postgres closed the connection")]
    Ended,
    #[error("the connection is silent")]
    Silent,
}

impl ports::Directory for Directory {
    async fn settings(
        &self,
        tenants: &[TenantId],
    ) -> Result<HashMap<TenantId, Result<Arc<VoiceSettings>, DirectoryError>>, DirectoryError> {
        let mut answer = HashMap::with_capacity(tenants.len());
        // A set: a batch may name the same tenant many times.
        let mut missing = BTreeSet::new();
        let invalidations_before = {
            let entries = self
                .cache
                .entries
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            for tenant in tenants {
                match entries.known.get(tenant) {
                    Some(settings) => drop(answer.insert(tenant.clone(), Ok(Arc::clone(settings)))),
                    None => {
                        missing.insert(tenant.clone());
                    }
                }
            }
            entries.invalidations
        };
        if missing.is_empty() {
            return Ok(answer);
        }
        let missing: Vec<TenantId> = missing.into_iter().collect();
        let loaded = settings::load(&self.pool, &self.keys, &missing).await;
        let mut loaded = loaded.map_err(|error| DirectoryError::Unavailable(Box::new(error)))?;
        let mut entries = self
            .cache
            .entries
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let fresh = entries.invalidations == invalidations_before
            && self.cache.listening.load(Ordering::SeqCst);
        if entries.known.len() + missing.len() > MAX_TENANTS {
            entries.known.clear();
        }
        for tenant in missing {
            let found = match loaded.remove(&tenant) {
                Some(Ok(found)) => Some(Arc::new(found)),
                None => None,
                Some(Err(error)) => {
                    answer.insert(tenant, Err(unreadable(error)));
                    continue;
                }
            };
            if let Some(found) = found {
                // Unknown tenants are not cached: any publisher can make up any number of them.
                if fresh {
                    entries.known.insert(tenant.clone(), Arc::clone(&found));
                }
                answer.insert(tenant, Ok(found));
            }
        }
        Ok(answer)
    }

    fn invalidate(&self, tenant: &TenantId) {
        let mut entries = self
            .cache
            .entries
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        entries.invalidations += 1;
        entries.known.remove(tenant);
    }

    async fn mark_credentials_verified(
        &self,
        settings: &VoiceSettings,
    ) -> Result<(), DirectoryError> {
        let done = settings::mark_credentials_verified(&self.pool, settings).await;
        ports::Directory::invalidate(self, &settings.tenant_id);
        done.map_err(unavailable)
    }

    async fn mark_credentials_rejected(
        &self,
        settings: &VoiceSettings,
    ) -> Result<bool, DirectoryError> {
        let noted = settings::mark_credentials_rejected(&self.pool, settings).await;
        ports::Directory::invalidate(self, &settings.tenant_id);
        noted.map_err(unavailable)
    }

    async fn claim_rejected_credentials(
        &self,
        limit: usize,
    ) -> Result<Vec<Arc<VoiceSettings>>, DirectoryError> {
        let tenants = settings::claim_rejected_credentials(&self.pool, limit)
            .await
            .map_err(unavailable)?;
        if tenants.is_empty() {
            return Ok(Vec::new());
        }
        let loaded = settings::load(&self.pool, &self.keys, &tenants)
            .await
            .map_err(unavailable)?;
        // Settings sealed with keys that aren't here are left to a worker that has them.
        Ok(loaded
            .into_values()
            .filter_map(Result::ok)
            .map(Arc::new)
            .collect())
    }

    async fn mark_credentials_accepted(
        &self,
        settings: &VoiceSettings,
    ) -> Result<(), DirectoryError> {
        let done = settings::mark_credentials_accepted(&self.pool, settings).await;
        ports::Directory::invalidate(self, &settings.tenant_id);
        done.map_err(unavailable)
    }
}

fn unavailable(error: Error) -> DirectoryError {
    DirectoryError::Unavailable(Box::new(error))
}

fn unreadable(error: Error) -> DirectoryError {
    match error {
        Error::Open(_, OpenError::UnknownKey(key)) => DirectoryError::UnknownKey(key),
        other => DirectoryError::Unavailable(Box::new(other)),
    }
}
