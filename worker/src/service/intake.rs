//! The intake: from RabbitMQ into the ledger.
//!
//! A message is acknowledged once its delivery is committed. While one batch is being committed the
//! next one gathers, so batches are small when the load is low and large when it is high.

mod batches;
mod broker;
mod consumers;
mod returned;
mod triage;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use lapin::message::Delivery;
use secrecy::SecretString;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use voice_otp::engine::{self, Engine};
use voice_otp::ports::Ports;
use voice_otp_publisher::connection::{self, BrokerConnection};
use voice_otp_publisher::topology::{self, LaneCount, LaneQueues};
use voice_otp_schemas::DeliveryKey;
use voice_otp_schemas::envelope::{Message, Unreadable};
use voice_otp_schemas::request::{delivery_key_of, read};
use zeroize::Zeroize as _;

use self::batches::Readable;
pub(super) use self::broker::acknowledge;
use self::broker::{BoxError, give_back, text_headers};
use self::consumers::Consumers;
use self::triage::{earlier_deliveries, is_copy};
use super::dead_letters::{Cause, DeadLetters, Fingerprint, Source, Unacknowledged};

/// Consumes requests, and has the engine process them.
pub(super) struct Intake<P: Ports> {
    pub(super) engine: Arc<Engine<P>>,
    pub(super) dead_letters: Arc<DeadLetters>,
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
/// A message that came back to its queue so often goes to the returned messages, which are taken
/// with more care: it may be what ends the workers.
const MAX_EARLIER_DELIVERIES: i64 = 4;

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
        *found = Some(LaneQueues::clone(&queues));
        self.is_consuming.store(true, Ordering::Relaxed);
        *failures = 0;
        tracing::info!(
            prefetch = self.prefetch,
            lanes = queues.names().len(),
            "consuming requests"
        );
        let ended = CancellationToken::new();
        let (requests, returned, has_other_lanes) = tokio::join!(
            self.consume(requests, &connection, soft, &ended),
            self.take_returned(&queues, soft, &ended),
            watch_topology(&connection, &queues, is_declared, &ended),
        );
        if has_other_lanes {
            *found = None;
        }
        let result = requests.result;
        let is_stopped = result.is_ok();
        let finishing = async move {
            tokio::join!(requests.finishing, returned);
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
        connection: &BrokerConnection,
        soft: &CancellationToken,
        ended: &CancellationToken,
    ) -> Leftovers {
        let (sender, receiver) = mpsc::channel(consumers.prefetch().max(1));
        let tasks = TaskTracker::new();
        let batching = Arc::clone(self).batch(receiver, tasks.clone(), ended.clone());
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
                Ok((delivery, source)) => {
                    if let Some(readable) = self.take(delivery, &source).await {
                        // Hardly ever waits: the channel has room for every unacknowledged message,
                        // but not for those of a consumer that was cancelled.
                        drop(sender.send(readable).await);
                    }
                }
                Err(error) => break Err(error),
            }
        };
        ended.cancel();
        if result.is_ok() {
            consumers.requeue_buffered().await;
        }
        let (is_stopped, dead_letters) = (result.is_ok(), Arc::clone(&self.dead_letters));
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
            // What can't be read is acknowledged on the channel too.
            if is_stopped {
                dead_letters.flush().await;
            }
            consumers.close().await;
        };
        Leftovers {
            result,
            finishing: Box::pin(finishing),
        }
    }

    /// Reads a message, unless it is a copy of another one, or has come back too often.
    async fn take(&self, delivery: Delivery, source: &Arc<Source>) -> Option<Readable> {
        if is_copy(&delivery, &source.queue) {
            self.dead_letters.drop_copy(delivery.acker);
            return None;
        }
        if earlier_deliveries(&delivery) >= MAX_EARLIER_DELIVERIES {
            tracing::debug!(
                queue = source.queue,
                "a message has come back too often; the broker puts it with the returned ones"
            );
            give_back(&delivery.acker).await;
            return None;
        }
        self.read(delivery, source)
    }

    /// Reads a message. One that can't be read is dead-lettered beside the others.
    fn read(&self, delivery: Delivery, source: &Arc<Source>) -> Option<Readable> {
        let message = Unacknowledged::new(&delivery, source);
        let Received { body, read } = self.parse(delivery);
        match read {
            Ok(event) => Some(Readable {
                message,
                body,
                event,
            }),
            Err((error, key)) => {
                let cause = Cause {
                    reason: error.as_str(),
                    detail: error.to_string(),
                    key,
                };
                self.dead_letters.bury(message, &body, &cause);
                None
            }
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
        Received { body, read }
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
