//! The exchanges, queues and bindings. Every argument is defined here, once; `schemas/README.md`
//! documents them.

mod declaring;
mod lanes;
mod leaders;

use lapin::Connection;
use voice_otp_schemas::TenantId;

use self::declaring::Declarer;
pub use self::declaring::{Error, LEADER_LOCATOR};
pub use self::lanes::{LaneCount, LaneQueues, leads_to};
pub use self::leaders::QueueSpread;

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

/// The number of lanes that requests are spread over by their tenant. It is part of the contract
/// with publishers. Workers decide how many queues the lanes share ([`LaneCount`]).
pub const LANES: u16 = 128;

/// A queue. Every queue is durable, not exclusive and not auto-deleted: quorum queues and streams
/// know no other kind.
#[derive(Debug, Clone, Copy)]
pub struct Queue {
    /// The name of the queue.
    pub name: &'static str,
    /// The x-arguments, besides [`LEADER_LOCATOR`], which every new queue has. They can't be
    /// changed after the declaration; a policy can override some.
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
/// The delivery limit of the queues whose messages have nowhere else to go. Set only because
/// RabbitMQ 4.x would set 20.
const NO_DELIVERY_LIMIT: Argument = Argument::Number(100_000);

/// Holds the messages that the broker dead-letters, until a worker consumes them. The workers give
/// a message up that may have killed some of them; the broker doesn't.
pub const RETURNED_QUEUE: Queue = Queue {
    name: RETURNED,
    arguments: &[QUORUM, ("x-delivery-limit", NO_DELIVERY_LIMIT)],
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
    arguments: &[
        QUORUM,
        ("x-delivery-limit", NO_DELIVERY_LIMIT),
        // A full queue drops its oldest letters: a flood of messages that can't be read neither
        // fills the broker's disk nor keeps new letters out.
        ("x-max-length", Argument::Number(100_000)),
        ("x-overflow", Argument::Text("drop-head")),
    ],
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

/// The queue with this number. Its arguments are those of [`REQUESTS_QUEUE`].
pub fn lane_queue(number: u16) -> String {
    format!("{REQUESTS}.{number:03}")
}

/// The routing key of a tenant's event: one of the keys above, and the tenant's lane.
pub fn lane_key(key: &str, tenant: &TenantId) -> String {
    format!("{key}.{:03}", lane_of(tenant))
}

/// Declares the exchange and the shared queue of requests, so that requests published before the
/// first worker starts are stored. Until a worker declares the lanes, the shared queue receives
/// every request.
///
/// # Errors
/// [`Error`] names what could not be declared.
pub async fn declare_requests(connection: &Connection) -> Result<(), Error> {
    let mut declarer = Declarer::open(connection).await?;
    declarer.exchange(REQUESTS).await?;
    declarer.queue(&RETURNED_QUEUE).await?;
    declarer.queue(&REQUESTS_QUEUE).await?;
    lanes::bind_all_to_the_shared_queue_unless_there_are_lanes(&mut declarer).await?;
    declarer.close().await
}

/// Declares the queue of dead letters.
///
/// # Errors
/// [`Error`] names what could not be declared.
pub async fn declare_dead_letters(connection: &Connection) -> Result<(), Error> {
    let mut declarer = Declarer::open(connection).await?;
    declarer.queue(&DEAD_QUEUE).await?;
    declarer.close().await
}

/// Declares what statuses are published to. A broker that can't have the status log does without
/// it; a warning says so.
///
/// # Errors
/// [`Error`] names what could not be declared.
pub async fn declare_statuses(connection: &Connection) -> Result<(), Error> {
    let mut declarer = Declarer::open(connection).await?;
    declare_statuses_with(&mut declarer).await?;
    declarer.close().await
}

async fn declare_statuses_with(declarer: &mut Declarer<'_>) -> Result<(), Error> {
    declarer.exchange(STATUS).await?;
    // Statuses are published without the log too.
    if let Err(error) = declarer.queue(&STATUS_LOG_QUEUE).await {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "failed to declare the status log; statuses can't be replayed"
        );
    }
    Ok(())
}

/// Declares the whole topology with as many queues for the lanes as there are lanes.
///
/// # Errors
/// [`Error`] names what could not be declared.
pub async fn declare_all(connection: &Connection) -> Result<(), Error> {
    declare(connection, LaneCount::default()).await.map(drop)
}

/// Declares the whole topology with so many queues for the lanes, or with fewer where a limit of
/// the broker leaves no room for them; a warning says so. Returns the queues to consume.
///
/// # Errors
/// [`Error`] names what could not be declared.
pub async fn declare(connection: &Connection, wanted: LaneCount) -> Result<LaneQueues, Error> {
    let mut declarer = Declarer::open(connection).await?;
    declare_shared(&mut declarer).await?;
    let queues = lanes::declare(&mut declarer, wanted).await?;
    declarer.close().await?;
    Ok(queues)
}

/// Restores what was deleted of the topology that [`declare`] found, and leaves the number of
/// queues as it is.
///
/// While a node of a cluster is silent, declaring a queue that it leads takes a second, and binding
/// takes until the others give the node up. So a connection that comes after another one consumes
/// first, and restores beside that.
///
/// # Errors
/// [`Error`] names what could not be declared.
pub async fn restore_all(connection: &Connection, found: &LaneQueues) -> Result<(), Error> {
    let mut declarer = Declarer::open(connection).await?;
    declare_shared(&mut declarer).await?;
    lanes::restore_all(&mut declarer, found).await?;
    declarer.close().await
}

/// Declares all but the lanes. Comes before them, since they take whatever room a limit of the
/// broker leaves.
async fn declare_shared(declarer: &mut Declarer<'_>) -> Result<(), Error> {
    declarer.exchange(REQUESTS).await?;
    declarer.queue(&RETURNED_QUEUE).await?;
    declarer.queue(&REQUESTS_QUEUE).await?;
    declarer.queue(&DEAD_QUEUE).await?;
    declare_statuses_with(declarer).await
}

/// Whether there is a queue for lanes that [`declare`] didn't find: of a worker with another
/// setting.
///
/// # Errors
/// [`Error`] when the broker doesn't answer.
pub async fn has_other_lanes(connection: &Connection, known: &LaneQueues) -> Result<bool, Error> {
    match known.first_unknown() {
        Some(number) => declaring::exists(connection, &lane_queue(number)).await,
        None => Ok(false),
    }
}

/// Restores a deleted queue that [`declare`] returned, or one of the shared queues, with its
/// bindings. Returns false if the queue is gone and needn't be restored, since its lanes have moved
/// to other queues.
///
/// # Errors
/// [`Error`] names what could not be declared.
pub async fn restore(
    connection: &Connection,
    queue: &str,
    queues: &LaneQueues,
) -> Result<bool, Error> {
    let mut declarer = Declarer::open(connection).await?;
    let restored = match queue {
        REQUESTS => declarer.queue(&REQUESTS_QUEUE).await.map(|()| true),
        RETURNED => declarer.queue(&RETURNED_QUEUE).await.map(|()| true),
        lane => lanes::restore(&mut declarer, lane, queues).await,
    }?;
    declarer.close().await?;
    Ok(restored)
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
    fn the_contract_lists_the_arguments_of_every_queue() {
        let contract = include_str!("../../schemas/README.md");
        let lines = || contract.lines().map(|line| line.split('|').map(str::trim));
        for queue in [REQUESTS_QUEUE, RETURNED_QUEUE, DEAD_QUEUE, STATUS_LOG_QUEUE] {
            let name = format!("`{}`", queue.name);
            let declared: Vec<_> = queue
                .arguments
                .iter()
                .map(|(argument, value)| match value {
                    Argument::Text("") => format!("`{argument}` empty: the default exchange"),
                    Argument::Text(text) => format!("`{argument}` `{text}`"),
                    Argument::Number(number) => format!("`{argument}` `{number}`"),
                })
                .collect();
            let rows = lines().skip_while(|cells| {
                let cells: Vec<_> = cells.clone().collect();
                cells.get(1) != Some(&name.as_str()) || cells.get(2) != Some(&"`x-queue-type`")
            });
            let rows: Vec<Vec<&str>> = rows.map(Iterator::collect).collect();
            let documented: Vec<_> = rows
                .iter()
                .enumerate()
                .take_while(|(row, cells)| {
                    let first = cells.get(1).copied();
                    *row == 0 || (cells.len() > 3 && first == Some(""))
                })
                .map(|(_, cells)| format!("{} {}", cells[2], cells[3]))
                .collect();
            assert_eq!(documented, declared, "{name}");
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
