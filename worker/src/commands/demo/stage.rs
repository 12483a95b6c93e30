//! The demo's stage: the simulator, two workers, four tenants.

use std::time::Duration;

use anyhow::{Context as _, anyhow};
use secrecy::SecretString;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use url::Url;
use voice_otp::Tuning;
use voice_otp::policy::{Again, Outcome, Voicemail};
use voice_otp::settings::Draft;
use voice_otp::speech::EVERY_LOCALE;
use voice_otp_schemas::request::rfc3339;
use voice_otp_schemas::{TenantId, Timestamp};
use voice_otp_store::{Keyring, pool::Pool, settings};
use voice_otp_twilio::simulator::{Account, CallReport, Settings, Simulator};

use super::cases::{ACME, GLOBEX, INITECH, UMBRELLA};
use crate::config::WorkerSettings;
use crate::verb::{publish_clock, worker};

pub(super) enum Stage {
    /// Of the demo's own.
    Own {
        simulator: Simulator,
        workers: TaskTracker,
        soft: CancellationToken,
        simulating: TaskTracker,
        curtain: CancellationToken,
        twilio_url: Url,
        public_url: Url,
    },
    /// A simulator and workers that run elsewhere.
    Found {
        http: reqwest::Client,
        simulator: Url,
        since: Timestamp,
    },
}

/// The longest a simulator elsewhere may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

struct Tenant {
    id: &'static str,
    account_sid: &'static str,
    auth_token: &'static str,
    from: &'static str,
    calls_per_second: f64,
    test_mode: bool,
}

/// Nothing but the simulator knows these accounts.
const TENANTS: [Tenant; 4] = [
    Tenant {
        id: ACME,
        account_sid: "ACaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        auth_token: "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        from: "+12025550190",
        calls_per_second: 10.0,
        test_mode: false,
    },
    Tenant {
        id: GLOBEX,
        account_sid: "ACbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb",
        auth_token: "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb",
        from: "+34911230067",
        calls_per_second: 1.0,
        test_mode: false,
    },
    Tenant {
        id: INITECH,
        account_sid: "ACcccccccccccccccccccccccccccccccc",
        auth_token: "cccccccccccccccccccccccccccccccc",
        from: "+12025550192",
        calls_per_second: 1.0,
        test_mode: true,
    },
    Tenant {
        id: UMBRELLA,
        account_sid: "ACdddddddddddddddddddddddddddddddd",
        auth_token: "dddddddddddddddddddddddddddddddd",
        from: "+12025550193",
        calls_per_second: 10.0,
        test_mode: false,
    },
];

impl Stage {
    pub(super) async fn set(
        amqp_url: &SecretString,
        database_url: &SecretString,
        keys: &Keyring,
        pool: &Pool,
    ) -> anyhow::Result<Self> {
        save_tenants(keys, pool).await?;
        let simulator = Simulator::new(Settings {
            accounts: accounts(),
            seed: 1,
            speed: 4.0,
        });
        let (curtain, simulating) = (CancellationToken::new(), TaskTracker::new());
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .context("listen for the simulator")?;
        let twilio_url = url_of(&listener)?;
        let playing = simulator.clone().serve(listener, curtain.clone());
        simulating.spawn(async move {
            if let Err(error) = playing.await {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "the simulator failed"
                );
            }
        });
        let (soft, workers) = (CancellationToken::new(), TaskTracker::new());
        let mut public_url = None;
        for _ in 0..2 {
            let listener = TcpListener::bind("127.0.0.1:0")
                .await
                .context("listen for a worker")?;
            let url = url_of(&listener)?;
            public_url.get_or_insert_with(|| url.clone());
            let settings = WorkerSettings {
                amqp_url: amqp_url.clone(),
                database_url: database_url.clone(),
                keys: keys.clone(),
                twilio_url: Some(twilio_url.clone()),
                public_url: Some(url),
                listen: String::new(),
                grace: Duration::from_secs(10),
                prefetch: 1000,
                database_pool: 8,
                retention: Duration::from_hours(7 * 24),
                // Quicker than for real, so that unknown outcomes are settled while one watches.
                tuning: Tuning {
                    post_timeout: Duration::from_secs(4),
                    settle_absent: Duration::from_secs(3),
                    ..Tuning::default()
                },
            };
            let serving = worker::serve(settings, listener, soft.clone(), CancellationToken::new());
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
            soft,
            simulating,
            curtain,
            twilio_url,
            public_url,
        })
    }

    /// Brings the demo's accounts to a simulator that runs, and its tenants to the workers there.
    pub(super) async fn find(simulator: Url, keys: &Keyring, pool: &Pool) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder()
            .timeout(PATIENCE)
            .build()
            .context("make an HTTP client")?;
        for account in accounts() {
            let url = simulator.join("simulator/accounts").context("make a URL")?;
            let put = http
                .post(url)
                .json(&account)
                .send()
                .await
                .and_then(reqwest::Response::error_for_status);
            put.context("add an account to the simulator")?;
        }
        save_tenants(keys, pool).await?;
        Ok(Self::Found {
            http,
            simulator,
            since: publish_clock(),
        })
    }

    /// Where Twilio is here, and where it finds a worker.
    pub(super) fn reach(&self) -> (Url, Option<Url>) {
        match self {
            Self::Own {
                twilio_url,
                public_url,
                ..
            } => (twilio_url.clone(), Some(public_url.clone())),
            Self::Found { simulator, .. } => (simulator.clone(), None),
        }
    }

    /// Who places the calls.
    pub(super) fn workers(&self) -> &'static str {
        match self {
            Self::Own { .. } => "2 workers",
            Self::Found { .. } => "the workers that run",
        }
    }

    /// The demo's calls.
    pub(super) async fn calls(&self) -> anyhow::Result<Vec<CallReport>> {
        match self {
            Self::Own { simulator, .. } => Ok(simulator.calls()),
            Self::Found {
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

    /// Stops the workers, then the simulator, if they are the demo's own.
    pub(super) async fn strike(self) {
        let Self::Own {
            workers,
            soft,
            simulating,
            curtain,
            ..
        } = self
        else {
            return;
        };
        soft.cancel();
        workers.close();
        workers.wait().await;
        curtain.cancel();
        simulating.close();
        simulating.wait().await;
    }
}

/// The demo's accounts at Twilio.
fn accounts() -> Vec<Account> {
    let account = |tenant: &Tenant| Account {
        numbers: vec![tenant.from.to_owned()],
        // The pace is kept on our side; Twilio's own is wider, so that its queue doesn't hide a mistake of ours.
        calls_per_second: 100.0,
        ..Account::new(tenant.account_sid, tenant.auth_token)
    };
    TENANTS.iter().map(account).collect()
}

async fn save_tenants(keys: &Keyring, pool: &Pool) -> anyhow::Result<()> {
    for tenant in &TENANTS {
        let draft = Draft {
            account_sid: tenant.account_sid.to_owned(),
            auth_token: SecretString::from(tenant.auth_token),
            from: tenant.from.to_owned(),
            enabled: true,
            test_mode: tenant.test_mode,
            ..Draft::default()
        };
        let draft = if tenant.id == UMBRELLA {
            careful(draft)
        } else {
            draft
        };
        let id = TenantId::parse(tenant.id).map_err(|error| anyhow!(error))?;
        let checked = draft
            .check(id)
            .map_err(|problems| anyhow!("{problems:?}"))?;
        settings::save(pool, keys, &checked, Some(tenant.calls_per_second))
            .await
            .context("save a tenant")?;
        // As after a first call: from then on a tenant has its account's pace, and not one of its own.
        if let Some(saved) = settings::load_one(pool, keys, &checked.tenant_id)
            .await
            .context("read a tenant")?
        {
            settings::prove(pool, &saved)
                .await
                .context("prove a tenant")?;
        }
    }
    Ok(())
}

/// A tenant that has codes read only to who presses a key, and busy lines called again.
fn careful(mut draft: Draft) -> Draft {
    draft.voicemail = Voicemail::PressKey;
    draft.redial.set(
        Outcome::Busy,
        Again {
            times: 1,
            after_s: 5,
        },
    );
    draft
        .manner
        .brands
        .insert(EVERY_LOCALE.to_owned(), "Umbrella Bank".to_owned());
    draft
}

fn url_of(listener: &TcpListener) -> anyhow::Result<Url> {
    let address = listener.local_addr().context("read an address")?;
    Url::parse(&format!("http://{address}")).context("make a URL")
}
