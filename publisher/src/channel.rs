//! The one task that owns a publishing channel.

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

use crate::link::{self, Link};
use crate::message::{Message, PublishError};
use crate::topology;

/// A message on its way, until when it matters, and whom to answer.
pub(crate) struct Posted {
    pub(crate) message: Arc<Message>,
    pub(crate) deadline: Instant,
    pub(crate) answer: oneshot::Sender<Result<(), PublishError>>,
}

pub(crate) struct Owner {
    pub(crate) url: SecretString,
    pub(crate) name: String,
    /// Whom the broker knows this connection as.
    pub(crate) user: Option<String>,
    pub(crate) declares: Declares,
    pub(crate) inbox: mpsc::Receiver<Posted>,
    /// Whether a link is up and takes messages.
    pub(crate) ready: tokio::sync::watch::Sender<bool>,
    pub(crate) stop: CancellationToken,
}

/// What is declared on every new connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Declares {
    /// What requests need. Without the permission to, it is taken to be there.
    Requests,
    /// Everything.
    All,
}

/// The most messages in one window.
const WINDOW: usize = 256;
/// The longest a window waits for its confirms. Beyond, the connection is taken for dead.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(30);
/// The least a window waits for its confirms, however soon a message of it is due.
const LEAST_CONFIRM_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest a channel's closing is waited for.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

impl Owner {
    /// Publishes until the inbox is closed and empty, or until told to stop.
    pub(crate) async fn run(mut self) {
        let mut waiting: VecDeque<Posted> = VecDeque::new();
        let mut link: Option<(Link, Channel)> = None;
        let mut tries = 0;
        loop {
            if waiting.is_empty() && !self.refill(&mut waiting, link.as_ref()).await {
                break;
            }
            expire(
                &mut waiting,
                if link.is_none() {
                    "the broker can't be reached"
                } else {
                    "the broker takes no messages"
                },
            );
            if link
                .as_ref()
                .is_none_or(|(link, channel)| !link.is_up() || !channel.status().connected())
            {
                self.ready.send_replace(false);
                link = None;
                match self.connect().await {
                    Ok(made) => {
                        tries = 0;
                        link = Some(made);
                        self.ready.send_replace(true);
                    }
                    Err(error) => {
                        if tries == 0 {
                            tracing::warn!(
                                error = &*error as &dyn std::error::Error,
                                "can't reach the broker, trying again"
                            );
                        }
                        tokio::select! {
                            () = tokio::time::sleep(link::pause(tries)) => {}
                            () = self.stop.cancelled() => break,
                        }
                        tries += 1;
                        continue;
                    }
                }
            }
            let Some((up, channel)) = &link else { continue };
            // Whoever was just answered may have the next message at hand: one window of many beats many of one.
            tokio::task::yield_now().await;
            while waiting.len() < WINDOW {
                let Ok(posted) = self.inbox.try_recv() else {
                    break;
                };
                waiting.push_back(posted);
            }
            let window: Vec<Posted> = waiting.drain(..waiting.len().min(WINDOW)).collect();
            let kept = publish_window(channel, self.user.as_deref(), window).await;
            if !kept.is_empty() {
                if up.is_blocked() {
                    tracing::debug!(
                        messages = kept.len(),
                        "the broker takes no messages, so these wait"
                    );
                }
                // Whatever became of the rest of the window: a fresh connection tells the truth.
                for posted in kept.into_iter().rev() {
                    waiting.push_front(posted);
                }
                self.ready.send_replace(false);
                if let Some((link, channel)) = link.take() {
                    close(link, channel).await;
                }
            }
        }
        for posted in waiting {
            drop(
                posted
                    .answer
                    .send(Err(PublishError::Unconfirmed("the publisher was closed"))),
            );
        }
        self.ready.send_replace(false);
        if let Some((link, channel)) = link {
            close(link, channel).await;
        }
    }

    /// Waits for messages, with a link up so that the first needn't wait for one. False when there will be none.
    async fn refill(
        &mut self,
        waiting: &mut VecDeque<Posted>,
        link: Option<&(Link, Channel)>,
    ) -> bool {
        let lost = async {
            if let Some((link, _)) = link {
                link.lost().await;
            }
        };
        // Cancel-safe: a message is only taken by the arm that wins.
        tokio::select! {
            posted = self.inbox.recv() => match posted {
                Some(posted) => {
                    waiting.push_back(posted);
                    true
                }
                None => false,
            },
            () = lost => true,
            () = self.stop.cancelled() => false,
        }
    }

    async fn connect(&self) -> Result<(Link, Channel), Box<dyn std::error::Error + Send + Sync>> {
        let link = link::connect(&self.url, &self.name).await?;
        match self.declares {
            Declares::All => topology::declare_all(&link.connection).await?,
            Declares::Requests => {
                // Who may only publish relies on the workers to declare: a mandatory publish tells if they haven't.
                if let Err(error) = topology::declare_requests(&link.connection).await {
                    tracing::info!(
                        error = &error as &dyn std::error::Error,
                        "the topology is left to the workers to declare"
                    );
                }
            }
        }
        let channel = create_channel(&link).await?;
        let select = channel.confirm_select(ConfirmSelectOptions { nowait: false });
        tokio::time::timeout(CONFIRM_TIMEOUT, select).await??;
        Ok((link, channel))
    }
}

/// Left to its drop, a channel would still be closing when its connection does.
async fn close(link: Link, channel: Channel) {
    drop(tokio::time::timeout(CLOSE_TIMEOUT, channel.close(200, "done".into())).await);
    link.close().await;
}

async fn create_channel(link: &Link) -> Result<Channel, Box<dyn std::error::Error + Send + Sync>> {
    Ok(tokio::time::timeout(CONFIRM_TIMEOUT, link.connection.create_channel()).await??)
}

fn expire(waiting: &mut VecDeque<Posted>, why: &'static str) {
    let now = Instant::now();
    for _ in 0..waiting.len() {
        let Some(posted) = waiting.pop_front() else {
            break;
        };
        if posted.deadline <= now {
            drop(posted.answer.send(Err(PublishError::Unconfirmed(why))));
        } else {
            waiting.push_back(posted);
        }
    }
}

/// Writes a window, waits for its confirms, and answers. Gives back what nobody knows of: to be published again, with
/// the same ids, on a fresh connection.
async fn publish_window(channel: &Channel, user: Option<&str>, window: Vec<Posted>) -> Vec<Posted> {
    let now = Instant::now();
    // Not cut short for one message that is nearly due: that would unsettle all the others.
    let first_due = window
        .iter()
        .map(|posted| posted.deadline)
        .min()
        .unwrap_or(now);
    let until = first_due
        .max(now + LEAST_CONFIRM_TIMEOUT)
        .min(now + CONFIRM_TIMEOUT);
    let mut writes: Vec<_> = window
        .iter()
        .map(|posted| {
            let message = &posted.message;
            // Mandatory: without it an unroutable message is confirmed all the same. Immediate is not known to RabbitMQ.
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
                message.properties(user),
            )))
        })
        .collect();
    // A publish takes its tag and queues its frames when it is polled first, and then waits for the socket. So all are
    // polled once, in order, and waited for afterwards: one by one, every message would wait for a turn of lapin's thread.
    poll_fn(|context| {
        for write in &mut writes {
            // Its outcome stays in it.
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
    let mut note = |message: lapin::message::BasicReturnMessage| {
        let id = message
            .delivery
            .properties
            .message_id()
            .as_ref()
            .map(|id| id.as_str().to_owned());
        returned.extend(id);
    };
    for (place, confirm) in confirms.into_iter().enumerate() {
        let Ok(Ok(confirmation)) = timeout_at(until, confirm).await else {
            break;
        };
        acked.insert(place, confirmation.is_ack());
        // The message that comes along is some returned one, not surely this one's.
        confirmation.take_message().map(&mut note);
    }
    // Returned messages that no confirm brought along. Only of a whole window is it known which were returned.
    let whole = acked.len() == window.len();
    let whole = match timeout_at(until, channel.wait_for_confirms()).await {
        Ok(Ok(rest)) if whole => {
            rest.into_iter().for_each(&mut note);
            true
        }
        _ => false,
    };
    let mut unknown = Vec::new();
    for (place, posted) in window.into_iter().enumerate() {
        let result = match acked.get(&place) {
            _ if returned.contains(&posted.message.message_id) => {
                Err(PublishError::Unroutable(posted.message.routing_key.clone()))
            }
            Some(true) if whole => Ok(()),
            Some(false) => Err(PublishError::Refused),
            Some(true) | None => {
                unknown.push(posted);
                continue;
            }
        };
        // Who no longer waits needs no answer.
        drop(posted.answer.send(result));
    }
    unknown
}
