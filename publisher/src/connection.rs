//! A connection to RabbitMQ that reports when the broker blocks it and when it is lost.
//!
//! This module never recovers a connection, and lapin's own recovery is off: the caller opens a new
//! connection with new channels and consumers. A consumer and a publisher never share a connection,
//! since a blocked connection delays acknowledgements too.

mod guard;
mod target;

use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd as _;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use lapin::tcp::AsyncTcpStream;
use lapin::{Connection, ConnectionProperties, ConnectionStatus, Event};
use rand::RngExt as _;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use self::guard::Guarded;
use self::target::Target;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The URL is invalid. The error doesn't show it, since it may contain a password.
    #[error(
        "the broker URL is not an AMQP URL; it must look like amqp://user:password@host:port/vhost"
    )]
    Url,
    /// The URL has a parameter that this program doesn't know.
    #[error("the broker URL's parameter {0} is not supported; {supported}", supported = SUPPORTED)]
    UnsupportedParameter(String),
    /// A parameter of the URL is missing or has a value that can't be used.
    #[error("the broker URL's parameter {0} must be {1}")]
    Parameter(String, &'static str),
    /// The URL names certificates, and its connection isn't encrypted.
    #[error("the broker URL names certificates: it must begin with amqps://")]
    FilesWithoutTls,
    /// A file that the URL names can't be read.
    #[error("the broker URL's {0}: read {1}")]
    File(
        &'static str,
        String,
        #[source] rustls::pki_types::pem::Error,
    ),
    /// The URL would send a password over a network, without encryption.
    #[error(
        "the broker {0} is not this machine, and amqp:// would send it the password, the codes and \
         the numbers in the clear: use amqps://, or allow it with VOICE_OTP_ALLOW_CLEARTEXT=true \
         (--allow-cleartext; in the URL: allow_cleartext=true)"
    )]
    Cleartext(String),
    /// The broker can't be reached.
    #[error("connect to RabbitMQ")]
    Tcp(#[source] std::io::Error),
    /// The TLS handshake failed.
    #[error("connect to RabbitMQ by TLS")]
    Tls(#[source] std::io::Error),
    /// The broker's certificate is not trusted.
    #[error(
        "RabbitMQ's certificate is not accepted: it is signed by no authority that is trusted \
         here; name its authority's certificate with cacertfile in the broker URL"
    )]
    UnknownAuthority,
    /// The broker refused the connection.
    #[error("connect to RabbitMQ")]
    Connect(#[source] lapin::Error),
    /// The broker did not answer within 10 seconds.
    #[error("connect to RabbitMQ: no answer within 10 seconds; is it a RabbitMQ server?")]
    TimedOut,
}

/// The end of the sentence about a parameter that isn't supported.
const SUPPORTED: &str = "supported are heartbeat, connection_timeout, channel_max, frame_max, \
    auth_mechanism, cacertfile, certfile, keyfile, server_name_indication, verify and \
    allow_cleartext";

/// A connection and its state, which a background task keeps current.
///
/// To leave a connection that may be dead, drop it: the background task asks the broker to close
/// it, and cuts it two seconds later. Its owner doesn't wait.
pub struct BrokerConnection {
    /// The connection of lapin, to open channels on.
    pub connection: Connection,
    /// Whether the broker has sent `connection.blocked` without `connection.unblocked` since.
    blocked: watch::Receiver<bool>,
    /// Cancelled when the connection is lost.
    lost: CancellationToken,
    /// Tells the background task that the connection is dropped.
    _dropped: DropGuard,
}

/// The socket under a connection. It is shut down on drop: a thread of lapin's that waits for a
/// silent peer then ends.
///
/// lapin waits for the broker's answer to a close without a limit, and checks heartbeats no longer.
struct Socket(TcpStream);

/// The header of a message whose body was longer than the contract allows and was cut: the bytes
/// that it had, as a number. A publisher can't set it.
pub const BODY_BYTES_HEADER: &str = guard::BODY_BYTES;
/// The header of a message of which headers or properties were removed, since no client could
/// stand them: the reason, as a text. A publisher can't set it.
pub const REMOVED_HEADER: &str = guard::REMOVED;

/// The time limit for opening a connection, TLS and authentication included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The time limit for a TCP connection to one address of the broker's name. A URL can set another
/// one.
const TCP_TIMEOUT: Duration = Duration::from_secs(4);
/// The time limit for closing a connection.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// How often the state of a connection that is closing is read.
const CLOSE_POLL: Duration = Duration::from_millis(20);

/// Validates a URL without connecting. The files that it names must be readable.
///
/// # Errors
/// [`Error`] says what is wrong with the URL, and doesn't show it.
pub fn check_url(url: &SecretString) -> Result<(), Error> {
    Target::parse(url).map(drop)
}

/// The URL with the permission to send its password over a network without encryption.
#[must_use]
pub fn allow_cleartext(url: &SecretString) -> SecretString {
    let url = url.expose_secret();
    let separator = if url.contains('?') { '&' } else { '?' };
    format!("{url}{separator}{}=true", target::ALLOW_CLEARTEXT).into()
}

/// The user name of a connection with this URL, if the URL authenticates by name and password.
///
/// As the AMQP property `user_id` it identifies the publisher of a message: RabbitMQ refuses a
/// message whose `user_id` is not the user of its connection.
pub fn user_name(url: &SecretString) -> Option<String> {
    Target::parse(url).ok()?.user_name()
}

/// Connects once. `name` is the name in the broker's list of connections.
///
/// # Errors
/// [`Error`] says why there is no connection. Retrying is up to the caller.
pub async fn connect(url: &SecretString, name: &str) -> Result<BrokerConnection, Error> {
    connect_with_limit(url, name, None).await
}

/// Connects once, for consumers that acknowledge each message. While the unacknowledged messages of
/// the connection have more than `max_unacknowledged_bytes` together, the socket isn't read: not
/// for the broker's answers either.
///
/// RabbitMQ closes a connection to which it can't send anything for long; then it requeues what is
/// unacknowledged.
///
/// # Errors
/// [`Error`] says why there is no connection. Retrying is up to the caller.
pub async fn connect_to_consume(
    url: &SecretString,
    name: &str,
    max_unacknowledged_bytes: u64,
) -> Result<BrokerConnection, Error> {
    connect_with_limit(url, name, Some(max_unacknowledged_bytes)).await
}

async fn connect_with_limit(
    url: &SecretString,
    name: &str,
    max_unacknowledged: Option<u64>,
) -> Result<BrokerConnection, Error> {
    // Boxed: a large future, in the futures of every caller.
    let connecting = Box::pin(open(Target::parse(url)?, name, max_unacknowledged));
    let (connection, socket) = tokio::time::timeout(CONNECT_TIMEOUT, connecting)
        .await
        .map_err(|_| Error::TimedOut)??;
    let (blocked_sender, blocked) = watch::channel(false);
    let (lost, dropped) = (CancellationToken::new(), CancellationToken::new());
    let watching = watch_connection(
        // lapin gives each event to one listener only, so there is no other listener.
        connection.events_listener(),
        connection.status().clone(),
        blocked_sender,
        dropped.clone(),
    );
    let on_lost = lost.clone();
    // Detached: it outlives the connection's owner, by two seconds at most.
    TaskTracker::new().spawn(async move {
        watching.await;
        on_lost.cancel();
        drop(socket);
    });
    Ok(BrokerConnection {
        connection,
        blocked,
        lost,
        _dropped: dropped.drop_guard(),
    })
}

/// Opens the socket and the connection on it. lapin would open the socket itself; then a thread of
/// lapin's would stay for as long as a silent peer, and TLS errors would have no type.
async fn open(
    target: Target,
    name: &str,
    max_unacknowledged: Option<u64>,
) -> Result<(Connection, Socket), Error> {
    let runtime = lapin::runtime::default_runtime().map_err(Error::Connect)?;
    let limit = target.uri.query.connection_timeout;
    let limit = limit.map_or(TCP_TIMEOUT, Duration::from_millis);
    let host = (
        target.uri.authority.host.as_str(),
        target.uri.authority.port,
    );
    let mut connected = Err(std::io::Error::other("the host name has no address"));
    for address in tokio::net::lookup_host(host).await.map_err(Error::Tcp)? {
        let connecting = AsyncTcpStream::connect(&runtime, address);
        connected = match tokio::time::timeout(limit, connecting).await {
            Ok(connected) => connected,
            Err(_) => Err(std::io::ErrorKind::TimedOut.into()),
        };
        if connected.is_ok() {
            break;
        }
    }
    let mut stream = connected.map_err(Error::Tcp)?;
    let AsyncTcpStream::Plain(plain) = &stream else {
        return Err(Error::Tcp(std::io::Error::other("the stream is not plain")));
    };
    let copy = plain.get_ref().as_fd().try_clone_to_owned();
    let socket = Socket(copy.map_err(Error::Tcp)?.into());
    if let Some(tls) = target.tls() {
        let server_name = tls.server_name.clone();
        let connector = tokio::task::spawn_blocking(move || tls.connector())
            .await
            .map_err(|error| Error::Tls(std::io::Error::other(error)))??;
        stream = stream
            .into_rustls(&connector, &server_name)
            .await
            .map_err(tls_error)?;
    }
    // Plain to lapin: the guard reads what TLS has decrypted.
    let stream = AsyncTcpStream::Plain(Guarded::new(stream, max_unacknowledged));
    let stream = Mutex::new(Some(stream));
    let properties = ConnectionProperties::default().with_connection_name(name.into());
    let take_stream = async move |_, _| {
        let mut stream = stream.lock().unwrap_or_else(PoisonError::into_inner);
        // lapin's recovery is off, so it doesn't ask twice.
        stream
            .take()
            .ok_or_else(|| std::io::Error::other("connected already").into())
    };
    let connection = Connection::connector(target.uri, guard::runtime(), take_stream, properties)
        .await
        .map_err(Error::Connect)?;
    Ok((connection, socket))
}

fn tls_error(error: std::io::Error) -> Error {
    let tls = error
        .get_ref()
        .and_then(|error| error.downcast_ref::<rustls::Error>());
    match tls {
        Some(rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer)) => {
            Error::UnknownAuthority
        }
        _ => Error::Tls(error),
    }
}

/// Follows a connection until it is lost, or until its owner has dropped it and it is closed or
/// should be.
async fn watch_connection(
    mut events: impl futures_util::Stream<Item = Event> + Unpin,
    status: ConnectionStatus,
    blocked: watch::Sender<bool>,
    dropped: CancellationToken,
) {
    loop {
        let event = tokio::select! {
            event = events.next() => event,
            () = dropped.cancelled() => {
                let closing = async {
                    while !status.closed() && !status.errored() {
                        tokio::time::sleep(CLOSE_POLL).await;
                    }
                };
                if tokio::time::timeout(CLOSE_TIMEOUT, closing).await.is_err() {
                    tracing::debug!("the broker did not answer the close in time");
                }
                return;
            }
        };
        match event {
            Some(Event::ConnectionBlocked(_)) => {
                tracing::warn!("the broker blocks publishers: it is short of memory or disk");
                blocked.send_replace(true);
            }
            Some(Event::ConnectionUnblocked) => {
                tracing::info!("the broker accepts messages again");
                blocked.send_replace(false);
            }
            // An error of a channel arrives here too and leaves the connection usable.
            Some(Event::Error(error)) if !status.connected() => {
                tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    "connection to the broker lost"
                );
                return;
            }
            Some(_) => {}
            None => return,
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // It fails if the socket is closed already.
        drop(self.0.shutdown(Shutdown::Both));
    }
}

impl BrokerConnection {
    /// Whether the broker blocks publishers now, because it is short of memory or disk.
    pub fn is_blocked(&self) -> bool {
        *self.blocked.borrow()
    }

    /// Whether the connection is usable.
    pub fn is_up(&self) -> bool {
        !self.lost.is_cancelled() && self.connection.status().connected()
    }

    /// Resolves when the connection is lost.
    pub async fn lost(&self) {
        self.lost.cancelled().await;
    }

    /// Closes the connection. Gives up after two seconds if the broker doesn't answer.
    pub async fn close(&self) {
        let closing = self.connection.close(200, "done".into());
        if tokio::time::timeout(CLOSE_TIMEOUT, closing).await.is_err() {
            tracing::debug!("the broker did not answer the close in time");
        }
    }
}

/// The delay before the next connection attempt, after `failures` failed ones: doubled each time up
/// to ten seconds, with jitter, so that a fleet doesn't reconnect at one moment.
pub fn reconnect_delay(failures: u32) -> Duration {
    let ceiling = Duration::from_millis(200)
        .saturating_mul(1 << failures.min(6))
        .min(Duration::from_secs(10));
    ceiling.mul_f64(rand::rng().random_range(0.5..1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_that_is_not_an_amqp_url_is_refused_without_showing_it() {
        let error = check_url(&SecretString::from("http://user:hunter2@host")).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"));
        assert!(check_url(&SecretString::from("amqp://guest:guest@127.0.0.1:5672/%2f")).is_ok());
    }

    #[test]
    fn a_password_travels_in_the_clear_only_on_this_machine_or_where_that_is_allowed() {
        let refused = |url: &str| match check_url(&SecretString::from(url)) {
            Ok(()) => None,
            Err(error) => Some(error.to_string()),
        };
        for local in [
            "localhost",
            "127.0.0.1",
            "127.8.0.1:99",
            "[::1]",
            "LOCALHOST:1",
        ] {
            assert_eq!(refused(&format!("amqp://a:hunter2@{local}/v")), None);
        }
        for remote in [
            "rabbit",
            "10.0.0.1:5672",
            "[2001:db8::1]",
            "localhost.evil.org",
        ] {
            let url = format!("amqp://a:hunter2@{remote}/v");
            let refusal = refused(&url).unwrap();
            assert!(
                refusal.contains("VOICE_OTP_ALLOW_CLEARTEXT=true"),
                "{refusal}"
            );
            assert!(!refusal.contains("hunter2"), "{refusal}");
            assert_eq!(
                refused(allow_cleartext(&url.clone().into()).expose_secret()),
                None
            );
            assert_eq!(refused(&url.replace("amqp:", "amqps:")), None);
            assert!(refused(&format!("{url}?allow_cleartext=false")).is_some());
            let with_parameter = format!("{url}?heartbeat=9");
            let allowed = allow_cleartext(&with_parameter.into());
            assert_eq!(refused(allowed.expose_secret()), None);
        }
    }

    #[test]
    fn an_ipv6_address_stays_the_host() {
        let target = Target::parse(&"amqps://a:b@[2001:db8::1]:99/v".into()).unwrap();
        assert_eq!(target.uri.authority.host, "2001:db8::1");
    }

    #[test]
    fn parameters_that_are_not_supported_or_have_a_wrong_value_are_named() {
        for (query, name) in [
            (
                "ssl_options.verify=1",
                "ssl_options.verify is not supported",
            ),
            ("verify=verify_none", "verify must be verify_peer"),
            ("heartbeat=0", "heartbeat must be"),
            ("heartbeat=x", "heartbeat must be"),
            ("channel_max=x", "channel_max must be"),
            ("auth_mechanism=x", "auth_mechanism must be"),
            ("certfile=/nowhere.pem", "keyfile must be"),
            ("cacertfile=/nowhere.pem", "cacertfile: read /nowhere.pem"),
        ] {
            let url = format!("amqps://a:hunter2@host/v?{query}");
            let error = check_url(&url.into()).unwrap_err().to_string();
            assert!(
                error.contains(name) && !error.contains("hunter2"),
                "{query}: {error}"
            );
        }
        let error = check_url(&"amqp://localhost/v?cacertfile=/ca.pem".into()).unwrap_err();
        assert!(error.to_string().contains("amqps://"), "{error}");
        let all = "heartbeat=9&connection_timeout=1000&channel_max=10&frame_max=131072\
                   &auth_mechanism=plain&verify=verify_peer&server_name_indication=rabbit";
        assert!(check_url(&format!("amqps://a:b@host/v?{all}").into()).is_ok());
    }

    #[test]
    fn the_user_name_is_the_one_that_authenticates_with_a_password() {
        let user = |url: &str| user_name(&SecretString::from(url));
        assert_eq!(
            user("amqp://auth%2Dlogin:secret@localhost/v").as_deref(),
            Some("auth-login")
        );
        assert_eq!(
            user("amqps://host/v?auth_mechanism=external"),
            None,
            "a certificate identifies the user"
        );
    }

    #[test]
    fn the_reconnect_delay_grows_and_stays_bounded() {
        assert!(reconnect_delay(0) <= Duration::from_millis(200));
        assert!((5..=10).contains(&reconnect_delay(40).as_secs()));
    }
}
