//! Time as the ledger has it.
//!
//! Workers' clocks differ; the database's is one. So every time that is stored, compared or told is the ledger's: its
//! answer to each renewal of the lease sets [`LedgerClock`], which goes on by a clock that counts suspension.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use voice_otp_schemas::Timestamp;

/// A clock that only goes forward and counts the time that the machine was suspended (Linux: `CLOCK_BOOTTIME`).
pub trait Steady: Send + Sync + 'static {
    /// The time since some fixed moment.
    fn elapsed(&self) -> Duration;
}

/// Half of this is how far a reading may be wrong.
const LONGEST_READING: Duration = Duration::from_millis(200);

/// The ledger's time, estimated between its answers.
pub struct LedgerClock {
    steady: Box<dyn Steady>,
    anchor: Mutex<(Duration, Timestamp)>,
}

impl LedgerClock {
    /// Starts from the ledger's `now`.
    pub fn new(steady: impl Steady, now: Timestamp) -> Self {
        let at = steady.elapsed();
        Self {
            steady: Box::new(steady),
            anchor: Mutex::new((at, now)),
        }
    }

    /// The steady clock's reading: for deadlines that must hold whatever becomes of the ledger's time.
    pub fn elapsed(&self) -> Duration {
        self.steady.elapsed()
    }

    /// The ledger's time now.
    pub fn now(&self) -> Timestamp {
        let (at, then) = *self.anchor.lock().unwrap_or_else(PoisonError::into_inner);
        then + self.steady.elapsed().saturating_sub(at)
    }

    /// Takes the ledger's `now`, read between `sent` and the present moment on the steady clock. An answer that took long says
    /// too little about when that was: the clock goes on as it was.
    pub fn set(&self, sent: Duration, now: Timestamp) {
        let received = self.steady.elapsed();
        let taken = received.saturating_sub(sent);
        if taken > LONGEST_READING {
            return;
        }
        let read = sent + taken / 2;
        *self.anchor.lock().unwrap_or_else(PoisonError::into_inner) = (read, now);
    }

    /// How long it is until a time; zero when it has passed.
    pub fn until(&self, time: Timestamp) -> Duration {
        (time - self.now()).to_std().unwrap_or_default()
    }
}

/// Tokio's clock, which tests can pause. It doesn't count suspension.
pub struct TokioSteady(tokio::time::Instant);

impl TokioSteady {
    /// Starts now.
    pub fn start() -> Self {
        Self(tokio::time::Instant::now())
    }
}

impl Steady for TokioSteady {
    fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}
