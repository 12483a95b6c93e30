//! Starting an engine, and running it until it is asked to stop.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Engine;
use super::answering::Answerer;
use super::batch::{self, batch};
use super::bulkhead::Bulkhead;
use super::circuit::FailureStreaks;
use super::circuits::Circuits;
use super::clock::{LedgerClock, MonotonicClock};
use super::counts::Counts;
use super::deliveries::Deliveries;
use super::gate::Gate;
use super::intake::Suspects;
use super::lease::Lease;
use super::post_history::PostHistory;
use super::pricing::Pricer;
use super::relay;
use super::retry::as_error;
use super::retry_budget::RetryBudget;
use super::rng::SharedRng;
use super::schedule::Schedule;
use super::settings_reader::SettingsReader;
use super::settling::CallFinder;
use super::shutdown::Shutdown;
use crate::delivery::Change;
use crate::ports::{Ledger as _, LedgerError, Ports, Saved};
use crate::tuning::Tuning;

/// The tasks of an engine that [`Engine::run`] starts.
pub struct BackgroundTasks<P: Ports> {
    saves: batch::Runner<Change, Saved>,
    relay: relay::Runner<P::Ledger, P::Sink>,
    pricer: Pricer<P>,
}

impl<P: Ports> Engine<P> {
    /// Registers a worker in the ledger, and makes its engine. `name` is shown to operators.
    ///
    /// # Errors
    /// [`LedgerError`] when the database is unavailable.
    pub async fn start(
        (ledger, directory, telephony, sink): (P::Ledger, P::Directory, P::Telephony, P::Sink),
        tuning: Tuning,
        rng: SharedRng,
        monotonic: impl MonotonicClock,
        name: &str,
    ) -> Result<(Arc<Self>, BackgroundTasks<P>), LedgerError> {
        let (ledger, directory, telephony) =
            (Arc::new(ledger), Arc::new(directory), Arc::new(telephony));
        // The lease counts from before the registration was sent.
        let sent = monotonic.elapsed();
        let (worker, now) = ledger.register_worker(name).await?;
        // In the middle of the request, as far as is known.
        let read_at = sent + monotonic.elapsed().saturating_sub(sent) / 2;
        let clock = Arc::new(LedgerClock::new(monotonic, read_at, now));
        clock.note_step(ledger.recent_step_back().await?);
        let counts = Arc::new(Counts::default());
        let shutdown = Shutdown::default();
        let schedule = Arc::new(Schedule::default());
        let query_permits = Bulkhead::new(tuning.query_permits);
        let (saves, save_runner) = batch(tuning.max_batch, "save");
        let (relay, relay_runner) = relay::new(Arc::clone(&ledger), sink, Arc::clone(&counts));
        let relay = Arc::new(relay);
        let settings = Arc::new(SettingsReader::new(
            Arc::clone(&directory),
            shutdown.clone(),
        ));
        let deliveries = Arc::new(Deliveries::new(
            Arc::clone(&ledger),
            saves,
            Arc::clone(&relay),
            Arc::clone(&clock),
            Arc::clone(&counts),
            shutdown.clone(),
        ));
        let pricer = Pricer {
            ledger: Arc::clone(&ledger),
            telephony: Arc::clone(&telephony),
            settings: Arc::clone(&settings),
            relay: Arc::clone(&relay),
            query_permits: Arc::clone(&query_permits),
            counts: Arc::clone(&counts),
            shutdown: shutdown.clone(),
            interval: tuning.pricing_interval,
            busy_interval: tuning.sweep_interval / 10,
            longest_call: tuning.call_limit + tuning.longest_life,
        };
        let engine = Arc::new(Self {
            circuits: Arc::new(Circuits {
                ledger: Arc::clone(&ledger),
                directory,
                telephony: Arc::clone(&telephony),
                streaks: FailureStreaks::default(),
                counts: Arc::clone(&counts),
                shutdown: shutdown.clone(),
                probe_interval: tuning.credential_probe_interval,
            }),
            lease: Lease::new(
                Arc::clone(&ledger),
                Arc::clone(&clock),
                worker,
                sent,
                (name, tuning.lease, tuning.heartbeat_interval),
                Arc::clone(&counts),
            ),
            call_finder: CallFinder {
                ledger: Arc::clone(&ledger),
                telephony: Arc::clone(&telephony),
                settings: Arc::clone(&settings),
                query_permits: Arc::clone(&query_permits),
                clock: Arc::clone(&clock),
                provider_skew: tuning.provider_skew,
            },
            answerer: Answerer {
                deliveries: Arc::clone(&deliveries),
                settings: Arc::clone(&settings),
                schedule: Arc::clone(&schedule),
                clock: Arc::clone(&clock),
                shutdown: shutdown.clone(),
            },
            gate: Gate::new(),
            suspects: Suspects::default(),
            attempt_permits: Bulkhead::new(tuning.attempt_permits),
            post_history: PostHistory::default(),
            retry_budget: RetryBudget::default(),
            start_permits: Arc::new(Semaphore::new(tuning.start_permits)),
            tasks: TaskTracker::new(),
            ledger,
            telephony,
            deliveries,
            settings,
            relay,
            schedule,
            query_permits,
            clock,
            rng,
            tuning,
            counts,
            shutdown,
        });
        let background = BackgroundTasks {
            saves: save_runner,
            relay: relay_runner,
            pricer,
        };
        Ok((engine, background))
    }

    /// Runs the worker until it is asked to stop (`soft`) and everything in progress is finished,
    /// or until it must stop now (`hard`). Then other workers may claim its deliveries.
    pub async fn run(
        self: Arc<Self>,
        background: BackgroundTasks<P>,
        soft: CancellationToken,
        hard: CancellationToken,
    ) {
        // These outlive the other tasks, which need them to finish their work.
        let last = TaskTracker::new();
        let saver = Arc::clone(&self);
        let save = move |group| {
            let engine = Arc::clone(&saver);
            async move {
                engine
                    .deliveries
                    .save_group(engine.lease.worker(), group)
                    .await
            }
        };
        drop(last.spawn(background.saves.run(save, hard.clone())));
        let closed = CancellationToken::new();
        let relay = last.spawn(background.relay.run(closed.clone(), hard.clone()));
        let engine = Arc::clone(&self);
        let until_closed = closed.clone();
        drop(last.spawn(async move {
            engine
                .lease
                .heartbeat_loop(until_closed, || engine.schedule.clear())
                .await;
        }));
        self.spawn(Self::claim_loop);
        self.spawn(Self::sweep_loop);
        self.spawn(Self::run_schedule);
        self.spawn(Self::archive_loop);
        self.spawn(|engine| Arc::clone(&engine.circuits).probe_loop());
        self.spawn(|_| background.pricer.run());
        // Cancel-safe: both arms only wait.
        tokio::select! {
            () = soft.cancelled() => {}
            () = hard.cancelled() => {}
        }
        self.shutdown.soft.cancel();
        self.tasks.close();
        // Cancel-safe: both arms only wait.
        tokio::select! {
            () = self.tasks.wait() => {}
            () = hard.cancelled() => self.shutdown.hard.cancel(),
        }
        closed.cancel();
        if let Err(error) = relay.await {
            tracing::error!(error = as_error(&error), "the relay failed");
        }
        self.schedule.clear();
        self.lease.release().await;
    }
}
