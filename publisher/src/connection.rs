//! A connection to RabbitMQ that reports when the broker blocks it and when it is lost.
//!
//! This module never recovers a connection, and lapin's own recovery is off: the caller opens a new
//! connection with new channels and consumers. A consumer and a publisher never share a connection,
//! since a blocked connection delays acknowledgements too.

use std::time::Duration;

use futures_util::StreamExt as _;
use lapin::uri::{AMQPUri, SASLMechanism};
use lapin::{Connection, ConnectionProperties, Event};
use rand::RngExt as _;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The URL is invalid. The error doesn't show it, since it may contain a password.
    #[error(
        "the broker URL is not an AMQP URL; it must look like amqp://user:password@host:port/vhost"
    )]
    Url,
    /// The broker is unreachable or refused the connection.
    #[error("connect to RabbitMQ")]
    Connect(#[source] lapin::Error),
    /// The broker did not answer within 10 seconds.
    #[error("connect to RabbitMQ: no answer within 10 seconds; is it a RabbitMQ server?")]
    TimedOut,
}

/// A connection and its state, which a background task keeps current.
pub struct BrokerConnection {
    /// The connection of lapin, to open channels on.
    pub connection: Connection,
    /// Whether the broker has sent `connection.blocked` without `connection.unblocked` since.
    blocked: watch::Receiver<bool>,
    /// Cancelled when the connection is lost.
    lost: CancellationToken,
    _watch: AbortOnDropHandle<()>,
}

/// The time limit for opening a connection, TLS and authentication included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The heartbeat interval, in seconds. A dead peer is noticed after two missed heartbeats. A URL
/// can set another one.
const HEARTBEAT_S: u16 = 10;
/// The time limit for the TCP connection, in milliseconds. A URL can set another one.
const TCP_TIMEOUT_MS: u64 = 5_000;
/// The time limit for closing a connection.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Validates a URL without connecting.
///
/// # Errors
/// [`Error::Url`] if it isn't an AMQP URL.
pub fn check_url(url: &SecretString) -> Result<(), Error> {
    parse(url).map(drop)
}

/// The user name of a connection with this URL, if the URL authenticates by name and password.
///
/// As the AMQP property `user_id` it identifies the publisher of a message: RabbitMQ refuses a
/// message whose `user_id` is not the user of its connection.
pub fn user_name(url: &SecretString) -> Option<String> {
    let uri = parse(url).ok()?;
    let by_password = uri
        .query
        .auth_mechanism
        .is_none_or(|mechanism| mechanism != SASLMechanism::External);
    let name = uri.authority.userinfo.username;
    (by_password && !name.is_empty() && name.len() <= 255).then_some(name)
}

fn parse(url: &SecretString) -> Result<AMQPUri, Error> {
    let mut uri: AMQPUri = url.expose_secret().parse().map_err(|_| Error::Url)?;
    uri.query.heartbeat.get_or_insert(HEARTBEAT_S);
    uri.query.connection_timeout.get_or_insert(TCP_TIMEOUT_MS);
    Ok(uri)
}

/// Connects once. `name` is the name in the broker's list of connections.
///
/// # Errors
/// [`Error`] says why there is no connection. Retrying is up to the caller.
pub async fn connect(url: &SecretString, name: &str) -> Result<BrokerConnection, Error> {
    let properties = ConnectionProperties::default().with_connection_name(name.into());
    let connecting = Connection::connect_uri(parse(url)?, properties);
    let connection = tokio::time::timeout(CONNECT_TIMEOUT, connecting)
        .await
        .map_err(|_| Error::TimedOut)?
        .map_err(Error::Connect)?;
    // lapin gives each event to one listener only, so there is no other listener.
    let mut events = connection.events_listener();
    let status = connection.status().clone();
    let (blocked_sender, blocked) = watch::channel(false);
    let lost = CancellationToken::new();
    let on_lost = lost.clone();
    let tracker = TaskTracker::new();
    let watch = tracker.spawn(async move {
        while let Some(event) = events.next().await {
            match event {
                Event::ConnectionBlocked(_) => {
                    tracing::warn!("the broker blocks publishers: it is short of memory or disk");
                    blocked_sender.send_replace(true);
                }
                Event::ConnectionUnblocked => {
                    tracing::info!("the broker accepts messages again");
                    blocked_sender.send_replace(false);
                }
                // An error of a channel arrives here too and leaves the connection usable.
                Event::Error(error) if !status.connected() => {
                    tracing::debug!(
                        error = &error as &dyn std::error::Error,
                        "connection to the broker lost"
                    );
                    break;
                }
                _ => {}
            }
        }
        on_lost.cancel();
    });
    Ok(BrokerConnection {
        connection,
        blocked,
        lost,
        _watch: AbortOnDropHandle::new(watch),
    })
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
    pub async fn close(self) {
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
    fn the_user_name_is_the_one_that_authenticates_with_a_password() {
        let user = |url: &str| user_name(&SecretString::from(url));
        assert_eq!(
            user("amqp://auth%2Dlogin:secret@host/v").as_deref(),
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
