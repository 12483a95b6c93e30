//! What a demo runs in: a simulator of Twilio, workers, and the demo's tenants.

use std::time::Duration;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use url::Url;
use voice_otp::Tuning;
use voice_otp_publisher::clock;
use voice_otp_publisher::topology::LaneCount;
use voice_otp_schemas::Timestamp;
use voice_otp_schemas::request::rfc3339;
use voice_otp_simulator::{CallReport, Settings, Simulator};

use super::Servers;
use super::tenants::{accounts, save_tenants};
use crate::config::WorkerSettings;
use crate::service;

pub(super) enum Environment {
    /// A simulator and two workers that the demo has started.
    Own {
        simulator: Simulator,
        workers: TaskTracker,
        stop_workers: CancellationToken,
        simulating: TaskTracker,
        stop_simulator: CancellationToken,
        twilio_url: Url,
        public_url: Url,
    },
    /// A simulator and workers that run elsewhere.
    Attached {
        http: reqwest::Client,
        simulator: Url,
        /// The simulator's calls before this moment are none of the demo's.
        since: Timestamp,
    },
}

/// The timeout of a request to a simulator that runs elsewhere.
const TIMEOUT: Duration = Duration::from_secs(10);
const WORKERS: usize = 2;
/// Calls in the simulator proceed this many times faster than real ones.
pub(super) const SPEED: u32 = 4;

impl Environment {
    /// Starts a simulator and workers, and saves the demo's tenants.
    pub(super) async fn start(servers: &Servers) -> anyhow::Result<Self> {
        save_tenants(servers).await?;
        let simulator = Simulator::new(Settings {
            accounts: accounts(),
            seed: 1,
            speed: f64::from(SPEED),
        });
        let (stop_simulator, simulating) = (CancellationToken::new(), TaskTracker::new());
        let (listener, twilio_url) = listen().await.context("listen for the simulator")?;
        let serving = simulator.clone().serve(listener, stop_simulator.clone());
        simulating.spawn(async move {
            if let Err(error) = serving.await {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "the simulator failed"
                );
            }
        });
        let (stop_workers, workers) = (CancellationToken::new(), TaskTracker::new());
        let mut public_url = None;
        for _ in 0..WORKERS {
            let (listener, url) = listen().await.context("listen for a worker")?;
            public_url.get_or_insert_with(|| url.clone());
            let settings = worker_settings(servers, twilio_url.clone(), url);
            let (soft, hard) = (stop_workers.clone(), CancellationToken::new());
            let serving = service::serve(settings, listener, soft, hard);
            workers.spawn(async move {
                if let Err(error) = serving.await {
                    tracing::error!(error = &*error as &dyn std::error::Error, "a worker failed");
                }
            });
        }
        let public_url = public_url.context("there are workers")?;
        Ok(Self::Own {
            simulator,
            workers,
            stop_workers,
            simulating,
            stop_simulator,
            twilio_url,
            public_url,
        })
    }

    /// Adds the demo's accounts to a running simulator, and saves its tenants for running workers.
    pub(super) async fn attach(simulator: Url, servers: &Servers) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder()
            .timeout(TIMEOUT)
            .build()
            .context("make an HTTP client")?;
        for account in accounts() {
            let url = simulator.join("simulator/accounts").context("make a URL")?;
            let added = http.post(url).json(&account).send().await;
            let added = added.and_then(reqwest::Response::error_for_status);
            added.context("add an account to the simulator")?;
        }
        save_tenants(servers).await?;
        Ok(Self::Attached {
            http,
            simulator,
            since: clock::now(),
        })
    }

    /// The simulator's URL, and a worker's if it is known.
    pub(super) fn urls(&self) -> (Url, Option<Url>) {
        match self {
            Self::Own {
                twilio_url,
                public_url,
                ..
            } => (twilio_url.clone(), Some(public_url.clone())),
            Self::Attached { simulator, .. } => (simulator.clone(), None),
        }
    }

    /// Which workers place the calls, for the first line of the demo.
    pub(super) fn workers(&self) -> String {
        match self {
            Self::Own { .. } => format!("{WORKERS} workers"),
            Self::Attached { .. } => "running workers".to_owned(),
        }
    }

    /// The simulator's calls, of this demo and of others.
    pub(super) async fn calls(&self) -> anyhow::Result<Vec<CallReport>> {
        match self {
            Self::Own { simulator, .. } => Ok(simulator.calls()),
            Self::Attached {
                http,
                simulator,
                since,
            } => {
                let mut url = simulator.join("simulator/calls").context("make a URL")?;
                url.query_pairs_mut().append_pair("since", &rfc3339(*since));
                let answer = http
                    .get(url)
                    .send()
                    .await
                    .and_then(reqwest::Response::error_for_status);
                answer
                    .context("ask the simulator for its calls")?
                    .json()
                    .await
                    .context("read the simulator's calls")
            }
        }
    }

    /// Stops the workers, then the simulator, if the demo has started them.
    pub(super) async fn stop(self) {
        let Self::Own {
            workers,
            stop_workers,
            simulating,
            stop_simulator,
            ..
        } = self
        else {
            return;
        };
        stop_workers.cancel();
        workers.close();
        workers.wait().await;
        stop_simulator.cancel();
        simulating.close();
        simulating.wait().await;
    }
}

fn worker_settings(servers: &Servers, twilio_url: Url, public_url: Url) -> WorkerSettings {
    WorkerSettings {
        amqp_url: servers.amqp_url.clone(),
        database_url: servers.database_url.clone(),
        keys: servers.keys.clone(),
        twilio_url: Some(twilio_url),
        public_url: Some(public_url),
        listen: String::new(),
        grace: Duration::from_secs(10),
        prefetch: 1000,
        lanes: LaneCount::default(),
        database_pool: 8,
        retention: Duration::from_hours(7 * 24),
        // Shorter than the defaults, so that unknown outcomes are settled within the demo.
        tuning: Tuning {
            post_timeout: Duration::from_secs(4),
            absence_after: Duration::from_secs(3),
            ..Tuning::default()
        },
    }
}

/// A listener on a free port, and its URL.
async fn listen() -> anyhow::Result<(TcpListener, Url)> {
    let listener = voice_otp_server::listen("127.0.0.1:0").await?;
    let address = listener.local_addr().context("read the address")?;
    let url = Url::parse(&format!("http://{address}")).context("make a URL")?;
    Ok((listener, url))
}
