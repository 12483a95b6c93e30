//! Measurements on real servers, each beside a baseline in the same run: machines are noisy, ratios
//! less so. `./dev bench` starts the servers and runs all measurements; an argument selects one.
#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a measurement prints tables, and reads clocks and the environment itself"
)]

mod broker;
mod cluster;
mod database;
mod floor;
mod load;
mod peers;
mod plot;
mod process;
mod publisher;
mod report;
mod scenarios;
mod steady_load;
mod throughput;
mod twilio;

use std::process::ExitCode;

/// The worker's allocator, so that the floor is comparable.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    // The process may not have used TLS yet, and then has no provider. An error means that it has.
    drop(rustls::crypto::ring::default_provider().install_default());
    let (name, argument) = (std::env::args().nth(1), std::env::args().nth(2));
    let succeeded = match name.as_deref() {
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
        // For ./dev cluster chaos, which starts the servers.
        Some("cluster") => cluster::run(&std::env::args().skip(2).collect::<Vec<_>>()).await?,
        // Internal: the floor runs as a separate process.
        Some("floor-worker") => floor::run().await.map(|()| true)?,
        Some(other) => anyhow::bail!(
            "unknown measurement '{other}'; choose one of throughput, latency, pace, flood, \
             neighbours, hopeless, growth, viewers, publisher"
        ),
    };
    Ok(if succeeded {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Runs every measurement, one after the other.
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
