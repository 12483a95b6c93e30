//! Connections to Postgres.
//!
//! A connection can die without a word: its server is frozen, or a firewall has forgotten it. The
//! server's `statement_timeout` doesn't help then, so every statement also has a timeout here, and
//! a connection that has not answered in time is closed. So is one whose error says that it can't
//! be used again (the module `sqlstate`): after a failover, for example, it may lead to a
//! server that only reads.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use deadpool_postgres::{
    Client, ClientWrapper, Hook, HookError, Manager, ManagerConfig, Object, PoolError,
    RecyclingMethod, Runtime, Timeouts,
};
use secrecy::SecretString;
use tokio::sync::watch;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use voice_otp_schemas::Timestamp;

use crate::sqlstate;
use crate::url::{self, DatabaseUrl};

/// Pooled connections. Clones share them.
#[derive(Clone)]
pub struct Pool {
    connections: deadpool_postgres::Pool,
    /// How long a statement may take.
    statement_timeout: Duration,
    /// Changes when all connections made so far must be closed.
    suspected: Arc<watch::Sender<u64>>,
    timeline: Timeline,
    url: SecretString,
}

/// Since when the database has another timeline: after a failover or a restoration that may have
/// lost commits. Every new connection looks before its first statement.
type Timeline = Arc<Mutex<Option<Timestamp>>>;

/// Why a statement has no result.
#[derive(Debug, thiserror::Error)]
pub enum StatementError {
    /// There is no connection.
    #[error("connect to Postgres")]
    Connect(#[source] PoolError),
    /// Postgres has not answered in time. The statement may have been executed. The connection is
    /// closed.
    #[error("no answer from Postgres in time")]
    TimedOut,
    /// The statement's connection was suspected to be dead and closed. The statement may have been
    /// executed.
    #[error("the connection to Postgres was replaced")]
    Abandoned,
    /// Postgres refused the statement, or the connection was lost meanwhile.
    #[error("execute a statement")]
    Failed(#[source] tokio_postgres::Error),
}

/// When a statement is planned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Planning {
    /// Once per connection: for statements that run often and find their rows by key.
    Once,
    /// For its parameters, each time.
    EachTime,
}

/// Why a pool can't be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The URL can't be used.
    #[error(transparent)]
    Url(#[from] url::Error),
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

/// How long to wait for a connection of the pool, and for a new one to be set up.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a statement may take: the session's `statement_timeout`, and 2 s for the way.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(12);
/// How long a heartbeat may take; see [`Pool::for_heartbeats`].
const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(2);

/// Makes a pool of up to `size` connections. It connects when a connection is first needed.
///
/// # Errors
/// [`Error`] when the URL or TLS can't be used.
pub fn connect(url: &SecretString, size: usize) -> Result<Pool, Error> {
    Pool::new(url, size, SESSION, STATEMENT_TIMEOUT, Timeline::default())
}

/// Like [`connect`], for a worker: its statements are planned once per connection.
///
/// # Errors
/// [`Error`] when the URL or TLS can't be used.
pub fn connect_worker(url: &SecretString, size: usize) -> Result<Pool, Error> {
    let session = format!("{SESSION}; {WORKER_SESSION}");
    Pool::new(url, size, &session, STATEMENT_TIMEOUT, Timeline::default())
}

impl Pool {
    fn new(
        url: &SecretString,
        size: usize,
        session: &str,
        statement_timeout: Duration,
        timeline: Timeline,
    ) -> Result<Self, Error> {
        Ok(Self {
            connections: connections(url, size, session.to_owned(), Arc::clone(&timeline))?,
            statement_timeout,
            suspected: Arc::new(watch::Sender::new(0)),
            timeline,
            url: url.clone(),
        })
    }

    /// A pool of one connection to the same database, for heartbeats only: they must not wait for
    /// other statements, and notice within seconds when the database is silent.
    ///
    /// # Errors
    /// [`Error`], as for [`connect_worker`].
    pub(crate) fn for_heartbeats(&self) -> Result<Self, Error> {
        let session = format!("{SESSION}; {WORKER_SESSION}");
        let timeline = Arc::clone(&self.timeline);
        Self::new(&self.url, 1, &session, HEARTBEAT_TIMEOUT, timeline)
    }

    /// A connection, for several statements. It goes back into the pool when it is dropped: prefer
    /// the other methods, which close a broken one.
    ///
    /// # Errors
    /// [`PoolError`] when there is no connection in time.
    pub async fn get(&self) -> Result<Client, PoolError> {
        self.connections.get().await
    }

    /// Whether the database answers a statement in time.
    ///
    /// # Errors
    /// [`StatementError`] says why not.
    pub async fn ping(&self) -> Result<(), StatementError> {
        self.query(Planning::EachTime, "select 1", &[])
            .await
            .map(drop)
    }

    /// Since when the database has another timeline, if commits from before may be lost.
    pub(crate) fn timeline_since(&self) -> Option<Timestamp> {
        *self.timeline.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes all connections: statements in flight fail as timed out. Called when new connections
    /// work and an old one is silent.
    pub(crate) fn close_all(&self) {
        self.suspected.send_modify(|times| *times += 1);
        self.close_idle();
    }

    fn close_idle(&self) {
        drop(self.connections.retain(|_, _| false));
    }

    /// Runs a statement and returns its rows.
    pub(crate) async fn query(
        &self,
        planning: Planning,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, StatementError> {
        let client = self.get().await.map_err(StatementError::Connect)?;
        let result = self
            .in_time(async {
                match planning {
                    Planning::Once => {
                        let statement = client.prepare_cached(sql).await?;
                        client.query(&statement, params).await
                    }
                    Planning::EachTime => client.query(sql, params).await,
                }
            })
            .await;
        self.give_back(client, &result);
        result
    }

    /// Runs a statement, planned for its parameters, and returns how many rows it changed.
    pub(crate) async fn execute(
        &self,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<u64, StatementError> {
        let client = self.get().await.map_err(StatementError::Connect)?;
        let result = self.in_time(client.execute(sql, params)).await;
        self.give_back(client, &result);
        result
    }

    /// Waits for statements until they have taken too long or all connections are suspected.
    pub(crate) async fn in_time<T>(
        &self,
        statements: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, StatementError> {
        let mut suspected = self.suspected.subscribe();
        // Cancel-safe: the caller closes the connection of statements that are dropped.
        tokio::select! {
            result = statements => result.map_err(StatementError::Failed),
            () = tokio::time::sleep(self.statement_timeout) => Err(StatementError::TimedOut),
            _ = suspected.changed() => Err(StatementError::Abandoned),
        }
    }

    /// Puts a connection back into the pool, unless the result says that it must be closed.
    pub(crate) fn give_back<T>(&self, client: Client, result: &Result<T, StatementError>) {
        let reason = match result {
            Ok(_) | Err(StatementError::Connect(_)) => return,
            Err(StatementError::Abandoned) => "suspected",
            Err(StatementError::TimedOut) => {
                // The idle ones are probably as old, and on the same way.
                self.close_idle();
                "timed out"
            }
            Err(StatementError::Failed(error)) => match sqlstate::spoils_connection(error) {
                Some(reason) => reason,
                None => return,
            },
        };
        drop(Object::take(client));
        tracing::debug!(reason, "database connection closed");
    }
}

fn connections(
    url: &SecretString,
    size: usize,
    session: String,
    timeline: Timeline,
) -> Result<deadpool_postgres::Pool, Error> {
    let url = DatabaseUrl::parse(url)?;
    let connect_limit = url.connect_limit();
    let manager = Manager::from_connect(
        tokio_postgres::Config::new(),
        url,
        ManagerConfig {
            recycling_method: RecyclingMethod::Fast,
        },
    );
    let set_up = Hook::async_fn(move |client: &mut ClientWrapper, _| {
        let (session, timeline) = (session.clone(), Arc::clone(&timeline));
        Box::pin(async move {
            // The pool's timeout does not cover its hooks.
            let set_up = tokio::time::timeout(CONNECT_TIMEOUT, async {
                client.batch_execute(&session).await?;
                crate::timeline::look(client).await
            });
            let since = match set_up.await {
                Ok(since) => since.map_err(HookError::Backend)?,
                Err(_) => return Err(HookError::message("no answer from Postgres in time")),
            };
            *timeline.lock().unwrap_or_else(PoisonError::into_inner) = since;
            Ok(())
        })
    });
    deadpool_postgres::Pool::builder(manager)
        .max_size(size)
        .timeouts(Timeouts {
            wait: Some(CONNECT_TIMEOUT),
            create: Some(connect_limit),
            recycle: Some(CONNECT_TIMEOUT),
        })
        .runtime(Runtime::Tokio1)
        .post_create(set_up)
        .build()
        .map_err(Error::Build)
}
