//! Measurements on real servers, each against something else in the same run: machines are noisy, ratios less so.
//! `./dev bench` starts the servers and runs them all; an argument picks one.
#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "it prints a table for people, and has clocks, time-outs and an environment of its own"
)]

mod broker;
mod database;
mod floor;
mod load;
mod peers;
mod process;
mod publisher;
mod report;
mod throughput;
mod twilio;

use std::process::ExitCode;

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    // In a process that speaks TLS nowhere there may be no provider yet.
    drop(rustls::crypto::ring::default_provider().install_default());
    let (verb, argument) = (std::env::args().nth(1), std::env::args().nth(2));
    let right = match verb.as_deref() {
        None | Some("publisher") => publisher::run().await?,
        Some("throughput") => !throughput::run(3, argument.as_deref()).await?.is_empty(),
        // Not for people: the floor runs as a process of its own.
        Some("floor-worker") => floor::run().await.map(|()| true)?,
        Some(other) => anyhow::bail!("there is no measurement '{other}': publisher"),
    };
    Ok(if right { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
