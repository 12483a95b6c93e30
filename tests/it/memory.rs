//! The core's ports in memory, for tests under a paused clock.
//!
//! [`MemoryLedger`] must do exactly what the ledger on Postgres does, statement by statement. The
//! suite in `ledger_contract` runs on both, and `differential` runs the same operations on both and
//! compares the results.

mod admit;
mod archive;
pub(crate) mod clock;
mod clock_steps;
mod directory;
mod ledger;
mod outbox;
pub(crate) mod sample;
mod save;
mod sink;
mod start;
mod tables;
mod telephony;
mod workers;

use voice_otp::ports::Ports;

pub(crate) use directory::MemoryDirectory;
pub(crate) use ledger::{MemoryLedger, Outage};
pub(crate) use sink::{BrokenQueue, MemorySink};
pub(crate) use telephony::{Answer, CallEnd, CallTimeline, MemoryTelephony};

/// All ports in memory.
pub(crate) struct MemoryPorts;

impl Ports for MemoryPorts {
    type Ledger = MemoryLedger;
    type Directory = MemoryDirectory;
    type Telephony = MemoryTelephony;
    type Sink = MemorySink;
}
