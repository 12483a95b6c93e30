//! The state that request handlers and running calls share.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::account::{Account, Accounts};
use crate::call_store::CallStore;
use crate::clock::{Clock, wall_clock};
use crate::fate::Fates;
use crate::faults::Faults;
use crate::http_clients::HttpClients;
use crate::rng::SeededRng;

/// What a simulator starts with.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The accounts; more can be added while it runs.
    pub accounts: Vec<Account>,
    /// Seeds every random decision except the SIDs.
    pub seed: u64,
    /// How many times faster than real time calls ring and talk; 1 is real time. Values of 0 or
    /// less count as 1, others are clamped to 0.001 to 1,000,000.
    pub speed: f64,
}

/// The state of a simulator.
#[derive(Debug)]
pub(crate) struct SimulatorState {
    pub(crate) clock: Clock,
    pub(crate) rng: SeededRng,
    /// How many times faster than real time calls ring and talk; finite and more than 0.
    pub(crate) speed: f64,
    /// Every running call and every callback that is being sent.
    pub(crate) tasks: TaskTracker,
    /// Cancels all tasks, and the requests that are kept waiting.
    pub(crate) halt: CancellationToken,
    pub(crate) clients: HttpClients,
    pub(crate) counters: Counters,
    /// How many call numbers have been handed out. A call that the full queue refuses uses one up,
    /// too.
    call_numbers: AtomicU64,
    accounts: Mutex<Accounts>,
    calls: Mutex<CallStore>,
    fates: Mutex<Fates>,
    faults: Mutex<Faults>,
}

/// Counts since the start, for [`Stats`](crate::Stats), which documents them.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) requests: AtomicU64,
    pub(crate) creates: AtomicU64,
    pub(crate) callbacks_sent: AtomicU64,
    pub(crate) callbacks_failed: AtomicU64,
    pub(crate) callbacks_lost: AtomicU64,
    pub(crate) asked: AtomicU64,
    pub(crate) asked_in_vain: AtomicU64,
}

impl SimulatorState {
    pub(crate) fn new(settings: Settings) -> Self {
        let mut accounts = Accounts::default();
        for account in settings.accounts {
            accounts.put(account);
        }
        let speed = if settings.speed > 0.0 {
            settings.speed.clamp(0.001, 1_000_000.0)
        } else {
            1.0
        };
        Self {
            clock: Clock::starting_at(wall_clock()),
            rng: SeededRng::new(settings.seed),
            speed,
            tasks: TaskTracker::new(),
            halt: CancellationToken::new(),
            clients: HttpClients::default(),
            counters: Counters::default(),
            call_numbers: AtomicU64::new(0),
            accounts: Mutex::new(accounts),
            calls: Mutex::default(),
            fates: Mutex::default(),
            faults: Mutex::default(),
        }
    }

    pub(crate) fn accounts(&self) -> MutexGuard<'_, Accounts> {
        lock(&self.accounts)
    }

    pub(crate) fn calls(&self) -> MutexGuard<'_, CallStore> {
        lock(&self.calls)
    }

    pub(crate) fn fates(&self) -> MutexGuard<'_, Fates> {
        lock(&self.fates)
    }

    pub(crate) fn faults(&self) -> MutexGuard<'_, Faults> {
        lock(&self.faults)
    }

    /// The number of the next call. A call's random decisions are derived from it.
    pub(crate) fn next_call_number(&self) -> u64 {
        self.call_numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// Converts a real-time duration into the simulator's, which is `speed` times shorter.
    pub(crate) fn scaled(&self, duration: Duration) -> Duration {
        duration.div_f64(self.speed)
    }
}

/// Locks a mutex, poisoned or not: no holder leaves its data half changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
