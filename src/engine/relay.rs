//! The relay: publishes status events in order, waits for the broker's confirms, then deletes them
//! from the outbox.

mod generations;
mod log_limiter;
mod prices;
mod queue;

use std::collections::{HashMap, HashSet};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use voice_otp_schemas::{DeliveryKey, TenantId};

use self::generations::{Generations, PublishedFinals};
use self::log_limiter::LogLimiter;
use self::queue::{Queue, Refusal, Refused};
use super::counts::Counts;
use super::retry::as_error;
use super::shutdown::Shutdown;
use crate::event::Event;
use crate::ports::{EarlierEvents, Ledger, SinkError, StatusSink};

/// The entrance to the relay.
pub(super) struct Relay {
    sender: mpsc::UnboundedSender<Submission>,
    load: Arc<Load>,
}

/// How much the relay has to do, as the other tasks see it.
#[derive(Default)]
struct Load {
    /// Events in the channel and in hand that are not published.
    pending: AtomicUsize,
    /// Those of tenants whose statuses the broker refuses.
    failing: AtomicUsize,
}

/// The task that publishes. It owns the events in hand.
pub(super) struct Runner<L, S> {
    ledger: Arc<L>,
    sink: Arc<S>,
    counts: Arc<Counts>,
    receiver: mpsc::UnboundedReceiver<Submission>,
    load: Arc<Load>,
    queue: Queue,
    /// The highest sequence of each delivery of which nothing is in hand any more. A sweep that
    /// read the outbox before an event was deleted from it may still bring that event.
    deleted: Generations,
    /// When the sweep began that has not ended.
    sweep: Option<Instant>,
    finals: PublishedFinals,
    /// Published, and not known to be deleted from the outbox.
    published: Vec<(DeliveryKey, u32)>,
    /// When the published events are deleted from the outbox at the latest.
    delete_at: Instant,
    /// Until when nothing is published, since the broker was unavailable.
    paused_until: Option<Instant>,
    /// When the publish of the last status began that the broker has confirmed.
    confirmed_after: Option<Instant>,
    /// How often each price event was refused.
    price_refusals: HashMap<String, u32>,
    failing_log: LogLimiter<TenantId>,
    given_up_log: LogLimiter<TenantId>,
    unavailable_log: LogLimiter<()>,
}

enum Submission {
    /// Events of a change that was just saved.
    New(Vec<Event>, EarlierEvents),
    /// A sweep begins. It should leave out the events of these tenants.
    SweepBegins(oneshot::Sender<HashSet<TenantId>>),
    /// Events found in the outbox.
    Swept(Vec<Event>),
    /// The sweep has ended.
    SweepEnds,
    /// Price events. The sender learns which of them are published.
    Prices(Vec<Event>, oneshot::Sender<Vec<bool>>),
}

/// An event whose publish has ended.
struct Landed {
    event: Event,
    began: Instant,
    result: Result<(), SinkError>,
}

/// Events that were to be deleted from the outbox, and whether they are.
type Deletion = (Vec<(DeliveryKey, u32)>, bool);

/// How many events may wait in memory. What exceeds it stays in the outbox, for the sweeper.
const MAX_PENDING: usize = 50_000;
/// How many events may wait in memory while more are swept at once.
const LITTLE_PENDING: usize = 2_000;
/// How often a sweep that found much checks whether it may continue.
const PENDING_CHECK_INTERVAL: Duration = Duration::from_millis(20);
/// How many events may be in flight.
const MAX_IN_FLIGHT: usize = 2_048;
/// How many published events are deleted from the outbox without delay.
const MANY_PUBLISHED: usize = 256;
/// How many events one statement deletes.
const MAX_DELETED: usize = 1_024;
/// How long deleted events are remembered: between one and two generations.
const DELETED_GENERATION: Duration = Duration::from_secs(10);
/// How long a published event stays in the outbox when few are published, so that many are deleted
/// together. After a crash it is published again, the same event. The delay is short, since another
/// worker that changes the delivery meanwhile leaves the new status to its sweeper.
const DELETE_DELAY: Duration = Duration::from_millis(20);
/// The pause after the broker or the ledger was unavailable.
const UNAVAILABLE_PAUSE: Duration = Duration::from_millis(250);

/// A relay and the task behind it.
pub(super) fn new<L, S>(ledger: Arc<L>, sink: S, counts: Arc<Counts>) -> (Relay, Runner<L, S>) {
    // Not bounded: `load` is.
    let (sender, receiver) = mpsc::unbounded_channel();
    let load = Arc::<Load>::default();
    let relay = Relay {
        sender,
        load: Arc::clone(&load),
    };
    let runner = Runner {
        ledger,
        sink: Arc::new(sink),
        counts,
        receiver,
        load,
        queue: Queue::default(),
        deleted: Generations::new(DELETED_GENERATION),
        sweep: None,
        finals: PublishedFinals::default(),
        published: Vec::new(),
        delete_at: Instant::now(),
        paused_until: None,
        confirmed_after: None,
        price_refusals: HashMap::new(),
        failing_log: LogLimiter::default(),
        given_up_log: LogLimiter::default(),
        unavailable_log: LogLimiter::default(),
    };
    (relay, runner)
}

impl Load {
    fn is_full(&self) -> bool {
        self.pending.load(Ordering::Relaxed) >= MAX_PENDING
    }
}

impl Relay {
    /// Submits the events of a change that was just saved. They are in the outbox, so a full relay
    /// may leave them there.
    pub(super) fn send(&self, events: Vec<Event>, earlier_events: EarlierEvents) {
        if !events.is_empty() && !self.load.is_full() {
            self.submit(events.len(), Submission::New(events, earlier_events));
        }
    }

    /// Whether there is room for swept events. If not, they stay in the outbox.
    pub(super) fn accepts_swept(&self) -> bool {
        !self.load.is_full()
    }

    /// Begins a sweep of the outbox. Returns the tenants whose events should stay there, since the
    /// relay has as many of them as it may have; `None` if the relay is closed. Only one sweep runs
    /// at a time.
    pub(super) async fn begin_sweep(&self) -> Option<HashSet<TenantId>> {
        let (answer, answered) = oneshot::channel();
        self.submit(0, Submission::SweepBegins(answer));
        answered.await.ok()
    }

    /// Submits events found in the outbox, during a sweep. Those that are in hand already, or were
    /// deleted since, are recognised.
    pub(super) fn sweep(&self, events: Vec<Event>) {
        if !events.is_empty() {
            self.submit(events.len(), Submission::Swept(events));
        }
    }

    /// Ends a sweep.
    pub(super) fn end_sweep(&self) {
        self.submit(0, Submission::SweepEnds);
    }

    /// Waits until the relay has published most of what it can, or the worker is asked to stop: a
    /// large backlog in the outbox is taken at the speed at which the relay publishes, and new
    /// events don't wait behind all of it.
    pub(super) async fn until_little_is_pending(&self, shutdown: &Shutdown) {
        let is_much = || {
            let pending = self.load.pending.load(Ordering::Relaxed);
            let failing = self.load.failing.load(Ordering::Relaxed);
            pending.saturating_sub(failing) >= LITTLE_PENDING
        };
        while is_much() && !shutdown.sleep_or_soft(PENDING_CHECK_INTERVAL).await {}
    }

    /// Publishes the price events of a tenant. Returns for each whether it is published.
    pub(super) async fn publish_prices(&self, events: Vec<Event>) -> Vec<bool> {
        let (answer, answered) = oneshot::channel();
        self.submit(events.len(), Submission::Prices(events, answer));
        answered.await.unwrap_or_default()
    }

    fn submit(&self, events: usize, submission: Submission) {
        self.load.pending.fetch_add(events, Ordering::Relaxed);
        if self.sender.send(submission).is_err() {
            self.load.pending.fetch_sub(events, Ordering::Relaxed);
            tracing::debug!("the relay is closed; a sweeper publishes later");
        }
    }
}

impl<L: Ledger, S: StatusSink> Runner<L, S> {
    /// Publishes until closed and nothing is left that can be published, or until the worker must
    /// stop.
    pub(super) async fn run(mut self, closed: CancellationToken, hard: CancellationToken) {
        tokio::select! {
            () = self.publish_until(&closed) => {}
            () = hard.cancelled() => {}
        }
    }

    /// Publishes until closed. Events that the broker refuses then stay in the outbox, for other
    /// workers.
    async fn publish_until(&mut self, closed: &CancellationToken) {
        let mut in_flight = FuturesUnordered::new();
        let mut prices = FuturesUnordered::new();
        let mut deletion: Option<Pin<Box<dyn Future<Output = Deletion> + Send>>> = None;
        let mut is_closing = false;
        loop {
            // What was submitted before the closing is in the channel already.
            while let Ok(submission) = self.receiver.try_recv() {
                if let Some(batch) = self.accept(submission) {
                    prices.push(prices::publish(Arc::clone(&self.sink), batch));
                }
            }
            let now = Instant::now();
            self.queue.unpark(now);
            self.paused_until = self.paused_until.filter(|until| *until > now);
            while self.paused_until.is_none()
                && in_flight.len() < MAX_IN_FLIGHT
                && let Some(event) = self.queue.take()
            {
                in_flight.push(publish(Arc::clone(&self.sink), event));
            }
            if deletion.is_none()
                && let Some(events) = self.take_deletable()
            {
                deletion = Some(Box::pin(delete(Arc::clone(&self.ledger), events)));
            }
            let failing = self.queue.failing_events();
            self.load.failing.store(failing, Ordering::Relaxed);
            let is_idle = in_flight.is_empty() && prices.is_empty() && deletion.is_none();
            if is_closing && is_idle && self.published.is_empty() && !self.queue.may_take() {
                return;
            }
            let wake_at = self.wake_at(deletion.is_some());
            // Cancel-safe: receiving, waiting and the next of a set are, and what a set or the
            // deletion has not returned stays there.
            tokio::select! {
                submission = self.receiver.recv() => {
                    let Some(submission) = submission else { return };
                    if let Some(batch) = self.accept(submission) {
                        prices.push(prices::publish(Arc::clone(&self.sink), batch));
                    }
                }
                Some(landed) = in_flight.next() => {
                    self.settle(landed);
                    while let Some(Some(landed)) = in_flight.next().now_or_never() {
                        self.settle(landed);
                    }
                }
                Some(published) = prices.next() => self.settle_prices(published),
                Some(deleted) = finished(&mut deletion) => {
                    deletion = None;
                    self.settle_deletion(deleted);
                }
                () = tokio::time::sleep_until(wake_at.unwrap_or_else(Instant::now)),
                    if wake_at.is_some() => {}
                () = closed.cancelled(), if !is_closing => is_closing = true,
            }
        }
    }

    /// When there is something to do if nothing comes before.
    fn wake_at(&self, is_deleting: bool) -> Option<Instant> {
        let deleting = (!is_deleting && !self.published.is_empty()).then_some(self.delete_at);
        let publishing = self.paused_until.or_else(|| self.queue.next_probe());
        deleting.into_iter().chain(publishing).min()
    }

    /// Takes a submission. Returns it if it is a batch of prices, which is published beside the
    /// statuses.
    fn accept(&mut self, submission: Submission) -> Option<prices::Batch> {
        match submission {
            Submission::New(events, earlier_events) => self.accept_events(events, earlier_events),
            // Swept events come in order, with everything that is left of their delivery.
            Submission::Swept(events) => self.accept_events(events, EarlierEvents::Published),
            Submission::SweepBegins(answer) => {
                self.sweep = Some(Instant::now());
                if answer.send(self.queue.closed_tenants()).is_err() {
                    tracing::debug!("receiver dropped");
                }
            }
            Submission::SweepEnds => self.sweep = None,
            Submission::Prices(events, answer) => return Some((events, answer)),
        }
        None
    }

    fn accept_events(&mut self, events: Vec<Event>, earlier_events: EarlierEvents) {
        self.deleted.turn(self.sweep);
        for event in events {
            let highest = self.queue.highest(&event.key);
            let highest = highest.or_else(|| self.deleted.get(&event.key));
            let is_known = highest.is_some_and(|highest| highest >= event.sequence);
            let in_order = match earlier_events {
                EarlierEvents::Published => true,
                EarlierEvents::OwnedHere | EarlierEvents::OwnedElsewhere => {
                    highest.is_some_and(|highest| highest + 1 >= event.sequence)
                }
            };
            if is_known || !in_order || !self.queue.push(event) {
                self.load.pending.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }

    /// Takes the published events that are to be deleted from the outbox now.
    fn take_deletable(&mut self) -> Option<Vec<(DeliveryKey, u32)>> {
        if self.published.is_empty() || Instant::now() < self.delete_at {
            return None;
        }
        let count = self.published.len().min(MAX_DELETED);
        Some(self.published.drain(..count).collect())
    }

    fn settle_deletion(&mut self, (events, is_deleted): Deletion) {
        if !is_deleted {
            self.published.extend(events);
            self.delete_at = Instant::now() + UNAVAILABLE_PAUSE;
            return;
        }
        for (key, _) in events {
            if let Some(highest) = self.queue.deleted(&key) {
                self.deleted.insert(key, highest);
            }
        }
    }

    fn settle(&mut self, landed: Landed) {
        let Landed {
            event,
            began,
            result,
        } = landed;
        let (refusal, error) = match result {
            Ok(()) => {
                self.confirmed_after = self.confirmed_after.max(Some(began));
                self.queue.confirmed(&event);
                self.record_published(&event);
                return;
            }
            Err(error @ SinkError::Unavailable(_)) => {
                self.queue.unanswered(&event);
                self.paused_until = Some(Instant::now() + UNAVAILABLE_PAUSE);
                if let Some(count) = self.unavailable_log.count(()) {
                    tracing::warn!(
                        error = as_error(&error),
                        count,
                        "failed to publish statuses; retrying"
                    );
                }
                return;
            }
            Err(error @ SinkError::Refused(_)) => (Refusal::Refused, error),
            // A status that was published later and confirmed shows that the status log, which
            // takes every status, isn't the queue that doesn't confirm.
            Err(error @ SinkError::Unconfirmed(_)) if self.confirmed_after >= Some(began) => {
                (Refusal::Unconfirmed, error)
            }
            Err(error @ SinkError::Unconfirmed(_)) => (Refusal::NothingConfirmed, error),
        };
        let tenant_id = &event.key.tenant_id;
        match self.queue.refused(&event, refusal, Instant::now()) {
            Refused::Again => {
                if let Some(count) = self.failing_log.count(tenant_id.clone()) {
                    tracing::warn!(
                        tenant.id = %tenant_id,
                        error = as_error(&error),
                        count,
                        "a queue refuses a tenant's statuses; publishing them again after a pause"
                    );
                }
                let (dropped, forgotten) = self.queue.shed(tenant_id);
                self.load.pending.fetch_sub(dropped, Ordering::Relaxed);
                for (key, highest) in forgotten {
                    self.deleted.insert(key, highest);
                }
            }
            Refused::GivenUp => {
                let count = match refusal {
                    Refusal::Refused => &self.counts.statuses_refused,
                    Refusal::Unconfirmed | Refusal::NothingConfirmed => {
                        &self.counts.statuses_unconfirmed
                    }
                };
                count.fetch_add(1, Ordering::Relaxed);
                if let Some(count) = self.given_up_log.count(tenant_id.clone()) {
                    tracing::warn!(
                        tenant.id = %tenant_id,
                        error = as_error(&error),
                        count,
                        "a queue refuses a tenant's statuses; they are not published again"
                    );
                }
                self.record_published(&event);
            }
        }
    }

    fn settle_prices(&mut self, published: prices::Published) {
        self.load
            .pending
            .fetch_sub(published.count, Ordering::Relaxed);
        published.answer(&mut self.price_refusals);
    }

    fn record_published(&mut self, event: &Event) {
        self.load.pending.fetch_sub(1, Ordering::Relaxed);
        if self.finals.is_duplicate(event) {
            self.counts
                .duplicate_final_statuses
                .fetch_add(1, Ordering::Relaxed);
        }
        if self.published.is_empty() {
            self.delete_at = Instant::now() + DELETE_DELAY;
        }
        self.published.push((event.key.clone(), event.sequence));
        if self.published.len() == MANY_PUBLISHED {
            self.delete_at = Instant::now();
        }
    }
}

async fn publish<S: StatusSink>(sink: Arc<S>, event: Event) -> Landed {
    let began = Instant::now();
    let result = sink.publish(&event).await;
    Landed {
        event,
        began,
        result,
    }
}

/// Deletes published events from the outbox.
async fn delete<L: Ledger>(ledger: Arc<L>, events: Vec<(DeliveryKey, u32)>) -> Deletion {
    let deleted = ledger.delete_published(&events).await;
    if let Err(error) = &deleted {
        tracing::debug!(
            error = as_error(error),
            "failed to delete published statuses; retrying"
        );
    }
    (events, deleted.is_ok())
}

/// Waits for a future, if there is one.
async fn finished<T>(future: &mut Option<Pin<Box<dyn Future<Output = T> + Send>>>) -> Option<T> {
    match future {
        Some(future) => Some(future.await),
        None => None,
    }
}
