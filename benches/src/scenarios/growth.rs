//! What it costs as it grows: tenants known, and deliveries waiting.

use std::time::Duration;

use super::{calm, tell};
use crate::database::Account;
use crate::load::{self, Format};
use crate::process::Worker;
use crate::steady::{Stage, Steady, publish, waits_ms};
use crate::twilio::Recorder;

pub(crate) async fn run() -> anyhow::Result<()> {
    println!(
        "one worker as it grows: latency at 200/s over all tenants, and the most memory it has had"
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
        .map(|number| Account::alone(number, 10_000.0))
        .collect();
    // Their slots are spread over half an hour; five accounts, so that each has some.
    accounts.extend((0..5).map(|n| Account {
        number: 1_000_000 + n,
        calls_per_second: 20.0,
        tenants: vec![format!("waiting{n}")],
    }));
    let stage = Stage::start(&accounts, Recorder::start(calm()).await?).await?;
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
    // Every tenant is asked for once, as far as a quarter of a minute allows.
    let tenant = |n: usize| format!("t{}", n * 7919 % tenants);
    let warm_up = Steady {
        rate: 2_000.0,
        seconds: 15.0,
        tenant: &tenant,
        first_number: 0,
        life: Duration::from_mins(3),
    };
    let published = publish(&stage.vhost, &warm_up).await?;
    drop(waits_ms(&stage.twilio, &published, Duration::from_secs(30)).await);
    let load = Steady {
        rate: 200.0,
        seconds: 10.0,
        tenant: &tenant,
        first_number: 100_000,
        life: Duration::from_mins(3),
    };
    let published = publish(&stage.vhost, &load).await?;
    let waits = waits_ms(&stage.twilio, &published, Duration::from_secs(20)).await;
    tell(
        &format!("{tenants} tenants, {waiting} waiting"),
        &waits,
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
