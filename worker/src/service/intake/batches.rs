//! From messages that could be read to the ledger, and back to the broker.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use voice_otp::engine::{self, DeadLetterReason, Disposition};
use voice_otp::ports::Ports;

use super::Intake;
use super::broker::{acknowledge, requeue, requeue_later};
use crate::service::dead_letters::{Cause, Fingerprint, Unacknowledged};

/// A message that could be read.
pub(super) struct Readable {
    pub(super) message: Unacknowledged,
    /// For a dead letter.
    pub(super) body: Fingerprint,
    pub(super) event: engine::Message,
}

/// What remains of a batch that was processed.
#[derive(Default)]
pub(super) struct Unprocessed {
    /// This worker can't process it now; perhaps another one can.
    pub(super) requeue: Vec<Readable>,
    /// Is processed again shortly: the account's rate-limit row was locked.
    pub(super) retry: Vec<Readable>,
}

/// The maximum number of batches in flight to the ledger.
const MAX_BATCHES_IN_FLIGHT: usize = 4;
/// How long a batch gathers while one other is in flight. With none in flight it is sent at once.
const GATHER_TIME: Duration = Duration::from_millis(25);
/// How long a batch gathers, full or not, while more are in flight: some of those are stuck.
const GATHER_TIME_WHEN_STUCK: Duration = Duration::from_millis(250);
/// The pause before a message is processed again whose account's rate-limit row was locked.
pub(super) const RETRY_PAUSE: Duration = Duration::from_millis(250);

impl<P: Ports> Intake<P> {
    /// Gathers messages into batches, and processes up to [`MAX_BATCHES_IN_FLIGHT`] at once.
    pub(super) async fn batch(
        self: Arc<Self>,
        mut receiver: mpsc::Receiver<Readable>,
        tasks: TaskTracker,
        ended: CancellationToken,
    ) {
        let max_batch = self.max_batch;
        let permits = Arc::new(Semaphore::new(MAX_BATCHES_IN_FLIGHT));
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
                let in_flight = MAX_BATCHES_IN_FLIGHT - 1 - permits.available_permits();
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
    async fn retry(&self, mut messages: Vec<Readable>, ended: &CancellationToken) {
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
            requeue(&left.message.acker).await;
        }
    }

    /// Processes a batch, and acknowledges what is done.
    pub(super) async fn process(&self, batch: Vec<Readable>) -> Unprocessed {
        let (messages, events): (Vec<_>, Vec<_>) = batch
            .into_iter()
            .map(|one| ((one.message, one.body), one.event))
            .unzip();
        let mut unprocessed = Unprocessed::default();
        let dispositions = self.engine.process(&events).await;
        for (((message, body), event), disposition) in
            messages.into_iter().zip(events).zip(dispositions)
        {
            let again = |event| Readable {
                message,
                body,
                event,
            };
            match disposition {
                Disposition::Acknowledge => acknowledge(&again(event).message.acker).await,
                Disposition::RetrySoon => unprocessed.retry.push(again(event)),
                Disposition::Requeue => unprocessed.requeue.push(again(event)),
                Disposition::DeadLetter(reason) => {
                    let cause = Cause {
                        reason: reason.as_str(),
                        detail: detail(reason).to_owned(),
                        key: event.incoming.key(),
                    };
                    let one = again(event);
                    self.dead_letters.bury(one.message, &one.body, &cause);
                }
            }
        }
        unprocessed
    }
}

fn detail(reason: DeadLetterReason) -> &'static str {
    match reason {
        DeadLetterReason::ConflictingDuplicate => {
            "the id belongs to a request with another number, code or extension"
        }
        DeadLetterReason::PublisherNotAllowed => {
            "the publisher, the message's user_id, is not on the tenant's list; voice-otp tenant \
             set --publisher adds it"
        }
        DeadLetterReason::RefusedByDatabase => {
            "the database rejects the request; the worker's log has the reason"
        }
    }
}
