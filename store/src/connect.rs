//! Connecting to the servers of a database URL, one after another.

use std::error::Error;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::config::SslMode as Step;
use tokio_postgres::error::{DbError, SqlState};
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{Client, Config, NoTls, Socket};
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::tls::Connector;
use crate::url::{DatabaseUrl, Place, Server, WAYS_OUT};

/// The half of a connection that does its I/O.
pub type Connection =
    tokio_postgres::Connection<Socket, <Connector as MakeTlsConnect<Socket>>::Stream>;

/// Why no server of the URL accepted a session: what each said, in the order of the tries.
#[derive(Debug)]
pub struct ConnectError {
    failures: Vec<(String, Failure)>,
}

/// Why one try failed.
#[derive(Debug)]
enum Failure {
    Timeout(Duration),
    Resolve(io::Error),
    /// The server has no TLS, and the password may not travel without.
    Cleartext,
    Postgres(tokio_postgres::Error),
}

impl DatabaseUrl {
    /// Connects to the first server that accepts a session, and that can be written to if the URL
    /// has several or asks for it.
    ///
    /// # Errors
    /// [`ConnectError`] names every server and what it said.
    pub async fn connect(&self) -> Result<(Client, Connection), ConnectError> {
        let mut servers: Vec<&Server> = self.servers.iter().collect();
        if self.shuffle {
            servers.sort_by_cached_key(|_| Uuid::new_v4());
        }
        let mut failures = Vec::new();
        for server in servers {
            let configs = match self.addresses(server).await {
                Ok(configs) => configs,
                Err(failure) => {
                    failures.push((server.name(), failure));
                    continue;
                }
            };
            for config in configs {
                match self.try_steps(server, config).await {
                    Ok(connected) => return Ok(connected),
                    Err(failure) => failures.push((server.name(), failure)),
                }
            }
        }
        Err(ConnectError { failures })
    }

    /// How long [`connect`](Self::connect) may take where every host has one address or two.
    pub fn connect_limit(&self) -> Duration {
        let tries = u32::try_from(self.servers.len() * 2).unwrap_or(u32::MAX);
        self.connect_timeout.saturating_mul(tries)
    }

    /// The configuration of each address of a server.
    async fn addresses(&self, server: &Server) -> Result<Vec<Config>, Failure> {
        let mut base = server.config.clone();
        base.port(server.port);
        let with = |name: &str, address: IpAddr| {
            let mut config = base.clone();
            config.host(name).hostaddr(address);
            config
        };
        match &server.place {
            Place::Socket(directory) => {
                base.host_path(directory);
                Ok(vec![base])
            }
            Place::Host(name, Some(address)) => Ok(vec![with(name, *address)]),
            Place::Host(name, None) => {
                let resolving = tokio::net::lookup_host((name.as_str(), server.port));
                let addresses = timeout(self.connect_timeout, resolving)
                    .await
                    .map_err(|_| Failure::Timeout(self.connect_timeout))?
                    .map_err(Failure::Resolve)?;
                Ok(addresses.map(|found| with(name, found.ip())).collect())
            }
        }
    }

    /// Tries one address, with TLS and without as the mode says.
    async fn try_steps(
        &self,
        server: &Server,
        mut config: Config,
    ) -> Result<(Client, Connection), Failure> {
        let mut last = Failure::Timeout(self.connect_timeout);
        for step in server.steps {
            config.ssl_mode(*step);
            match timeout(self.connect_timeout, config.connect(self.tls.clone())).await {
                Ok(Ok(connected)) => return Ok(connected),
                Ok(Err(error)) if server.guards_password && lacks_tls(&error) => {
                    return Err(Failure::Cleartext);
                }
                Ok(Err(error)) => {
                    let other_step_may_help = is_about_tls(&error, *step);
                    last = Failure::Postgres(error);
                    if !other_step_may_help {
                        break;
                    }
                }
                Err(_) => return Err(Failure::Timeout(self.connect_timeout)),
            }
        }
        Err(last)
    }
}

/// A connection outside any pool, which ends with this value.
pub(crate) struct Session {
    pub(crate) client: Client,
    io: JoinHandle<()>,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.io.abort();
    }
}

impl DatabaseUrl {
    /// Opens a connection for a few statements.
    pub(crate) async fn open(&self) -> Result<Session, ConnectError> {
        let (client, connection) = self.connect().await?;
        let io = TaskTracker::new().spawn(drive(connection));
        Ok(Session { client, io })
    }
}

/// Does a connection's I/O until its client is dropped.
async fn drive(connection: Connection) {
    if let Err(error) = connection.await {
        tracing::debug!(error = &error as &dyn Error, "database connection ended");
    }
}

impl Server {
    fn name(&self) -> String {
        match &self.place {
            Place::Socket(directory) => {
                format!("{}/.s.PGSQL.{}", directory.display(), self.port)
            }
            Place::Host(name, _) => format!("{name}:{}", self.port),
        }
    }
}

/// Whether a server refused TLS. The driver's error has no kind of its own for it.
fn lacks_tls(error: &tokio_postgres::Error) -> bool {
    error
        .source()
        .is_some_and(|source| source.to_string() == "server does not support TLS")
}

/// Whether the same server may accept a session with TLS instead of without, or the other way
/// round: the handshake failed, or `pg_hba.conf` has no entry for this kind of connection.
fn is_about_tls(error: &tokio_postgres::Error, step: Step) -> bool {
    match error.code() {
        Some(code) => *code == SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
        None => step != Step::Disable && error.to_string().contains("TLS"),
    }
}

impl ConnectError {
    /// What Postgres answered, if the last server that was tried answered at all.
    pub fn code(&self) -> Option<&SqlState> {
        match self.failures.last() {
            Some((_, Failure::Postgres(error))) => error.code(),
            _ => None,
        }
    }

    /// The error as the driver's own, for a pool that knows no other.
    async fn into_postgres(mut self) -> tokio_postgres::Error {
        if self.failures.len() == 1
            && let Some((name, failure)) = self.failures.pop()
        {
            match failure {
                Failure::Postgres(error) => return error,
                failure => self.failures.push((name, failure)),
            }
        }
        let refused = Config::new()
            .user("")
            .connect_raw(Broken(self.to_string()), NoTls)
            .await;
        match refused {
            Err(error) => error,
            Ok(_) => unreachable!("a stream that can't be written to accepts no session"),
        }
    }
}

impl std::fmt::Display for ConnectError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut separator = "";
        for (server, failure) in &self.failures {
            write!(formatter, "{separator}{server}: ")?;
            separator = "; ";
            match failure {
                Failure::Timeout(limit) => write!(formatter, "no answer within {limit:?}")?,
                Failure::Resolve(error) => write!(formatter, "resolve its name: {error}")?,
                Failure::Cleartext => write!(
                    formatter,
                    "the server has no TLS, and the password would travel in the clear: {WAYS_OUT}"
                )?,
                Failure::Postgres(error) => formatter.write_str(&chain(error))?,
            }
        }
        Ok(())
    }
}

impl Error for ConnectError {}

/// Postgres' own error, if it is among the causes of an error.
pub(crate) fn database_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a DbError> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<tokio_postgres::Error>() {
            return error.as_db_error();
        }
        cause = error.source();
    }
    None
}

/// An error with its causes.
fn chain(error: &tokio_postgres::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}

/// A stream on which every write fails with a text.
struct Broken(String);

impl AsyncRead for Broken {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Poll::Ready(Err(io::Error::other(self.0.clone())))
    }
}

impl AsyncWrite for Broken {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Err(io::Error::other(self.0.clone())))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Err(io::Error::other(self.0.clone())))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl deadpool_postgres::Connect for DatabaseUrl {
    fn connect(&self, _: &Config) -> Connecting<'_> {
        Box::pin(async move {
            let connected = DatabaseUrl::connect(self).await;
            let (client, connection) = match connected {
                Ok(connected) => connected,
                Err(error) => return Err(error.into_postgres().await),
            };
            let io = TaskTracker::new().spawn(drive(connection));
            Ok((client, io))
        })
    }
}

/// What the pool's trait returns: the connected client, and the task that does its I/O.
type Connecting<'a> = Pin<
    Box<dyn Future<Output = Result<(Client, JoinHandle<()>), tokio_postgres::Error>> + Send + 'a>,
>;
