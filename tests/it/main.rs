//! The whole system under test.
//!
//! The core runs on in-memory ports under a paused clock; each port's contract runs on the in-memory and the real
//! implementation; the program runs as itself on a real RabbitMQ and a real Postgres, with Twilio simulated.
//! `./dev test` starts the servers.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::print_stderr,
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    reason = "a test fails by panicking, its helpers too; it plays outside parties, with clocks of their own"
)]

mod database;
mod differential;
mod harness;
#[cfg(feature = "interop")]
mod interop;
mod ledger_contract;
mod memory;
mod pipeline;
mod port_contract;
mod simulation;
mod system;
mod tidy;
