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
mod plot;
mod process;
mod publisher;
mod report;
mod scenarios;
mod steady;
mod throughput;
mod twilio;

use std::process::ExitCode;

/// As the worker's: the floor must not be lower for it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    // In a process that speaks TLS nowhere there may be no provider yet.
    drop(rustls::crypto::ring::default_provider().install_default());
    let (verb, argument) = (std::env::args().nth(1), std::env::args().nth(2));
    let right = match verb.as_deref() {
        None => all().await?,
        Some("publisher") => publisher::run().await?,
        Some("throughput") => !throughput::run(3, argument.as_deref()).await?.is_empty(),
        Some("latency") => scenarios::latency().await.map(|()| true)?,
        Some("pace") => scenarios::pace().await.map(|()| true)?,
        Some("flood") => scenarios::flood().await.map(|()| true)?,
        Some("neighbours") => scenarios::neighbours().await.map(|()| true)?,
        Some("hopeless") => scenarios::hopeless().await.map(|()| true)?,
        Some("viewers") => scenarios::viewers().await.map(|()| true)?,
        Some("growth") => scenarios::growth().await.map(|()| true)?,
        // Not for people: the floor runs as a process of its own.
        Some("floor-worker") => floor::run().await.map(|()| true)?,
        Some(other) => anyhow::bail!(
            "there is no measurement '{other}': throughput, latency, pace, flood, neighbours, hopeless, growth, viewers, publisher"
        ),
    };
    Ok(if right {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Everything, one after the other.
async fn all() -> anyhow::Result<bool> {
    throughput::run(5, None).await?;
    scenarios::latency().await?;
    scenarios::pace().await?;
    scenarios::hopeless().await?;
    scenarios::neighbours().await?;
    scenarios::flood().await?;
    scenarios::growth().await?;
    scenarios::viewers().await?;
    publisher::run().await
}
