//! The messages of one channel that are written and not confirmed, and what their confirms say.
//!
//! lapin attaches a returned message to whichever confirm completes next. So a confirm says only
//! whether *some* message was returned, and returned messages are matched by their ids. A confirm
//! that completes without a returned message shows that every message which was returned so far is
//! attached to a confirm that completed before it. That makes the result of a message certain
//! without waiting for the confirms of others.

use std::collections::{HashSet, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use lapin::options::{BasicPublishOptions, BasicQosOptions};
use lapin::{Channel, Confirmation};
use tokio::time::Instant;

use crate::channel::PendingMessage;
use crate::message::{Message, PublishError};

/// The messages of a channel that have no result yet, and those that were given up.
pub(crate) struct Outstanding {
    channel: Channel,
    user_id: Option<String>,
    /// In the order in which they were written.
    entries: VecDeque<Entry>,
    /// The number of the current look at all entries.
    pass: u64,
    /// The ids of the messages that the broker returned, as far as their entries are here.
    returned: HashSet<String>,
    /// The last pass whose answers are certain, since a later confirm came without a returned
    /// message.
    certain: u64,
    /// When the broker last answered anything.
    alive_at: Instant,
    /// Asks the broker for an answer when there is none for long.
    probe: Option<Pin<Box<dyn Future<Output = bool> + Send>>>,
    /// When time limits are checked next.
    check_at: Instant,
    /// How many messages wait for their result.
    waiting: usize,
    /// How many of these were written a while ago, as of the last check.
    overdue: usize,
}

/// A message that is written.
struct Entry {
    /// Resolves to the broker's confirm.
    publish: Pin<Box<dyn Future<Output = lapin::Result<Confirmation>> + Send>>,
    message_id: String,
    /// `None`: it was given up, and its caller has an answer.
    pending: Option<PendingMessage>,
    written_at: Instant,
    /// When it is given up if the broker answers others.
    confirm_by: Instant,
    confirmed: Option<Confirmed>,
}

/// A confirm, as first seen.
#[derive(Clone, Copy)]
struct Confirmed {
    pass: u64,
    ack: bool,
    /// Whether a returned message came with it, perhaps another one.
    with_returned: bool,
}

/// The channel or its connection can't be used any more.
pub(crate) struct ChannelLost;

/// How many messages may be written and neither confirmed nor overdue.
const MAX_PROMPT: usize = 512;
/// How many messages may wait for their result.
const MAX_WAITING: usize = 4096;
/// A message that is not confirmed by then leaves its place to another.
const OVERDUE_AFTER: Duration = Duration::from_secs(1);
/// How many messages may be given up before the channel is left. RabbitMQ counts them as pending
/// for the queue that doesn't confirm, and reads no more from a connection with many: 32, for a
/// quorum queue.
const MAX_GIVEN_UP: usize = 16;
/// The longest time that a message waits for its confirm.
const MAX_CONFIRM_TIMEOUT: Duration = Duration::from_secs(30);
/// The shortest time that a message waits for its confirm, however soon its deadline is.
const MIN_CONFIRM_TIMEOUT: Duration = Duration::from_secs(5);
/// The silence of the broker after which it is asked for an answer.
const SILENCE: Duration = Duration::from_secs(5);
/// The time limit of that answer. After it the connection counts as dead.
const PROBE_TIMEOUT: Duration = Duration::from_secs(10);
/// How often time limits are checked.
const CHECK_INTERVAL: Duration = Duration::from_millis(250);

impl Outstanding {
    pub(crate) fn new(channel: Channel, user_id: Option<String>) -> Self {
        let now = Instant::now();
        Self {
            channel,
            user_id,
            entries: VecDeque::new(),
            pass: 0,
            returned: HashSet::new(),
            certain: 0,
            alive_at: now,
            probe: None,
            check_at: now + CHECK_INTERVAL,
            waiting: 0,
            overdue: 0,
        }
    }

    pub(crate) fn channel(&self) -> &Channel {
        &self.channel
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether another message may be written now.
    pub(crate) fn has_room(&self) -> bool {
        !self.is_worn_out()
            && self.waiting < MAX_WAITING
            && self.waiting.saturating_sub(self.overdue) < MAX_PROMPT
    }

    /// Whether so many messages were given up that the channel should be left.
    fn is_worn_out(&self) -> bool {
        self.entries.len().saturating_sub(self.waiting) >= MAX_GIVEN_UP
    }

    /// Whether the channel should be left now: the messages that are confirmed promptly are.
    pub(crate) fn should_be_left(&self) -> bool {
        self.is_worn_out() && self.waiting <= self.overdue
    }

    /// When [`check`](Self::check) is due.
    pub(crate) fn check_at(&self) -> Instant {
        self.check_at
    }

    /// Writes a message. It takes its place on the channel at the next
    /// [`progress`](Self::progress), in the order of these calls.
    pub(crate) fn write(&mut self, pending: PendingMessage) {
        let now = Instant::now();
        let message = Arc::clone(&pending.message);
        let message_id = message.message_id.clone();
        let confirm_by = pending
            .deadline
            .max(now + MIN_CONFIRM_TIMEOUT)
            .min(now + MAX_CONFIRM_TIMEOUT);
        let (channel, user_id) = (self.channel.clone(), self.user_id.clone());
        self.entries.push_back(Entry {
            publish: Box::pin(publish(channel, message, user_id)),
            message_id,
            pending: Some(pending),
            written_at: now,
            confirm_by,
            confirmed: None,
        });
        self.waiting += 1;
    }

    /// Waits until a message has its result, or the channel is lost. Cancel-safe: what was seen is
    /// kept.
    pub(crate) async fn progress(&mut self) -> Result<(), ChannelLost> {
        std::future::poll_fn(|context| self.poll_progress(context)).await
    }

    fn poll_progress(&mut self, context: &mut Context<'_>) -> Poll<Result<(), ChannelLost>> {
        if let Some(probe) = &mut self.probe
            && let Poll::Ready(answered) = probe.as_mut().poll(context)
        {
            self.probe = None;
            if !answered {
                return Poll::Ready(Err(ChannelLost));
            }
            self.alive_at = Instant::now();
        }
        // A returned message may be attached to a confirm that completed before one that was just
        // seen, and after its own turn in that look. Another look at all sees it.
        loop {
            match self.look(context) {
                Ok(0) => break,
                Ok(_) => {}
                Err(ChannelLost) => return Poll::Ready(Err(ChannelLost)),
            }
        }
        if self.settle() {
            Poll::Ready(Ok(()))
        } else {
            Poll::Pending
        }
    }

    /// Polls every entry without a confirm, in order. Returns how many have one now.
    fn look(&mut self, context: &mut Context<'_>) -> Result<usize, ChannelLost> {
        self.pass += 1;
        let mut seen = 0;
        for entry in &mut self.entries {
            if entry.confirmed.is_some() {
                continue;
            }
            match entry.publish.as_mut().poll(context) {
                Poll::Pending => {}
                Poll::Ready(Err(_)) => return Err(ChannelLost),
                Poll::Ready(Ok(confirmation)) => {
                    seen += 1;
                    let ack = confirmation.is_ack();
                    let returned = confirmation.take_message();
                    entry.confirmed = Some(Confirmed {
                        pass: self.pass,
                        ack,
                        with_returned: returned.is_some(),
                    });
                    self.returned.extend(returned.and_then(|message| {
                        let id = message.delivery.properties.message_id().as_ref();
                        id.map(|id| id.as_str().to_owned())
                    }));
                }
            }
        }
        if seen > 0 {
            self.alive_at = Instant::now();
        }
        Ok(seen)
    }

    /// Sends the results that are certain. Returns whether there were any.
    fn settle(&mut self) -> bool {
        let confirms = || self.entries.iter().filter_map(|entry| entry.confirmed);
        let confirmed = confirms().count();
        if confirmed == 0 {
            return false;
        }
        // The last look saw no confirm, so it was a look at all after each of these.
        let without_returned = confirms().filter(|seen| seen.ack && !seen.with_returned);
        self.certain = without_returned
            .map(|seen| seen.pass)
            .max()
            .map_or(self.certain, |pass| pass.max(self.certain));
        let all_confirmed = confirmed == self.entries.len();
        let (certain, returned) = (self.certain, &self.returned);
        let (mut waiting, mut settled) = (self.waiting, Vec::new());
        self.entries.retain_mut(|entry| {
            let Some(seen) = entry.confirmed else {
                return true;
            };
            let is_returned = returned.contains(&entry.message_id);
            let is_certain = all_confirmed
                || is_returned
                || !seen.ack
                || !seen.with_returned
                // A confirm that was seen two looks later completed later.
                || seen.pass + 2 <= certain;
            if !is_certain {
                return true;
            }
            if let Some(pending) = entry.pending.take() {
                waiting -= 1;
                let result = if is_returned {
                    Err(PublishError::Unroutable(
                        pending.message.routing_key.clone(),
                    ))
                } else if seen.ack {
                    Ok(())
                } else {
                    Err(PublishError::Nacked)
                };
                // A caller that no longer waits has dropped the receiver.
                drop(pending.result.send(result));
            }
            settled.push((std::mem::take(&mut entry.message_id), is_returned));
            false
        });
        self.waiting = waiting;
        for (id, is_returned) in &settled {
            // The same message may be on the channel twice.
            if *is_returned && self.entries.iter().all(|entry| entry.message_id != *id) {
                self.returned.remove(id);
            }
        }
        !settled.is_empty()
    }

    /// Gives up the messages whose time is over while the broker answers others, and asks the
    /// broker for an answer if there is none at all.
    pub(crate) fn check(&mut self) {
        let now = Instant::now();
        self.check_at = now + CHECK_INTERVAL;
        self.overdue = 0;
        let mut oldest = None;
        for entry in &mut self.entries {
            if entry.pending.is_none() {
                continue;
            }
            if entry.confirm_by <= now && self.alive_at > entry.written_at {
                self.waiting -= 1;
                if let Some(pending) = entry.pending.take() {
                    drop(pending.result.send(Err(PublishError::SilentQueue)));
                }
                continue;
            }
            oldest.get_or_insert(entry.written_at);
            self.overdue += usize::from(entry.written_at + OVERDUE_AFTER <= now);
        }
        if self.probe.is_none()
            && oldest.is_some_and(|written_at| written_at.max(self.alive_at) + SILENCE <= now)
        {
            self.probe = Some(Box::pin(answers(self.channel.clone())));
        }
    }

    /// The messages without a result, in order, once the channel is left. It is unknown whether
    /// they are stored.
    pub(crate) fn into_unknown(self) -> Vec<PendingMessage> {
        self.entries
            .into_iter()
            .filter_map(|entry| entry.pending)
            .collect()
    }
}

/// Publishes a message. The first poll takes its delivery tag and queues its frames; the frames are
/// written before lapin can see its confirm.
async fn publish(
    channel: Channel,
    message: Arc<Message>,
    user_id: Option<String>,
) -> lapin::Result<Confirmation> {
    // Mandatory: otherwise the broker drops an unroutable message and confirms it. Not immediate:
    // RabbitMQ doesn't support it and closes the connection.
    let options = BasicPublishOptions {
        mandatory: true,
        immediate: false,
    };
    let writing = channel.basic_publish(
        message.exchange.into(),
        message.routing_key.as_str().into(),
        options,
        &message.body,
        message.properties(user_id.as_deref()),
    );
    let confirm = writing.await?;
    // The body may hold a code.
    drop(message);
    confirm.await
}

/// Whether the broker answers on this channel. The prefetch count of a channel without consumers
/// has no effect.
async fn answers(channel: Channel) -> bool {
    // Not global: newer brokers deny it.
    let asking = channel.basic_qos(0, BasicQosOptions { global: false });
    matches!(
        tokio::time::timeout(PROBE_TIMEOUT, asking).await,
        Ok(Ok(()))
    )
}
