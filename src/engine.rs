//! The pipeline: intake, placing, settling, following, publishing; and the worker's lease.
//!
//! One [`Engine`] is one worker. Messages enter through [`Engine::process`], callbacks through
//! [`Engine::apply_call_update`] and [`Engine::answer`]; [`Engine::run`] does the rest until it is
//! asked to stop. The stages are methods of the engine, a file each. What a stage shares with no
//! other is a component with fields of its own: `lease`, `circuits`, `pricing`, the finder of
//! calls in `settling`, the answerer in `answering`, the `relay`.

pub mod adaptive_limit;
mod answering;
pub mod backoff;
pub mod batch;
pub mod bulkhead;
pub mod circuit;
mod circuits;
mod claiming;
pub mod clock;
mod counts;
mod deliveries;
pub mod due;
mod following;
pub mod gate;
mod hanging_up;
mod intake;
mod lease;
mod placing;
mod polling;
mod post_history;
mod pricing;
mod relay;
mod retry;
mod retry_budget;
pub mod rng;
mod run;
pub mod schedule;
mod sending;
mod settings_reader;
mod settling;
mod shutdown;
mod span;
mod sweeping;
pub(crate) mod sync;
mod waiting;

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;
use voice_otp_schemas::Timestamp;

use self::answering::Answerer;
use self::bulkhead::Bulkhead;
use self::circuits::Circuits;
use self::clock::LedgerClock;
use self::deliveries::Deliveries;
use self::gate::Gate;
use self::intake::Suspects;
use self::lease::Lease;
use self::post_history::PostHistory;
use self::relay::Relay;
use self::retry_budget::RetryBudget;
use self::rng::SharedRng;
use self::schedule::{Held, Schedule};
use self::settings_reader::SettingsReader;
use self::settling::CallFinder;
use self::shutdown::Shutdown;
use crate::delivery::AttemptId;
use crate::ports::{Attempt, Ledger as _, LedgerError, Ports};
use crate::tuning::Tuning;

pub use counts::Counts;
pub use following::UpdateOutcome;
pub use intake::{DeadLetterReason, Disposition, Message};
pub use run::BackgroundTasks;

/// One worker.
pub struct Engine<P: Ports> {
    /// Admissions, starts of attempts, claims. Changes go through `deliveries`.
    ledger: Arc<P::Ledger>,
    telephony: Arc<P::Telephony>,
    /// Reads and changes deliveries, with their events.
    deliveries: Arc<Deliveries<P::Ledger>>,
    /// Reads the tenants' settings.
    settings: Arc<SettingsReader<P::Directory>>,
    /// Opens and closes circuits by the outcome of each POST.
    circuits: Arc<Circuits<P>>,
    /// The worker's registration; checked right before each POST.
    lease: Lease<P::Ledger>,
    /// Looks for the calls of unsettled attempts.
    call_finder: CallFinder<P>,
    /// Decides what is played to calls that request their instructions.
    answerer: Answerer<P>,
    /// Publishes events; swept events enter here.
    relay: Arc<Relay>,
    /// The deliveries that this worker owns.
    schedule: Arc<Schedule>,
    /// The safety limiter, the last check of the rate before a POST.
    gate: Gate,
    /// Requests that are admitted apart from others.
    suspects: Suspects,
    /// Permits for POSTs in flight, shared among accounts.
    attempt_permits: Arc<Bulkhead>,
    /// How soon Twilio answered.
    post_history: PostHistory,
    /// How many attempts may be retries.
    retry_budget: RetryBudget,
    /// Permits for statements that start attempts.
    start_permits: Arc<Semaphore>,
    /// Permits for queries to Twilio in flight, shared among accounts.
    query_permits: Arc<Bulkhead>,
    /// The ledger's time.
    clock: Arc<LedgerClock>,
    /// Jitter and attempt ids.
    rng: SharedRng,
    tuning: Tuning,
    counts: Arc<Counts>,
    shutdown: Shutdown,
    /// Every task that works on deliveries. Stopping waits for them.
    tasks: TaskTracker,
}

impl<P: Ports> Engine<P> {
    /// The attempt with this id, and its delivery.
    ///
    /// # Errors
    /// [`LedgerError`] when the database is unavailable.
    pub async fn attempt(&self, attempt: AttemptId) -> Result<Option<Attempt>, LedgerError> {
        self.ledger.find_attempt(attempt).await
    }

    /// What has happened so far.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// The number of deliveries that this worker owns.
    pub fn deliveries_owned(&self) -> usize {
        self.schedule.len()
    }

    /// The number of POSTs in flight.
    pub fn attempts_in_flight(&self) -> usize {
        self.tuning
            .attempt_permits
            .saturating_sub(self.attempt_permits.available())
    }

    /// Whether the worker's lease is valid, which shows that the database answers.
    pub fn is_alive(&self) -> bool {
        self.lease.is_current()
    }

    /// The ledger's time.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Spawns a task on the tracker that stopping waits for.
    fn spawn<F>(self: &Arc<Self>, task: impl FnOnce(Arc<Self>) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        drop(self.tasks.spawn(task(Arc::clone(self)).in_current_span()));
    }

    /// Spawns a task that works on a delivery, in the delivery's span.
    fn spawn_for<F>(self: &Arc<Self>, held: Held, task: impl FnOnce(Arc<Self>, Held) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let span = held.span.clone();
        drop(
            self.tasks
                .spawn(task(Arc::clone(self), held).instrument(span)),
        );
    }
}
