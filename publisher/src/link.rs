//! A connection to RabbitMQ that is watched: whether it is blocked, and when it is lost.
//!
//! Nothing here recovers a connection: lapin's own recovery is off, and who uses a link makes a fresh one, with fresh
//! channels and consumers. A consumer and a publisher never share one, since `connection.blocked` freezes acks too.

use std::time::Duration;

use futures_util::StreamExt as _;
use lapin::uri::{AMQPUri, SASLMechanism};
use lapin::{Connection, ConnectionProperties, Event};
use rand::RngExt as _;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

/// Why there is no link.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The URL can't be read. Its text may hold a password and isn't shown.
    #[error("the broker URL is not one of AMQP (amqp://user:password@host:port/vhost)")]
    Url,
    /// The broker refuses, or can't be reached.
    #[error("connect to RabbitMQ")]
    Connect(#[source] lapin::Error),
    /// No answer in time.
    #[error("connect to RabbitMQ: no answer in time")]
    TimedOut,
}

/// A watched connection.
pub struct Link {
    /// The connection.
    pub connection: Connection,
    blocked: watch::Receiver<bool>,
    lost: CancellationToken,
    _watch: AbortOnDropHandle<()>,
}

/// A connection is given up if it can't be made in this time.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A dead peer is noticed after twice this, in seconds.
const HEARTBEAT_S: u16 = 10;

/// Checks a URL without connecting.
///
/// # Errors
/// [`Error::Url`].
pub fn check(url: &SecretString) -> Result<(), Error> {
    parse(url).map(drop)
}

/// Whom the broker knows a connection with this URL as, if the URL tells: by name and password. Workers may ask who a
/// message is from, and RabbitMQ vouches for that name.
pub fn user(url: &SecretString) -> Option<String> {
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
    uri.query.connection_timeout.get_or_insert(5_000);
    Ok(uri)
}

/// Connects. `name` is for people who look at the broker's connections.
///
/// # Errors
/// [`Error`] says what is wrong; nothing is tried again here.
pub async fn connect(url: &SecretString, name: &str) -> Result<Link, Error> {
    let properties = ConnectionProperties::default().with_connection_name(name.into());
    let connecting = Connection::connect_uri(parse(url)?, properties);
    let connection = tokio::time::timeout(CONNECT_TIMEOUT, connecting)
        .await
        .map_err(|_| Error::TimedOut)?
        .map_err(Error::Connect)?;
    // The only listener: listeners of one connection steal each other's events.
    let mut events = connection.events_listener();
    let status = connection.status().clone();
    let (blocked_sender, blocked) = watch::channel(false);
    let lost = CancellationToken::new();
    let loses = lost.clone();
    let tracker = TaskTracker::new();
    let watch = tracker.spawn(async move {
        while let Some(event) = events.next().await {
            match event {
                Event::ConnectionBlocked(_) => {
                    tracing::warn!(
                        "the broker takes no messages for now: it is short of memory or disk"
                    );
                    blocked_sender.send_replace(true);
                }
                Event::ConnectionUnblocked => {
                    tracing::info!("the broker takes messages again");
                    blocked_sender.send_replace(false);
                }
                // A channel's error comes here as well, and leaves the connection as it was.
                Event::Error(error) if !status.connected() => {
                    tracing::debug!(
                        error = &error as &dyn std::error::Error,
                        "the connection to the broker failed"
                    );
                    break;
                }
                _ => {}
            }
        }
        loses.cancel();
    });
    Ok(Link {
        connection,
        blocked,
        lost,
        _watch: AbortOnDropHandle::new(watch),
    })
}

impl Link {
    /// Whether the broker takes no messages for now.
    pub fn is_blocked(&self) -> bool {
        *self.blocked.borrow()
    }

    /// Whether the connection is usable.
    pub fn is_up(&self) -> bool {
        !self.lost.is_cancelled() && self.connection.status().connected()
    }

    /// Ends when the connection is lost.
    pub async fn lost(&self) {
        self.lost.cancelled().await;
    }

    /// Closes the connection, or gives it up if the broker doesn't answer.
    pub async fn close(self) {
        let closing = self.connection.close(200, "done".into());
        if tokio::time::timeout(Duration::from_secs(2), closing)
            .await
            .is_err()
        {
            tracing::debug!("the broker did not answer the closing");
        }
    }
}

/// The pause before the `tries`th connection: doubled each time up to ten seconds, then jittered, so that a fleet
/// doesn't come back at one moment.
pub fn pause(tries: u32) -> Duration {
    let ceiling = Duration::from_millis(200)
        .saturating_mul(1 << tries.min(6))
        .min(Duration::from_secs(10));
    ceiling.mul_f64(rand::rng().random_range(0.5..1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_that_is_not_one_of_amqp_is_refused_without_showing_it() {
        let error = check(&SecretString::from("http://user:hunter2@host")).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"));
        assert!(check(&SecretString::from("amqp://guest:guest@127.0.0.1:5672/%2f")).is_ok());
    }

    #[test]
    fn the_user_is_the_one_that_the_password_is_of() {
        let user = |url: &str| user(&SecretString::from(url));
        assert_eq!(
            user("amqp://auth%2Dlogin:secret@host/v").as_deref(),
            Some("auth-login")
        );
        assert_eq!(
            user("amqps://host/v?auth_mechanism=external"),
            None,
            "a certificate says who it is"
        );
    }

    #[test]
    fn the_pause_grows_and_stays_bounded() {
        assert!(pause(0) <= Duration::from_millis(200));
        assert!((5..=10).contains(&pause(40).as_secs()));
    }
}
