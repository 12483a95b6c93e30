//! Intake: from RabbitMQ into the ledger.
//!
//! A message is acknowledged once its delivery is committed, so nothing waits unacknowledged. Groups form by
//! themselves: while one is being committed, the next gathers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::try_join_all;
use futures_util::stream::{self, BoxStream, SelectAll, StreamExt as _};
use lapin::Channel;
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use secrecy::SecretString;
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use voice_otp::delivery::Key;
use voice_otp::engine::{self, Dead, Disposition, Engine};
use voice_otp::ports::Ports;
use voice_otp_publisher::link::{self, Link};
use voice_otp_publisher::topology;
use voice_otp_schemas::envelope::{Message, Unreadable};
use voice_otp_schemas::request::{Incoming, names, read};
use zeroize::Zeroize as _;

use crate::dead::{Cause, DeadLetters, Fingerprint};

/// What takes messages in.
pub(crate) struct Intake<P: Ports> {
    pub(crate) engine: Arc<Engine<P>>,
    pub(crate) dead: DeadLetters,
    pub(crate) url: SecretString,
    pub(crate) name: String,
    pub(crate) prefetch: u16,
    pub(crate) group: usize,
    /// Whether messages are coming in.
    pub(crate) up: Arc<AtomicBool>,
}

/// A message that has been read.
struct Received {
    delivery: Delivery,
    body: Fingerprint,
    read: Result<engine::Message, (Unreadable, Option<Key>)>,
}

/// Groups that may be on their way to the ledger at once. While one is, the next grows until it is full or has waited for a moment:
/// few large ones cost less than many small ones, and nobody waits if there is none. Of more than two, some are stuck: the next one,
/// full or not, waits longer.
const GROUPS: usize = 4;
/// The longest that a group grows while another is on its way.
const GATHER: Duration = Duration::from_millis(25);
/// The longest while two are.
const STUCK: Duration = Duration::from_millis(250);
/// A lane's window is so many times smaller than that of the queue for all.
const LANE_PREFETCH_SHARE: u16 = 8;
/// The pause before a message is tried again whose account's pace was locked.
const BUSY_PAUSE: Duration = Duration::from_millis(250);
/// The pause before a message is given back that nobody here can take now.
const GIVE_BACK_PAUSE: Duration = Duration::from_secs(1);
/// The longest an answer of the broker is waited for.
const BROKER_TIMEOUT: Duration = Duration::from_secs(10);

type Failure = Box<dyn std::error::Error + Send + Sync>;

impl<P: Ports> Intake<P> {
    /// Takes messages in until told to stop; connects again whenever the broker comes back. Returns when everything
    /// taken is committed and acknowledged, and the rest given back.
    pub(crate) async fn run(self, soft: CancellationToken) {
        let intake = Arc::new(self);
        let mut tries = 0;
        while !soft.is_cancelled() {
            match Arc::clone(&intake).session(&soft, &mut tries).await {
                Ok(()) => {}
                Err(error) if tries == 0 => {
                    tracing::warn!(
                        error = &*error as &dyn std::error::Error,
                        "no messages from the broker, trying again"
                    );
                }
                Err(error) => {
                    tracing::debug!(
                        error = &*error as &dyn std::error::Error,
                        "no messages from the broker, trying again"
                    );
                }
            }
            intake.up.store(false, Ordering::Relaxed);
            tokio::select! {
                () = tokio::time::sleep(link::pause(tries)) => tries += 1,
                () = soft.cancelled() => {}
            }
        }
    }

    /// One connection's life.
    async fn session(
        self: Arc<Self>,
        soft: &CancellationToken,
        tries: &mut u32,
    ) -> Result<(), Failure> {
        let link = link::connect(&self.url, &format!("{} intake", self.name)).await?;
        topology::declare_all(&link.connection).await?;
        let mut requests = Consumers::open(&link).await?;
        requests.add(topology::REQUESTS, self.prefetch).await?;
        let lane_prefetch = (self.prefetch / LANE_PREFETCH_SHARE).max(1);
        for lane in 0..topology::LANES {
            requests
                .add(&topology::lane_queue(lane), lane_prefetch)
                .await?;
        }
        // One at a time: something among these may have killed a worker.
        let mut returned = Consumers::open(&link).await?;
        returned.add(topology::RETURNED, 1).await?;
        self.up.store(true, Ordering::Relaxed);
        *tries = 0;
        tracing::info!(prefetch = self.prefetch, "taking requests");
        let ended = CancellationToken::new();
        let (first, second) = tokio::join!(
            self.consume_from(requests, self.group, &link, soft, &ended),
            self.consume_from(returned, 1, &link, soft, &ended),
        );
        link.close().await;
        first.and(second)
    }

    /// Reads consumers until told to stop, or until one ends, which is a fault.
    async fn consume_from(
        self: &Arc<Self>,
        mut consumers: Consumers,
        most: usize,
        link: &Link,
        soft: &CancellationToken,
        ended: &CancellationToken,
    ) -> Result<(), Failure> {
        let (sender, receiver) = mpsc::channel(consumers.window.max(1));
        let groups = TaskTracker::new();
        let grouping =
            groups.spawn(Arc::clone(self).group_up(receiver, most, groups.clone(), ended.clone()));
        let result = loop {
            // Cancel-safe: a message is only taken by the arm that wins.
            let delivery = tokio::select! {
                delivery = consumers.next() => delivery,
                () = link.lost() => break Err("the connection was lost".into()),
                () = soft.cancelled() => break Ok(()),
                () = ended.cancelled() => break Ok(()),
            };
            match delivery {
                // Never full: there are no more unacknowledged messages than the channel holds.
                Some(Ok(delivery)) => drop(sender.send(self.received(delivery)).await),
                Some(Err(error)) => break Err(error.into()),
                // The queue was deleted, or the broker cancelled the consumer: no error tells.
                None => break Err("the broker ended the consumer".into()),
            }
        };
        // The other consumer of this connection ends with this one.
        ended.cancel();
        if result.is_ok() {
            consumers.give_back_buffered().await;
        }
        drop(sender);
        if let Err(error) = grouping.await {
            tracing::error!(error = &error as &dyn std::error::Error, "intake failed");
        }
        groups.close();
        groups.wait().await;
        let channel = consumers.channel;
        // Left to its drop, the channel would still be closing when the connection does.
        drop(tokio::time::timeout(BROKER_TIMEOUT, channel.close(200, "done".into())).await);
        result
    }

    fn received(&self, mut delivery: Delivery) -> Received {
        let body = self.dead.fingerprint(&delivery.data);
        let headers = text_headers(delivery.properties.headers().as_ref());
        let content_type = delivery
            .properties
            .content_type()
            .as_ref()
            .map(|text| text.as_str().to_owned());
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
            .map_err(|error| {
                let named = names(message).map(|(tenant_id, delivery_id)| Key {
                    tenant_id,
                    delivery_id,
                });
                (error, named)
            });
        // It held a code.
        delivery.data.zeroize();
        delivery.data = Vec::new();
        Received {
            delivery,
            body,
            read,
        }
    }

    /// Forms groups and sends them on their way, a few at once.
    async fn group_up(
        self: Arc<Self>,
        mut receiver: mpsc::Receiver<Received>,
        most: usize,
        groups: TaskTracker,
        ended: CancellationToken,
    ) {
        let at_once = if most == 1 { 1 } else { GROUPS };
        let permits = Arc::new(Semaphore::new(at_once));
        let finished = Arc::new(Notify::new());
        loop {
            let Ok(permit) = Arc::clone(&permits).acquire_owned().await else {
                return;
            };
            let mut group = Vec::new();
            if receiver.recv_many(&mut group, most).await == 0 {
                return;
            }
            let gathering = tokio::time::Instant::now();
            loop {
                let under_way = at_once - 1 - permits.available_permits();
                let (patience, room) = match under_way {
                    0 => break,
                    1 if group.len() == most => break,
                    1 => (GATHER, most - group.len()),
                    _ => (STUCK, most - group.len()),
                };
                // Cancel-safe: what is received is in the group.
                tokio::select! {
                    more = receiver.recv_many(&mut group, room), if room > 0 => if more == 0 { break },
                    () = finished.notified() => {}
                    () = tokio::time::sleep_until(gathering + patience) => break,
                }
            }
            let (intake, ended, finished) =
                (Arc::clone(&self), ended.clone(), Arc::clone(&finished));
            groups.spawn(async move {
                let (not_here, mut busy) = intake.work_on(group).await;
                // What follows is in nobody's way.
                drop(permit);
                finished.notify_one();
                // Somebody holds their account's pace: they wait for it in nobody's way, and no longer than the connection.
                let again = async {
                    while !busy.is_empty() {
                        tokio::select! {
                            () = tokio::time::sleep(BUSY_PAUSE) => {
                                let not_here;
                                (not_here, busy) = intake.work_on(busy).await;
                                give_back_later(&not_here).await;
                            }
                            () = ended.cancelled() => break,
                        }
                    }
                    for left in busy {
                        give_back(&left.delivery).await;
                    }
                };
                tokio::join!(give_back_later(&not_here), again);
            });
        }
    }

    /// Takes a group in. Returns what is to be given back, and what is to be tried again.
    async fn work_on(&self, group: Vec<Received>) -> (Vec<Delivery>, Vec<Received>) {
        let mut incoming = Vec::with_capacity(group.len());
        let mut readable = Vec::with_capacity(group.len());
        for Received {
            delivery,
            body,
            read,
        } in group
        {
            match read {
                Ok(event) => {
                    incoming.push(event);
                    readable.push((delivery, body));
                }
                Err((error, key)) => {
                    let cause = Cause {
                        reason: error.word(),
                        detail: error.to_string(),
                        key,
                    };
                    self.bury(&delivery, &body, &cause).await;
                }
            }
        }
        let dispositions = self.engine.take_in(&incoming).await;
        let (mut not_here, mut busy) = (Vec::new(), Vec::new());
        for (((delivery, body), event), disposition) in
            readable.into_iter().zip(incoming).zip(dispositions)
        {
            match disposition {
                Disposition::Done => ack(&delivery).await,
                Disposition::Busy => busy.push(Received {
                    delivery,
                    body,
                    read: Ok(event),
                }),
                Disposition::Dead(dead) => {
                    let detail = match dead {
                        Dead::ConflictingDuplicate => {
                            "the id is taken by a request with another number, code or extension"
                        }
                        Dead::PublisherNotAllowed => {
                            "its publisher is not on the tenant's list; the worker's log names it"
                        }
                        Dead::RefusedByDatabase => {
                            "the database refuses it; the worker's log has its reason"
                        }
                    };
                    let cause = Cause {
                        reason: dead.word(),
                        detail: detail.to_owned(),
                        key: key_of(&event.incoming),
                    };
                    self.bury(&delivery, &body, &cause).await;
                }
                Disposition::Again => not_here.push(delivery),
            }
        }
        (not_here, busy)
    }

    async fn bury(&self, delivery: &Delivery, body: &Fingerprint, cause: &Cause) {
        match self.dead.bury(delivery, body, cause).await {
            Ok(()) => ack(delivery).await,
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "can't put a message with the dead letters, giving it back"
                );
                give_back(delivery).await;
            }
        }
    }
}

/// Consumers of one channel, read together: none stands in another's way for longer than its window.
struct Consumers {
    channel: Channel,
    tags: Vec<String>,
    streams: SelectAll<BoxStream<'static, Option<lapin::Result<Delivery>>>>,
    /// The most unacknowledged messages of all of them.
    window: usize,
}

impl Consumers {
    async fn open(link: &Link) -> Result<Self, Failure> {
        let channel =
            tokio::time::timeout(BROKER_TIMEOUT, link.connection.create_channel()).await??;
        Ok(Self {
            channel,
            tags: Vec::new(),
            streams: SelectAll::new(),
            window: 0,
        })
    }

    async fn add(&mut self, queue: &str, prefetch: u16) -> Result<(), Failure> {
        let channel = &self.channel;
        let consuming = async {
            // Before the consumer, each of which has its own: without it the broker hands everything over at once. Not global: quorum
            // queues refuse it.
            channel
                .basic_qos(prefetch, BasicQosOptions { global: false })
                .await?;
            // Shared by all workers, and every message acknowledged by us.
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
        self.window += usize::from(prefetch);
        // That one of many has ended must be seen.
        self.streams.push(
            consumer
                .map(Some)
                .chain(stream::once(async { None }))
                .boxed(),
        );
        Ok(())
    }

    /// The next message; none when a consumer has ended.
    async fn next(&mut self) -> Option<lapin::Result<Delivery>> {
        self.streams.next().await.flatten()
    }

    /// Stops consuming and gives back what was handed over and not taken.
    async fn give_back_buffered(&mut self) {
        let channel = &self.channel;
        let cancel = |tag: &String| {
            channel.basic_cancel(tag.as_str().into(), BasicCancelOptions { nowait: false })
        };
        let cancelling = try_join_all(self.tags.iter().map(cancel));
        if !matches!(
            tokio::time::timeout(BROKER_TIMEOUT, cancelling).await,
            Ok(Ok(_))
        ) {
            // The broker gives everything back by itself when the connection closes.
            return;
        }
        while let Some(left) = self.streams.next().await {
            if let Some(Ok(delivery)) = left {
                give_back(&delivery).await;
            }
        }
    }
}

async fn ack(delivery: &Delivery) {
    // One at a time: groups of one channel end in any order.
    let acking = delivery.acker.ack(BasicAckOptions { multiple: false });
    if !matches!(
        tokio::time::timeout(BROKER_TIMEOUT, acking).await,
        Ok(Ok(true))
    ) {
        // It will come again and be known.
        tracing::debug!("an acknowledgement was lost with its channel");
    }
}

/// Gives back what can't be done here, after a pause: it may come straight back.
async fn give_back_later(deliveries: &[Delivery]) {
    if !deliveries.is_empty() {
        tokio::time::sleep(GIVE_BACK_PAUSE).await;
    }
    for delivery in deliveries {
        give_back(delivery).await;
    }
}

async fn give_back(delivery: &Delivery) {
    let nacking = delivery.acker.nack(BasicNackOptions {
        multiple: false,
        requeue: true,
    });
    if !matches!(
        tokio::time::timeout(BROKER_TIMEOUT, nacking).await,
        Ok(Ok(true))
    ) {
        tracing::debug!("a message could not be given back, the broker will do it by itself");
    }
}

/// The headers that the contract knows, as text.
fn text_headers(headers: Option<&FieldTable>) -> Vec<(String, String)> {
    let Some(headers) = headers else {
        return Vec::new();
    };
    let known = |name: &str| {
        name.starts_with("cloudEvents") || name == "traceparent" || name == "tracestate"
    };
    let text = |value: &AMQPValue| match value {
        AMQPValue::LongString(text) => String::from_utf8(text.as_bytes().to_vec()).ok(),
        AMQPValue::ShortString(text) => Some(text.as_str().to_owned()),
        AMQPValue::ByteArray(bytes) => String::from_utf8(bytes.as_slice().to_vec()).ok(),
        _ => None,
    };
    let entries = headers
        .inner()
        .iter()
        .filter(|(name, _)| known(name.as_str()));
    entries
        .filter_map(|(name, value)| Some((name.as_str().to_owned(), text(value)?)))
        .collect()
}

fn key_of(incoming: &Incoming) -> Option<Key> {
    match incoming {
        Incoming::Requested(request) => Some(Key {
            tenant_id: request.tenant_id.clone(),
            delivery_id: request.delivery_id.clone(),
        }),
        Incoming::Invalid(invalid) => Some(Key {
            tenant_id: invalid.tenant_id.clone(),
            delivery_id: invalid.delivery_id.clone(),
        }),
        Incoming::Verified(verified) => Some(Key {
            tenant_id: verified.tenant_id.clone(),
            delivery_id: verified.delivery_id.clone(),
        }),
        Incoming::Cancelled(_) => None,
    }
}
