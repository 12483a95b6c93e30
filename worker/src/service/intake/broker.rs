//! The consumers, and what is sent back to the broker for each message.

use std::time::Duration;

use futures_util::future::try_join_all;
use futures_util::stream::{self, BoxStream, SelectAll, StreamExt as _};
use lapin::Channel;
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use voice_otp_publisher::connection::BrokerConnection;

/// Why consuming failed.
pub(super) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The timeout of each request to the broker.
const BROKER_TIMEOUT: Duration = Duration::from_secs(10);
/// The pause before a message is requeued that no worker can process now: the broker may deliver it
/// here again at once.
const REQUEUE_PAUSE: Duration = Duration::from_secs(1);

/// The consumers of one channel, read as one stream in turns, so that a full queue doesn't starve
/// the others.
pub(super) struct Consumers {
    channel: Channel,
    tags: Vec<String>,
    /// Each stream ends with `None`, so that the end of one consumer is seen among many.
    streams: SelectAll<BoxStream<'static, Option<lapin::Result<Delivery>>>>,
    /// The sum over all consumers.
    prefetch: usize,
}

impl Consumers {
    pub(super) async fn open(connection: &BrokerConnection) -> Result<Self, BoxError> {
        let opening = connection.connection.create_channel();
        let channel = tokio::time::timeout(BROKER_TIMEOUT, opening).await??;
        Ok(Self {
            channel,
            tags: Vec::new(),
            streams: SelectAll::new(),
            prefetch: 0,
        })
    }

    pub(super) async fn add(&mut self, queue: &str, prefetch: u16) -> Result<(), BoxError> {
        let channel = &self.channel;
        let consuming = async {
            // Set before the consumer, whose own limit it becomes; without a limit the broker
            // delivers the whole queue. Not global: quorum queues reject that.
            channel
                .basic_qos(prefetch, BasicQosOptions { global: false })
                .await?;
            // All workers share the queue, and each message is acknowledged.
            let options = BasicConsumeOptions {
                no_local: false,
                no_ack: false,
                exclusive: false,
                nowait: false,
            };
            channel
                .basic_consume(queue.into(), "".into(), options, FieldTable::default())
                .await
        };
        let consumer = tokio::time::timeout(BROKER_TIMEOUT, consuming).await??;
        self.tags.push(consumer.tag().as_str().to_owned());
        self.prefetch += usize::from(prefetch);
        let end = stream::once(async { None });
        self.streams.push(consumer.map(Some).chain(end).boxed());
        Ok(())
    }

    /// The maximum number of unacknowledged messages.
    pub(super) fn prefetch(&self) -> usize {
        self.prefetch
    }

    /// The next message; `None` when a consumer has ended. Cancel-safe.
    pub(super) async fn next(&mut self) -> Option<lapin::Result<Delivery>> {
        self.streams.next().await.flatten()
    }

    /// Stops consuming, and requeues the messages that were delivered and not read.
    pub(super) async fn requeue_buffered(&mut self) {
        let channel = &self.channel;
        let cancel = |tag: &String| {
            channel.basic_cancel(tag.as_str().into(), BasicCancelOptions { nowait: false })
        };
        let cancelling = try_join_all(self.tags.iter().map(cancel));
        let cancelled = tokio::time::timeout(BROKER_TIMEOUT, cancelling).await;
        if !matches!(cancelled, Ok(Ok(_))) {
            // The broker requeues everything when the connection closes.
            return;
        }
        while let Some(left) = self.streams.next().await {
            if let Some(Ok(delivery)) = left {
                requeue(&delivery).await;
            }
        }
    }

    /// Closes the channel. If it were only dropped, it would still be closing while the connection
    /// does.
    pub(super) async fn close(self) {
        let closing = self.channel.close(200, "done".into());
        drop(tokio::time::timeout(BROKER_TIMEOUT, closing).await);
    }
}

pub(super) async fn acknowledge(delivery: &Delivery) {
    // Not `multiple`: the batches of one channel finish in any order.
    let acking = delivery.acker.ack(BasicAckOptions { multiple: false });
    let acked = tokio::time::timeout(BROKER_TIMEOUT, acking).await;
    if !matches!(acked, Ok(Ok(true))) {
        // The message is redelivered, and recognised as a duplicate.
        tracing::debug!("an acknowledgement was lost with its channel");
    }
}

/// Requeues messages after a pause.
pub(super) async fn requeue_later(deliveries: &[Delivery]) {
    if !deliveries.is_empty() {
        tokio::time::sleep(REQUEUE_PAUSE).await;
    }
    for delivery in deliveries {
        requeue(delivery).await;
    }
}

pub(super) async fn requeue(delivery: &Delivery) {
    let options = BasicNackOptions {
        multiple: false,
        requeue: true,
    };
    let nacked = tokio::time::timeout(BROKER_TIMEOUT, delivery.acker.nack(options)).await;
    if !matches!(nacked, Ok(Ok(true))) {
        tracing::debug!("failed to requeue a message; the broker does when the connection closes");
    }
}

/// The headers that the contract names, as text.
pub(super) fn text_headers(headers: Option<&FieldTable>) -> Vec<(String, String)> {
    let Some(headers) = headers else {
        return Vec::new();
    };
    let is_known = |name: &str| {
        name.starts_with("cloudEvents") || name == "traceparent" || name == "tracestate"
    };
    let text = |value: &AMQPValue| match value {
        AMQPValue::LongString(text) => String::from_utf8(text.as_bytes().to_vec()).ok(),
        AMQPValue::ShortString(text) => Some(text.as_str().to_owned()),
        AMQPValue::ByteArray(bytes) => String::from_utf8(bytes.as_slice().to_vec()).ok(),
        _ => None,
    };
    let known = headers
        .inner()
        .iter()
        .filter(|(name, _)| is_known(name.as_str()));
    known
        .filter_map(|(name, value)| Some((name.as_str().to_owned(), text(value)?)))
        .collect()
}
