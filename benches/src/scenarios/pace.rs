//! One account at 50 calls per second over four workers: the most calls that arrive within any 1 s
//! and any 10 s, and the share of the rate that is used; then the same with a worker killed
//! half-way.

use std::time::{Duration, Instant};

use super::default_behaviours;
use crate::database::Account;
use crate::process::Worker;
use crate::steady_load::{Stage, SteadyLoad, publish};
use crate::twilio::Recorder;

const RATE: f64 = 50.0;
/// The rate of requests: higher than that of calls, so that there is always a backlog.
const REQUEST_RATE: f64 = 62.0;
const SECONDS: f64 = 40.0;

pub(crate) async fn run() -> anyhow::Result<()> {
    println!("one account at {RATE}/s, 4 workers, requests at {REQUEST_RATE}/s for {SECONDS} s");
    for kills in [false, true] {
        round(kills).await?;
    }
    Ok(())
}

async fn round(kills: bool) -> anyhow::Result<()> {
    let stage = Stage::start(
        &[Account::with_one_tenant(0, RATE)],
        Recorder::start(default_behaviours()).await?,
    )
    .await?;
    let mut workers = Vec::new();
    for _ in 0..4 {
        workers.push(Worker::start(&stage.vhost, &stage.database, &stage.twilio.url, &[]).await?);
    }
    let load = SteadyLoad {
        rate: REQUEST_RATE,
        seconds: SECONDS,
        tenant: &|_| "t0".to_owned(),
        first_number: 0,
        life: Duration::from_mins(10),
    };
    let victim = if kills { workers.pop() } else { None };
    let killing = async {
        tokio::time::sleep(Duration::from_secs_f64(SECONDS / 2.0)).await;
        match victim {
            Some(worker) => worker.kill().await,
            None => Ok(()),
        }
    };
    let (published, killed) = tokio::join!(publish(&stage.vhost, &load), killing);
    killed?;
    let wanted = published?.len();
    // Until the backlog is placed.
    let start = Instant::now();
    while stage.twilio.len() < wanted && start.elapsed() < Duration::from_secs(30) {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let mut times: Vec<Instant> = stage
        .twilio
        .take_posts()
        .into_iter()
        .map(|post| post.at)
        .collect();
    times.sort();
    let (Some(first), Some(last)) = (times.first(), times.last()) else {
        anyhow::bail!("nothing was placed")
    };
    #[expect(clippy::cast_precision_loss, reason = "a number of calls")]
    let used = (times.len() - 1) as f64 / last.duration_since(*first).as_secs_f64() / RATE;
    let most = |window| {
        let within = |from: usize| {
            times
                .iter()
                .skip(from)
                .take_while(|at| {
                    at.duration_since(times.get(from).copied().unwrap_or(*first)) < window
                })
                .count()
        };
        (0..times.len()).map(within).max().unwrap_or(0)
    };
    println!(
        "  {:<44} any 1 s {:>4}, any 10 s {:>4}, {:.1} % used, {} of {wanted} placed",
        if kills {
            "a worker killed half-way"
        } else {
            "undisturbed"
        },
        most(Duration::from_secs(1)),
        most(Duration::from_secs(10)),
        used * 100.0,
        times.len()
    );
    for worker in workers {
        worker.stop().await?;
    }
    stage.stop().await
}
