//! The exchanges, queues and bindings. Every argument is defined here, once; `schemas/README.md`
//! documents them.

use std::time::Duration;

use futures_util::future::try_join_all;
use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Connection, ExchangeKind};
use voice_otp_schemas::TenantId;

/// The topic exchange that requests are published to, and the queue for requests without a lane.
pub const REQUESTS: &str = "voice-otp.requests";
/// The topic exchange that statuses and prices are published to.
pub const STATUS: &str = "voice-otp.status";
/// The queue for messages that the broker dead-letters: after too many deliveries, or because of a
/// publisher's `expiration`. Workers consume it.
pub const RETURNED: &str = "voice-otp.returned";
/// The queue for messages that no status can report. Only operators read it.
pub const DEAD: &str = "voice-otp.dead";
/// The stream of statuses and prices, for replay.
pub const STATUS_LOG: &str = "voice-otp.status.log";

/// The routing key of a request to read a code out, without its lane.
pub const REQUESTED_KEY: &str = "otp.requested";
/// The routing key of a cancellation, without its lane.
pub const CANCELLED_KEY: &str = "otp.cancelled";
/// The routing key of a verification, without its lane.
pub const VERIFIED_KEY: &str = "otp.verified";

/// The number of lanes that requests are spread over by their tenant. A flood of one tenant delays
/// only the tenants of its own lane: fewer than one in a hundred.
pub const LANES: u16 = 128;

/// A queue. Every queue is durable, not exclusive and not auto-deleted: quorum queues and streams
/// know no other kind.
#[derive(Debug, Clone, Copy)]
pub struct Queue {
    /// The name of the queue.
    pub name: &'static str,
    /// The x-arguments. They can't be changed after the declaration; a policy can override some.
    pub arguments: &'static [(&'static str, Argument)],
    /// The topic exchange that the queue is bound to, and the binding key. `None`: the queue is
    /// reached through the default exchange only.
    pub binding: Option<(&'static str, &'static str)>,
}

/// The value of an x-argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Argument {
    /// A string.
    Text(&'static str),
    /// A signed 32-bit integer.
    Number(i32),
}

const QUORUM: (&str, Argument) = ("x-queue-type", Argument::Text("quorum"));
/// The arguments of the queues whose messages have nowhere else to go. The delivery limit is set
/// only because RabbitMQ 4.x would set 20.
const NEVER_DEAD_LETTERED: &[(&str, Argument)] =
    &[QUORUM, ("x-delivery-limit", Argument::Number(100_000))];

/// Holds the messages that the broker dead-letters, until a worker consumes them.
pub const RETURNED_QUEUE: Queue = Queue {
    name: RETURNED,
    arguments: NEVER_DEAD_LETTERED,
    binding: None,
};
/// Holds requests without a lane until a worker consumes them.
pub const REQUESTS_QUEUE: Queue = Queue {
    name: REQUESTS,
    arguments: &[
        QUORUM,
        // After this many deliveries the broker dead-letters a message. Set, since RabbitMQ 3.10
        // has no limit by default and 4.x drops the message after 20. Never -1: only 4.x takes it
        // as no limit.
        ("x-delivery-limit", Argument::Number(20)),
        // Dead-lettered messages go back to the workers, by the default exchange. At least once:
        // the broker removes a message here only after it is stored there. That strategy requires
        // `reject-publish`, which also makes a full queue refuse a publish at once.
        ("x-dead-letter-exchange", Argument::Text("")),
        ("x-dead-letter-routing-key", Argument::Text(RETURNED)),
        ("x-dead-letter-strategy", Argument::Text("at-least-once")),
        ("x-overflow", Argument::Text("reject-publish")),
    ],
    binding: Some((REQUESTS, "otp.*")),
};
/// Holds dead letters until an operator reads them.
pub const DEAD_QUEUE: Queue = Queue {
    name: DEAD,
    arguments: NEVER_DEAD_LETTERED,
    binding: None,
};
/// Keeps statuses and prices for replay, for 30 days or as long as a policy's `max-age` says.
pub const STATUS_LOG_QUEUE: Queue = Queue {
    name: STATUS_LOG,
    arguments: &[
        ("x-queue-type", Argument::Text("stream")),
        ("x-max-age", Argument::Text("30D")),
    ],
    binding: Some((STATUS, "#")),
};

/// The binding key of [`REQUESTS_QUEUE`] before there were lanes.
const BINDING_BEFORE_LANES: &str = "otp.#";
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
/// Not `nowait`: the broker's answer shows that the binding exists.
const BIND: QueueBindOptions = QueueBindOptions { nowait: false };

/// Why the topology can't be declared.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The broker refused the named declaration, or the connection was lost.
    #[error("declare {0}")]
    Declare(&'static str, #[source] lapin::Error),
    /// The broker did not answer the named declaration in time.
    #[error("declare {0}: the broker did not answer within 10 seconds")]
    TimedOut(&'static str),
}

/// The lane of a tenant: the CRC-32 (IEEE) of its id, modulo [`LANES`].
///
/// A publisher may omit the lane. Its messages go to the queue [`REQUESTS`], together with those of
/// all other publishers that omit it.
pub fn lane_of(tenant: &TenantId) -> u16 {
    let lane = crc32fast::hash(tenant.as_str().as_bytes()) % u32::from(LANES);
    // The remainder is less than `LANES`, a `u16`, so its upper half is zero.
    let [_, _, high, low] = lane.to_be_bytes();
    u16::from_be_bytes([high, low])
}

/// The queue of a lane. Its arguments are those of [`REQUESTS_QUEUE`].
pub fn lane_queue(lane: u16) -> String {
    format!("{REQUESTS}.{lane:03}")
}

/// The routing key of a tenant's event: one of the keys above, and the tenant's lane.
pub fn lane_key(key: &str, tenant: &TenantId) -> String {
    format!("{key}.{:03}", lane_of(tenant))
}

/// Declares the exchange and the queues of requests, so that requests published before the first
/// worker starts are stored.
///
/// # Errors
/// [`Error`] names what could not be declared.
pub async fn declare_requests(connection: &Connection) -> Result<(), Error> {
    let channel = with_timeout("a channel", connection.create_channel()).await?;
    declare_exchange(&channel, REQUESTS).await?;
    declare_queue(&channel, &RETURNED_QUEUE).await?;
    declare_queue(&channel, &REQUESTS_QUEUE).await?;
    if last_lane_exists(connection).await? {
        declare_lane(&channel, LANES - 1).await?;
    } else {
        declare_lanes(&channel).await?;
    }
    with_timeout("a channel", channel.close(200, "done".into())).await
}

/// Declares the whole topology. A broker that can't have the status log does without it; a warning
/// says so.
///
/// # Errors
/// [`Error`] names what could not be declared.
pub async fn declare_all(connection: &Connection) -> Result<(), Error> {
    let channel = with_timeout("a channel", connection.create_channel()).await?;
    declare_exchange(&channel, REQUESTS).await?;
    declare_queue(&channel, &RETURNED_QUEUE).await?;
    declare_queue(&channel, &REQUESTS_QUEUE).await?;
    declare_lanes(&channel).await?;
    declare_queue(&channel, &DEAD_QUEUE).await?;
    declare_exchange(&channel, STATUS).await?;
    // The log comes last, since a refusal closes the channel. Statuses are published without it
    // too.
    if let Err(error) = declare_queue(&channel, &STATUS_LOG_QUEUE).await {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "failed to declare the status log; statuses can't be replayed"
        );
        return Ok(());
    }
    with_timeout("a channel", channel.close(200, "done".into())).await
}

/// Declares every lane, concurrently, since one after another takes a second.
///
/// The last lane is declared last, because [`last_lane_exists`] takes it as the sign that all
/// exist. The binding from before there were lanes is removed only after that: a message that
/// reaches two queues is a duplicate, but a message that reaches none is lost.
async fn declare_lanes(channel: &Channel) -> Result<(), Error> {
    try_join_all((0..LANES - 1).map(|lane| declare_lane(channel, lane))).await?;
    declare_lane(channel, LANES - 1).await?;
    let unbind = channel.queue_unbind(
        REQUESTS.into(),
        REQUESTS.into(),
        BINDING_BEFORE_LANES.into(),
        FieldTable::default(),
    );
    with_timeout(REQUESTS, unbind).await
}

/// Whether the last lane exists, and so all of them: a publisher that reconnects need not declare
/// every lane again. Workers always do, which restores a lane that was deleted.
async fn last_lane_exists(connection: &Connection) -> Result<bool, Error> {
    // A channel of its own, since the broker closes the channel if the queue doesn't exist.
    let channel = with_timeout("a channel", connection.create_channel()).await?;
    let lane = lane_queue(LANES - 1);
    let passive = QueueDeclareOptions {
        passive: true,
        ..DURABLE_QUEUE
    };
    let declaring = channel.queue_declare(lane.as_str().into(), passive, FieldTable::default());
    if with_timeout("the lanes", declaring).await.is_err() {
        return Ok(false);
    }
    with_timeout("a channel", channel.close(200, "done".into())).await?;
    Ok(true)
}

async fn declare_lane(channel: &Channel, lane: u16) -> Result<(), Error> {
    let name = lane_queue(lane);
    let arguments = field_table(REQUESTS_QUEUE.arguments);
    let declaring = channel.queue_declare(name.as_str().into(), DURABLE_QUEUE, arguments);
    with_timeout("the lanes", declaring).await?;
    let key = format!("otp.*.{lane:03}");
    let binding = channel.queue_bind(
        name.as_str().into(),
        REQUESTS.into(),
        key.as_str().into(),
        BIND,
        FieldTable::default(),
    );
    with_timeout("the lanes", binding).await
}

async fn declare_exchange(channel: &Channel, name: &'static str) -> Result<(), Error> {
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
    let declaring = channel.exchange_declare(name.into(), ExchangeKind::Topic, options, none);
    with_timeout(name, declaring).await
}

async fn declare_queue(channel: &Channel, queue: &Queue) -> Result<(), Error> {
    let arguments = field_table(queue.arguments);
    let declaring = channel.queue_declare(queue.name.into(), DURABLE_QUEUE, arguments);
    with_timeout(queue.name, declaring).await?;
    let Some((exchange, key)) = queue.binding else {
        return Ok(());
    };
    let binding = channel.queue_bind(
        queue.name.into(),
        exchange.into(),
        key.into(),
        BIND,
        FieldTable::default(),
    );
    with_timeout(queue.name, binding).await
}

fn field_table(arguments: &[(&'static str, Argument)]) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in arguments {
        table.insert((*name).into(), value.into());
    }
    table
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
    what: &'static str,
    declaring: impl Future<Output = lapin::Result<T>>,
) -> Result<T, Error> {
    match tokio::time::timeout(DECLARE_TIMEOUT, declaring).await {
        Ok(result) => result.map_err(|error| Error::Declare(what, error)),
        Err(_) => Err(Error::TimedOut(what)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_contract_lists_the_lanes_of_these_tenants() {
        let contract = include_str!("../../schemas/README.md");
        for (tenant, lane) in [("acme", "062"), ("bell", "007"), ("T-1_x", "071")] {
            let key = lane_key(REQUESTED_KEY, &TenantId::parse(tenant).unwrap());
            assert_eq!(key, format!("otp.requested.{lane}"));
            assert!(
                contract.contains(&format!("| `{tenant}` | "))
                    && contract.contains(&format!(" | `{lane}` |"))
            );
        }
    }

    #[test]
    fn a_hundred_thousand_tenants_share_lanes_evenly() {
        let mut lanes = vec![0_u32; usize::from(LANES)];
        for n in 0..100_000 {
            lanes[usize::from(lane_of(&TenantId::parse(&format!("tenant-{n}")).unwrap()))] += 1;
        }
        let (least, most) = (lanes.iter().min().unwrap(), lanes.iter().max().unwrap());
        assert!(*least > 600 && *most < 1_000, "{least} to {most}");
    }
}
