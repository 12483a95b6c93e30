//! The program `voice-otp`: its arguments, its commands, and the service of a worker.

pub mod args;
mod commands;
mod config;
pub mod output;
pub mod service;
mod telemetry;

pub use commands::run;
