//! The program `voice-otp`: intake, the HTTP side, wiring, one file per verb.

pub mod cli;
mod clock;
mod config;
mod console;
mod dead;
mod demo;
mod http;
mod intake;
mod metrics;
pub mod sink;
mod tail;
pub mod telemetry;
mod verb;

pub use verb::run;
