//! Where the ports in memory have their time from.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use voice_otp_schemas::Timestamp;

/// What the time is.
pub(crate) type Now = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// When every test begins: a whole second, so that no store rounds it.
pub(crate) fn beginning() -> Timestamp {
    chrono::DateTime::from_timestamp(1_770_000_000, 0).unwrap()
}

/// Tokio's clock, which tests pause.
pub(crate) fn of_tokio() -> Now {
    let start = tokio::time::Instant::now();
    Arc::new(move || beginning() + start.elapsed())
}

/// A clock that only goes when it is told to.
#[derive(Clone)]
pub(crate) struct HandClock(Arc<Mutex<Timestamp>>);

impl HandClock {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(beginning())))
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
