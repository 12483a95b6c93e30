//! The machine's steady clock.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use voice_otp::clock::Steady;

/// `CLOCK_BOOTTIME`: goes on while the machine is suspended, so a lease that ran out meanwhile is seen to have.
pub(crate) struct Boot;

impl Steady for Boot {
    fn elapsed(&self) -> Duration {
        let time = clock_gettime(ClockId::Boottime);
        Duration::new(
            u64::try_from(time.tv_sec).unwrap_or(0),
            u32::try_from(time.tv_nsec).unwrap_or(0),
        )
    }
}
