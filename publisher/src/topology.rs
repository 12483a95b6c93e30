//! Exchanges, queues and bindings: every argument, once. `schemas/README.md` has the same in prose.

use std::time::Duration;

use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Connection, ExchangeKind};

/// Requests come in here.
pub const REQUESTS: &str = "voice-otp.requests";
/// Statuses go out here.
pub const STATUS: &str = "voice-otp.status";
/// What the broker gives up on: too many deliveries, or a publisher's `expiration`. Workers consume it.
pub const RETURNED: &str = "voice-otp.returned";
/// What no status can answer. For people.
pub const DEAD: &str = "voice-otp.dead";
/// Statuses for replay.
pub const STATUS_LOG: &str = "voice-otp.status.log";

/// The routing key of a request to read a code out.
pub const REQUESTED_KEY: &str = "otp.requested";
/// The routing key of a request taken back.
pub const CANCELLED_KEY: &str = "otp.cancelled";
/// The routing key of a code entered.
pub const VERIFIED_KEY: &str = "otp.verified";

/// A queue, as it is declared: durable, shared and kept, which is the only kind that quorum queues and streams know.
#[derive(Debug, Clone, Copy)]
pub struct Queue {
    /// Its name.
    pub name: &'static str,
    /// The x-arguments that can't be changed later, but for what a policy may override.
    pub arguments: &'static [(&'static str, Argument)],
    /// The topic exchange that it is bound to, and by which key. Without one it is reached through the default exchange.
    pub bound: Option<(&'static str, &'static str)>,
}

/// An x-argument's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Argument {
    /// A string.
    Text(&'static str),
    /// A signed 32-bit integer.
    Number(i32),
}

const QUORUM: (&str, Argument) = ("x-queue-type", Argument::Text("quorum"));
/// These have nowhere else to go, so the limit is only there because 4.x would set a low one.
const LAST_RESORT: &[(&str, Argument)] = &[QUORUM, ("x-delivery-limit", Argument::Number(100_000))];

/// Where what the broker gives up on goes.
pub const RETURNED_QUEUE: Queue = Queue { name: RETURNED, arguments: LAST_RESORT, bound: None };
/// Where requests wait for a worker.
pub const REQUESTS_QUEUE: Queue = Queue {
    name: REQUESTS,
    arguments: &[
        QUORUM,
        // How often a message may come back before the broker gives up on it. Set, since 3.10 knows no limit by itself
        // and 4.x drops after 20; and never -1, which means no limit to 4.x and none at all to 3.10.
        ("x-delivery-limit", Argument::Number(20)),
        // What the broker gives up on goes to the workers once more, and not before the broker has it safe there.
        // At-least-once needs the overflow to be refused, which also tells a publisher at once that there is no room.
        ("x-dead-letter-exchange", Argument::Text("")),
        ("x-dead-letter-routing-key", Argument::Text(RETURNED)),
        ("x-dead-letter-strategy", Argument::Text("at-least-once")),
        ("x-overflow", Argument::Text("reject-publish")),
    ],
    bound: Some((REQUESTS, "otp.#")),
};
/// Where dead letters wait for people.
pub const DEAD_QUEUE: Queue = Queue { name: DEAD, arguments: LAST_RESORT, bound: None };
/// Where statuses are kept for replay, for as long as `x-max-age`, or a policy's `max-age`, says.
pub const STATUS_LOG_QUEUE: Queue = Queue {
    name: STATUS_LOG,
    arguments: &[("x-queue-type", Argument::Text("stream")), ("x-max-age", Argument::Text("30D"))],
    bound: Some((STATUS, "#")),
};

/// The longest a declaration may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Why the topology can't be declared.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The broker refuses, or the connection broke.
    #[error("declare {0}")]
    Declare(&'static str, #[source] lapin::Error),
    /// No answer in time.
    #[error("declare {0}: the broker did not answer in time")]
    TimedOut(&'static str),
}

/// Declares what a publisher of requests needs, so that none is lost that comes before the first worker.
///
/// # Errors
/// [`Error`] names what could not be declared; the channel is closed then.
pub async fn declare_requests(channel: &Channel) -> Result<(), Error> {
    exchange(channel, REQUESTS).await?;
    queue(channel, &RETURNED_QUEUE).await?;
    queue(channel, &REQUESTS_QUEUE).await
}

/// Declares everything. A broker that can't have the status log is warned about, and does without.
///
/// # Errors
/// [`Error`] names what could not be declared.
pub async fn declare_all(connection: &Connection) -> Result<(), Error> {
    let channel = in_time("a channel", connection.create_channel()).await?;
    declare_requests(&channel).await?;
    queue(&channel, &DEAD_QUEUE).await?;
    exchange(&channel, STATUS).await?;
    // Without it statuses are published all the same, so a refusal, which closes the channel, is no failure.
    if let Err(error) = queue(&channel, &STATUS_LOG_QUEUE).await {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "the broker can't have the status log, so statuses can't be replayed"
        );
        return Ok(());
    }
    in_time("a channel", channel.close(200, "done".into())).await
}

async fn exchange(channel: &Channel, name: &'static str) -> Result<(), Error> {
    // Durable and not auto-deleted: it outlives brokers and consumers. Not internal: clients publish to it.
    let options = ExchangeDeclareOptions { passive: false, durable: true, auto_delete: false, internal: false, nowait: false };
    in_time(name, channel.exchange_declare(name.into(), ExchangeKind::Topic, options, FieldTable::default())).await
}

async fn queue(channel: &Channel, queue: &Queue) -> Result<(), Error> {
    let options = QueueDeclareOptions { passive: false, durable: true, exclusive: false, auto_delete: false, nowait: false };
    let mut arguments = FieldTable::default();
    for (name, value) in queue.arguments {
        arguments.insert((*name).into(), value.into());
    }
    in_time(queue.name, channel.queue_declare(queue.name.into(), options, arguments)).await?;
    let Some((exchange, key)) = queue.bound else { return Ok(()) };
    let options = QueueBindOptions { nowait: false };
    in_time(queue.name, channel.queue_bind(queue.name.into(), exchange.into(), key.into(), options, FieldTable::default())).await
}

impl From<&Argument> for AMQPValue {
    fn from(argument: &Argument) -> Self {
        match argument {
            Argument::Text(text) => Self::LongString((*text).into()),
            Argument::Number(number) => Self::LongInt(*number),
        }
    }
}

async fn in_time<T>(what: &'static str, work: impl Future<Output = lapin::Result<T>>) -> Result<T, Error> {
    match tokio::time::timeout(TIMEOUT, work).await {
        Ok(result) => result.map_err(|error| Error::Declare(what, error)),
        Err(_) => Err(Error::TimedOut(what)),
    }
}
