//! The core's ports in memory: for simulation under a paused clock, and as one side of the differential test.
//!
//! [`MemoryLedger`] is meant to do exactly what the ledger on Postgres does, statement by statement. The suite in
//! `ledger_contract` runs on both, and `differential` drives both side by side: that keeps it honest.

mod admit;
mod begin;
mod caller;
pub(crate) mod clock;
mod directory;
mod ledger;
mod lives;
pub(crate) mod sample;
mod save;
mod sink;
mod tables;

use voice_otp::ports::Ports;

pub(crate) use caller::{Answer, Life, MemoryCaller, Then};
pub(crate) use directory::MemoryDirectory;
pub(crate) use ledger::{MemoryLedger, Trouble};
pub(crate) use sink::MemorySink;

/// All ports in memory.
pub(crate) struct MemoryPorts;

impl Ports for MemoryPorts {
    type Ledger = MemoryLedger;
    type Directory = MemoryDirectory;
    type Caller = MemoryCaller;
    type Sink = MemorySink;
}
