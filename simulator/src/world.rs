//! All that the simulator's handlers and calls share.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Settings;
use super::account::{Account, Directory};
use super::book::Book;
use super::call::{Call, Resource, Stage};
use super::clock::{Clock, wall_clock};
use super::dice::{Concern, Dice};
use super::fate::{Fate, Fates};
use super::faults::Faults;
use super::life::Life;
use super::order::Order;
use super::plan::Plan;
use super::post::Clients;
use super::refusal::Refusal;

/// The state of a simulator.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) clock: Clock,
    pub(crate) dice: Dice,
    /// How many times faster than life; finite and more than 0.
    pub(crate) speed: f64,
    /// Every call and every callback under way.
    pub(crate) tasks: TaskTracker,
    /// Stops them all.
    pub(crate) halt: CancellationToken,
    pub(crate) clients: Clients,
    pub(crate) tally: Tally,
    calls: AtomicU64,
    directory: Mutex<Directory>,
    book: Mutex<Book>,
    fates: Mutex<Fates>,
    faults: Mutex<Faults>,
}

/// What is counted as it happens.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) requests: AtomicU64,
    pub(crate) creates: AtomicU64,
    pub(crate) callbacks_sent: AtomicU64,
    pub(crate) callbacks_failed: AtomicU64,
    pub(crate) callbacks_lost: AtomicU64,
    pub(crate) asked: AtomicU64,
    pub(crate) asked_in_vain: AtomicU64,
}

impl World {
    pub(crate) fn new(settings: Settings) -> Self {
        let mut directory = Directory::default();
        for account in settings.accounts {
            directory.put(account);
        }
        let speed = if settings.speed > 0.0 {
            settings.speed.clamp(0.001, 1_000_000.0)
        } else {
            1.0
        };
        Self {
            clock: Clock::starting_at(wall_clock()),
            dice: Dice::new(settings.seed),
            speed,
            tasks: TaskTracker::new(),
            halt: CancellationToken::new(),
            clients: Clients::default(),
            tally: Tally::default(),
            calls: AtomicU64::new(0),
            directory: Mutex::new(directory),
            book: Mutex::default(),
            fates: Mutex::default(),
            faults: Mutex::default(),
        }
    }

    pub(crate) fn directory(&self) -> MutexGuard<'_, Directory> {
        held(&self.directory)
    }

    pub(crate) fn book(&self) -> MutexGuard<'_, Book> {
        held(&self.book)
    }

    pub(crate) fn fates(&self) -> MutexGuard<'_, Fates> {
        held(&self.fates)
    }

    pub(crate) fn faults(&self) -> MutexGuard<'_, Faults> {
        held(&self.faults)
    }

    /// Creates a call and lets it live. Returns its number in this run, and its resource.
    ///
    /// # Errors
    /// The account's queue is full (22005).
    pub(crate) fn place(
        self: &Arc<Self>,
        account: &Arc<Account>,
        order: Order,
        fate: Fate,
    ) -> Result<(u64, Resource), Refusal> {
        let number = self.calls.fetch_add(1, Ordering::Relaxed);
        let sid = format!(
            "CA{}",
            self.dice.id(Concern::Call, number, self.clock.salt())
        );
        let plan = Plan::of(fate, &order, &mut self.dice.of(Concern::Life, number));
        let hang_up = CancellationToken::new();
        let mut book = self.book();
        let wait = book.join_queue(account, Instant::now()).map_err(|_| {
            Refusal::bad(
                22005,
                "Call Queue Full: more than 24 hours of calls are queued",
            )
        })?;
        let now = self.clock.now();
        let call = Call {
            spoken: order.spoken.clone(),
            sid,
            number,
            account: Arc::clone(account),
            order,
            fate,
            stage: Stage::Queued,
            created: now,
            updated: now,
            dialled: None,
            ended: None,
            queue_time: wait,
            answered: None,
            talked: None,
            sip_response: None,
            answered_by: None,
            price: None,
            told: Vec::new(),
            hang_up: hang_up.clone(),
        };
        let resource = call.resource();
        let id = book.add(call);
        drop(book);
        let life = Life {
            world: Arc::clone(self),
            id,
            wait,
            plan,
            hang_up,
        };
        self.tasks.spawn(life.run());
        Ok((number, resource))
    }

    /// How long something takes here that takes this long in life.
    pub(crate) fn scaled(&self, lasts: Duration) -> Duration {
        lasts.div_f64(self.speed)
    }
}

/// Locks; a panic elsewhere leaves the data as good as it was.
fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
