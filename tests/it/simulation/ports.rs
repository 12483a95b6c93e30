//! The in-memory ports of one worker, behind its fault injector, with planted bugs.

mod directory;
mod ledger;
mod sink;
mod telephony;

use std::time::Duration;

use voice_otp::engine::clock::MonotonicClock;
use voice_otp::ports::Ports;
use voice_otp_schemas::Timestamp;

use crate::memory::clock::Now;

pub(super) use directory::SimDirectory;
pub(super) use ledger::SimLedger;
pub(super) use sink::{Queues, SimSink};
pub(super) use telephony::SimTelephony;

/// The ports of a simulated worker.
pub(super) struct SimPorts;

impl Ports for SimPorts {
    type Ledger = SimLedger;
    type Directory = SimDirectory;
    type Telephony = SimTelephony;
    type Sink = SimSink;
}

/// A worker's clock, which runs a little faster or slower than the ledger's.
pub(super) struct SkewedClock {
    start: tokio::time::Instant,
    rate: f64,
    /// The machine's time of day, which is right; `None` under a planted bug.
    time_of_day: Option<Now>,
}

impl SkewedClock {
    pub(super) fn new(rate: f64, time_of_day: Option<Now>) -> Self {
        Self {
            start: tokio::time::Instant::now(),
            rate,
            time_of_day,
        }
    }
}

impl MonotonicClock for SkewedClock {
    fn elapsed(&self) -> Duration {
        self.start.elapsed().mul_f64(self.rate)
    }

    fn time_of_day(&self) -> Option<Timestamp> {
        self.time_of_day.as_ref().map(|now| now())
    }
}
