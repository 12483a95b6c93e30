//! An account that answers only after 10 s, and a tenant with wrong credentials: the latency of 200
//! other tenants.

use std::collections::HashMap;
use std::time::Duration;

use super::{one_tenant_each, print_latencies};
use crate::database::Account;
use crate::process::Worker;
use crate::report::share;
use crate::steady_load::{Stage, SteadyLoad, latencies_ms, publish};
use crate::twilio::{Behaviour, Recorder};

const TENANTS: usize = 200;
const RATE: f64 = 200.0;

pub(crate) async fn run() -> anyhow::Result<()> {
    println!(
        "{TENANTS} tenants at {RATE}/s together; then also 50/s for a slow account and 50/s with \
         wrong credentials"
    );
    let mut accounts = one_tenant_each(TENANTS);
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
    let behaviours = HashMap::from([
        (slow.sid(), Behaviour::Slow(Duration::from_secs(10))),
        (broken.sid(), Behaviour::WrongCredentials),
    ]);
    accounts.extend([slow, broken]);
    let stage = Stage::start(&accounts, Recorder::start(behaviours).await?).await?;
    let worker = Worker::start(&stage.vhost, &stage.database, &stage.twilio.url, &[]).await?;
    let tenant = |n: usize| format!("t{}", n * 7 % TENANTS);
    let load = |first_number, seconds| SteadyLoad {
        rate: RATE,
        seconds,
        tenant: &tenant,
        first_number,
        life: Duration::from_mins(3),
    };
    drop(publish(&stage.vhost, &load(0, 5.0)).await?);
    let published = publish(&stage.vhost, &load(10_000, 15.0)).await?;
    let before = latencies_ms(&stage.twilio, &published, Duration::from_secs(20)).await;
    print_latencies("other tenants, alone", &before, published.len());
    let bad = |name: &'static str, first_number| (move |_| name.to_owned(), first_number);
    let (slow, broken) = (bad("slow", 200_000), bad("broken", 300_000));
    let bad_load = |tenant, first_number| SteadyLoad {
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
    let beside = latencies_ms(&stage.twilio, &published, Duration::from_secs(30)).await;
    print_latencies("other tenants, beside them", &beside, published.len());
    println!(
        "  added p99 {:.1} ms",
        share(&beside, 0.99) - share(&before, 0.99)
    );
    worker.stop().await?;
    stage.stop().await
}
