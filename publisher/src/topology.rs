//! Exchanges, queues and bindings: every argument, once. `schemas/README.md` has the same in prose.

use std::time::Duration;

use futures_util::future::try_join_all;
use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Connection, ExchangeKind};
use voice_otp_schemas::TenantId;

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
pub const RETURNED_QUEUE: Queue = Queue {
    name: RETURNED,
    arguments: LAST_RESORT,
    bound: None,
};
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
    bound: Some((REQUESTS, "otp.*")),
};

/// Into how many lanes requests are spread, by their tenants. A flood stands in front of those of its own lane only, and fewer than
/// one in a hundred tenants share one.
pub const LANES: u16 = 128;
/// What [`REQUESTS_QUEUE`] was bound to before there were lanes.
const FORMER_BINDING: &str = "otp.#";

/// The lane of a tenant: CRC-32 (IEEE) of its id, modulo [`LANES`]. Whoever publishes without it is served all the same, with all the
/// others that do.
pub fn lane_of(tenant: &TenantId) -> u16 {
    let lanes = u32::from(LANES);
    u16::try_from(crc32fast::hash(tenant.as_str().as_bytes()) % lanes).unwrap_or_default()
}

/// The queue of a lane. Its arguments are those of [`REQUESTS_QUEUE`].
pub fn lane_queue(lane: u16) -> String {
    format!("{REQUESTS}.{lane:03}")
}

/// The routing key of a tenant's event: one of the keys above, and the lane.
pub fn lane_key(key: &str, tenant: &TenantId) -> String {
    format!("{key}.{:03}", lane_of(tenant))
}
/// Where dead letters wait for people.
pub const DEAD_QUEUE: Queue = Queue {
    name: DEAD,
    arguments: LAST_RESORT,
    bound: None,
};
/// Where statuses are kept for replay, for as long as `x-max-age`, or a policy's `max-age`, says.
pub const STATUS_LOG_QUEUE: Queue = Queue {
    name: STATUS_LOG,
    arguments: &[
        ("x-queue-type", Argument::Text("stream")),
        ("x-max-age", Argument::Text("30D")),
    ],
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
pub async fn declare_requests(connection: &Connection) -> Result<(), Error> {
    let channel = in_time("a channel", connection.create_channel()).await?;
    exchange(&channel, REQUESTS).await?;
    queue(&channel, &RETURNED_QUEUE).await?;
    queue(&channel, &REQUESTS_QUEUE).await?;
    if has_lanes(connection).await? {
        declare_lane(&channel, LANES - 1).await?;
    } else {
        declare_lanes(&channel).await?;
    }
    in_time("a channel", channel.close(200, "done".into())).await
}

/// All lanes, all at once: one after another they would take a second. The last one last, since it stands for them all; and only then
/// goes what was before: a message to two queues is known as a repeat, one to none is lost.
async fn declare_lanes(channel: &Channel) -> Result<(), Error> {
    try_join_all((0..LANES - 1).map(|lane| declare_lane(channel, lane))).await?;
    declare_lane(channel, LANES - 1).await?;
    let unbind = channel.queue_unbind(
        REQUESTS.into(),
        REQUESTS.into(),
        FORMER_BINDING.into(),
        FieldTable::default(),
    );
    in_time(REQUESTS, unbind).await
}

/// Whether the last lane is there, and with it the others: a publisher that connects anew needn't declare them all again. Workers do, so
/// one that somebody deleted is there again with the next worker's connection.
async fn has_lanes(connection: &Connection) -> Result<bool, Error> {
    let channel = in_time("a channel", connection.create_channel()).await?;
    let look = QueueDeclareOptions {
        passive: true,
        ..DURABLE
    };
    // A queue that isn't there closes the channel.
    if in_time(
        "the lanes",
        channel.queue_declare(
            lane_queue(LANES - 1).as_str().into(),
            look,
            FieldTable::default(),
        ),
    )
    .await
    .is_err()
    {
        return Ok(false);
    }
    in_time("a channel", channel.close(200, "done".into())).await?;
    Ok(true)
}

async fn declare_lane(channel: &Channel, lane: u16) -> Result<(), Error> {
    let name = lane_queue(lane);
    in_time(
        "the lanes",
        channel.queue_declare(name.as_str().into(), DURABLE, arguments(&REQUESTS_QUEUE)),
    )
    .await?;
    let (key, options) = (
        format!("otp.*.{lane:03}"),
        QueueBindOptions { nowait: false },
    );
    let bind = channel.queue_bind(
        name.as_str().into(),
        REQUESTS.into(),
        key.as_str().into(),
        options,
        FieldTable::default(),
    );
    in_time("the lanes", bind).await
}

/// Declares everything. A broker that can't have the status log is warned about, and does without.
///
/// # Errors
/// [`Error`] names what could not be declared.
pub async fn declare_all(connection: &Connection) -> Result<(), Error> {
    let channel = in_time("a channel", connection.create_channel()).await?;
    exchange(&channel, REQUESTS).await?;
    queue(&channel, &RETURNED_QUEUE).await?;
    queue(&channel, &REQUESTS_QUEUE).await?;
    declare_lanes(&channel).await?;
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
    let options = ExchangeDeclareOptions {
        passive: false,
        durable: true,
        auto_delete: false,
        internal: false,
        nowait: false,
    };
    in_time(
        name,
        channel.exchange_declare(
            name.into(),
            ExchangeKind::Topic,
            options,
            FieldTable::default(),
        ),
    )
    .await
}

/// What every queue here is.
const DURABLE: QueueDeclareOptions = QueueDeclareOptions {
    passive: false,
    durable: true,
    exclusive: false,
    auto_delete: false,
    nowait: false,
};

fn arguments(queue: &Queue) -> FieldTable {
    let mut arguments = FieldTable::default();
    for (name, value) in queue.arguments {
        arguments.insert((*name).into(), value.into());
    }
    arguments
}

async fn queue(channel: &Channel, queue: &Queue) -> Result<(), Error> {
    in_time(
        queue.name,
        channel.queue_declare(queue.name.into(), DURABLE, arguments(queue)),
    )
    .await?;
    let Some((exchange, key)) = queue.bound else {
        return Ok(());
    };
    let options = QueueBindOptions { nowait: false };
    in_time(
        queue.name,
        channel.queue_bind(
            queue.name.into(),
            exchange.into(),
            key.into(),
            options,
            FieldTable::default(),
        ),
    )
    .await
}

impl From<&Argument> for AMQPValue {
    fn from(argument: &Argument) -> Self {
        match argument {
            Argument::Text(text) => Self::LongString((*text).into()),
            Argument::Number(number) => Self::LongInt(*number),
        }
    }
}

async fn in_time<T>(
    what: &'static str,
    work: impl Future<Output = lapin::Result<T>>,
) -> Result<T, Error> {
    match tokio::time::timeout(TIMEOUT, work).await {
        Ok(result) => result.map_err(|error| Error::Declare(what, error)),
        Err(_) => Err(Error::TimedOut(what)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenants_lane_is_the_one_that_the_contract_says() {
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
