//! The relay: publishes status events in order, waits for the broker's confirms, then deletes them
//! from the outbox.

mod generations;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use voice_otp_schemas::DeliveryKey;

use self::generations::{Generations, PublishedFinals};
use super::counts::Counts;
use super::retry::as_error;
use super::shutdown::Shutdown;
use crate::event::Event;
use crate::ports::{EarlierEvents, Ledger, SinkError, StatusSink};

/// The entrance to the relay.
pub(super) struct Relay {
    sender: mpsc::Sender<Submission>,
    /// Events in the channel and in the queue.
    pending: Arc<AtomicUsize>,
}

/// The task that publishes. It owns the queue.
pub(super) struct Runner<L, S> {
    ledger: Arc<L>,
    sink: S,
    counts: Arc<Counts>,
    receiver: mpsc::Receiver<Submission>,
    /// Events in the channel and in the queue.
    pending: Arc<AtomicUsize>,
    /// The highest sequence of each delivery that was queued lately. It tells an event whose
    /// predecessor is in the queue from one whose predecessor another worker has.
    queued: Generations,
    finals: PublishedFinals,
    /// Accepted, and not known to be published.
    queue: Vec<Event>,
    /// Published, and not known to be deleted from the outbox.
    published: Vec<(DeliveryKey, u32)>,
    /// When the published events are deleted from the outbox at the latest.
    delete_at: Instant,
    /// Events without an order, and where to report whether they are published.
    unordered: Vec<(Vec<Event>, oneshot::Sender<bool>)>,
}

enum Submission {
    /// Events of a change that was just saved.
    New(Vec<Event>, EarlierEvents),
    /// Events found in the outbox.
    Swept(Vec<Event>),
    /// Events without an order, which aren't in the outbox. The sender learns whether all of them
    /// are published.
    Unordered(Vec<Event>, oneshot::Sender<bool>),
}

/// How many events may wait in memory. What exceeds it stays in the outbox, for the sweeper.
const MAX_PENDING: usize = 50_000;
/// How many events may wait in memory while more are swept at once.
const LITTLE_PENDING: usize = 2_000;
/// How often a sweep that found much checks whether it may continue.
const PENDING_CHECK_INTERVAL: Duration = Duration::from_millis(20);
/// How many events are published before their confirms are awaited.
const WINDOW: usize = 256;
/// How long events are remembered as queued: between one and two generations.
const QUEUED_GENERATION: Duration = Duration::from_secs(10);
/// How long a published event stays in the outbox when few are published, so that many are deleted
/// together. After a crash it is published again, the same event. The delay is short, since another
/// worker that changes the delivery meanwhile leaves the new status to its sweeper.
const DELETE_DELAY: Duration = Duration::from_millis(20);
/// The pause after a window that could not be published.
const SINK_PAUSE: Duration = Duration::from_millis(250);

/// A relay and the task behind it.
pub(super) fn new<L, S>(ledger: Arc<L>, sink: S, counts: Arc<Counts>) -> (Relay, Runner<L, S>) {
    let (sender, receiver) = mpsc::channel(MAX_PENDING);
    let pending = Arc::new(AtomicUsize::new(0));
    let relay = Relay {
        sender,
        pending: Arc::clone(&pending),
    };
    let runner = Runner {
        ledger,
        sink,
        counts,
        receiver,
        pending,
        queued: Generations::new(QUEUED_GENERATION),
        finals: PublishedFinals::default(),
        queue: Vec::new(),
        published: Vec::new(),
        delete_at: Instant::now(),
        unordered: Vec::new(),
    };
    (relay, runner)
}

impl Relay {
    /// Submits the events of a change that was just saved. They are in the outbox, so a full relay
    /// may leave them there.
    pub(super) fn send(&self, events: Vec<Event>, earlier_events: EarlierEvents) {
        if !events.is_empty() && self.pending.load(Ordering::Relaxed) < MAX_PENDING {
            self.submit(events.len(), Submission::New(events, earlier_events));
        }
    }

    /// Submits events found in the outbox. Those that are queued already are recognised.
    pub(super) fn sweep(&self, events: Vec<Event>) {
        if !events.is_empty() {
            self.submit(events.len(), Submission::Swept(events));
        }
    }

    /// Whether there is room for swept events. If not, they stay in the outbox.
    pub(super) fn accepts_swept(&self) -> bool {
        self.pending.load(Ordering::Relaxed) < MAX_PENDING
    }

    /// Waits until the relay has published most of what it has, or the worker is asked to stop: a
    /// large backlog in the outbox is taken at the speed at which the relay publishes, and new
    /// events don't wait behind all of it.
    pub(super) async fn until_little_is_pending(&self, shutdown: &Shutdown) {
        while self.pending.load(Ordering::Relaxed) >= LITTLE_PENDING
            && !shutdown.sleep_or_soft(PENDING_CHECK_INTERVAL).await
        {}
    }

    /// Publishes events that have no order among others. Returns false if one of them is not known
    /// to be published.
    pub(super) async fn publish_unordered(&self, events: Vec<Event>) -> bool {
        let (answer, answered) = oneshot::channel();
        self.submit(events.len(), Submission::Unordered(events, answer));
        answered.await.unwrap_or(false)
    }

    fn submit(&self, events: usize, submission: Submission) {
        self.pending.fetch_add(events, Ordering::Relaxed);
        if self.sender.try_send(submission).is_err() {
            self.pending.fetch_sub(events, Ordering::Relaxed);
            tracing::debug!("the relay is full or closed; the sweeper publishes later");
        }
    }
}

impl<L: Ledger, S: StatusSink> Runner<L, S> {
    /// Publishes until closed and empty, or until the worker must stop.
    pub(super) async fn run(mut self, closed: CancellationToken, hard: CancellationToken) {
        loop {
            let more = tokio::select! {
                more = self.round(&closed) => more,
                () = hard.cancelled() => false,
            };
            if !more {
                return;
            }
        }
    }

    /// Publishes one window, and deletes an earlier one from the outbox meanwhile. Returns false
    /// when the relay is closed and empty.
    async fn round(&mut self, closed: &CancellationToken) -> bool {
        let Some(submissions) = self.receive(closed).await else {
            return false;
        };
        for submission in submissions {
            self.accept(submission);
        }
        let window = self.take_window();
        let deleting = self.take_deletable(closed);
        let (results, deleted) = tokio::join!(
            publish(&self.sink, &window),
            delete(&*self.ledger, &deleting)
        );
        let stuck = !deleted && window.is_empty();
        if !deleted {
            self.published.extend(deleting);
        }
        self.publish_unordered().await;
        let failed = self.settle(window, results);
        if failed || stuck {
            tokio::time::sleep(SINK_PAUSE).await;
        }
        true
    }

    /// Takes submissions for one window; waits for one if there is nothing to do. `None` when the
    /// relay is closed and empty.
    async fn receive(&mut self, closed: &CancellationToken) -> Option<Vec<Submission>> {
        let mut submissions = Vec::new();
        while self.queue.len() + submissions.len() < WINDOW {
            match self.receiver.try_recv() {
                Ok(submission) => submissions.push(submission),
                Err(_) => break,
            }
        }
        if self.queue.is_empty() && submissions.is_empty() {
            // Cancel-safe: receiving and waiting are.
            tokio::select! {
                submission = self.receiver.recv() => submissions.push(submission?),
                () = tokio::time::sleep_until(self.delete_at), if !self.published.is_empty() => {}
                // What was submitted before the closing is in the channel already.
                () = closed.cancelled() => match self.receiver.try_recv() {
                    Ok(submission) => submissions.push(submission),
                    Err(_) if self.published.is_empty() => return None,
                    Err(_) => {}
                },
            }
        }
        Some(submissions)
    }

    fn accept(&mut self, submission: Submission) {
        // What is published and not deleted yet must not be published again either.
        let queue = self.queue.iter().map(|event| (&event.key, event.sequence));
        let published = self
            .published
            .iter()
            .map(|(key, sequence)| (key, *sequence));
        self.queued.turn(published.chain(queue));
        let (events, earlier_events) = match submission {
            Submission::New(events, earlier_events) => (events, earlier_events),
            // Swept events come in order, with everything that is left of their delivery.
            Submission::Swept(events) => (events, EarlierEvents::Published),
            Submission::Unordered(events, answer) => {
                self.unordered.push((events, answer));
                return;
            }
        };
        for event in events {
            let highest = self.queued.get(&event.key);
            let is_queued = highest.is_some_and(|highest| highest >= event.sequence);
            let in_order = match earlier_events {
                EarlierEvents::Published => true,
                EarlierEvents::OwnedHere | EarlierEvents::OwnedElsewhere => {
                    highest.is_some_and(|highest| highest + 1 >= event.sequence)
                }
            };
            if !is_queued && in_order {
                self.queued.insert(event.key.clone(), event.sequence);
                self.queue.push(event);
            } else {
                self.pending.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }

    /// Takes a window from the queue: of each delivery only the first event. The broker may refuse
    /// it and take those that follow, which consumers would then receive first.
    fn take_window(&mut self) -> Vec<Event> {
        let (mut window, mut later, mut taken) = (Vec::new(), Vec::new(), HashSet::new());
        let mut queue = std::mem::take(&mut self.queue).into_iter();
        while window.len() < WINDOW
            && let Some(event) = queue.next()
        {
            if taken.insert(event.key.clone()) {
                window.push(event);
            } else {
                later.push(event);
            }
        }
        later.extend(queue);
        self.queue = later;
        window
    }

    /// The published events to delete from the outbox now.
    fn take_deletable(&mut self, closed: &CancellationToken) -> Vec<(DeliveryKey, u32)> {
        let due = self.published.len() >= WINDOW
            || Instant::now() >= self.delete_at
            || closed.is_cancelled();
        if due {
            std::mem::take(&mut self.published)
        } else {
            Vec::new()
        }
    }

    async fn publish_unordered(&mut self) {
        for (events, answer) in std::mem::take(&mut self.unordered) {
            let results = self.sink.publish(&events).await;
            self.pending.fetch_sub(events.len(), Ordering::Relaxed);
            let all = results.len() == events.len() && results.iter().all(Result::is_ok);
            if answer.send(all).is_err() {
                tracing::debug!("receiver dropped");
            }
        }
    }

    /// Sorts a window by its results: what was not published is queued again in front. Returns true
    /// if there is any.
    fn settle(&mut self, window: Vec<Event>, results: Vec<Result<(), SinkError>>) -> bool {
        let mut again = Vec::new();
        let mut results = results.into_iter();
        for event in window {
            match results.next() {
                Some(Ok(())) => self.record_published(&event),
                Some(Err(error)) => {
                    if again.is_empty() {
                        tracing::warn!(
                            error = as_error(&error),
                            "failed to publish statuses; retrying"
                        );
                    }
                    again.push(event);
                }
                None => again.push(event),
            }
        }
        let any = !again.is_empty();
        again.append(&mut self.queue);
        self.queue = again;
        any
    }

    fn record_published(&mut self, event: &Event) {
        self.pending.fetch_sub(1, Ordering::Relaxed);
        if self.finals.is_duplicate(event) {
            self.counts
                .duplicate_final_statuses
                .fetch_add(1, Ordering::Relaxed);
        }
        if self.published.is_empty() {
            self.delete_at = Instant::now() + DELETE_DELAY;
        }
        self.published.push((event.key.clone(), event.sequence));
    }
}

async fn publish<S: StatusSink>(sink: &S, window: &[Event]) -> Vec<Result<(), SinkError>> {
    if window.is_empty() {
        Vec::new()
    } else {
        sink.publish(window).await
    }
}

/// Deletes published events from the outbox. Returns false if that must be retried.
async fn delete<L: Ledger>(ledger: &L, published: &[(DeliveryKey, u32)]) -> bool {
    if published.is_empty() {
        return true;
    }
    let deleted = ledger.delete_published(published).await;
    if let Err(error) = &deleted {
        tracing::debug!(
            error = as_error(error),
            "failed to delete published statuses; retrying"
        );
    }
    deleted.is_ok()
}
