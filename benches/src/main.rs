//! Measurements on real servers, each against something else in the same run: machines are noisy, ratios less so.
//! `./dev bench` starts the servers and runs them all; an argument picks one.
#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "it prints a table for people, and has clocks, time-outs and an environment of its own"
)]

mod broker;
mod publisher;

use std::process::ExitCode;

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    // In a process that speaks TLS nowhere there may be no provider yet.
    drop(rustls::crypto::ring::default_provider().install_default());
    let right = match std::env::args().nth(1).as_deref() {
        None | Some("publisher") => publisher::run().await?,
        Some(other) => anyhow::bail!("there is no measurement '{other}': publisher"),
    };
    Ok(if right { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
