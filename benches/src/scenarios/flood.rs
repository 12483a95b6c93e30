//! 1,000 tenants call steadily, while one publishes 100,000 requests at once, for which its account
//! has no slots: the latency of the others.

use std::time::{Duration, Instant};

use super::{default_behaviours, one_tenant_each, print_latencies};
use crate::database::Account;
use crate::load::{self, Format};
use crate::process::Worker;
use crate::report::share;
use crate::steady_load::{Stage, SteadyLoad, latencies_ms, publish};
use crate::twilio::Recorder;

const TENANTS: usize = 1_000;
const FLOOD: usize = 100_000;
const RATE: f64 = 100.0;

pub(crate) async fn run() -> anyhow::Result<()> {
    println!("{TENANTS} tenants at {RATE}/s together, one worker; one tenant floods {FLOOD}");
    let mut accounts = one_tenant_each(TENANTS);
    accounts.push(Account {
        number: TENANTS,
        calls_per_second: 1.0,
        tenants: vec!["flood".to_owned()],
    });
    let stage = Stage::start(&accounts, Recorder::start(default_behaviours()).await?).await?;
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
    print_latencies("other tenants, before", &before, published.len());

    let bodies = (0..FLOOD).map(|n| {
        load::request(
            &format!("flood-{n}"),
            "flood",
            &load::number(1_000_000 + n),
            Duration::from_mins(3),
        )
    });
    let start = Instant::now();
    let drained = async {
        // Until every request of the flood is stored.
        let sql = "select count(*) from deliveries where tenant_id = 'flood'";
        while stage.database.count(sql).await? < i64::try_from(FLOOD)?
            && start.elapsed() < Duration::from_mins(2)
        {
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        Ok::<_, anyhow::Error>(start.elapsed())
    };
    let flood_load = load(20_000, 25.0);
    let key = load::routing_key("flood")?;
    let (flooded, drained, published) = tokio::join!(
        load::publish(&stage.vhost, Format::CloudEvents, &key, bodies),
        drained,
        publish(&stage.vhost, &flood_load)
    );
    flooded?;
    let published = published?;
    let during = latencies_ms(&stage.twilio, &published, Duration::from_mins(1)).await;
    print_latencies("other tenants, during", &during, published.len());
    println!(
        "  added p99 {:.1} ms; the flood was stored after {:.1} s",
        share(&during, 0.99) - share(&before, 0.99),
        drained?.as_secs_f64()
    );
    worker.stop().await?;
    stage.stop().await
}
