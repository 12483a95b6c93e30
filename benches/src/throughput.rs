//! Calls per second, side by side: the floor, conventional workers, and voice-otp with all
//! guarantees. Each runs on the same queue of waiting requests, the same Twilio, servers and cores,
//! in turn, for several rounds.

use std::path::PathBuf;
use std::time::Duration;

use voice_otp_publisher::topology;

use crate::broker::Vhost;
use crate::database::{Account, Database};
use crate::load::{self, Format};
use crate::peers::{self, Peer};
use crate::process::{Worker, terminate};
use crate::report::{Series, median};
use crate::twilio::{Simulated, Static};
use crate::{floor, plot, report};

/// Accounts with one tenant each, whose rate limits are higher than the load.
const ACCOUNTS: usize = 1000;
/// The longest time that a round may take.
const ROUND_TIMEOUT: Duration = Duration::from_mins(1);

/// A measured worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Contender {
    Floor,
    Peer(Peer),
    VoiceOtp {
        workers: usize,
    },
    /// One voice-otp worker, with calls that ring, are answered and end, reported by callbacks.
    CompleteCalls,
}

impl Contender {
    fn name(self) -> String {
        match self {
            Self::Floor => "floor (no database)".to_owned(),
            Self::Peer(peer) => peer.name().to_owned(),
            Self::VoiceOtp { workers: 1 } => "voice-otp, one worker".to_owned(),
            Self::VoiceOtp { workers } => format!("voice-otp, {workers} workers"),
            Self::CompleteCalls => "voice-otp, complete calls".to_owned(),
        }
    }

    /// The requests of one round, so that rounds take about equally long.
    fn requests(self) -> usize {
        match self {
            Self::Floor | Self::VoiceOtp { .. } => 30_000,
            Self::Peer(Peer::Node) => 12_000,
            Self::Peer(Peer::Celery) => 4_000,
            Self::CompleteCalls => 6_000,
        }
    }
}

/// Measures all workers, or those whose name contains `only`.
pub(crate) async fn run(rounds: usize, only: Option<&str>) -> anyhow::Result<Vec<Series>> {
    let twilio = Static::start().await?;
    let all = [
        Contender::Floor,
        Contender::Peer(Peer::Node),
        Contender::Peer(Peer::Celery),
        Contender::VoiceOtp { workers: 1 },
        Contender::VoiceOtp { workers: 4 },
        Contender::CompleteCalls,
    ];
    let chosen: Vec<Contender> = all
        .into_iter()
        .filter(|contender| only.is_none_or(|only| contender.name().contains(only)))
        .collect();
    let mut series: Vec<Series> = chosen
        .iter()
        .map(|contender| Series::new(contender.name()))
        .collect();
    for _ in 0..rounds {
        for (contender, series) in chosen.iter().zip(&mut series) {
            series.values.push(round(*contender, &twilio.url).await?);
        }
    }
    twilio.stop().await?;
    println!(
        "calls placed per second, {ACCOUNTS} accounts, a status queue bound, all on this machine; \
         {rounds} rounds in turn"
    );
    report::table(&series, "calls/s");
    if only.is_none() {
        let file = PathBuf::from("target/bench/throughput.svg");
        plot::bars(
            &series,
            "calls placed per second, two cores, everything on one machine",
            &file,
        )?;
        println!("  chart: {}", file.display());
    }
    if let Some(floor) = series
        .iter()
        .find(|series| series.name.starts_with("floor"))
        .map(median)
        && only.is_none()
    {
        for series in &series {
            println!(
                "  {:<28} {:>5.2} of the floor",
                series.name,
                median(series) / floor
            );
        }
    }
    Ok(series)
}

async fn round(contender: Contender, twilio_url: &str) -> anyhow::Result<f64> {
    let (vhost, database) = (Vhost::fresh().await?, Database::fresh().await?);
    let accounts: Vec<Account> = (0..ACCOUNTS)
        .map(|number| Account::with_one_tenant(number, 10_000.0))
        .collect();
    database.tenants(&accounts).await?;
    let complete_calls = contender == Contender::CompleteCalls;
    load::count_statuses(
        &vhost,
        if complete_calls {
            "status.delivered.#"
        } else {
            "status.#"
        },
    )
    .await?;
    let requests = contender.requests();
    let bodies = (0..requests).map(|n| {
        load::request(
            &format!("b{n}"),
            &format!("t{}", n * 7 % ACCOUNTS),
            &load::number(n),
            Duration::from_mins(10),
        )
    });
    let format = if contender == Contender::Peer(Peer::Celery) {
        Format::Celery
    } else {
        Format::CloudEvents
    };
    load::publish(&vhost, format, topology::REQUESTED_KEY, bodies).await?;
    let each = if complete_calls { 1 } else { 2 };
    let total = u32::try_from(requests * each)?;
    let measured = async {
        let rate = load::statuses_per_second(&vhost, total, ROUND_TIMEOUT).await?;
        Ok::<_, anyhow::Error>(if complete_calls { rate } else { rate / 2.0 })
    };
    let rate = match contender {
        Contender::Floor => {
            let mut child = floor::spawn(&vhost, twilio_url)?;
            let rate = measured.await;
            terminate(&mut child).await?;
            rate
        }
        Contender::Peer(peer) => {
            let mut child = peers::spawn(peer, &vhost, &database, twilio_url)?;
            let rate = measured.await;
            terminate(&mut child).await?;
            rate
        }
        Contender::CompleteCalls => {
            let simulator = Simulated::start(&accounts).await?;
            let worker = Worker::spawn(&vhost, &database, &simulator.url, &[])?;
            let rate = measured.await;
            worker.stop().await?;
            simulator.stop().await?;
            rate
        }
        Contender::VoiceOtp { workers } => {
            let workers: Vec<Worker> = (0..workers)
                .map(|_| Worker::spawn(&vhost, &database, twilio_url, &[]))
                .collect::<Result<_, _>>()?;
            let rate = measured.await;
            for worker in workers {
                worker.stop().await?;
            }
            rate
        }
    };
    vhost.delete().await?;
    database.drop_schema().await?;
    rate
}
