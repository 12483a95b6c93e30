//! The latency from publish to the POST's arrival, at several loads.

use std::time::Duration;

use super::{default_behaviours, one_tenant_each, print_latencies};
use crate::process::Worker;
use crate::steady_load::{Stage, SteadyLoad, latencies_ms, publish};
use crate::twilio::Recorder;

const TENANTS: usize = 500;
const SECONDS: f64 = 10.0;

pub(crate) async fn run() -> anyhow::Result<()> {
    println!("publish to POST received, one worker, {TENANTS} accounts, {SECONDS} s at each load");
    let stage = Stage::start(
        &one_tenant_each(TENANTS),
        Recorder::start(default_behaviours()).await?,
    )
    .await?;
    let worker = Worker::start(&stage.vhost, &stage.database, &stage.twilio.url, &[]).await?;
    let tenant = |n: usize| format!("t{}", n * 7 % TENANTS);
    let mut first_number = 0;
    // The first load is a warm-up.
    for rate in [100.0, 100.0, 500.0, 2_000.0] {
        let load = SteadyLoad {
            rate,
            seconds: SECONDS,
            tenant: &tenant,
            first_number,
            life: Duration::from_mins(3),
        };
        let publishing = publish(&stage.vhost, &load);
        let published = publishing.await?;
        let latencies = latencies_ms(&stage.twilio, &published, Duration::from_secs(30)).await;
        if first_number > 0 {
            print_latencies(&format!("{rate} requests/s"), &latencies, published.len());
        }
        first_number += published.len();
    }
    worker.stop().await?;
    stage.stop().await
}
