//! The stream of statuses and prices: live, or replayed from the status log.

use std::time::Duration;

use futures_util::StreamExt as _;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicQosOptions, ExchangeDeclareOptions,
    QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Consumer, ExchangeKind};
use secrecy::SecretString;
use voice_otp_schemas::Timestamp;
use voice_otp_schemas::envelope::parse_time;
use voice_otp_schemas::price::PriceEvent;
use voice_otp_schemas::status::StatusEvent;

use crate::connection::{self, BrokerConnection};
use crate::topology;

/// A subscription to the statuses and prices of one tenant, or of all tenants.
///
/// Events arrive at least once, so consumers drop duplicates by `source` and `id`.
pub struct StatusStream {
    broker: BrokerConnection,
    consumer: Consumer,
    /// Set when the log is read. The log has the events of every tenant and starts a little early,
    /// so events of other tenants and older events are dropped here.
    log_filter: Option<LogFilter>,
}

struct LogFilter {
    /// The tenant whose events are wanted; `None`: all tenants.
    tenant: Option<String>,
    /// The time of the oldest event that is wanted.
    since: Timestamp,
}

/// An event of the stream.
#[derive(Debug)]
pub enum Received {
    /// A status of a delivery.
    Status(Box<StatusEvent>),
    /// The price of a call.
    Price(Box<PriceEvent>),
}

/// Why there is no stream.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The connection to the broker failed.
    #[error(transparent)]
    Connect(#[from] connection::Error),
    /// The named step of the subscription failed.
    #[error("{0}")]
    Subscribe(&'static str, #[source] lapin::Error),
    /// The broker stopped answering.
    #[error("the broker did not answer within 30 seconds")]
    TimedOut,
    /// The log can't be consumed.
    #[error(
        "read {}: start a worker, which declares the stream, and grant the user read permission",
        topology::STATUS_LOG
    )]
    Log(#[source] lapin::Error),
}

/// The name in the broker's list of connections.
const CONNECTION_NAME: &str = "voice-otp statuses";
/// The time limit of a subscription.
const SUBSCRIBE_TIMEOUT: Duration = Duration::from_secs(30);
/// The time limit of an acknowledgement.
const ACK_TIMEOUT: Duration = Duration::from_secs(10);
/// How many events of the log the broker sends ahead of their acknowledgement. A stream requires a
/// limit.
const LOG_PREFETCH: u16 = 1_000;

impl StatusStream {
    /// Subscribes to the statuses and prices that are published from now on, of one tenant or of
    /// all.
    ///
    /// The queue ends with the connection, so events published while the caller is disconnected are
    /// missed. The user needs the permission to declare the status exchange and a queue.
    ///
    /// # Errors
    /// [`Error`] names the step that failed.
    pub async fn subscribe(url: &SecretString, tenant: Option<&str>) -> Result<Self, Error> {
        with_timeout(Self::subscribe_live(url, tenant)).await
    }

    async fn subscribe_live(url: &SecretString, tenant: Option<&str>) -> Result<Self, Error> {
        let (broker, channel) = open(url).await?;
        let failed = |step| move |error| Error::Subscribe(step, error);
        // As in the topology. Declared here too, so that a subscription can precede the first
        // worker.
        let durable = ExchangeDeclareOptions {
            passive: false,
            durable: true,
            auto_delete: false,
            internal: false,
            nowait: false,
        };
        let none = FieldTable::default();
        channel
            .exchange_declare(topology::STATUS.into(), ExchangeKind::Topic, durable, none)
            .await
            .map_err(failed("declare the status exchange"))?;
        // Exclusive and auto-deleted: only this connection reads the queue, and the broker deletes
        // it with the connection. Not durable, for the same reason. Not `nowait`: the answer has
        // its name.
        let exclusive = QueueDeclareOptions {
            passive: false,
            durable: false,
            exclusive: true,
            auto_delete: true,
            nowait: false,
        };
        let queue = channel
            .queue_declare("".into(), exclusive, FieldTable::default())
            .await
            .map_err(failed("declare a queue for statuses"))?;
        for key in binding_keys(tenant) {
            // Not `nowait`: the answer shows that no later event is missed.
            channel
                .queue_bind(
                    queue.name().clone(),
                    topology::STATUS.into(),
                    key.as_str().into(),
                    QueueBindOptions { nowait: false },
                    FieldTable::default(),
                )
                .await
                .map_err(failed("bind the queue to the status exchange"))?;
        }
        // No acknowledgements: an unacknowledged event could not be delivered again, since the
        // queue ends with the connection. `no_local` is not supported by RabbitMQ.
        let options = BasicConsumeOptions {
            no_local: false,
            no_ack: true,
            exclusive: true,
            nowait: false,
        };
        let consumer = channel
            .basic_consume(
                queue.name().clone(),
                "".into(),
                options,
                FieldTable::default(),
            )
            .await
            .map_err(failed("consume statuses"))?;
        Ok(Self {
            broker,
            consumer,
            log_filter: None,
        })
    }

    /// Replays the status log of one tenant, or of all tenants, since a time. Continues with the
    /// events that are published from now on.
    ///
    /// # Errors
    /// [`Error`] names the step that failed.
    pub async fn since(
        url: &SecretString,
        tenant: Option<&str>,
        since: Timestamp,
    ) -> Result<Self, Error> {
        with_timeout(Self::subscribe_since(url, tenant, since)).await
    }

    async fn subscribe_since(
        url: &SecretString,
        tenant: Option<&str>,
        since: Timestamp,
    ) -> Result<Self, Error> {
        let (broker, channel) = open(url).await?;
        // Per consumer, not `global`: streams don't support a limit of the channel.
        channel
            .basic_qos(LOG_PREFETCH, BasicQosOptions { global: false })
            .await
            .map_err(|error| Error::Subscribe("set the prefetch", error))?;
        let mut arguments = FieldTable::default();
        // In seconds. The broker starts at the chunk that contains this time, so the first events
        // may be older.
        let seconds = u64::try_from(since.timestamp()).unwrap_or(0);
        arguments.insert("x-stream-offset".into(), AMQPValue::Timestamp(seconds));
        // Acknowledgements are required by streams. Not exclusive: others read the log too.
        let options = BasicConsumeOptions {
            no_local: false,
            no_ack: false,
            exclusive: false,
            nowait: false,
        };
        let consumer = channel
            .basic_consume(topology::STATUS_LOG.into(), "".into(), options, arguments)
            .await
            .map_err(Error::Log)?;
        let tenant = tenant.map(str::to_owned);
        Ok(Self {
            broker,
            consumer,
            log_filter: Some(LogFilter { tenant, since }),
        })
    }

    /// The next event: its JSON text as published, and the parsed event. Messages that aren't
    /// events are skipped. `None` when the connection is lost.
    ///
    /// A cancelled call may lose an event of the log, which this connection doesn't receive again.
    pub async fn next(&mut self) -> Option<(String, Received)> {
        loop {
            let delivery = tokio::select! {
                delivery = self.consumer.next() => delivery?.ok()?,
                () = self.broker.lost() => return None,
            };
            if self.log_filter.is_some() {
                // An acknowledgement removes nothing from a stream; it only lets the broker send
                // more.
                let acking = delivery.ack(BasicAckOptions { multiple: false });
                tokio::time::timeout(ACK_TIMEOUT, acking).await.ok()?.ok()?;
            }
            let Ok(text) = String::from_utf8(delivery.data) else {
                continue;
            };
            if let Some(received) = Received::parse(&text)
                && self
                    .log_filter
                    .as_ref()
                    .is_none_or(|filter| filter.accepts(&received))
            {
                return Some((text, received));
            }
        }
    }

    /// The next status; prices are skipped. `None` when the connection is lost.
    pub async fn next_status(&mut self) -> Option<StatusEvent> {
        loop {
            if let (_, Received::Status(event)) = self.next().await? {
                return Some(*event);
            }
        }
    }
}

async fn with_timeout<T>(subscribing: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    tokio::time::timeout(SUBSCRIBE_TIMEOUT, subscribing)
        .await
        .unwrap_or(Err(Error::TimedOut))
}

async fn open(url: &SecretString) -> Result<(BrokerConnection, Channel), Error> {
    let broker = connection::connect(url, CONNECTION_NAME).await?;
    let channel = broker
        .connection
        .create_channel()
        .await
        .map_err(|error| Error::Subscribe("open a channel", error))?;
    Ok((broker, channel))
}

/// The binding keys of the statuses and the prices of one tenant, or of all tenants.
fn binding_keys(tenant: Option<&str>) -> [String; 2] {
    let tenant = tenant.unwrap_or("*");
    [format!("status.*.{tenant}"), format!("price.{tenant}")]
}

impl LogFilter {
    fn accepts(&self, received: &Received) -> bool {
        let (tenant, time) = match received {
            Received::Status(event) => (event.data.tenant_id.as_str(), &event.time),
            Received::Price(event) => (event.data.tenant_id.as_str(), &event.time),
        };
        parse_time(time).is_some_and(|time| time >= self.since)
            && self.tenant.as_deref().is_none_or(|wanted| wanted == tenant)
    }
}

impl Received {
    /// The event in this JSON text. `None` if it is neither a status nor a price.
    fn parse(text: &str) -> Option<Self> {
        if let Ok(status) = serde_json::from_str(text) {
            return Some(Self::Status(Box::new(status)));
        }
        let price = serde_json::from_str(text).ok()?;
        Some(Self::Price(Box::new(price)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = include_str!("../../schemas/examples/status/delivered.json");
    const PRICE: &str = include_str!("../../schemas/examples/price/price.json");

    #[test]
    fn statuses_and_prices_are_distinguished_and_other_texts_are_skipped() {
        assert!(matches!(Received::parse(STATUS), Some(Received::Status(_))));
        assert!(matches!(Received::parse(PRICE), Some(Received::Price(_))));
        let request = include_str!("../../schemas/examples/valid/requested.minimal.json");
        for other in [request, "{}", "no JSON", ""] {
            assert!(Received::parse(other).is_none(), "{other}");
        }
    }

    #[test]
    fn a_replay_has_only_the_wanted_tenant_and_no_older_event() {
        let accepts = |tenant: Option<&str>, since: &str| {
            let filter = LogFilter {
                tenant: tenant.map(str::to_owned),
                since: parse_time(since).unwrap(),
            };
            [STATUS, PRICE].map(|text| filter.accepts(&Received::parse(text).unwrap()))
        };
        // The status is of 12:00:41.120, the price of 12:01:02.117.
        assert_eq!(accepts(Some("acme"), "2026-01-31T12:00:00Z"), [true, true]);
        assert_eq!(accepts(None, "2026-01-31T12:00:41.120Z"), [true, true]);
        assert_eq!(accepts(None, "2026-01-31T12:00:42Z"), [false, true]);
        assert_eq!(
            accepts(Some("bell"), "2026-01-31T12:00:00Z"),
            [false, false]
        );
    }

    #[test]
    fn a_subscription_binds_statuses_and_prices() {
        assert_eq!(binding_keys(Some("acme")), ["status.*.acme", "price.acme"]);
        assert_eq!(binding_keys(None), ["status.*.*", "price.*"]);
    }
}
