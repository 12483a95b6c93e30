//! The intake: from RabbitMQ into the ledger.
//!
//! A message is acknowledged once its delivery is committed. While one batch is being committed the
//! next one gathers, so batches are small when the load is low and large when it is high.

mod broker;
mod consumers;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use lapin::message::Delivery;
use secrecy::SecretString;
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use voice_otp::engine::{self, DeadLetterReason, Disposition, Engine};
use voice_otp::ports::Ports;
use voice_otp_publisher::connection::{self, BrokerConnection};
use voice_otp_publisher::topology::{self, LaneCount, LaneQueues};
use voice_otp_schemas::DeliveryKey;
use voice_otp_schemas::envelope::{Message, Unreadable};
use voice_otp_schemas::request::{delivery_key_of, read};
use zeroize::Zeroize as _;

use self::broker::{BoxError, acknowledge, requeue, requeue_later, text_headers};
use self::consumers::Consumers;
use super::dead_letters::{Cause, DeadLetters, Fingerprint};

/// Consumes requests, and has the engine process them.
pub(super) struct Intake<P: Ports> {
    pub(super) engine: Arc<Engine<P>>,
    pub(super) dead_letters: DeadLetters,
    pub(super) url: SecretString,
    /// The worker's name, for operators of the broker.
    pub(super) name: String,
    /// Unacknowledged messages of the shared queue.
    pub(super) prefetch: u16,
    /// The number of queues that the lanes share.
    pub(super) lanes: LaneCount,
    /// The maximum number of messages in a batch.
    pub(super) max_batch: usize,
    /// Set while the consumers are running, for `/readyz`.
    pub(super) is_consuming: Arc<AtomicBool>,
}

/// A message that has been parsed. Its body, which held a code, is overwritten.
struct Received {
    delivery: Delivery,
    /// For a dead letter.
    body: Fingerprint,
    /// The event; or why there is none, and the delivery that it names if that could be read.
    read: Result<engine::Message, (Unreadable, Option<DeliveryKey>)>,
}

/// What a connection leaves behind when it ends.
struct Leftovers {
    /// Why the consumers can't go on; `Ok` if they were stopped.
    result: Result<(), BoxError>,
    /// Processes what was received.
    finishing: BoxFuture<'static, ()>,
}

/// What remains of a batch that was processed.
struct Unprocessed {
    /// Goes back to the broker.
    requeue: Vec<Delivery>,
    /// Is processed again shortly: the account's rate-limit row was locked.
    retry: Vec<Received>,
}

/// The maximum number of batches in flight to the ledger.
const MAX_BATCHES_IN_FLIGHT: usize = 4;
/// How long a batch gathers while one other is in flight. With none in flight it is sent at once.
const GATHER_TIME: Duration = Duration::from_millis(25);
/// How long a batch gathers, full or not, while more are in flight: some of those are stuck.
const GATHER_TIME_WHEN_STUCK: Duration = Duration::from_millis(250);
/// The prefetch of the shared queue, divided by this, is the prefetch of each lane.
const LANE_PREFETCH_SHARE: u16 = 8;
/// The bytes of unacknowledged messages at which nothing more is read from the broker. Thousands of
/// requests, of a kilobyte each, fit; the prefetch limits alone would admit a gigabyte.
///
/// It is reached while the database is away, or slower than a flood. If that lasts, the broker
/// closes the connection, and delivers again on the next one.
const MAX_UNACKNOWLEDGED_BYTES: u64 = 64 << 20;
/// How often the broker is asked for lanes of a worker with another setting.
const OTHER_LANES_INTERVAL: Duration = Duration::from_mins(1);
/// The pause before a message is processed again whose account's rate-limit row was locked.
const RETRY_PAUSE: Duration = Duration::from_millis(250);

impl<P: Ports> Intake<P> {
    /// Consumes until `soft` is cancelled, and reconnects when the broker is back. Returns when
    /// each message that was received is acknowledged or requeued.
    pub(super) async fn run(self, soft: CancellationToken) {
        let intake = Arc::new(self);
        let mut found = None;
        let mut failures = 0;
        // The last connection that was lost, while what it delivered is processed. At most one, so
        // that a broker that comes and goes doesn't fill the memory.
        let mut leaving: Option<JoinHandle<()>> = None;
        while !soft.is_cancelled() {
            let session = Arc::clone(&intake).run_session(&soft, &mut found, &mut failures);
            let result = match session.await {
                Ok(Leftovers { result, finishing }) => {
                    intake.is_consuming.store(false, Ordering::Relaxed);
                    wait_for(leaving.take()).await;
                    leaving = Some(TaskTracker::new().spawn(finishing));
                    result
                }
                Err(error) => Err(error),
            };
            match result {
                Ok(()) => {}
                Err(error) if failures == 0 => {
                    tracing::warn!(
                        error = &*error as &dyn std::error::Error,
                        "failed to consume from the broker; retrying"
                    );
                }
                Err(error) => {
                    tracing::debug!(
                        error = &*error as &dyn std::error::Error,
                        "failed to consume from the broker; retrying"
                    );
                }
            }
            tokio::select! {
                () = tokio::time::sleep(connection::reconnect_delay(failures)) => failures += 1,
                () = soft.cancelled() => {}
            }
        }
        wait_for(leaving).await;
    }

    /// Consumes on one connection, until it is lost or `soft` is cancelled. Resets `failures` once
    /// the consumers are running.
    ///
    /// `found` are the queues of the last connection: they are consumed at once, and what was
    /// deleted of them is restored meanwhile. Without them, the topology is declared.
    async fn run_session(
        self: Arc<Self>,
        soft: &CancellationToken,
        found: &mut Option<LaneQueues>,
        failures: &mut u32,
    ) -> Result<Leftovers, BoxError> {
        let name = format!("{} intake", self.name);
        let connection =
            connection::connect_to_consume(&self.url, &name, MAX_UNACKNOWLEDGED_BYTES).await?;
        let connection = Arc::new(connection);
        // Taken: if one of them can't be consumed, the next connection declares the topology.
        let known = found.take();
        let is_declared = known.is_none();
        let queues = match known {
            Some(known) => known,
            None => topology::declare(&connection.connection, self.lanes).await?,
        };
        let queues = Arc::new(queues);
        let mut requests = Consumers::open(&connection, &queues).await?;
        requests.add(topology::REQUESTS, self.prefetch).await?;
        let lane_prefetch = (self.prefetch / LANE_PREFETCH_SHARE).max(1);
        for queue in queues.names() {
            requests.add(&queue, lane_prefetch).await?;
        }
        // One at a time: one of these messages may have crashed a worker.
        let mut returned = Consumers::open(&connection, &queues).await?;
        returned.add(topology::RETURNED, 1).await?;
        *found = Some(LaneQueues::clone(&queues));
        self.is_consuming.store(true, Ordering::Relaxed);
        *failures = 0;
        tracing::info!(
            prefetch = self.prefetch,
            lanes = queues.names().len(),
            "consuming requests"
        );
        let ended = CancellationToken::new();
        let (first, second, has_other_lanes) = tokio::join!(
            self.consume(requests, self.max_batch, &connection, soft, &ended),
            self.consume(returned, 1, &connection, soft, &ended),
            watch_topology(&connection, &queues, is_declared, &ended),
        );
        if has_other_lanes {
            *found = None;
        }
        let result = first.result.and(second.result);
        let is_stopped = result.is_ok();
        let finishing = async move {
            tokio::join!(first.finishing, second.finishing);
            // A lost connection is left.
            if is_stopped {
                connection.close().await;
            }
        };
        Ok(Leftovers {
            result,
            finishing: Box::pin(finishing),
        })
    }

    /// Reads consumers until `soft` or `ended` is cancelled, or they can't go on, which is an
    /// error. Cancels `ended`, which ends the other consumers of the connection.
    async fn consume(
        self: &Arc<Self>,
        mut consumers: Consumers,
        max_batch: usize,
        connection: &BrokerConnection,
        soft: &CancellationToken,
        ended: &CancellationToken,
    ) -> Leftovers {
        let (sender, receiver) = mpsc::channel(consumers.prefetch().max(1));
        let tasks = TaskTracker::new();
        let batching = Arc::clone(self).batch(receiver, max_batch, tasks.clone(), ended.clone());
        let batching = tasks.spawn(batching);
        let result = loop {
            // Cancel-safe: only the arm that completes removes a message from its stream.
            let delivery = tokio::select! {
                delivery = consumers.next() => delivery,
                () = connection.lost() => break Err("the connection was lost".into()),
                () = soft.cancelled() => break Ok(()),
                () = ended.cancelled() => break Ok(()),
            };
            match delivery {
                // Hardly ever waits: the channel has room for every unacknowledged message, but not
                // for those of a consumer that was cancelled.
                Ok(delivery) => drop(sender.send(self.parse(delivery)).await),
                Err(error) => break Err(error),
            }
        };
        ended.cancel();
        if result.is_ok() {
            consumers.requeue_buffered().await;
        }
        let finishing = async move {
            drop(sender);
            if let Err(error) = batching.await {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "the intake failed"
                );
            }
            tasks.close();
            tasks.wait().await;
            consumers.close().await;
        };
        Leftovers {
            result,
            finishing: Box::pin(finishing),
        }
    }

    fn parse(&self, mut delivery: Delivery) -> Received {
        let body = self.dead_letters.fingerprint(&delivery);
        let headers = text_headers(delivery.properties.headers().as_ref());
        let content_type = delivery.properties.content_type().as_ref();
        let content_type = content_type.map(|text| text.as_str().to_owned());
        let message = Message {
            content_type: content_type.as_deref(),
            headers: &headers,
            body: &delivery.data,
        };
        let user = delivery
            .properties
            .user_id()
            .as_ref()
            .map(|user| user.as_str().to_owned());
        let read = read(message)
            .map(|incoming| engine::Message { incoming, user })
            .map_err(|error| (error, delivery_key_of(message)));
        // The body holds a code.
        delivery.data.zeroize();
        delivery.data = Vec::new();
        Received {
            delivery,
            body,
            read,
        }
    }

    /// Gathers messages into batches, and processes up to [`MAX_BATCHES_IN_FLIGHT`] at once.
    async fn batch(
        self: Arc<Self>,
        mut receiver: mpsc::Receiver<Received>,
        max_batch: usize,
        tasks: TaskTracker,
        ended: CancellationToken,
    ) {
        // Single messages are single in the ledger too.
        let max_in_flight = if max_batch == 1 {
            1
        } else {
            MAX_BATCHES_IN_FLIGHT
        };
        let permits = Arc::new(Semaphore::new(max_in_flight));
        let finished = Arc::new(Notify::new());
        loop {
            let Ok(permit) = Arc::clone(&permits).acquire_owned().await else {
                return;
            };
            let mut batch = Vec::new();
            if receiver.recv_many(&mut batch, max_batch).await == 0 {
                return;
            }
            let began = tokio::time::Instant::now();
            loop {
                let in_flight = max_in_flight - 1 - permits.available_permits();
                let room = max_batch - batch.len();
                let gather_time = match in_flight {
                    0 => break,
                    1 if room == 0 => break,
                    1 => GATHER_TIME,
                    _ => GATHER_TIME_WHEN_STUCK,
                };
                // Cancel-safe: a received message is in the batch.
                tokio::select! {
                    more = receiver.recv_many(&mut batch, room), if room > 0 => {
                        if more == 0 {
                            break;
                        }
                    }
                    () = finished.notified() => {}
                    () = tokio::time::sleep_until(began + gather_time) => break,
                }
            }
            let (intake, ended, finished) =
                (Arc::clone(&self), ended.clone(), Arc::clone(&finished));
            tasks.spawn(async move {
                let unprocessed = intake.process(batch).await;
                // What follows waits without a permit, so it doesn't delay other batches.
                drop(permit);
                finished.notify_one();
                let Unprocessed { requeue, retry } = unprocessed;
                tokio::join!(requeue_later(&requeue), intake.retry(retry, &ended));
            });
        }
    }

    /// Processes messages again until their account's rate-limit row is free, or the consumers of
    /// the connection have ended.
    async fn retry(&self, mut messages: Vec<Received>, ended: &CancellationToken) {
        while !messages.is_empty() {
            tokio::select! {
                () = tokio::time::sleep(RETRY_PAUSE) => {
                    let unprocessed = self.process(messages).await;
                    messages = unprocessed.retry;
                    requeue_later(&unprocessed.requeue).await;
                }
                () = ended.cancelled() => break,
            }
        }
        for left in messages {
            requeue(&left.delivery).await;
        }
    }

    /// Processes a batch, and acknowledges what is done.
    async fn process(&self, batch: Vec<Received>) -> Unprocessed {
        let mut events = Vec::with_capacity(batch.len());
        let mut readable = Vec::with_capacity(batch.len());
        for Received {
            delivery,
            body,
            read,
        } in batch
        {
            match read {
                Ok(event) => {
                    events.push(event);
                    readable.push((delivery, body));
                }
                Err((error, key)) => {
                    let cause = Cause {
                        reason: error.as_str(),
                        detail: error.to_string(),
                        key,
                    };
                    self.dead_letter(&delivery, &body, &cause).await;
                }
            }
        }
        let mut unprocessed = Unprocessed {
            requeue: Vec::new(),
            retry: Vec::new(),
        };
        let dispositions = self.engine.process(&events).await;
        for (((delivery, body), event), disposition) in
            readable.into_iter().zip(events).zip(dispositions)
        {
            match disposition {
                Disposition::Acknowledge => acknowledge(&delivery).await,
                Disposition::RetrySoon => unprocessed.retry.push(Received {
                    delivery,
                    body,
                    read: Ok(event),
                }),
                Disposition::DeadLetter(reason) => {
                    let cause = Cause {
                        reason: reason.as_str(),
                        detail: detail(reason).to_owned(),
                        key: event.incoming.key(),
                    };
                    self.dead_letter(&delivery, &body, &cause).await;
                }
                Disposition::Requeue => unprocessed.requeue.push(delivery),
            }
        }
        unprocessed
    }

    /// Publishes a message's dead letter, then acknowledges the message.
    async fn dead_letter(&self, delivery: &Delivery, body: &Fingerprint, cause: &Cause) {
        match self.dead_letters.publish(delivery, body, cause).await {
            Ok(()) => acknowledge(delivery).await,
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "failed to dead-letter a message; requeueing it"
                );
                requeue(delivery).await;
            }
        }
    }
}

/// Restores what was deleted of the topology, unless it was declared on this connection. Then waits
/// for lanes of a worker with another setting, and cancels `ended`: the next connection consumes
/// them too. Returns false if `ended` was cancelled first.
async fn watch_topology(
    connection: &BrokerConnection,
    queues: &LaneQueues,
    mut is_declared: bool,
    ended: &CancellationToken,
) -> bool {
    let watching = async {
        loop {
            if !is_declared {
                match topology::restore_all(&connection.connection, queues).await {
                    Ok(()) => is_declared = true,
                    Err(error) => tracing::debug!(
                        error = &error as &dyn std::error::Error,
                        "failed to restore the queues; trying again in a minute"
                    ),
                }
            }
            match topology::has_other_lanes(&connection.connection, queues).await {
                Ok(false) => {}
                Ok(true) => return,
                Err(error) => tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    "failed to look for other lanes"
                ),
            }
            tokio::time::sleep(OTHER_LANES_INTERVAL).await;
        }
    };
    tokio::select! {
        () = watching => {
            ended.cancel();
            true
        }
        () = ended.cancelled() => false,
    }
}

async fn wait_for(task: Option<JoinHandle<()>>) {
    if let Some(task) = task
        && let Err(error) = task.await
    {
        tracing::error!(
            error = &error as &dyn std::error::Error,
            "the intake failed"
        );
    }
}

fn detail(reason: DeadLetterReason) -> &'static str {
    match reason {
        DeadLetterReason::ConflictingDuplicate => {
            "the id belongs to a request with another number, code or extension"
        }
        DeadLetterReason::PublisherNotAllowed => {
            "the publisher is not on the tenant's list; the worker's log names it"
        }
        DeadLetterReason::RefusedByDatabase => {
            "the database rejects the request; the worker's log has the reason"
        }
    }
}
