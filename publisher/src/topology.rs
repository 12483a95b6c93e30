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

/// How often a message may come back before the broker gives up on it. Set, since 3.10 knows no limit by itself and
/// 4.x drops after 20; and never -1, which means no limit to 4.x and none at all to 3.10.
const REQUEST_DELIVERIES: i32 = 20;
/// These have nowhere else to go, so the limit is only there because 4.x would set a low one.
const LAST_RESORT_DELIVERIES: i32 = 100_000;
/// How long statuses are kept for replay, unless a policy says otherwise.
const STATUS_LOG_AGE: &str = "30D";

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
    queue(channel, RETURNED, quorum(LAST_RESORT_DELIVERIES)).await?;
    let mut arguments = quorum(REQUEST_DELIVERIES);
    // What the broker gives up on goes to the workers once more, and not before the broker has it safe there.
    // At-least-once needs the overflow to be refused, which also tells a publisher at once that there is no room.
    text(&mut arguments, "x-dead-letter-exchange", "");
    text(&mut arguments, "x-dead-letter-routing-key", RETURNED);
    text(&mut arguments, "x-dead-letter-strategy", "at-least-once");
    text(&mut arguments, "x-overflow", "reject-publish");
    queue(channel, REQUESTS, arguments).await?;
    let bind = channel.queue_bind(
        REQUESTS.into(),
        REQUESTS.into(),
        "otp.#".into(),
        QueueBindOptions { nowait: false },
        FieldTable::default(),
    );
    in_time(REQUESTS, bind).await
}

/// Declares everything. A broker that can't have the status log is warned about, and does without.
///
/// # Errors
/// [`Error`] names what could not be declared.
pub async fn declare_all(connection: &Connection) -> Result<(), Error> {
    let channel = in_time("a channel", connection.create_channel()).await?;
    declare_requests(&channel).await?;
    queue(&channel, DEAD, quorum(LAST_RESORT_DELIVERIES)).await?;
    exchange(&channel, STATUS).await?;
    // Without it statuses are published all the same, so a refusal, which closes the channel, is no failure.
    if let Err(error) = declare_log(&channel).await {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "the broker can't have the status log, so statuses can't be replayed"
        );
        return Ok(());
    }
    in_time("a channel", channel.close(200, "done".into())).await
}

async fn declare_log(channel: &Channel) -> Result<(), Error> {
    let mut arguments = FieldTable::default();
    text(&mut arguments, "x-queue-type", "stream");
    text(&mut arguments, "x-max-age", STATUS_LOG_AGE);
    queue(channel, STATUS_LOG, arguments).await?;
    let bind = channel.queue_bind(
        STATUS_LOG.into(),
        STATUS.into(),
        "#".into(),
        QueueBindOptions { nowait: false },
        FieldTable::default(),
    );
    in_time(STATUS_LOG, bind).await
}

async fn exchange(channel: &Channel, name: &'static str) -> Result<(), Error> {
    // Durable and not auto-deleted: it outlives brokers and consumers. Not internal: clients publish to it.
    let options = ExchangeDeclareOptions { passive: false, durable: true, auto_delete: false, internal: false, nowait: false };
    in_time(name, channel.exchange_declare(name.into(), ExchangeKind::Topic, options, FieldTable::default())).await
}

async fn queue(channel: &Channel, name: &'static str, arguments: FieldTable) -> Result<(), Error> {
    // Durable, shared and kept: the only kind that quorum queues and streams know.
    let options = QueueDeclareOptions { passive: false, durable: true, exclusive: false, auto_delete: false, nowait: false };
    in_time(name, channel.queue_declare(name.into(), options, arguments)).await.map(drop)
}

fn quorum(deliveries: i32) -> FieldTable {
    let mut arguments = FieldTable::default();
    text(&mut arguments, "x-queue-type", "quorum");
    arguments.insert("x-delivery-limit".into(), AMQPValue::LongInt(deliveries));
    arguments
}

fn text(arguments: &mut FieldTable, name: &str, value: &str) {
    arguments.insert(name.into(), AMQPValue::LongString(value.into()));
}

async fn in_time<T>(what: &'static str, work: impl Future<Output = lapin::Result<T>>) -> Result<T, Error> {
    match tokio::time::timeout(TIMEOUT, work).await {
        Ok(result) => result.map_err(|error| Error::Declare(what, error)),
        Err(_) => Err(Error::TimedOut(what)),
    }
}
