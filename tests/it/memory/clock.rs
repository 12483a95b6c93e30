//! The clocks of the ports in memory.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use voice_otp_schemas::Timestamp;

/// Returns the current time.
pub(crate) type Now = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// The time at which every test starts: a whole second, so that no store rounds it.
pub(crate) fn start_time() -> Timestamp {
    chrono::DateTime::from_timestamp(1_770_000_000, 0).unwrap()
}

/// Tokio's clock, which tests pause, offset to [`start_time`].
pub(crate) fn tokio_clock() -> Now {
    let start = tokio::time::Instant::now();
    Arc::new(move || start_time() + start.elapsed())
}

/// A clock that moves only by [`advance`](Self::advance).
#[derive(Clone)]
pub(crate) struct ManualClock(Arc<Mutex<Timestamp>>);

impl ManualClock {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(start_time())))
    }

    pub(crate) fn now(&self) -> Timestamp {
        *self.0.lock().unwrap()
    }

    pub(crate) fn advance(&self, by: Duration) {
        *self.0.lock().unwrap() += by;
    }

    pub(crate) fn reader(&self) -> Now {
        let clock = self.clone();
        Arc::new(move || clock.now())
    }
}
