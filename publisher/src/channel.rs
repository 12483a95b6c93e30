//! The task that owns the publishing channel. It is the only one that uses it (ADR 3).

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use lapin::Channel;
use lapin::options::ConfirmSelectOptions;
use secrecy::SecretString;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::connection::{self, BrokerConnection};
use crate::message::{Message, PublishError};
use crate::outstanding::Outstanding;
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
    /// The exchange and the log of statuses. A failure fails the connection.
    Statuses,
    /// Everything. A failure fails the connection.
    All,
}

/// How many messages are queued here at most; more stay in the inbox.
const MAX_QUEUED: usize = 512;
/// The time limit for opening a channel and switching it to confirms.
const OPEN_TIMEOUT: Duration = Duration::from_secs(30);
/// The time limit for closing a channel.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Why a channel is no longer published on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The publisher is closed.
    Finished,
    /// The channel or its connection is to be replaced.
    Left,
}

impl ChannelTask {
    /// Publishes until the inbox is closed and everything has its result, or `stop` is cancelled.
    pub(crate) async fn run(mut self) {
        let mut queue: VecDeque<PendingMessage> = VecDeque::new();
        let mut failures = 0;
        // A connection that comes after another one declares nothing again: while a node of a
        // cluster is silent, that takes until the others give the node up.
        let mut is_declared = false;
        loop {
            // A connection that is abandoned half-way is cut.
            let connected = tokio::select! {
                connected = self.connect(&mut is_declared) => connected,
                () = self.stop.cancelled() => break,
            };
            match connected {
                Ok((broker, channel)) => {
                    failures = 0;
                    self.ready.send_replace(true);
                    let mut outstanding = Outstanding::new(channel, self.user_id.clone());
                    let end = self.publish(&broker, &mut outstanding, &mut queue).await;
                    self.ready.send_replace(false);
                    let channel = outstanding.channel().clone();
                    if broker.is_up() && !channel.status().connected() {
                        // The broker closes a channel, and not its connection, when an exchange is
                        // missing.
                        is_declared = false;
                    }
                    // It is unknown whether these are stored. They are published again, with the
                    // same ids, on a new connection.
                    for pending in outstanding.into_unknown().into_iter().rev() {
                        queue.push_front(pending);
                    }
                    match end {
                        End::Finished => {
                            fail(queue);
                            close(broker, channel).await;
                            return;
                        }
                        // Left, not closed: a connection that confirms nothing may be dead.
                        End::Left => {}
                    }
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
                }
            }
            self.refill(&mut queue);
            expire(&mut queue, "the broker is unreachable");
            if queue.is_empty() && self.inbox.is_closed() {
                break;
            }
        }
        self.ready.send_replace(false);
        fail(queue);
    }

    /// Publishes on one channel: a message is written as soon as there is room, whichever others
    /// are confirmed.
    async fn publish(
        &mut self,
        broker: &BrokerConnection,
        outstanding: &mut Outstanding,
        queue: &mut VecDeque<PendingMessage>,
    ) -> End {
        let mut open = true;
        loop {
            // A caller whose publish has just been confirmed may publish its next message at once.
            // Yielding lets many join one write, which is faster than many writes of one.
            tokio::task::yield_now().await;
            self.refill(queue);
            while outstanding.has_room()
                && let Some(pending) = queue.pop_front()
            {
                outstanding.write(pending);
            }
            if !open && queue.is_empty() && outstanding.is_empty() {
                return End::Finished;
            }
            let check_at = outstanding.check_at();
            let checks = !outstanding.is_empty() || !queue.is_empty();
            // Cancel-safe: `recv` removes a message only if its arm wins, and `progress` keeps what
            // it has seen.
            tokio::select! {
                received = self.inbox.recv(), if open && queue.len() < MAX_QUEUED => {
                    match received {
                        Some(pending) => queue.push_back(pending),
                        None => open = false,
                    }
                }
                progress = outstanding.progress() => if progress.is_err() {
                    return End::Left;
                },
                () = tokio::time::sleep_until(check_at), if checks => {
                    outstanding.check();
                    expire(queue, "the broker accepts no messages");
                    if broker.is_blocked() {
                        tracing::debug!("the broker blocks publishers; messages are queued");
                    }
                }
                () = broker.lost() => return End::Left,
                () = self.stop.cancelled() => return End::Finished,
            }
            if !broker.is_up() || !outstanding.channel().status().connected() {
                return End::Left;
            }
            if outstanding.should_be_left() {
                tracing::debug!("a queue doesn't confirm; the connection is replaced");
                return End::Left;
            }
        }
    }

    /// Takes messages from the inbox, without waiting.
    fn refill(&mut self, queue: &mut VecDeque<PendingMessage>) {
        while queue.len() < MAX_QUEUED
            && let Ok(pending) = self.inbox.try_recv()
        {
            queue.push_back(pending);
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

/// Fails the messages that a closed publisher has left.
fn fail(queue: VecDeque<PendingMessage>) {
    for pending in queue {
        // A caller that no longer waits has dropped the receiver.
        drop(
            pending
                .result
                .send(Err(PublishError::Unconfirmed("the publisher was closed"))),
        );
    }
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
