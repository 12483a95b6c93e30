//! Connections to Postgres.

use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{
    Hook, HookError, Manager, ManagerConfig, RecyclingMethod, Runtime, Timeouts,
};
use rustls::{ClientConfig, RootCertStore};
use secrecy::{ExposeSecret as _, SecretString};
use tokio_postgres_rustls::MakeRustlsConnect;

/// Pooled connections.
pub type Pool = deadpool_postgres::Pool;

/// Why a pool can't be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The URL can't be parsed. Its text may hold a password and isn't shown.
    #[error("the database URL is not a Postgres URL (postgres://user:password@host:port/database)")]
    Url,
    /// TLS can't be set up.
    #[error("set up TLS for Postgres")]
    Tls(#[source] rustls::Error),
    /// The pool can't be built.
    #[error("build the connection pool")]
    Build(#[source] deadpool_postgres::BuildError),
}

/// The settings of every session. The statements are short: one that takes long waits for a lock or
/// for a failing disk. Compiling one would take longer than running it, so `jit` is off.
const SESSION: &str = "set lock_timeout = '2s'; set statement_timeout = '10s'; \
                       set idle_in_transaction_session_timeout = '10s'; \
                       set time zone 'UTC'; set client_min_messages = warning; set jit = off";

/// Further settings of a worker's sessions. A worker's statements are few, find rows by key, and
/// run for batches of every size. Each is planned once, for any parameters, because planning costs
/// as much as running; and never with a sequential scan, because the table may have been small when
/// the plan was made.
const WORKER_SESSION: &str = "set plan_cache_mode = force_generic_plan; set enable_seqscan = off";

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Parses the configuration of a connection from a URL.
pub(crate) fn config(url: &SecretString) -> Result<tokio_postgres::Config, Error> {
    let mut config: tokio_postgres::Config = url.expose_secret().parse().map_err(|_| Error::Url)?;
    if config.get_hosts().is_empty() {
        return Err(Error::Url);
    }
    config
        .application_name("voice-otp")
        .connect_timeout(CONNECT_TIMEOUT)
        .keepalives_idle(Duration::from_secs(30));
    Ok(config)
}

/// TLS with the system's certificates; used if the server or the URL's `sslmode` asks for it.
pub(crate) fn tls() -> Result<MakeRustlsConnect, Error> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(Error::Tls)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(MakeRustlsConnect::new(config))
}

/// Makes a pool of up to `size` connections. It connects when a connection is first needed.
///
/// # Errors
/// [`Error`] when the URL or TLS can't be used.
pub fn connect(url: &SecretString, size: usize) -> Result<Pool, Error> {
    pool(url, size, SESSION.to_owned())
}

/// Like [`connect`], for a worker: its statements are planned once per connection.
///
/// # Errors
/// [`Error`] when the URL or TLS can't be used.
pub fn connect_worker(url: &SecretString, size: usize) -> Result<Pool, Error> {
    pool(url, size, format!("{SESSION}; {WORKER_SESSION}"))
}

fn pool(url: &SecretString, size: usize, session: String) -> Result<Pool, Error> {
    let manager = Manager::from_config(
        config(url)?,
        tls()?,
        ManagerConfig {
            recycling_method: RecyclingMethod::Fast,
        },
    );
    let set_session = Hook::async_fn(move |client: &mut deadpool_postgres::ClientWrapper, _| {
        let session = session.clone();
        Box::pin(async move {
            client
                .batch_execute(&session)
                .await
                .map_err(HookError::Backend)
        })
    });
    Pool::builder(manager)
        .max_size(size)
        .timeouts(Timeouts {
            wait: Some(CONNECT_TIMEOUT),
            create: Some(CONNECT_TIMEOUT),
            recycle: Some(CONNECT_TIMEOUT),
        })
        .runtime(Runtime::Tokio1)
        .post_create(set_session)
        .build()
        .map_err(Error::Build)
}
