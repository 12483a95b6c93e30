//! 200 viewers of the console while statuses are published: the latency of calls, and how often the
//! viewers are updated.

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use futures_util::StreamExt as _;
use secrecy::ExposeSecret as _;
use tokio::process::{Child, Command};

use super::{default_behaviours, print_latencies};
use crate::database::Account;
use crate::process::{Worker, free_port, peak_memory_bytes, program, terminate};
use crate::report::share;
use crate::steady_load::{Stage, SteadyLoad, latencies_ms, publish};
use crate::twilio::Recorder;

const VIEWERS: usize = 200;
/// The console's limit of event streams with one token.
const VIEWERS_PER_TOKEN: usize = 20;
/// Each request has the statuses `accepted` and `placed`, so 500 statuses per second.
const RATE: f64 = 250.0;

pub(crate) async fn run() -> anyhow::Result<()> {
    println!(
        "{RATE} requests/s of one tenant, two statuses each; then {VIEWERS} viewers of that \
         tenant on one console"
    );
    let accounts = [Account {
        number: 0,
        calls_per_second: 10_000.0,
        tenants: vec!["watched".to_owned()],
    }];
    let stage = Stage::start(&accounts, Recorder::start(default_behaviours()).await?).await?;
    let worker = Worker::start(&stage.vhost, &stage.database, &stage.twilio.url, &[]).await?;
    let tenant = |_: usize| "watched".to_owned();
    let load = |first_number, seconds| SteadyLoad {
        rate: RATE,
        seconds,
        tenant: &tenant,
        first_number,
        life: Duration::from_mins(3),
    };
    drop(publish(&stage.vhost, &load(0, 5.0)).await?);
    let published = publish(&stage.vhost, &load(10_000, 15.0)).await?;
    print_latencies(
        "without viewers",
        &latencies_ms(&stage.twilio, &published, Duration::from_secs(20)).await,
        published.len(),
    );

    let console = Console::start(&stage).await?;
    let (received, stop) = (
        Arc::new(AtomicU64::new(0)),
        Arc::new(AtomicBool::new(false)),
    );
    let mut viewers = Vec::new();
    for n in 0..VIEWERS {
        viewers.push(tokio::spawn(watch(
            console.stream(n).await?,
            Arc::clone(&received),
            Arc::clone(&stop),
        )));
    }
    let published = publish(&stage.vhost, &load(20_000, 15.0)).await?;
    print_latencies(
        "with viewers",
        &latencies_ms(&stage.twilio, &published, Duration::from_secs(20)).await,
        published.len(),
    );
    tokio::time::sleep(Duration::from_secs(1)).await;
    stop.store(true, Ordering::Relaxed);
    let mut gaps = Vec::new();
    console.stop().await?;
    for viewer in viewers {
        gaps.extend(viewer.await?);
    }
    gaps.sort_by(f64::total_cmp);
    println!(
        "  a viewer saw {} of {} statuses; an update every {:.0} ms, 99 % within {:.0} ms",
        received.load(Ordering::Relaxed) / VIEWERS as u64,
        published.len() * 2,
        share(&gaps, 0.5),
        share(&gaps, 0.99)
    );
    worker.stop().await?;
    stage.stop().await
}

/// Reads a stream to its end. Returns the milliseconds between its updates.
async fn watch(
    stream: reqwest::Response,
    received: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
) -> Vec<f64> {
    let (mut stream, mut text, mut gaps, mut last) =
        (stream.bytes_stream(), String::new(), Vec::new(), None);
    while let Some(Ok(bytes)) = stream.next().await {
        text.push_str(&String::from_utf8_lossy(&bytes));
        while let Some((event, rest)) = text.split_once("\n\n") {
            let data = event.lines().find_map(|line| line.strip_prefix("data: "));
            if let Some(data) =
                data.and_then(|data| serde_json::from_str::<serde_json::Value>(data).ok())
            {
                let statuses = data
                    .get("statuses")
                    .and_then(|list| list.as_array())
                    .map_or(0, Vec::len) as u64;
                received.fetch_add(
                    statuses
                        + data
                            .get("missed")
                            .and_then(serde_json::Value::as_u64)
                            .unwrap_or(0),
                    Ordering::Relaxed,
                );
                if let Some(last) = last.replace(Instant::now())
                    && !stop.load(Ordering::Relaxed)
                {
                    gaps.push(last.elapsed().as_secs_f64() * 1000.0);
                }
            }
            text = rest.to_owned();
        }
    }
    gaps
}

struct Console {
    child: Child,
    address: String,
    tokens: Vec<String>,
    http: reqwest::Client,
}

impl Console {
    async fn start(stage: &Stage) -> anyhow::Result<Self> {
        let address = format!("127.0.0.1:{}", free_port()?);
        let command = || -> anyhow::Result<Command> {
            let mut command = Command::new(program()?);
            command
                .env("VOICE_OTP_AMQP_URL", stage.vhost.url.expose_secret())
                .env("VOICE_OTP_DATABASE_URL", stage.database.url())
                .env("VOICE_OTP_KEYS", stage.database.keys_text.expose_secret())
                .env("VOICE_OTP_CONSOLE_LISTEN", &address)
                .env("VOICE_OTP_LOG", "warn")
                .stdin(Stdio::null())
                .kill_on_drop(true);
            Ok(command)
        };
        let mut tokens = Vec::new();
        for _ in 0..VIEWERS.div_ceil(VIEWERS_PER_TOKEN) {
            let created = command()?
                .args(["token", "create", "--role", "operator", "--name", "bench"])
                .output()
                .await?;
            tokens.push(String::from_utf8(created.stdout)?.trim().to_owned());
        }
        let child = command()?
            .arg("console")
            .spawn()
            .context("start the console")?;
        let console = Self {
            child,
            address,
            tokens,
            http: reqwest::Client::new(),
        };
        for _ in 0..1000 {
            if console
                .http
                .get(format!("http://{}/livez", console.address))
                .send()
                .await
                .is_ok()
            {
                return Ok(console);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        anyhow::bail!("the console does not answer")
    }

    async fn stream(&self, viewer: usize) -> anyhow::Result<reqwest::Response> {
        let token = self.tokens.get(viewer / VIEWERS_PER_TOKEN);
        let url = format!("http://{}/api/v1/tenants/watched/events", self.address);
        Ok(self
            .http
            .get(url)
            .bearer_auth(token.context("each viewer has a token")?)
            .send()
            .await?
            .error_for_status()?)
    }

    #[expect(clippy::cast_precision_loss, reason = "megabytes")]
    async fn stop(mut self) -> anyhow::Result<()> {
        println!(
            "  {:<44} {:.0} MB at peak",
            "the console's memory",
            peak_memory_bytes(&self.child)? as f64 / 1_048_576.0
        );
        terminate(&mut self.child).await
    }
}
