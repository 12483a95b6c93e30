//! The tasks that publish dead letters and acknowledge messages.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use lapin::Acker;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use voice_otp_publisher::dead_letters::DeadLetterChannel;
use voice_otp_publisher::{Message, connection};

use super::{DeadLetters, Source};
use crate::service::intake::acknowledge;

pub(super) enum Order {
    Bury(Box<Pending>),
    /// Is dropped when no letter is left, or letters are refused.
    Flush(oneshot::Sender<()>),
}

/// A letter that is not stored yet.
pub(super) struct Pending {
    pub(super) letter: Message,
    /// Of the letter's message.
    pub(super) acker: Acker,
    pub(super) source: Arc<Source>,
}

pub(super) enum Acknowledgement {
    Ack(Acker),
    /// Is dropped when everything before it is acknowledged.
    Flush(oneshot::Sender<()>),
}

/// The letters that are not stored yet.
pub(super) struct Burials {
    shared: Arc<DeadLetters>,
    channel: DeadLetterChannel,
    orders: mpsc::UnboundedReceiver<Order>,
    pending: VecDeque<Pending>,
    flushes: Vec<oneshot::Sender<()>>,
    /// How many tries in a row have failed.
    failures: u32,
    next_try: Instant,
}

/// The maximum number of letters that are published at once.
const MAX_LETTERS: usize = 256;
/// While letters are refused, this part of a queue's prefetch may wait for them.
const WAITING_SHARE: u16 = 4;
/// How often the counts for the log are looked at.
const LOG_INTERVAL: Duration = Duration::from_secs(1);
/// The maximum number of acknowledgements that are received at once.
const MAX_ACKNOWLEDGEMENTS: usize = 256;

impl Burials {
    pub(super) fn new(
        shared: Arc<DeadLetters>,
        channel: DeadLetterChannel,
        orders: mpsc::UnboundedReceiver<Order>,
    ) -> Self {
        Self {
            shared,
            channel,
            orders,
            pending: VecDeque::new(),
            flushes: Vec::new(),
            failures: 0,
            next_try: Instant::now(),
        }
    }

    /// Publishes until `closed` is cancelled. The broker requeues the messages whose letters are
    /// left.
    pub(super) async fn run(mut self, closed: CancellationToken) {
        let mut log_ticks = tokio::time::interval(LOG_INTERVAL);
        loop {
            // Cancel-safe: an order that is received is kept.
            tokio::select! {
                () = closed.cancelled() => break,
                Some(order) = self.orders.recv() => self.receive(order),
                _ = log_ticks.tick() => self.shared.log_counts(),
                () = tokio::time::sleep_until(self.next_try), if !self.pending.is_empty() => {
                    // Letters that are published twice, since a try was cancelled, do no harm.
                    tokio::select! {
                        () = self.publish() => {}
                        () = closed.cancelled() => break,
                    }
                }
            }
            self.tidy();
        }
        self.shared.log_counts();
        self.channel.close().await;
    }

    fn receive(&mut self, order: Order) {
        let mut next = Some(order);
        while let Some(order) = next {
            match order {
                Order::Bury(pending) => self.pending.push_back(*pending),
                Order::Flush(flush) => self.flushes.push(flush),
            }
            next = self.orders.try_recv().ok();
        }
    }

    /// Publishes letters: many at once, or a single one if the last try failed.
    async fn publish(&mut self) {
        let size = if self.failures == 0 { MAX_LETTERS } else { 1 };
        let letters = self.pending.iter().take(size);
        let letters: Vec<Message> = letters.map(|pending| pending.letter.clone()).collect();
        let (stored, refusal) = self.channel.publish(&letters).await;
        let mut left = VecDeque::new();
        for (pending, is_stored) in self.pending.drain(..letters.len()).zip(stored) {
            if is_stored {
                self.shared.counts.stored.fetch_add(1, Ordering::Relaxed);
                self.shared.acknowledge(pending.acker);
            } else {
                left.push_back(pending);
            }
        }
        left.append(&mut self.pending);
        self.pending = left;
        match refusal {
            None => {
                self.failures = 0;
                self.shared.succeeded();
            }
            Some(refusal) => {
                self.shared.failed(&refusal);
                self.next_try = Instant::now() + connection::reconnect_delay(self.failures);
                self.failures += 1;
            }
        }
    }

    /// While letters are refused, drops those beyond their queues' shares, the newest first.
    fn tidy(&mut self) {
        if self.failures > 0 {
            let mut waiting: HashMap<String, u16> = HashMap::new();
            let pending = std::mem::take(&mut self.pending);
            for one in pending {
                // The broker has requeued the messages of a connection that was lost.
                if !one.acker.usable() {
                    continue;
                }
                let count = waiting.entry(one.source.queue.clone()).or_default();
                // One at least, to try with.
                if *count < one.source.window / WAITING_SHARE || self.pending.is_empty() {
                    *count += 1;
                    self.pending.push_back(one);
                } else {
                    self.shared.drop_refused(one.acker);
                }
            }
        }
        let waiting = self.pending.len().try_into().unwrap_or(u64::MAX);
        self.shared.counts.waiting.store(waiting, Ordering::Relaxed);
        if self.pending.is_empty() || self.failures > 0 {
            for flush in self.flushes.drain(..) {
                let flush = Acknowledgement::Flush(flush);
                drop(self.shared.acknowledgements.send(flush));
            }
        }
    }
}

/// Acknowledges messages, until `closed` is cancelled.
pub(super) async fn acknowledge_all(
    mut received: mpsc::UnboundedReceiver<Acknowledgement>,
    closed: CancellationToken,
) {
    let mut batch = Vec::new();
    loop {
        // Cancel-safe: what is received is in the batch.
        tokio::select! {
            () = closed.cancelled() => return,
            _ = received.recv_many(&mut batch, MAX_ACKNOWLEDGEMENTS) => {}
        }
        for one in batch.drain(..) {
            match one {
                // One after another: the broker looks each one up among all that are
                // unacknowledged, from the oldest on, so their order matters.
                Acknowledgement::Ack(acker) => acknowledge(&acker).await,
                // Whoever waits sees that its sender is gone.
                Acknowledgement::Flush(flush) => drop(flush),
            }
        }
    }
}
