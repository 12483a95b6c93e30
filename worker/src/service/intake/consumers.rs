//! The consumers of a connection, each of which is resumed when the broker cancels it.
//!
//! The broker cancels a consumer when its queue is deleted, when the queue's leader is lost, and,
//! from RabbitMQ 4.3 on, when an acknowledgement takes too long. The other consumers go on.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, try_join_all};
use futures_util::stream::{self, BoxStream, FuturesUnordered, SelectAll, StreamExt as _};
use lapin::message::Delivery;
use lapin::options::{BasicCancelOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Consumer};
use tokio::time::Instant;
use voice_otp_publisher::connection::{self, BrokerConnection};
use voice_otp_publisher::topology::{self, LaneQueues};

use super::broker::{BROKER_TIMEOUT, BoxError, requeue};
use crate::service::dead_letters::Source;

/// The consumers that share a batcher, read as one stream in turns, so that a full queue doesn't
/// starve the others.
pub(super) struct Consumers {
    connection: Arc<BrokerConnection>,
    /// What a deleted queue is restored from.
    lanes: Arc<LaneQueues>,
    /// The channel of every consumer that wasn't resumed.
    channel: Channel,
    queues: Vec<ConsumedQueue>,
    /// Each stream ends with `None`, so that the end of one consumer is seen among many. With the
    /// index of its queue.
    streams: SelectAll<BoxStream<'static, (usize, Option<lapin::Result<Delivery>>)>>,
    /// The consumers that are being resumed.
    resuming: FuturesUnordered<BoxFuture<'static, (usize, Resumed)>>,
    /// The sum over all consumers.
    prefetch: usize,
}

/// A queue that is consumed, or was until the broker cancelled its consumer.
struct ConsumedQueue {
    source: Arc<Source>,
    /// The consumer's channel and tag. `None` while it is being resumed.
    consumer: Option<(Channel, String)>,
    /// When its consumer was started.
    since: Instant,
    /// How often it was resumed in vain, or was cancelled again soon.
    failures: u32,
}

enum Resumed {
    Consumer(Box<(Channel, Consumer)>),
    /// The queue belongs to another number of lanes and was deleted.
    Gone,
    Failed(BoxError),
}

/// The time limit for stopping the consumers, and for closing their channel.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// A consumer that is cancelled sooner than this after its start is resumed after a longer pause.
const SETTLED: Duration = Duration::from_mins(1);
/// The time limit for resuming a consumer, restoring its queue included.
const RESUME_TIMEOUT: Duration = Duration::from_secs(30);

impl Consumers {
    pub(super) async fn open(
        connection: &Arc<BrokerConnection>,
        lanes: &Arc<LaneQueues>,
    ) -> Result<Self, BoxError> {
        let opening = connection.connection.create_channel();
        Ok(Self {
            connection: Arc::clone(connection),
            lanes: Arc::clone(lanes),
            channel: tokio::time::timeout(BROKER_TIMEOUT, opening).await??,
            queues: Vec::new(),
            streams: SelectAll::new(),
            resuming: FuturesUnordered::new(),
            prefetch: 0,
        })
    }

    pub(super) async fn add(&mut self, queue: &str, prefetch: u16) -> Result<(), BoxError> {
        let consumer = consume(&self.channel, queue, prefetch).await?;
        self.prefetch += usize::from(prefetch);
        let source = Source {
            queue: queue.to_owned(),
            window: prefetch,
        };
        self.queues.push(ConsumedQueue {
            source: Arc::new(source),
            consumer: None,
            since: Instant::now(),
            failures: 0,
        });
        self.started(self.queues.len() - 1, self.channel.clone(), consumer);
        Ok(())
    }

    /// The maximum number of unacknowledged messages.
    pub(super) fn prefetch(&self) -> usize {
        self.prefetch
    }

    /// The next message, and its queue. An error means that the consumers can't go on. Cancel-safe.
    pub(super) async fn next(&mut self) -> Result<(Delivery, Arc<Source>), BoxError> {
        loop {
            // Cancel-safe: both arms only take an item from a collection.
            tokio::select! {
                Some((index, item)) = self.streams.next(), if !self.streams.is_empty() => {
                    match item {
                        Some(Ok(delivery)) => {
                            if let Some(queue) = self.queues.get(index) {
                                return Ok((delivery, Arc::clone(&queue.source)));
                            }
                        }
                        Some(Err(error)) => self.ended(index, Some(error))?,
                        None => self.ended(index, None)?,
                    }
                }
                Some((index, resumed)) = self.resuming.next(), if !self.resuming.is_empty() => {
                    self.resumed(index, resumed);
                }
                else => return Err("no queue is left to consume".into()),
            }
        }
    }

    fn started(&mut self, index: usize, channel: Channel, consumer: Consumer) {
        if let Some(queue) = self.queues.get_mut(index) {
            queue.consumer = Some((channel, consumer.tag().as_str().to_owned()));
            queue.since = Instant::now();
        }
        let end = stream::once(async { None });
        let items = consumer.map(Some).chain(end);
        // An error is the last item too, so that each consumer ends once.
        let until_error = items.scan(false, move |has_ended, item| {
            let item = (!*has_ended).then_some((index, item));
            *has_ended = !matches!(item, Some((_, Some(Ok(_)))));
            std::future::ready(item)
        });
        self.streams.push(until_error.boxed());
    }

    /// A consumer has ended, with an error or without. Resumes it, unless the channel that it
    /// shares with others is closed.
    fn ended(&mut self, index: usize, error: Option<lapin::Error>) -> Result<(), BoxError> {
        let is_shared_channel_open = self.channel.status().connected();
        let Some(queue) = self.queues.get_mut(index) else {
            return Ok(());
        };
        let Some((channel, _)) = queue.consumer.take() else {
            return Ok(());
        };
        if channel.id() == self.channel.id() && !is_shared_channel_open {
            return Err(
                error.map_or_else(|| "the broker closed the channel".into(), BoxError::from)
            );
        }
        if queue.since.elapsed() >= SETTLED {
            queue.failures = 0;
        }
        tracing::warn!(
            queue = queue.source.queue,
            error = error.as_ref().map(tracing::field::display),
            "the broker cancelled a consumer; resuming it"
        );
        self.resume(index);
        Ok(())
    }

    fn resumed(&mut self, index: usize, resumed: Resumed) {
        let Some(queue) = self.queues.get_mut(index) else {
            return;
        };
        match resumed {
            Resumed::Consumer(resumed) => {
                let (channel, consumer) = *resumed;
                tracing::info!(queue = queue.source.queue, "consuming the queue again");
                self.started(index, channel, consumer);
            }
            Resumed::Gone => tracing::info!(queue = queue.source.queue, "the queue was deleted"),
            Resumed::Failed(error) => {
                tracing::debug!(
                    queue = queue.source.queue,
                    error = &*error as &dyn std::error::Error,
                    "failed to resume a consumer; retrying"
                );
                self.resume(index);
            }
        }
    }

    /// Resumes a consumer: at once the first time, and then after a growing pause.
    fn resume(&mut self, index: usize) {
        let Some(queue) = self.queues.get_mut(index) else {
            return;
        };
        let pause = match queue.failures.checked_sub(1) {
            Some(failures) => connection::reconnect_delay(failures),
            None => Duration::ZERO,
        };
        queue.failures += 1;
        let source = Arc::clone(&queue.source);
        let (connection, lanes) = (Arc::clone(&self.connection), Arc::clone(&self.lanes));
        let resuming = async move {
            tokio::time::sleep(pause).await;
            let resuming = restore_and_consume(&connection, &lanes, &source);
            let resumed = tokio::time::timeout(RESUME_TIMEOUT, resuming).await;
            let resumed = resumed.unwrap_or_else(|error| Err(error.into()));
            (index, resumed.unwrap_or_else(Resumed::Failed))
        };
        self.resuming.push(Box::pin(resuming));
    }

    /// Stops consuming, and requeues the messages that were delivered and not read.
    pub(super) async fn requeue_buffered(&mut self) {
        self.resuming.clear();
        let consumers = self
            .queues
            .iter()
            .filter_map(|queue| queue.consumer.as_ref());
        let cancelling = try_join_all(consumers.map(|(channel, tag)| {
            channel.basic_cancel(tag.as_str().into(), BasicCancelOptions { nowait: false })
        }));
        let cancelled = tokio::time::timeout(CLOSE_TIMEOUT, cancelling).await;
        if !matches!(cancelled, Ok(Ok(_))) {
            // The broker requeues everything when the connection closes.
            return;
        }
        while let Some((_, left)) = self.streams.next().await {
            if let Some(Ok(delivery)) = left {
                requeue(&delivery).await;
            }
        }
    }

    /// Closes the channel. If it were only dropped, it would still be closing while the connection
    /// does.
    pub(super) async fn close(self) {
        let closing = self.channel.close(200, "done".into());
        drop(tokio::time::timeout(CLOSE_TIMEOUT, closing).await);
    }
}

/// Consumes a queue on a channel of its own, since the broker closes the channel if it refuses.
async fn restore_and_consume(
    connection: &BrokerConnection,
    lanes: &LaneQueues,
    source: &Source,
) -> Result<Resumed, BoxError> {
    if !topology::restore(&connection.connection, &source.queue, lanes).await? {
        return Ok(Resumed::Gone);
    }
    let channel = connection.connection.create_channel().await?;
    let consumer = consume(&channel, &source.queue, source.window).await?;
    Ok(Resumed::Consumer(Box::new((channel, consumer))))
}

async fn consume(channel: &Channel, queue: &str, prefetch: u16) -> Result<Consumer, BoxError> {
    let consuming = async {
        // Set before the consumer, whose own limit it becomes; without a limit the broker delivers
        // the whole queue. Not global: quorum queues reject that.
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
    Ok(tokio::time::timeout(BROKER_TIMEOUT, consuming).await??)
}
