//! Dead letters: descriptions of messages that no status can answer, without their content.
//!
//! They are published beside the intake, many at once, by a task with a connection of its own. A
//! message is acknowledged once its letter is stored.
//!
//! While the broker refuses letters, the messages of each queue wait for it unacknowledged, up to a
//! part of the queue's prefetch, so that the readable ones behind them are delivered. The messages
//! beyond that, and those beyond a publisher's budget, are counted and dropped.

mod budget;
mod burials;
mod letter;
mod log;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lapin::Acker;
use lapin::message::Delivery;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use voice_otp_publisher::dead_letters::{DeadLetterChannel, Refusal};
use voice_otp_store::Keyring;

use self::budget::Budget;
use self::burials::{Acknowledgement, Burials, Order, Pending, acknowledge_all};
use self::letter::letter;
pub(super) use self::letter::{Cause, Fingerprint};
use self::log::Log;
use crate::config::WorkerSettings;

/// Publishes dead letters, and acknowledges their messages.
pub(super) struct DeadLetters {
    keys: Keyring,
    budget: Budget,
    log: Log,
    pub(super) counts: Counts,
    /// Why the last try failed. `None` if it didn't.
    failure: Mutex<Option<Failure>>,
    // Neither has a limit of its own: both hold unacknowledged messages, which the prefetch limits.
    orders: mpsc::UnboundedSender<Order>,
    acknowledgements: mpsc::UnboundedSender<Acknowledgement>,
}

/// A queue that messages come from.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Source {
    pub(super) queue: String,
    /// How many unacknowledged messages of it a worker has at most.
    pub(super) window: u16,
}

/// A message that is not acknowledged yet, without its body.
pub(super) struct Unacknowledged {
    pub(super) acker: Acker,
    /// The broker's user that published it, if the message says so.
    pub(super) user: Option<String>,
    pub(super) redelivered: bool,
    pub(super) source: Arc<Source>,
}

/// Counters for the metrics.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// Letters that are stored.
    pub(super) stored: AtomicU64,
    /// Messages without a letter, since their publisher's budget was used up.
    pub(super) over_budget: AtomicU64,
    /// Messages without a letter, since the broker refused letters and too many waited.
    pub(super) refused: AtomicU64,
    /// Copies of messages that were dropped unread.
    pub(super) copies: AtomicU64,
    /// Letters that wait for the broker.
    pub(super) waiting: AtomicU64,
}

/// What keeps letters from being stored.
struct Failure {
    since: Instant,
    reason: String,
}

/// How long a flush may take.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

impl DeadLetters {
    /// Starts the tasks that publish and acknowledge. They end when `closed` is cancelled. `worker`
    /// is the worker's name.
    pub(super) fn start(
        settings: &WorkerSettings,
        worker: &str,
        closed: &CancellationToken,
        tasks: &TaskTracker,
    ) -> Arc<Self> {
        let (orders, received_orders) = mpsc::unbounded_channel();
        let (acknowledgements, received_acknowledgements) = mpsc::unbounded_channel();
        let this = Arc::new(Self {
            keys: settings.keys.clone(),
            budget: Budget::new(),
            log: Log::default(),
            counts: Counts::default(),
            failure: Mutex::new(None),
            orders,
            acknowledgements,
        });
        let name = format!("{worker} dead letters");
        let channel = DeadLetterChannel::new(settings.amqp_url.clone(), name);
        let burials = Burials::new(Arc::clone(&this), channel, received_orders);
        tasks.spawn(burials.run(closed.clone()));
        tasks.spawn(acknowledge_all(received_acknowledgements, closed.clone()));
        this
    }

    pub(super) fn fingerprint(&self, delivery: &Delivery) -> Fingerprint {
        Fingerprint::of(delivery, &self.keys)
    }

    /// Dead-letters a message. It is acknowledged once the letter is stored, or at once if its
    /// publisher's budget is used up.
    pub(super) fn bury(&self, message: Unacknowledged, body: &Fingerprint, cause: &Cause) {
        let (user, queue) = (message.user.as_deref(), message.source.queue.as_str());
        if !self.budget.take(user, queue) {
            if self.log.is_first(OVER_BUDGET, Instant::now()) {
                tracing::warn!(
                    reason = cause.reason,
                    user,
                    queue,
                    "too many messages of a publisher can't be read; dropping them without dead \
                     letters"
                );
            }
            self.counts.over_budget.fetch_add(1, Ordering::Relaxed);
            self.acknowledge(message.acker);
            return;
        }
        if self.log.is_first(cause.reason, Instant::now()) {
            let key = cause.key.as_ref();
            tracing::warn!(
                reason = cause.reason,
                detail = cause.detail,
                user,
                queue,
                tenant.id = key.map(|key| tracing::field::display(&key.tenant_id)),
                delivery.id = key.map(|key| tracing::field::display(&key.delivery_id)),
                "message dead-lettered"
            );
        }
        let letter = letter(&message, body, cause);
        let Unacknowledged { acker, source, .. } = message;
        // An error means that the worker is stopping. The broker requeues the message then.
        drop(self.orders.send(Order::Bury(Box::new(Pending {
            letter,
            acker,
            source,
        }))));
    }

    /// Acknowledges a copy of a message, unread.
    pub(super) fn drop_copy(&self, acker: Acker) {
        self.counts.copies.fetch_add(1, Ordering::Relaxed);
        self.acknowledge(acker);
    }

    /// Waits until the letters are stored and their messages acknowledged, unless the broker
    /// refuses letters.
    pub(super) async fn flush(&self) {
        let (sender, flushed) = oneshot::channel();
        if self.orders.send(Order::Flush(sender)).is_ok() {
            drop(tokio::time::timeout(FLUSH_TIMEOUT, flushed).await);
        }
    }

    /// What keeps letters from being stored, in words.
    pub(super) fn problem(&self) -> Option<String> {
        let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        let Failure { since, reason } = failure.as_ref()?;
        Some(format!(
            "not stored for {} s: {reason}; {} messages wait, {} were dropped",
            since.elapsed().as_secs(),
            self.counts.waiting.load(Ordering::Relaxed),
            self.counts.refused.load(Ordering::Relaxed),
        ))
    }

    fn acknowledge(&self, acker: Acker) {
        drop(self.acknowledgements.send(Acknowledgement::Ack(acker)));
    }

    /// A message for whose letter there is no room while the broker refuses letters.
    fn drop_refused(&self, acker: Acker) {
        self.counts.refused.fetch_add(1, Ordering::Relaxed);
        // Counted only: the failure has a line of its own.
        let _: bool = self.log.is_first(REFUSED, Instant::now());
        self.acknowledge(acker);
    }

    fn failed(&self, refusal: &Refusal) {
        let reason = in_words(refusal);
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(failure) = failure.as_mut() {
            failure.reason = reason;
            return;
        }
        tracing::warn!(reason, "dead letters are not stored; retrying");
        let since = Instant::now();
        *failure = Some(Failure { since, reason });
    }

    fn succeeded(&self) {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(failure) = failure.take() {
            tracing::info!(
                failed_for_s = failure.since.elapsed().as_secs(),
                reason = failure.reason,
                "dead letters are stored again"
            );
        }
    }

    /// Logs the causes whose interval is over.
    fn log_counts(&self) {
        for (cause, messages) in self.log.due(Instant::now()) {
            match cause {
                OVER_BUDGET => tracing::warn!(
                    messages,
                    "messages that can't be read were dropped without dead letters: their \
                     publishers' budgets are used up"
                ),
                REFUSED => tracing::warn!(
                    messages,
                    "messages that can't be read were dropped without dead letters: the broker \
                     does not store them"
                ),
                reason => tracing::warn!(reason, messages, "messages dead-lettered"),
            }
        }
    }
}

/// The causes in the log that are no reasons of letters.
const OVER_BUDGET: &str = "over budget";
const REFUSED: &str = "refused";

impl Unacknowledged {
    pub(super) fn new(delivery: &Delivery, source: &Arc<Source>) -> Self {
        let user = delivery.properties.user_id().as_ref();
        Self {
            acker: delivery.acker.clone(),
            user: user.map(|user| user.as_str().to_owned()),
            redelivered: delivery.redelivered,
            source: Arc::clone(source),
        }
    }
}

/// An error with its sources.
fn in_words(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        // Some errors say what their source says.
        let source_words = source.to_string();
        if !words.contains(&source_words) {
            words = format!("{words}: {source_words}");
        }
        next = source.source();
    }
    words
}
