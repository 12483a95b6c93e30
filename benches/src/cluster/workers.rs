//! The workers under test, each of which has another node of the broker before it.

use std::path::PathBuf;

use anyhow::Context as _;
use secrecy::{ExposeSecret as _, SecretString};

use super::balancer::{Balancer, First};
use super::servers::Servers;
use super::traffic::LEAD;
use crate::broker::from_environment;
use crate::database::Database;
use crate::process::{Worker, free_port};

const WORKERS: usize = 3;

pub(crate) struct Workers {
    slots: Vec<Slot>,
    /// The worker that the current fault is about.
    chosen: usize,
    /// Twilio reaches the workers through this.
    _callbacks: Balancer,
}

/// Where a worker runs, one after the other.
struct Slot {
    environment: Vec<(&'static str, String)>,
    address: String,
    log: PathBuf,
    worker: Option<Worker>,
    _broker: Balancer,
}

impl Workers {
    /// Starts them, and waits until they are ready.
    pub(crate) async fn start(
        servers: &Servers,
        database: &Database,
        twilio_url: &str,
    ) -> anyhow::Result<Self> {
        let logs = PathBuf::from(from_environment("VOICE_OTP_CLUSTER_LOGS")?);
        let addresses = (0..WORKERS)
            .map(|_| Ok(format!("127.0.0.1:{}", free_port()?)))
            .collect::<anyhow::Result<Vec<_>>>()?;
        let callbacks = Balancer::before(addresses.clone(), First::Rotating).await?;
        let mut slots = Vec::new();
        for (n, address) in addresses.into_iter().enumerate() {
            let broker = Balancer::before(servers.nodes_from(n), First::Fixed).await?;
            let amqp_url = servers.amqp_url(&broker.address);
            let environment = environment(&amqp_url, database, twilio_url, &callbacks, &address);
            let mut slot = Slot {
                environment,
                address,
                log: logs.join(format!("worker-{}.log", n + 1)),
                worker: None,
                _broker: broker,
            };
            slot.start()?;
            slots.push(slot);
        }
        for slot in &slots {
            let worker = slot.worker.as_ref().context("it was started")?;
            worker.ready().await?;
        }
        Ok(Self {
            slots,
            chosen: 0,
            _callbacks: callbacks,
        })
    }

    /// Chooses the next worker for a fault, and returns its name.
    pub(crate) fn choose(&mut self) -> String {
        self.chosen = (self.chosen + 1) % self.slots.len().max(1);
        format!("worker-{}", self.chosen + 1)
    }

    fn chosen_slot(&mut self) -> anyhow::Result<&mut Slot> {
        self.slots.get_mut(self.chosen).context("a worker")
    }

    /// Kills the chosen one.
    pub(crate) async fn kill(&mut self) -> anyhow::Result<()> {
        let worker = self.chosen_slot()?.worker.take().context("it runs")?;
        worker.kill().await
    }

    /// Starts the chosen one again.
    pub(crate) fn restart(&mut self) -> anyhow::Result<()> {
        self.chosen_slot()?.start()
    }

    /// Sends the chosen one a signal.
    pub(crate) async fn signal(&mut self, name: &str) -> anyhow::Result<()> {
        let worker = self.chosen_slot()?.worker.as_ref().context("it runs")?;
        worker.signal(name).await
    }

    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        for slot in self.slots {
            if let Some(worker) = slot.worker {
                worker.stop().await?;
            }
        }
        Ok(())
    }
}

impl Slot {
    fn start(&mut self) -> anyhow::Result<()> {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(&self.log)
            .with_context(|| format!("open {}", self.log.display()))?;
        self.worker = Some(Worker::spawn_in(
            &self.environment,
            self.address.clone(),
            log.into(),
        )?);
        Ok(())
    }
}

fn environment(
    amqp_url: &SecretString,
    database: &Database,
    twilio_url: &str,
    callbacks: &Balancer,
    address: &str,
) -> Vec<(&'static str, String)> {
    vec![
        ("VOICE_OTP_AMQP_URL", amqp_url.expose_secret().to_owned()),
        ("VOICE_OTP_DATABASE_URL", database.url()),
        (
            "VOICE_OTP_KEYS",
            database.keys_text.expose_secret().to_owned(),
        ),
        ("VOICE_OTP_TWILIO_URL", twilio_url.to_owned()),
        (
            "VOICE_OTP_PUBLIC_URL",
            format!("http://{}", callbacks.address),
        ),
        ("VOICE_OTP_ALLOW_HTTP", "true".to_owned()),
        ("VOICE_OTP_LISTEN", address.to_owned()),
        ("VOICE_OTP_LOG", "warn".to_owned()),
        ("VOICE_OTP_LEAD", format!("{}s", LEAD.as_secs())),
        ("VOICE_OTP_POST_TIMEOUT", "2s".to_owned()),
        ("VOICE_OTP_SETTLE_AFTER", "2s".to_owned()),
        ("VOICE_OTP_GRACE", "10s".to_owned()),
    ]
}
