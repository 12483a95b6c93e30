//! Latency and memory as the numbers of tenants and of waiting deliveries grow.

use std::time::Duration;

use super::{default_behaviours, print_latencies};
use crate::database::Account;
use crate::load::{self, Format};
use crate::process::Worker;
use crate::steady_load::{Stage, SteadyLoad, latencies_ms, publish};
use crate::twilio::Recorder;

pub(crate) async fn run() -> anyhow::Result<()> {
    println!(
        "one worker as tenants and waiting deliveries grow: latency at 200/s over all tenants, and \
         peak memory"
    );
    for (tenants, waiting) in [
        (1, 0),
        (1_000, 0),
        (1_000, 1_000),
        (1_000, 50_000),
        (100_000, 50_000),
    ] {
        round(tenants, waiting).await?;
    }
    Ok(())
}

async fn round(tenants: usize, waiting: usize) -> anyhow::Result<()> {
    let mut accounts: Vec<Account> = (0..tenants)
        .map(|number| Account::with_one_tenant(number, 10_000.0))
        .collect();
    // Five accounts, so that the slots of the waiting deliveries spread over less than an hour.
    accounts.extend((0..5).map(|n| Account {
        number: 1_000_000 + n,
        calls_per_second: 20.0,
        tenants: vec![format!("waiting{n}")],
    }));
    let stage = Stage::start(&accounts, Recorder::start(default_behaviours()).await?).await?;
    let worker = Worker::start(&stage.vhost, &stage.database, &stage.twilio.url, &[]).await?;
    let bodies = (0..waiting).map(|n| {
        load::request(
            &format!("w{n}"),
            &format!("waiting{}", n % 5),
            &load::number(2_000_000 + n),
            Duration::from_mins(59),
        )
    });
    load::publish(
        &stage.vhost,
        Format::CloudEvents,
        &load::routing_key("waiting0")?,
        bodies,
    )
    .await?;
    while stage
        .database
        .count("select count(*) from deliveries")
        .await?
        < i64::try_from(waiting)?
    {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // Every tenant has a request, as far as 15 s allow.
    let tenant = |n: usize| format!("t{}", n * 7919 % tenants);
    let warm_up = SteadyLoad {
        rate: 2_000.0,
        seconds: 15.0,
        tenant: &tenant,
        first_number: 0,
        life: Duration::from_mins(3),
    };
    let published = publish(&stage.vhost, &warm_up).await?;
    drop(latencies_ms(&stage.twilio, &published, Duration::from_secs(30)).await);
    let load = SteadyLoad {
        rate: 200.0,
        seconds: 10.0,
        tenant: &tenant,
        first_number: 100_000,
        life: Duration::from_mins(3),
    };
    let published = publish(&stage.vhost, &load).await?;
    let latencies = latencies_ms(&stage.twilio, &published, Duration::from_secs(20)).await;
    print_latencies(
        &format!("{tenants} tenants, {waiting} waiting"),
        &latencies,
        published.len(),
    );
    println!(
        "  {:<44} {:.0} MB",
        "",
        mebibytes(worker.peak_memory_bytes()?)
    );
    worker.stop().await?;
    stage.stop().await
}

#[expect(clippy::cast_precision_loss, reason = "megabytes")]
fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / 1_048_576.0
}
