//! The machine's clocks.

use std::time::{Duration, SystemTime};

use rustix::time::{ClockId, clock_gettime};
use voice_otp::engine::clock::MonotonicClock;
use voice_otp_schemas::Timestamp;

/// `CLOCK_BOOTTIME`. Unlike `CLOCK_MONOTONIC` it advances while the machine is suspended, so a
/// lease that expired meanwhile is seen as expired.
pub(super) struct BootClock;

impl MonotonicClock for BootClock {
    fn elapsed(&self) -> Duration {
        let time = clock_gettime(ClockId::Boottime);
        // The kernel's time since boot is never negative, and nanoseconds are below 10^9.
        Duration::new(
            u64::try_from(time.tv_sec).unwrap_or(0),
            u32::try_from(time.tv_nsec).unwrap_or(0),
        )
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the machine's clock, beside the database's"
    )]
    fn time_of_day(&self) -> Option<Timestamp> {
        Some(SystemTime::now().into())
    }
}
