//! The whole system under test.
//!
//! The core runs on in-memory ports under a paused clock; each port's contract runs on the in-memory and the real
//! implementation; the program runs as itself on a real RabbitMQ and a real Postgres, with Twilio simulated.
//! `./dev test` starts the servers.

mod database;
mod differential;
mod harness;
mod ledger_contract;
mod memory;
mod pipeline;
mod system;
mod tidy;
