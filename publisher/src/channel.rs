//! The task that owns the publishing channel. It is the only one that uses it (ADR 3).

use std::collections::{HashMap, HashSet, VecDeque};
use std::future::{Future as _, poll_fn};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_util::future::maybe_done;
use lapin::Channel;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use secrecy::SecretString;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::connection::{self, BrokerConnection};
use crate::message::{Message, PublishError};
use crate::topology;

type ConnectError = Box<dyn std::error::Error + Send + Sync>;

/// A message that is queued or in flight.
pub(crate) struct PendingMessage {
    pub(crate) message: Arc<Message>,
    /// When the publish fails as unconfirmed, if it has not been sent.
    pub(crate) deadline: Instant,
    /// Receives the result, once.
    pub(crate) result: oneshot::Sender<Result<(), PublishError>>,
}

/// The task's settings and its queue.
pub(crate) struct ChannelTask {
    pub(crate) url: SecretString,
    pub(crate) connection_name: String,
    /// The AMQP `user_id` of every message, if it is set.
    pub(crate) user_id: Option<String>,
    pub(crate) declare: TopologyScope,
    pub(crate) inbox: mpsc::Receiver<PendingMessage>,
    /// Whether a connection is up. Written by this task only.
    pub(crate) ready: tokio::sync::watch::Sender<bool>,
    pub(crate) stop: CancellationToken,
}

/// The part of the topology that is declared on the first connection, and on one that comes after
/// the broker refused a message because something was deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TopologyScope {
    /// The exchange and the queues of requests. A failure, for lack of permission, is logged and
    /// ignored: then the workers must have declared them.
    Requests,
    /// The exchange and the queues of statuses and dead letters. A failure fails the connection.
    Statuses,
    /// Everything. A failure fails the connection.
    All,
}

/// The largest number of messages in a window.
const MAX_WINDOW: usize = 256;
/// The longest time that a window waits for its confirms. After that the connection counts as dead.
const MAX_CONFIRM_TIMEOUT: Duration = Duration::from_secs(30);
/// The shortest time that a window waits for its confirms, however soon the first deadline in it
/// is.
const MIN_CONFIRM_TIMEOUT: Duration = Duration::from_secs(5);
/// The time limit for opening a channel and switching it to confirms.
const OPEN_TIMEOUT: Duration = Duration::from_secs(30);
/// The time limit for closing a channel.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

impl ChannelTask {
    /// Publishes until the inbox is closed and empty, or `stop` is cancelled.
    pub(crate) async fn run(mut self) {
        let mut queue: VecDeque<PendingMessage> = VecDeque::new();
        let mut open: Option<(BrokerConnection, Channel)> = None;
        let mut failures = 0;
        // A connection that comes after another one declares nothing again: while a node of a
        // cluster is silent, that takes until the others give the node up.
        let mut is_declared = false;
        loop {
            if queue.is_empty() && !self.refill(&mut queue, open.as_ref()).await {
                break;
            }
            expire(
                &mut queue,
                if open.is_none() {
                    "the broker is unreachable"
                } else {
                    "the broker accepts no messages"
                },
            );
            if open
                .as_ref()
                .is_none_or(|(broker, channel)| !broker.is_up() || !channel.status().connected())
            {
                self.ready.send_replace(false);
                // The broker closes a channel, and not its connection, when an exchange is missing.
                if open.as_ref().is_some_and(|(broker, _)| broker.is_up()) {
                    is_declared = false;
                }
                open = None;
                // A connection that is abandoned half-way is cut.
                let connected = tokio::select! {
                    connected = self.connect(&mut is_declared) => connected,
                    () = self.stop.cancelled() => break,
                };
                match connected {
                    Ok(opened) => {
                        failures = 0;
                        open = Some(opened);
                        self.ready.send_replace(true);
                    }
                    Err(error) => {
                        if failures == 0 {
                            tracing::warn!(
                                error = &*error as &dyn std::error::Error,
                                "failed to connect to the broker; retrying"
                            );
                        }
                        tokio::select! {
                            () = tokio::time::sleep(connection::reconnect_delay(failures)) => {}
                            () = self.stop.cancelled() => break,
                        }
                        failures += 1;
                        continue;
                    }
                }
            }
            let Some((broker, channel)) = &open else {
                continue;
            };
            // A caller whose publish has just been confirmed may publish its next message at once.
            // Yielding lets it join this window: one window of many messages is faster than many
            // windows of one.
            tokio::task::yield_now().await;
            while queue.len() < MAX_WINDOW {
                let Ok(pending) = self.inbox.try_recv() else {
                    break;
                };
                queue.push_back(pending);
            }
            let window: Vec<PendingMessage> = queue.drain(..queue.len().min(MAX_WINDOW)).collect();
            let unconfirmed = publish_window(channel, self.user_id.as_deref(), window).await;
            if !unconfirmed.is_empty() {
                is_declared &= channel.status().connected() || !broker.is_up();
                if broker.is_blocked() {
                    tracing::debug!(
                        messages = unconfirmed.len(),
                        "the broker blocks publishers; messages are queued"
                    );
                }
                // It is unknown whether these are stored. They are published again, with the same
                // ids, on a new connection.
                for pending in unconfirmed.into_iter().rev() {
                    queue.push_front(pending);
                }
                self.ready.send_replace(false);
                // Left, not closed: a connection that confirms nothing may be dead.
                open = None;
            }
        }
        let error = PublishError::Unconfirmed("the publisher was closed");
        for pending in queue {
            // A caller that no longer waits has dropped the receiver.
            drop(pending.result.send(Err(error.clone())));
        }
        self.ready.send_replace(false);
        if let Some((broker, channel)) = open {
            close(broker, channel).await;
        }
    }

    /// Waits for the next message. Also returns when the connection is lost, so that the task
    /// reconnects before the next message needs the connection. `false` when no more messages can
    /// come.
    async fn refill(
        &mut self,
        queue: &mut VecDeque<PendingMessage>,
        open: Option<&(BrokerConnection, Channel)>,
    ) -> bool {
        let lost = async {
            if let Some((broker, _)) = open {
                broker.lost().await;
            }
        };
        // Cancel-safe: `recv` removes a message only if its arm wins.
        tokio::select! {
            pending = self.inbox.recv() => match pending {
                Some(pending) => {
                    queue.push_back(pending);
                    true
                }
                None => false,
            },
            () = lost => true,
            () = self.stop.cancelled() => false,
        }
    }

    async fn connect(
        &self,
        is_declared: &mut bool,
    ) -> Result<(BrokerConnection, Channel), ConnectError> {
        let broker = connection::connect(&self.url, &self.connection_name).await?;
        if !*is_declared {
            *is_declared = self.declare(&broker).await?;
        }
        let creating = broker.connection.create_channel();
        let channel = tokio::time::timeout(OPEN_TIMEOUT, creating).await??;
        // Not `nowait`: the broker's answer shows that confirms are on before the first publish.
        let select = channel.confirm_select(ConfirmSelectOptions { nowait: false });
        tokio::time::timeout(OPEN_TIMEOUT, select).await??;
        Ok((broker, channel))
    }

    /// Declares the topology. Returns whether it exists now.
    async fn declare(&self, broker: &BrokerConnection) -> Result<bool, topology::Error> {
        match self.declare {
            TopologyScope::All => topology::declare_all(&broker.connection).await?,
            TopologyScope::Statuses => topology::declare_statuses(&broker.connection).await?,
            TopologyScope::Requests => {
                // A user that may only publish relies on the workers to declare the topology. If
                // they haven't, a mandatory publish fails as unroutable.
                if let Err(error) = topology::declare_requests(&broker.connection).await {
                    tracing::info!(
                        error = &error as &dyn std::error::Error,
                        "failed to declare the topology; relying on the workers"
                    );
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }
}

/// Closes the channel before its connection: a dropped channel would still be closing when the
/// connection closes.
async fn close(broker: BrokerConnection, channel: Channel) {
    drop(tokio::time::timeout(CLOSE_TIMEOUT, channel.close(200, "done".into())).await);
    broker.close().await;
}

/// Fails the queued messages whose deadline has passed. The order of the others stays.
fn expire(queue: &mut VecDeque<PendingMessage>, why: &'static str) {
    let now = Instant::now();
    for _ in 0..queue.len() {
        let Some(pending) = queue.pop_front() else {
            break;
        };
        if pending.deadline <= now {
            drop(pending.result.send(Err(PublishError::Unconfirmed(why))));
        } else {
            queue.push_back(pending);
        }
    }
}

/// Writes a window, waits for its confirms, and sends the results. Returns the messages of which it
/// is unknown whether they are stored: to be published again, with the same ids, on a new
/// connection.
async fn publish_window(
    channel: &Channel,
    user_id: Option<&str>,
    window: Vec<PendingMessage>,
) -> Vec<PendingMessage> {
    let now = Instant::now();
    // The minimum keeps one message with a near deadline from leaving all the others unconfirmed.
    let first_deadline = window
        .iter()
        .map(|pending| pending.deadline)
        .min()
        .unwrap_or(now);
    let until = first_deadline
        .max(now + MIN_CONFIRM_TIMEOUT)
        .min(now + MAX_CONFIRM_TIMEOUT);
    let mut writes: Vec<_> = window
        .iter()
        .map(|pending| {
            let message = &pending.message;
            // Mandatory: otherwise the broker drops an unroutable message and confirms it. Not
            // immediate: RabbitMQ doesn't support it and closes the connection.
            let options = BasicPublishOptions {
                mandatory: true,
                immediate: false,
            };
            let (exchange, key) = (message.exchange.into(), message.routing_key.as_str().into());
            Box::pin(maybe_done(channel.basic_publish(
                exchange,
                key,
                options,
                &message.body,
                message.properties(user_id),
            )))
        })
        .collect();
    // A publish takes its delivery tag and queues its frames at its first poll, and then waits for
    // the socket. So all are polled once, in order, before any is awaited. Awaited one by one,
    // every message would wait for a turn of lapin's thread.
    poll_fn(|context| {
        for write in &mut writes {
            // `maybe_done` keeps the result until `take_output`.
            let (Poll::Ready(()) | Poll::Pending) = write.as_mut().poll(context);
        }
        Poll::Ready(())
    })
    .await;
    let mut confirms = Vec::with_capacity(window.len());
    for mut write in writes {
        match timeout_at(until, write.as_mut())
            .await
            .ok()
            .and_then(|()| write.as_mut().take_output())
        {
            Some(Ok(confirm)) => confirms.push(confirm),
            Some(Err(_)) | None => break,
        }
    }
    let mut acked: HashMap<usize, bool> = HashMap::with_capacity(confirms.len());
    let mut returned: HashSet<String> = HashSet::new();
    let mut record_returned = |message: lapin::message::BasicReturnMessage| {
        let id = message
            .delivery
            .properties
            .message_id()
            .as_ref()
            .map(|id| id.as_str().to_owned());
        returned.extend(id);
    };
    for (index, confirm) in confirms.into_iter().enumerate() {
        let Ok(Ok(confirmation)) = timeout_at(until, confirm).await else {
            break;
        };
        acked.insert(index, confirmation.is_ack());
        // The attached message was returned by the broker, but may belong to another publish. So it
        // is matched by its id.
        confirmation.take_message().map(&mut record_returned);
    }
    // The returned messages that were attached to no confirm. Which messages were returned is known
    // only when the whole window is confirmed.
    let all_confirmed = acked.len() == window.len();
    let all_confirmed = match timeout_at(until, channel.wait_for_confirms()).await {
        Ok(Ok(rest)) if all_confirmed => {
            rest.into_iter().for_each(&mut record_returned);
            true
        }
        _ => false,
    };
    let mut unknown = Vec::new();
    for (index, pending) in window.into_iter().enumerate() {
        let result = match acked.get(&index) {
            _ if returned.contains(&pending.message.message_id) => Err(PublishError::Unroutable(
                pending.message.routing_key.clone(),
            )),
            Some(true) if all_confirmed => Ok(()),
            Some(false) => Err(PublishError::Nacked),
            Some(true) | None => {
                unknown.push(pending);
                continue;
            }
        };
        // A caller that no longer waits has dropped the receiver.
        drop(pending.result.send(result));
    }
    unknown
}
