//! The messages that the broker has given back: after too many deliveries, or because of a
//! publisher's `expiration`.
//!
//! One of them may be what ended the workers that had it. So a message that was delivered from this
//! queue before is taken alone, and is given up after a few deliveries. The others are taken many
//! at once.
//!
//! They are fetched one by one, and not consumed: what a consumer prefetches is lost together with
//! the message that ends the worker, and would be given up together with it. On a connection of
//! their own: RabbitMQ ends the connection if the queue's leader doesn't answer a fetch.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use lapin::Channel;
use lapin::message::Delivery;
use lapin::options::BasicGetOptions;
use secrecy::SecretString;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use voice_otp::ports::Ports;
use voice_otp_publisher::connection::{self, BrokerConnection};
use voice_otp_publisher::topology::{self, LaneQueues};

use super::Intake;
use super::batches::{RETRY_PAUSE, Readable};
use super::broker::{BROKER_TIMEOUT, BoxError, requeue};
use super::triage::earlier_deliveries;
use crate::service::dead_letters::{Cause, Source, Unacknowledged};

/// The queue of returned messages.
struct Returned {
    url: SecretString,
    /// The name in the broker's list of connections.
    name: String,
    connection: Option<BrokerConnection>,
    /// What a deleted queue is restored from.
    lanes: Arc<LaneQueues>,
    channel: Option<Channel>,
}

/// A message that came back to this queue so often is given up.
const MAX_EARLIER_DELIVERIES: i64 = 4;
/// The maximum number of messages that are processed at once.
const MAX_BATCH: u16 = 64;
/// The maximum number of batches of which a message waits to be processed again.
const MAX_HELD_BATCHES: usize = 16;
/// The longest pause before such a message is processed again.
const MAX_HOLD_PAUSE: Duration = Duration::from_secs(10);
/// The pause after the queue was empty.
const POLL_INTERVAL: Duration = Duration::from_millis(250);

impl<P: Ports> Intake<P> {
    /// Takes returned messages until `soft` or `ended` is cancelled. Returns what processes those
    /// that were taken.
    pub(super) async fn take_returned(
        self: &Arc<Self>,
        lanes: &Arc<LaneQueues>,
        soft: &CancellationToken,
        ended: &CancellationToken,
    ) -> BoxFuture<'static, ()> {
        let tasks = TaskTracker::new();
        let mut returned = Returned {
            url: self.url.clone(),
            name: format!("{} returned", self.name),
            connection: None,
            lanes: Arc::clone(lanes),
            channel: None,
        };
        // Cut off anywhere: the broker requeues a message that was fetched and not spawned.
        tokio::select! {
            () = self.take_all(&mut returned, &tasks, ended) => {}
            () = soft.cancelled() => {}
            () = ended.cancelled() => {}
        }
        let dead_letters = Arc::clone(&self.dead_letters);
        Box::pin(async move {
            tasks.close();
            tasks.wait().await;
            // Until then its channel acknowledges.
            if let Some(connection) = returned.connection.filter(BrokerConnection::is_up) {
                dead_letters.flush().await;
                connection.close().await;
            }
        })
    }

    async fn take_all(
        self: &Arc<Self>,
        returned: &mut Returned,
        tasks: &TaskTracker,
        ended: &CancellationToken,
    ) {
        let source = Arc::new(Source {
            queue: topology::RETURNED.to_owned(),
            window: MAX_BATCH,
        });
        let held = Arc::new(Semaphore::new(MAX_HELD_BATCHES));
        let mut failures = 0;
        loop {
            let Ok(permit) = Arc::clone(&held).acquire_owned().await else {
                return;
            };
            let (batch, alone) = match returned.fetch_batch().await {
                Ok(fetched) => fetched,
                Err(error) => {
                    tracing::debug!(
                        error = &*error as &dyn std::error::Error,
                        "failed to fetch returned messages; retrying"
                    );
                    tokio::time::sleep(connection::reconnect_delay(failures)).await;
                    failures += 1;
                    continue;
                }
            };
            failures = 0;
            if batch.is_empty() && alone.is_none() {
                tokio::time::sleep(POLL_INTERVAL).await;
                continue;
            }
            let (intake, source, ended) = (Arc::clone(self), Arc::clone(&source), ended.clone());
            // Spawned, since what was received is processed to its end.
            let (processed, is_processed) = tokio::sync::oneshot::channel::<()>();
            tasks.spawn(async move {
                let mut left = Vec::new();
                for group in [batch, alone.into_iter().collect()] {
                    let read = |delivery| intake.read_returned(delivery, &source);
                    let readable = group.into_iter().filter_map(read).collect();
                    let unprocessed = intake.process(readable).await;
                    left.extend(unprocessed.retry);
                    left.extend(unprocessed.requeue);
                }
                drop(processed);
                intake.hold(left, &ended).await;
                drop(permit);
            });
            // It is only dropped.
            drop(is_processed.await);
        }
    }

    /// Reads a message, unless it is given up.
    fn read_returned(&self, delivery: Delivery, source: &Arc<Source>) -> Option<Readable> {
        if earlier_deliveries(&delivery) < MAX_EARLIER_DELIVERIES {
            return self.read(delivery, source);
        }
        let message = Unacknowledged::new(&delivery, source);
        let body = self.dead_letters.fingerprint(&delivery);
        let cause = Cause {
            reason: "given_up",
            detail: format!(
                "{MAX_EARLIER_DELIVERIES} workers in a row ended, or lost their connection, while \
                 they had the message; it was not read"
            ),
            key: None,
        };
        self.dead_letters.bury(message, &body, &cause);
        None
    }

    /// Processes messages again, with growing pauses, until nothing is left or `ended` is
    /// cancelled. They aren't requeued meanwhile, since that would count as a delivery.
    async fn hold(&self, mut messages: Vec<Readable>, ended: &CancellationToken) {
        let mut pause = RETRY_PAUSE;
        while !messages.is_empty() {
            tokio::select! {
                () = tokio::time::sleep(pause) => {
                    let unprocessed = self.process(messages).await;
                    messages = unprocessed.retry;
                    messages.extend(unprocessed.requeue);
                    pause = (pause * 2).min(MAX_HOLD_PAUSE);
                }
                () = ended.cancelled() => break,
            }
        }
        for left in messages {
            requeue(&left.message.acker).await;
        }
    }
}

impl Returned {
    /// The messages at the head of the queue that weren't delivered from it before, up to
    /// [`MAX_BATCH`], and the one that was, if it follows.
    async fn fetch_batch(&mut self) -> Result<(Vec<Delivery>, Option<Delivery>), BoxError> {
        let mut batch = Vec::new();
        while batch.len() < usize::from(MAX_BATCH) {
            match self.fetch().await {
                Ok(Some(delivery)) if earlier_deliveries(&delivery) == 0 => batch.push(delivery),
                Ok(alone) => return Ok((batch, alone)),
                Err(error) if batch.is_empty() => return Err(error),
                Err(_) => break,
            }
        }
        Ok((batch, None))
    }

    async fn fetch(&mut self) -> Result<Option<Delivery>, BoxError> {
        let connection = match self.connection.take() {
            Some(connection) if connection.is_up() => connection,
            _ => {
                self.channel = None;
                connection::connect(&self.url, &self.name).await?
            }
        };
        let connection = &self.connection.insert(connection).connection;
        let channel = match self.channel.take() {
            Some(channel) if channel.status().connected() => channel,
            channel => {
                // The broker closes a channel when its queue is missing.
                if channel.is_some() {
                    topology::restore(connection, topology::RETURNED, &self.lanes).await?;
                }
                tokio::time::timeout(BROKER_TIMEOUT, connection.create_channel()).await??
            }
        };
        // Kept if the broker refuses, so that the next call restores the queue.
        let fetching = channel.basic_get(
            topology::RETURNED.into(),
            // It is acknowledged when it is processed.
            BasicGetOptions { no_ack: false },
        );
        let fetched = tokio::time::timeout(BROKER_TIMEOUT, fetching).await;
        self.channel = Some(channel);
        Ok(fetched??.map(|message| message.delivery))
    }
}
