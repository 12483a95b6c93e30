//! An account that answers only after ten seconds, and a tenant whose credentials are broken, beside two hundred others.

use std::collections::HashMap;
use std::time::Duration;

use super::{alone, tell};
use crate::database::Account;
use crate::process::Worker;
use crate::report::share;
use crate::steady::{Stage, Steady, publish, waits_ms};
use crate::twilio::{Mood, Recorder};

const TENANTS: usize = 200;
const RATE: f64 = 200.0;

pub(crate) async fn run() -> anyhow::Result<()> {
    println!(
        "{TENANTS} tenants at {RATE}/s together; beside them 50/s for a slow account and 50/s with broken credentials"
    );
    let mut accounts = alone(TENANTS);
    let (slow, broken) = (
        Account {
            number: 5_000,
            calls_per_second: 100.0,
            tenants: vec!["slow".to_owned()],
        },
        Account {
            number: 5_001,
            calls_per_second: 100.0,
            tenants: vec!["broken".to_owned()],
        },
    );
    let moods = HashMap::from([
        (slow.sid(), Mood::Slow(Duration::from_secs(10))),
        (broken.sid(), Mood::BrokenCredentials),
    ]);
    accounts.extend([slow, broken]);
    let stage = Stage::start(&accounts, Recorder::start(moods).await?).await?;
    let worker = Worker::start(&stage.vhost, &stage.database, &stage.twilio.url, &[]).await?;
    let tenant = |n: usize| format!("t{}", n * 7 % TENANTS);
    let load = |first_number, seconds| Steady {
        rate: RATE,
        seconds,
        tenant: &tenant,
        first_number,
        life: Duration::from_mins(3),
    };
    drop(publish(&stage.vhost, &load(0, 5.0)).await?);
    let published = publish(&stage.vhost, &load(10_000, 15.0)).await?;
    let before = waits_ms(&stage.twilio, &published, Duration::from_secs(20)).await;
    tell("the others, alone", &before, published.len());
    let bad = |name: &'static str, first_number| (move |_| name.to_owned(), first_number);
    let (slow, broken) = (bad("slow", 200_000), bad("broken", 300_000));
    let bad_load = |tenant, first_number| Steady {
        rate: 50.0,
        seconds: 20.0,
        tenant,
        first_number,
        life: Duration::from_mins(3),
    };
    let (slow_load, broken_load, good_load) = (
        bad_load(&slow.0, slow.1),
        bad_load(&broken.0, broken.1),
        load(20_000, 20.0),
    );
    let (a, b, published) = tokio::join!(
        publish(&stage.vhost, &slow_load),
        publish(&stage.vhost, &broken_load),
        publish(&stage.vhost, &good_load)
    );
    drop((a?, b?));
    let published = published?;
    let beside = waits_ms(&stage.twilio, &published, Duration::from_secs(30)).await;
    tell("the others, beside them", &beside, published.len());
    println!(
        "  added p99 {:.1} ms",
        share(&beside, 0.99) - share(&before, 0.99)
    );
    worker.stop().await?;
    stage.stop().await
}
