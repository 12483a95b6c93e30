//! The integration tests.
//!
//! The core runs on in-memory ports under a paused clock, the contract of each port runs on its
//! in-memory and its real implementation, and the program runs on a real RabbitMQ and a real
//! Postgres with a simulated Twilio. `./dev test` starts the servers.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::print_stderr,
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    clippy::too_many_lines,
    reason = "tests and their helpers fail by panicking, play outside parties with clocks of \
              their own, and keep the steps of one test in one function"
)]

mod backlogs;
mod database;
mod delivery_counts;
mod differential;
mod harness;
#[cfg(feature = "interop")]
mod interop;
mod ledger_contract;
mod memory;
mod pipeline;
mod port_contract;
mod simulation;
mod sql;
mod system;
mod tidy;
