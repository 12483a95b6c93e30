//! The servers of `./dev cluster`, which the same command breaks and mends.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::process::Command;

use crate::broker::from_environment;

/// A command's time limit: starting a node takes long on a busy machine.
const LONGEST: Duration = Duration::from_mins(5);

pub(crate) struct Servers {
    dev: PathBuf,
    /// Where the cluster keeps its files.
    directory: PathBuf,
    /// The nodes' addresses.
    nodes: Vec<String>,
    /// `user:password` of the broker.
    credentials: SecretString,
    /// The vhost of this run.
    vhost: String,
}

impl Servers {
    /// Finds the running cluster, and makes a vhost in it.
    pub(crate) async fn find() -> anyhow::Result<Self> {
        let url = from_environment("VOICE_OTP_AMQP_URL")?;
        let credentials = url
            .strip_prefix("amqp://")
            .and_then(|rest| rest.split_once('@'))
            .context("VOICE_OTP_AMQP_URL has credentials")?
            .0;
        let servers = Self {
            dev: from_environment("VOICE_OTP_CLUSTER_DEV")?.into(),
            directory: from_environment("VOICE_OTP_CLUSTER_DIR")?.into(),
            nodes: from_environment("VOICE_OTP_CLUSTER_NODES")?
                .split(',')
                .filter(|node| !node.is_empty())
                .map(str::to_owned)
                .collect(),
            credentials: credentials.into(),
            vhost: format!("chaos-{}", uuid::Uuid::new_v4().simple()),
        };
        servers.dev(&["vhost", &servers.vhost]).await?;
        Ok(servers)
    }

    /// Runs `./dev cluster` with these arguments, and returns what it printed.
    async fn dev(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let running = Command::new(&self.dev)
            .arg("cluster")
            .args(arguments)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let output = tokio::time::timeout(LONGEST, running)
            .await
            .with_context(|| {
                format!("./dev cluster {arguments:?} takes longer than {LONGEST:?}")
            })??;
        anyhow::ensure!(
            output.status.success(),
            "./dev cluster {arguments:?} failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// The nodes' addresses, beginning with the `first`th.
    pub(crate) fn nodes_from(&self, first: usize) -> Vec<String> {
        let mut nodes = self.nodes.clone();
        let count = nodes.len().max(1);
        nodes.rotate_left(first % count);
        nodes
    }

    /// The AMQP URL at a balancer.
    pub(crate) fn amqp_url(&self, balancer: &str) -> SecretString {
        let credentials = self.credentials.expose_secret();
        format!("amqp://{credentials}@{balancer}/{}", self.vhost).into()
    }

    /// The node that leads the most lanes.
    pub(crate) async fn leader(&self) -> anyhow::Result<String> {
        self.dev(&["leader", &self.vhost]).await
    }

    /// The Postgres that is the primary.
    pub(crate) async fn primary(&self) -> anyhow::Result<String> {
        self.dev(&["primary"]).await
    }

    /// Waits until the watchdog has promoted another Postgres.
    pub(crate) async fn other_primary_than(&self, former: &str) -> anyhow::Result<()> {
        let start = Instant::now();
        while self.primary().await? == former {
            anyhow::ensure!(start.elapsed() < LONGEST, "the standby isn't promoted");
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        Ok(())
    }

    pub(crate) async fn kill(&self, server: &str) -> anyhow::Result<()> {
        self.dev(&["kill", server]).await.map(drop)
    }

    pub(crate) async fn freeze(&self, server: &str) -> anyhow::Result<()> {
        self.dev(&["freeze", server]).await.map(drop)
    }

    pub(crate) async fn thaw(&self, server: &str) -> anyhow::Result<()> {
        self.dev(&["thaw", server]).await.map(drop)
    }

    /// Starts a node that was killed.
    pub(crate) async fn start(&self, node: &str) -> anyhow::Result<()> {
        self.dev(&["start", node]).await.map(drop)
    }

    /// Cuts a node off from the others.
    pub(crate) async fn cut(&self, node: &str) -> anyhow::Result<()> {
        self.dev(&["cut", node]).await.map(drop)
    }

    pub(crate) async fn heal(&self, node: &str) -> anyhow::Result<()> {
        self.dev(&["heal", node]).await.map(drop)
    }

    /// Waits until every node and the synchronous standby are in order.
    pub(crate) async fn wait_until_healthy(&self) -> anyhow::Result<()> {
        self.dev(&["wait"]).await.map(drop)
    }

    /// What happened to the former primaries that woke up, a line each.
    pub(crate) fn fencing(&self) -> anyhow::Result<Vec<String>> {
        let text = std::fs::read_to_string(self.directory.join("fencing.log"))?;
        Ok(text.lines().map(str::to_owned).collect())
    }
}
