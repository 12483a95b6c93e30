//! Voice settings for the pipeline: cached, and told of changes by Postgres.
//!
//! A notification can be lost with its connection, so every new listener empties the cache; and admission compares
//! versions, so a stale plan never counts.

use std::collections::{BTreeSet, HashMap};
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use secrecy::SecretString;
use tokio_postgres::AsyncMessage;
use tokio_util::sync::CancellationToken;
use voice_otp::ports::{self, DirectoryError};
use voice_otp::settings::VoiceSettings;
use voice_otp_schemas::TenantId;

use crate::keys::{Keyring, OpenError};
use crate::pool::{self, Pool};
use crate::settings;

/// The tenants' voice settings.
#[derive(Clone)]
pub struct Directory {
    pool: Pool,
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
    /// Counts what was forgotten: what is read meanwhile must not be kept.
    forgotten: u64,
}

/// The most tenants kept. Beyond, everything is forgotten: it comes back with the next requests.
const MOST: usize = 200_000;
/// The pause before a lost listener is made anew.
const LISTEN_PAUSE: Duration = Duration::from_millis(500);

impl Directory {
    /// A directory that remembers nothing until [`listen`](Self::listen) runs.
    pub fn new(pool: Pool, keys: Keyring) -> Self {
        Self {
            pool,
            keys,
            cache: Arc::default(),
        }
    }

    /// Listens for changes until told to stop. Without it nothing is cached.
    pub async fn listen(self, url: SecretString, stop: CancellationToken) {
        let mut failing = false;
        loop {
            // Cancel-safe: a half-made listener is dropped with its connection.
            let ended = tokio::select! {
                ended = self.listen_once(&url) => ended,
                () = stop.cancelled() => return,
            };
            self.cache.listening.store(false, Ordering::SeqCst);
            self.forget_all();
            if let Err(error) = ended
                && !std::mem::replace(&mut failing, true)
            {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "not told of changed settings, reading them each time"
                );
            } else {
                failing = false;
            }
            tokio::select! {
                () = tokio::time::sleep(LISTEN_PAUSE) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    async fn listen_once(&self, url: &SecretString) -> Result<(), ListenError> {
        let config = pool::config(url).map_err(ListenError::Config)?;
        let tls = pool::tls().map_err(ListenError::Config)?;
        let (client, mut connection) = config.connect(tls).await.map_err(ListenError::Connect)?;
        let listen = async { client.batch_execute("listen voice_otp_settings").await };
        tokio::pin!(listen);
        let mut listening = false;
        loop {
            let message = poll_fn(|context| connection.poll_message(context));
            tokio::select! {
                done = &mut listen, if !listening => {
                    done.map_err(ListenError::Connect)?;
                    listening = true;
                    // What changed before the listening began was not told.
                    self.forget_all();
                    self.cache.listening.store(true, Ordering::SeqCst);
                    tracing::debug!("listening for changed settings");
                }
                message = message => match message {
                    Some(Ok(AsyncMessage::Notification(notification))) => match TenantId::parse(notification.payload()) {
                        Ok(tenant) => ports::Directory::forget(self, &tenant),
                        Err(_) => self.forget_account(notification.payload()),
                    },
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return Err(ListenError::Connect(error)),
                    None => return Err(ListenError::Ended),
                },
            }
        }
    }

    /// Forgets the tenants of an account that is named after an `@`; all of them, if the name is another.
    fn forget_account(&self, payload: &str) {
        let Some(account) = payload.strip_prefix('@') else {
            return self.forget_all();
        };
        let mut entries = self
            .cache
            .entries
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        entries.forgotten += 1;
        entries
            .known
            .retain(|_, settings| settings.account_sid.as_str() != account);
    }

    fn forget_all(&self) {
        let mut entries = self
            .cache
            .entries
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        entries.forgotten += 1;
        entries.known.clear();
    }
}

/// Why listening ended.
#[derive(Debug, thiserror::Error)]
enum ListenError {
    #[error("read the database URL")]
    Config(#[source] pool::Error),
    #[error("listen to Postgres")]
    Connect(#[source] tokio_postgres::Error),
    #[error("Postgres closed the connection")]
    Ended,
}

impl ports::Directory for Directory {
    async fn settings(
        &self,
        tenants: &[TenantId],
    ) -> Result<HashMap<TenantId, Result<Arc<VoiceSettings>, DirectoryError>>, DirectoryError> {
        let mut answer = HashMap::with_capacity(tenants.len());
        // A set: the same tenant may be asked for many times.
        let mut missing = BTreeSet::new();
        let forgotten = {
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
            entries.forgotten
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
        let fresh = entries.forgotten == forgotten && self.cache.listening.load(Ordering::SeqCst);
        if entries.known.len() + missing.len() > MOST {
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
                // Tenants that aren't there are not remembered: anybody can make some up.
                if fresh {
                    entries.known.insert(tenant.clone(), Arc::clone(&found));
                }
                answer.insert(tenant, Ok(found));
            }
        }
        Ok(answer)
    }

    fn forget(&self, tenant: &TenantId) {
        let mut entries = self
            .cache
            .entries
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        entries.forgotten += 1;
        entries.known.remove(tenant);
    }

    async fn proven(&self, settings: &VoiceSettings) -> Result<(), DirectoryError> {
        let done = settings::prove(&self.pool, settings).await;
        ports::Directory::forget(self, &settings.tenant_id);
        done.map_err(away)
    }

    async fn refused(&self, settings: &VoiceSettings) -> Result<bool, DirectoryError> {
        let noted = settings::refuse(&self.pool, settings).await;
        ports::Directory::forget(self, &settings.tenant_id);
        noted.map_err(away)
    }

    async fn suspects(&self, most: usize) -> Result<Vec<Arc<VoiceSettings>>, DirectoryError> {
        let tenants = settings::suspects(&self.pool, most).await.map_err(away)?;
        if tenants.is_empty() {
            return Ok(Vec::new());
        }
        let loaded = settings::load(&self.pool, &self.keys, &tenants)
            .await
            .map_err(away)?;
        // Who has other keys opens what can't be opened here, when it is that one's turn.
        Ok(loaded
            .into_values()
            .filter_map(Result::ok)
            .map(Arc::new)
            .collect())
    }

    async fn taken(&self, settings: &VoiceSettings) -> Result<(), DirectoryError> {
        let done = settings::take(&self.pool, settings).await;
        ports::Directory::forget(self, &settings.tenant_id);
        done.map_err(away)
    }
}

fn away(error: settings::Error) -> DirectoryError {
    DirectoryError::Unavailable(Box::new(error))
}

fn unreadable(error: settings::Error) -> DirectoryError {
    match error {
        settings::Error::Open(_, OpenError::UnknownKey(key)) => DirectoryError::UnknownKey(key),
        other => DirectoryError::Unavailable(Box::new(other)),
    }
}
