//! The simulator's clock. It reads the wall clock once, at the start, and adds tokio's elapsed
//! time, so that dates follow a paused tokio clock in tests.

use std::time::SystemTime;

use chrono::{DateTime, Utc};
use tokio::time::Instant;

/// Converts tokio's instants into dates.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    epoch: DateTime<Utc>,
    started: Instant,
}

impl Clock {
    /// A clock that shows the wall clock's time now.
    pub(crate) fn starting_at(epoch: SystemTime) -> Self {
        Self {
            epoch: epoch.into(),
            started: Instant::now(),
        }
    }

    /// The date and time now.
    pub(crate) fn now(&self) -> DateTime<Utc> {
        self.epoch + self.started.elapsed()
    }

    /// Distinguishes this run from others with the same seed.
    pub(crate) fn salt(&self) -> u64 {
        self.epoch.timestamp_micros().unsigned_abs()
    }
}

/// The wall clock's time now.
#[expect(
    clippy::disallowed_methods,
    reason = "the simulator stands for Twilio, which has a clock of its own"
)]
pub(crate) fn wall_clock() -> SystemTime {
    SystemTime::now()
}

/// A date as Twilio writes it: RFC 2822, UTC, to the second.
pub(crate) fn rfc2822(at: DateTime<Utc>) -> String {
    at.format("%a, %d %b %Y %H:%M:%S +0000").to_string()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn dates_are_written_as_twilio_writes_them() {
        let at = DateTime::parse_from_rfc3339("2019-10-02T17:00:05.9Z")
            .unwrap()
            .to_utc();
        assert_eq!(rfc2822(at), "Wed, 02 Oct 2019 17:00:05 +0000");
    }

    #[tokio::test(start_paused = true)]
    async fn dates_follow_the_paused_clock() {
        let clock = Clock::starting_at(SystemTime::UNIX_EPOCH);
        tokio::time::advance(Duration::from_secs(90)).await;
        assert_eq!(clock.now().timestamp(), 90);
    }
}
