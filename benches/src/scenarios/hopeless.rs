//! 10,000 requests that cannot meet their deadline: the time until the last refusal is committed.

use std::time::{Duration, Instant};

use super::default_behaviours;
use crate::database::Account;
use crate::load::{self, Format};
use crate::process::Worker;
use crate::report::{Series, table};
use crate::steady_load::Stage;
use crate::twilio::Recorder;

const REQUESTS: usize = 10_000;
const ROUNDS: usize = 3;

pub(crate) async fn run() -> anyhow::Result<()> {
    println!(
        "{REQUESTS} requests that cannot meet their deadline, one worker: milliseconds from the \
         first to the last committed refusal"
    );
    let mut committed = Series::new("first to last refusal");
    for _ in 0..ROUNDS {
        let stage = Stage::start(
            &[Account::with_one_tenant(0, 0.01)],
            Recorder::start(default_behaviours()).await?,
        )
        .await?;
        let bodies = (0..REQUESTS).map(|n| {
            load::request(
                &format!("h{n}"),
                "t0",
                &load::number(n),
                Duration::from_mins(3),
            )
        });
        load::publish(
            &stage.vhost,
            Format::CloudEvents,
            &load::routing_key("t0")?,
            bodies,
        )
        .await?;
        let worker = Worker::spawn(&stage.vhost, &stage.database, &stage.twilio.url, &[])?;
        let start = Instant::now();
        let sql = "select count(*) from deliveries where state = 'final'";
        while stage.database.count(sql).await? < i64::try_from(REQUESTS - 5)? {
            anyhow::ensure!(
                start.elapsed() < Duration::from_mins(1),
                "the requests are not refused"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let sql = "select (extract(epoch from max(ended_at) - min(admitted_at)) * 1000)::bigint \
                   from deliveries";
        #[expect(clippy::cast_precision_loss, reason = "milliseconds")]
        committed
            .values
            .push(stage.database.count(sql).await? as f64);
        worker.stop().await?;
        stage.stop().await?;
    }
    table(&[committed], "ms");
    Ok(())
}
