//! The ledger's time.
//!
//! The clocks of workers differ; the database has one clock. So every time that is stored, compared
//! or published is the ledger's. Its answer to each heartbeat sets [`LedgerClock`], which runs on
//! between the answers by a clock that counts suspension.

use std::sync::Mutex;
use std::time::Duration;

use voice_otp_schemas::Timestamp;

use super::sync::lock;

/// A clock that never goes back, and that counts the time during which the machine was suspended
/// (`CLOCK_BOOTTIME` on Linux).
pub trait MonotonicClock: Send + Sync + 'static {
    /// The time since some fixed moment.
    fn elapsed(&self) -> Duration;
}

/// A reading that took longer than this is ignored: it may be wrong by half of it.
const MAX_READING: Duration = Duration::from_millis(200);

/// The ledger's time, estimated between its answers.
pub struct LedgerClock {
    monotonic: Box<dyn MonotonicClock>,
    /// A moment on the monotonic clock, and the ledger's time then.
    anchor: Mutex<(Duration, Timestamp)>,
}

impl LedgerClock {
    /// A clock that shows the ledger's `now`.
    pub fn new(monotonic: impl MonotonicClock, now: Timestamp) -> Self {
        let at = monotonic.elapsed();
        Self {
            monotonic: Box::new(monotonic),
            anchor: Mutex::new((at, now)),
        }
    }

    /// The time on the monotonic clock: for deadlines that must hold however the ledger's time
    /// changes.
    pub fn elapsed(&self) -> Duration {
        self.monotonic.elapsed()
    }

    /// The ledger's time now.
    pub fn now(&self) -> Timestamp {
        let (at, then) = *lock(&self.anchor);
        then + self.monotonic.elapsed().saturating_sub(at)
    }

    /// Sets the clock to the ledger's `now`, which was read between `sent` on the monotonic clock
    /// and this call. An answer that took too long is ignored.
    pub fn set(&self, sent: Duration, now: Timestamp) {
        let received = self.monotonic.elapsed();
        let taken = received.saturating_sub(sent);
        if taken > MAX_READING {
            return;
        }
        let read = sent + taken / 2;
        *lock(&self.anchor) = (read, now);
    }

    /// The time until a moment; zero if it has passed.
    pub fn until(&self, time: Timestamp) -> Duration {
        (time - self.now()).to_std().unwrap_or_default()
    }
}

/// Tokio's clock, which tests can pause. It doesn't count suspension.
pub struct TokioClock(tokio::time::Instant);

impl TokioClock {
    /// A clock that starts at zero now.
    pub fn start() -> Self {
        Self(tokio::time::Instant::now())
    }
}

impl MonotonicClock for TokioClock {
    fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}
