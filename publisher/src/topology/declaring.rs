//! Declaring queues on a broker that may have them already, with other arguments.

use std::time::Duration;

use lapin::options::{
    ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Connection, ErrorKind, ExchangeKind};

use super::{Argument, Queue};

/// Why the topology can't be declared.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The broker refused the named declaration, or the connection was lost.
    #[error("declare {0}")]
    Declare(String, #[source] lapin::Error),
    /// The broker did not answer the named declaration in time.
    #[error("declare {0}: the broker did not answer within 10 seconds")]
    TimedOut(String),
}

/// Declares on one channel, and opens another one when a refusal has closed it.
pub(super) struct Declarer<'connection> {
    connection: &'connection Connection,
    channel: Channel,
    /// Whether queues are declared with [`LEADER_LOCATOR`]. Turned off by a queue that was declared
    /// without it, since then most were.
    spreads_leaders: bool,
}

/// The x-argument that puts the leader of a new quorum queue, and of the stream, on the node with
/// the fewest. By default it is on the node that the declaring connection is to, so one node would
/// lead all.
pub const LEADER_LOCATOR: (&str, &str) = ("x-queue-leader-locator", "balanced");
/// The time limit of each declaration.
const DECLARE_TIMEOUT: Duration = Duration::from_secs(10);
/// Durable: the queue survives a restart of the broker. Not exclusive and not auto-deleted: it
/// outlives connections and consumers. Not `nowait`: the broker's answer shows that the queue
/// exists.
const DURABLE_QUEUE: QueueDeclareOptions = QueueDeclareOptions {
    passive: false,
    durable: true,
    exclusive: false,
    auto_delete: false,
    nowait: false,
};
/// Reads the queue's state, and fails instead of creating a missing queue.
const PASSIVE: QueueDeclareOptions = QueueDeclareOptions {
    passive: true,
    ..DURABLE_QUEUE
};
/// Not `nowait`: the broker's answer shows that the binding exists.
const BIND: QueueBindOptions = QueueBindOptions { nowait: false };

/// The reply codes of AMQP that are distinguished here.
const NOT_FOUND: u16 = 404;
const PRECONDITION_FAILED: u16 = 406;

impl<'connection> Declarer<'connection> {
    pub(super) async fn open(connection: &'connection Connection) -> Result<Self, Error> {
        Ok(Self {
            connection,
            channel: with_timeout("a channel", connection.create_channel()).await?,
            spreads_leaders: true,
        })
    }

    /// The channel; a new one if the last refusal has closed it.
    async fn channel(&mut self) -> Result<Channel, Error> {
        if !self.channel.status().connected() {
            self.channel = with_timeout("a channel", self.connection.create_channel()).await?;
        }
        Ok(self.channel.clone())
    }

    pub(super) async fn close(self) -> Result<(), Error> {
        if !self.channel.status().connected() {
            return Ok(());
        }
        with_timeout("a channel", self.channel.close(200, "done".into())).await
    }

    pub(super) async fn exchange(&mut self, name: &'static str) -> Result<(), Error> {
        // Durable and not auto-deleted: it outlives restarts of the broker and its bindings. Not
        // internal: clients publish to it. Not `nowait`: the broker's answer shows that it exists.
        let options = ExchangeDeclareOptions {
            passive: false,
            durable: true,
            auto_delete: false,
            internal: false,
            nowait: false,
        };
        let none = FieldTable::default();
        let channel = self.channel().await?;
        let declaring = channel.exchange_declare(name.into(), ExchangeKind::Topic, options, none);
        with_timeout(name, declaring).await
    }

    /// Declares a queue and its binding.
    pub(super) async fn queue(&mut self, queue: &Queue) -> Result<(), Error> {
        self.declare(queue.name, queue.arguments).await?;
        match queue.binding {
            Some((exchange, key)) => self.bind(queue.name, exchange, key).await,
            None => Ok(()),
        }
    }

    /// Declares a queue. One that exists with other arguments is used as it is.
    pub(super) async fn declare(
        &mut self,
        name: &str,
        arguments: &[(&'static str, Argument)],
    ) -> Result<(), Error> {
        let refusal = match self.try_declare(name, arguments).await {
            Err(error) if error.refuses_leader_locator() => {
                self.spreads_leaders = !self.spreads_leaders;
                if !self.spreads_leaders {
                    tracing::info!(
                        queue = name,
                        "the queues were declared without a leader locator and are used as they \
                         are; on a cluster, a policy and a rebalance spread their leaders"
                    );
                }
                self.try_declare(name, arguments).await
            }
            result => result,
        };
        match refusal {
            Err(error) if error.is_inequivalent() => {
                tracing::info!(
                    queue = name,
                    error = &error as &dyn std::error::Error,
                    "a queue exists with other arguments and is used as it is"
                );
                let channel = self.channel().await?;
                let declaring = channel.queue_declare(name.into(), PASSIVE, FieldTable::default());
                with_timeout(name, declaring).await.map(drop)
            }
            result => result,
        }
    }

    async fn try_declare(
        &mut self,
        name: &str,
        arguments: &[(&'static str, Argument)],
    ) -> Result<(), Error> {
        let channel = self.channel().await?;
        self.declare_on(&channel, name, arguments).await
    }

    async fn declare_on(
        &self,
        channel: &Channel,
        name: &str,
        arguments: &[(&'static str, Argument)],
    ) -> Result<(), Error> {
        let mut table = FieldTable::default();
        for (name, value) in arguments {
            table.insert((*name).into(), value.into());
        }
        if self.spreads_leaders {
            let (name, value) = LEADER_LOCATOR;
            table.insert(name.into(), AMQPValue::LongString(value.into()));
        }
        let declaring = channel.queue_declare(name.into(), DURABLE_QUEUE, table);
        with_timeout(name, declaring).await.map(drop)
    }

    /// Declares queues concurrently, since one after another takes a second. After an error some of
    /// them may be declared.
    pub(super) async fn declare_at_once(
        &mut self,
        names: &[String],
        arguments: &[(&'static str, Argument)],
    ) -> Result<(), Error> {
        let channel = self.channel().await?;
        let declaring = names
            .iter()
            .map(|name| self.declare_on(&channel, name, arguments));
        futures_util::future::try_join_all(declaring)
            .await
            .map(drop)
    }

    pub(super) async fn bind(
        &mut self,
        queue: &str,
        exchange: &str,
        key: &str,
    ) -> Result<(), Error> {
        let channel = self.channel().await?;
        let binding = channel.queue_bind(
            queue.into(),
            exchange.into(),
            key.into(),
            BIND,
            FieldTable::default(),
        );
        with_timeout(queue, binding).await
    }

    /// Binds queues concurrently: pairs of a queue and a key.
    pub(super) async fn bind_at_once(
        &mut self,
        exchange: &str,
        bindings: &[(String, String)],
    ) -> Result<(), Error> {
        let channel = self.channel().await?;
        let binding = bindings.iter().map(|(queue, key)| {
            let none = FieldTable::default();
            let (queue_name, exchange, key) =
                (queue.as_str().into(), exchange.into(), key.as_str().into());
            with_timeout(
                queue,
                channel.queue_bind(queue_name, exchange, key, BIND, none),
            )
        });
        futures_util::future::try_join_all(binding).await.map(drop)
    }

    /// Removes bindings concurrently. The broker doesn't mind if one doesn't exist, or its queue.
    pub(super) async fn unbind_at_once(
        &mut self,
        exchange: &str,
        bindings: &[(String, String)],
    ) -> Result<(), Error> {
        let channel = self.channel().await?;
        let unbinding = bindings.iter().map(|(queue, key)| {
            let none = FieldTable::default();
            let (queue_name, exchange, key) =
                (queue.as_str().into(), exchange.into(), key.as_str().into());
            with_timeout(queue, channel.queue_unbind(queue_name, exchange, key, none))
        });
        futures_util::future::try_join_all(unbinding)
            .await
            .map(drop)
    }

    /// Whether a queue exists.
    pub(super) async fn exists(&mut self, name: &str) -> Result<bool, Error> {
        exists(self.connection, name).await
    }

    /// Deletes a queue without consumers and messages. No binding may lead to it.
    pub(super) async fn delete_if_idle(&mut self, name: &str) -> Result<(), Error> {
        let channel = self.channel().await?;
        let reading = channel.queue_declare(name.into(), PASSIVE, FieldTable::default());
        let state = match with_timeout(name, reading).await {
            Err(error) if error.is_not_found() => return Ok(()),
            state => state?,
        };
        if state.message_count() > 0 || state.consumer_count() > 0 {
            return Ok(());
        }
        // Not `if_unused` and `if_empty`: quorum queues don't support them.
        let options = QueueDeleteOptions {
            if_unused: false,
            if_empty: false,
            nowait: false,
        };
        let deleting = channel.queue_delete(name.into(), options);
        with_timeout(name, deleting).await.map(drop)
    }
}

/// Whether a queue exists.
pub(super) async fn exists(connection: &Connection, name: &str) -> Result<bool, Error> {
    // A channel of its own, since the broker closes the channel if the queue doesn't exist.
    let channel = with_timeout("a channel", connection.create_channel()).await?;
    let reading = channel.queue_declare(name.into(), PASSIVE, FieldTable::default());
    match with_timeout(name, reading).await {
        Ok(_) => {
            with_timeout("a channel", channel.close(200, "done".into())).await?;
            Ok(true)
        }
        Err(error) if error.is_not_found() => Ok(false),
        Err(error) => Err(error),
    }
}

impl Error {
    /// The broker's reply code and text.
    fn reply(&self) -> Option<(u16, String)> {
        let Self::Declare(_, error) = self else {
            return None;
        };
        match error.kind() {
            ErrorKind::ProtocolError(error) => {
                Some((error.get_id(), error.get_message().as_str().to_owned()))
            }
            _ => None,
        }
    }

    fn fails_precondition(&self, texts: &[&str]) -> bool {
        self.reply().is_some_and(|(code, message)| {
            code == PRECONDITION_FAILED && texts.iter().all(|text| message.contains(text))
        })
    }

    fn is_not_found(&self) -> bool {
        self.reply().is_some_and(|(code, _)| code == NOT_FOUND)
    }

    /// The queue exists with another leader locator, or the broker doesn't know this one.
    fn refuses_leader_locator(&self) -> bool {
        self.fails_precondition(&[LEADER_LOCATOR.0])
    }

    /// The queue exists with other arguments.
    fn is_inequivalent(&self) -> bool {
        self.fails_precondition(&["inequivalent arg"])
    }

    /// The vhost, or the broker, may have no more queues.
    pub(super) fn is_queue_limit(&self) -> bool {
        self.fails_precondition(&["limit"]) && !self.fails_precondition(&[" arg "])
    }
}

impl From<&Argument> for AMQPValue {
    fn from(argument: &Argument) -> Self {
        match argument {
            Argument::Text(text) => Self::LongString((*text).into()),
            Argument::Number(number) => Self::LongInt(*number),
        }
    }
}

async fn with_timeout<T>(
    what: &str,
    declaring: impl Future<Output = lapin::Result<T>>,
) -> Result<T, Error> {
    match tokio::time::timeout(DECLARE_TIMEOUT, declaring).await {
        Ok(result) => result.map_err(|error| Error::Declare(what.to_owned(), error)),
        Err(_) => Err(Error::TimedOut(what.to_owned())),
    }
}
