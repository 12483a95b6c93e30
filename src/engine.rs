//! The pipeline: intake, placing, settling, following up, publishing; and the worker's life in the ledger.
//!
//! One [`Engine`] is one worker. It is driven from outside: [`Engine::take_in`] for messages, [`Engine::news`] for
//! callbacks; [`Engine::run`] does the rest until it is told to stop.

mod answering;
mod circuits;
mod following;
mod intake;
mod living;
mod placing;
mod pricing;
mod relay;
mod settling;
mod waiting;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use voice_otp_schemas::status::Status;
use voice_otp_schemas::{TenantId, Timestamp};

use crate::agenda::{Agenda, Held};
use crate::batch::{Batch, BatchError, Runner, batch};
use crate::bulkhead::Bulkhead;
use crate::circuit::Troubles;
use crate::clock::{LedgerClock, Steady};
use crate::delivery::{Change, Delivery, Key};
use crate::dice::Dice;
use crate::gate::Gate;
use crate::ports::{Directory as _, DirectoryError, Ledger, LedgerError, Ports, Saved};
use crate::settings::VoiceSettings;
use crate::tuning::Tuning;

pub use following::News;
pub use intake::{Dead, Disposition, Message};
use living::Life;
use relay::Relay;

/// One worker.
pub struct Engine<P: Ports> {
    ledger: P::Ledger,
    directory: P::Directory,
    caller: P::Caller,
    tuning: Tuning,
    clock: LedgerClock,
    dice: Dice,
    gate: Gate,
    agenda: Arc<Agenda>,
    life: Life,
    /// Room for POSTs in flight.
    placing: Arc<Bulkhead>,
    beginning: Arc<Semaphore>,
    /// Room for look-ups in flight.
    looking: Arc<Bulkhead>,
    troubles: Troubles,
    saves: Batch<Change, Saved>,
    relay: Relay,
    tasks: TaskTracker,
    counts: Counts,
    /// Stop taking anything up.
    soft: CancellationToken,
    /// Stop, whatever is in hand.
    hard: CancellationToken,
}

/// What has happened since the start.
#[derive(Debug, Default)]
pub struct Counts {
    /// New deliveries.
    pub admitted: AtomicU64,
    /// Calls that Twilio took.
    pub placed: AtomicU64,
    /// Final statuses.
    pub ended: AtomicU64,
    /// Circuits opened for an account whose calls met trouble at Twilio.
    pub account_circuits: AtomicU64,
    /// Circuits opened for a tenant whose credentials Twilio refused.
    pub credential_circuits: AtomicU64,
    /// Calls to be placed again, since one reached nobody.
    pub redials: AtomicU64,
    /// Prices of calls that were told.
    pub prices: AtomicU64,
    /// Calls that weren't any delivery's, hung up.
    pub strays: AtomicU64,
    /// Deliveries that are not over long after their codes' ends, as counted last. Must be 0.
    pub finals_missing: AtomicU64,
    /// Deliveries of which a second final status was published. Must be 0.
    pub finals_double: AtomicU64,
}

/// The parts of an engine that [`Engine::run`] sets going.
pub struct Works<P: Ports> {
    saves: Runner<Change, Saved>,
    relay: relay::Runner<P::Sink>,
}

/// The pause before a locked row is tried again.
const BUSY_PAUSE: std::time::Duration = std::time::Duration::from_millis(100);

/// What came of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Changed {
    /// Saved, or nothing was left to change.
    Done,
    /// It can't be saved by this worker now: the delivery is let go of, and comes up again.
    Lost,
}

impl<P: Ports> Engine<P> {
    /// Enters a worker into the ledger; `name` is for people.
    ///
    /// # Errors
    /// [`LedgerError`] when the ledger can't be reached.
    pub async fn start(
        ports: (P::Ledger, P::Directory, P::Caller, P::Sink),
        tuning: Tuning,
        dice: Dice,
        steady: impl Steady,
        name: &str,
    ) -> Result<(Arc<Self>, Works<P>), LedgerError> {
        let (ledger, directory, caller, sink) = ports;
        let sent = steady.elapsed();
        let (worker, now) = ledger.enlist(name).await?;
        let (saves, save_runner) = batch(tuning.group, "save");
        let (relay, relay_runner) = relay::new(sink);
        let engine = Arc::new(Self {
            ledger,
            directory,
            caller,
            clock: LedgerClock::new(steady, now),
            dice,
            gate: Gate::new(),
            agenda: Arc::new(Agenda::default()),
            life: Life::new(worker, sent + tuning.lease, name),
            placing: Bulkhead::new(tuning.placing_permits),
            beginning: Arc::new(Semaphore::new(tuning.beginning_permits)),
            looking: Bulkhead::new(tuning.looking_permits),
            troubles: Troubles::default(),
            saves,
            relay,
            tasks: TaskTracker::new(),
            counts: Counts::default(),
            soft: CancellationToken::new(),
            hard: CancellationToken::new(),
            tuning,
        });
        Ok((
            engine,
            Works {
                saves: save_runner,
                relay: relay_runner,
            },
        ))
    }

    /// Runs the worker until it is told to stop and everything in hand is done, or time is up. Then its deliveries
    /// are anybody's.
    pub async fn run(
        self: Arc<Self>,
        works: Works<P>,
        soft: CancellationToken,
        hard: CancellationToken,
    ) {
        let savers = TaskTracker::new();
        let saver = Arc::clone(&self);
        savers.spawn(
            works
                .saves
                .run(move |group| Arc::clone(&saver).save(group), hard.clone()),
        );
        let closed = CancellationToken::new();
        let relay = savers.spawn(
            works
                .relay
                .run(Arc::clone(&self), closed.clone(), hard.clone()),
        );
        for forever in [
            savers.spawn(Arc::clone(&self).beat(closed.clone())),
            self.tasks.spawn(Arc::clone(&self).claim_forever()),
            self.tasks.spawn(Arc::clone(&self).sweep_forever()),
            self.tasks.spawn(Arc::clone(&self).run_agenda()),
            self.tasks.spawn(Arc::clone(&self).tidy_forever()),
            self.tasks.spawn(Arc::clone(&self).ask_again_forever()),
            self.tasks.spawn(Arc::clone(&self).price_forever()),
        ] {
            drop(forever);
        }
        tokio::select! {
            () = soft.cancelled() => {}
            () = hard.cancelled() => {}
        }
        self.soft.cancel();
        self.tasks.close();
        tokio::select! {
            () = self.tasks.wait() => {}
            () = hard.cancelled() => self.hard.cancel(),
        }
        closed.cancel();
        if let Err(error) = relay.await {
            tracing::error!(error = &error as &dyn std::error::Error, "the relay failed");
        }
        self.agenda.clear();
        if let Err(error) =
            tokio::time::timeout(self.tuning.lease, self.ledger.retire(self.life.worker()))
                .await
                .map_err(|_| LedgerError::Nonsense("no answer in time"))
                .and_then(|done| done)
        {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "can't hand the deliveries back: others take them when the lease ends"
            );
        }
    }

    /// What has happened so far.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// The ledger.
    pub fn ledger(&self) -> &P::Ledger {
        &self.ledger
    }

    /// The directory.
    pub fn directory(&self) -> &P::Directory {
        &self.directory
    }

    /// How many deliveries this worker holds.
    pub fn holds(&self) -> usize {
        self.agenda.len()
    }

    /// How many calls are being placed.
    pub fn places(&self) -> usize {
        self.tuning
            .placing_permits
            .saturating_sub(self.placing.room())
    }

    /// Whether the worker's lease holds: a sign that the ledger answers.
    pub fn is_alive(&self) -> bool {
        self.life.may_send(self.life.worker(), self.clock.elapsed())
    }

    /// The ledger's time.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The settings of one tenant: none if there are none. An unavailable directory is waited for.
    async fn settings_of(
        &self,
        tenant: &TenantId,
    ) -> Option<Result<Arc<VoiceSettings>, DirectoryError>> {
        self.settings(std::slice::from_ref(tenant))
            .await?
            .remove(tenant)
    }

    /// The settings of tenants to place calls with. What would keep one waiting or end it is looked at anew: what is remembered may be a
    /// moment old.
    async fn settings_to_place(
        &self,
        tenants: &[TenantId],
    ) -> Option<HashMap<TenantId, Result<Arc<VoiceSettings>, DirectoryError>>> {
        let mut settings = self.settings(tenants).await?;
        let stops = |(tenant, found): (&TenantId, &Result<Arc<VoiceSettings>, DirectoryError>)| {
            let stops = found
                .as_ref()
                .is_ok_and(|found| found.paused.is_some() || found.refused || !found.enabled);
            stops.then(|| tenant.clone())
        };
        let stopped: Vec<TenantId> = settings.iter().filter_map(stops).collect();
        if !stopped.is_empty() {
            for tenant in &stopped {
                self.directory.forget(tenant);
            }
            settings.extend(self.settings(&stopped).await?);
        }
        Some(settings)
    }

    /// The settings of tenants. An unavailable directory is waited for; none when time is up.
    async fn settings(
        &self,
        tenants: &[TenantId],
    ) -> Option<HashMap<TenantId, Result<Arc<VoiceSettings>, DirectoryError>>> {
        let mut failing = false;
        loop {
            match self.directory.settings(tenants).await {
                Ok(settings) => return Some(settings),
                Err(error) => {
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!(
                            error = &error as &dyn std::error::Error,
                            "can't read voice settings, trying again"
                        );
                    }
                }
            }
            if self
                .pause_or_hard(std::time::Duration::from_millis(250))
                .await
            {
                return None;
            }
        }
    }

    /// Waits; true when time is up meanwhile.
    async fn pause_or_hard(&self, pause: std::time::Duration) -> bool {
        tokio::select! {
            () = tokio::time::sleep(pause) => false,
            () = self.hard.cancelled() => true,
        }
    }

    /// Changes a delivery in hand: computes the change on the newest value until it is saved or nothing is left to
    /// change.
    async fn change(
        &self,
        held: &mut Held,
        compute: impl Fn(&Delivery, Timestamp) -> Option<Change>,
    ) -> Changed {
        loop {
            let Some(change) = compute(&held.delivery, self.clock.now()) else {
                return Changed::Done;
            };
            match self.save_one(change).await {
                Ok(Some(saved)) => {
                    *held.delivery = saved;
                    return Changed::Done;
                }
                Ok(None) => match self.reload(&held.delivery.key).await {
                    Some(newer) => *held.delivery = newer,
                    None => return Changed::Lost,
                },
                Err(_) => return Changed::Lost,
            }
        }
    }

    /// Saves a change and sends its events out. None if it lost the race.
    async fn save_one(&self, change: Change) -> Result<Option<Delivery>, BatchError> {
        let (mut delivery, events) = (change.delivery.clone(), change.events.clone());
        let redial = change
            .retired
            .as_ref()
            .is_some_and(|retired| retired.call.is_some());
        let saved = self.saves.submit(change).await?;
        let lower = match saved {
            Saved::Saved { lower } => lower,
            Saved::Conflict => return Ok(None),
            Saved::Busy => {
                // Somebody looks at the row, perhaps for long: it is read and computed anew after a while.
                tokio::time::sleep(BUSY_PAUSE).await;
                return Ok(None);
            }
        };
        delivery.revision += 1;
        self.counts
            .redials
            .fetch_add(redial.into(), Ordering::Relaxed);
        for event in &events {
            if event.is_final() {
                self.counts.ended.fetch_add(1, Ordering::Relaxed);
                tracing::info!(
                    tenant.id = %event.key.tenant_id,
                    delivery.id = %event.key.delivery_id,
                    outcome = event.status.map_or("", Status::as_str),
                    delivery.attempt = delivery.attempt,
                    call.sid = delivery.call_sid.as_ref().map(tracing::field::display),
                    "delivery ended"
                );
            }
        }
        self.relay.send(events, lower);
        Ok(Some(delivery))
    }

    /// Reads a delivery anew; waits for an unavailable ledger. None when it is gone or time is up.
    async fn reload(&self, key: &Key) -> Option<Delivery> {
        self.reload_all(std::slice::from_ref(key)).await.pop()
    }

    /// Reads deliveries anew; waits for an unavailable ledger. Without those that are gone; none when time is up.
    async fn reload_all(&self, keys: &[Key]) -> Vec<Delivery> {
        loop {
            match self.ledger.find_all(keys).await {
                Ok(found) => return found,
                Err(error) => tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    "can't read deliveries, trying again"
                ),
            }
            if self
                .pause_or_hard(std::time::Duration::from_millis(250))
                .await
            {
                return Vec::new();
            }
        }
    }

    /// The work of the save batch: of several changes to one delivery only the first can win.
    async fn save(
        self: Arc<Self>,
        group: Vec<Change>,
    ) -> (Vec<Change>, Result<Vec<Saved>, LedgerError>) {
        let mut seen = HashSet::new();
        let firsts: Vec<bool> = group
            .iter()
            .map(|change| seen.insert(&change.delivery.key))
            .collect();
        if firsts.iter().all(|first| *first) {
            let result = self.ledger.save(self.life.worker(), &group).await;
            return (group, result);
        }
        let chosen: Vec<Change> = group
            .iter()
            .zip(&firsts)
            .filter(|(_, first)| **first)
            .map(|(change, _)| change.clone())
            .collect();
        let result = self
            .ledger
            .save(self.life.worker(), &chosen)
            .await
            .map(|answers| {
                let mut answers = answers.into_iter();
                firsts
                    .iter()
                    .map(|first| {
                        if *first {
                            answers.next().unwrap_or(Saved::Conflict)
                        } else {
                            Saved::Conflict
                        }
                    })
                    .collect()
            });
        (group, result)
    }
}
