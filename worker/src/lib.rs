//! The program `voice-otp`: its arguments, its commands, and the service of a worker.

pub mod args;
mod commands;
mod config;
pub mod output;
mod server_check;
pub mod service;
mod telemetry;

pub use commands::run;
