//! The measured programs, as processes.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use secrecy::ExposeSecret as _;
use tokio::process::{Child, Command};

use crate::broker::Vhost;
use crate::database::Database;

/// A voice-otp worker.
pub(crate) struct Worker {
    child: Child,
    address: String,
}

/// The path of `voice-otp`: `VOICE_OTP_PROGRAM`, or the one that is built beside this program.
pub(crate) fn program() -> anyhow::Result<PathBuf> {
    if let Some(path) = std::env::var_os("VOICE_OTP_PROGRAM") {
        return Ok(path.into());
    }
    let path = std::env::current_exe()?.with_file_name("voice-otp");
    anyhow::ensure!(
        path.exists(),
        "{} is missing: run it with ./dev bench",
        path.display()
    );
    Ok(path)
}

impl Worker {
    /// Starts a worker, and waits until it is ready.
    pub(crate) async fn start(
        vhost: &Vhost,
        database: &Database,
        twilio_url: &str,
        settings: &[(&str, &str)],
    ) -> anyhow::Result<Self> {
        let worker = Self::spawn(vhost, database, twilio_url, settings)?;
        worker.ready().await?;
        Ok(worker)
    }

    /// Starts a worker.
    pub(crate) fn spawn(
        vhost: &Vhost,
        database: &Database,
        twilio_url: &str,
        settings: &[(&str, &str)],
    ) -> anyhow::Result<Self> {
        let address = format!("127.0.0.1:{}", free_port()?);
        let child = Command::new(program()?)
            .arg("worker")
            .env("VOICE_OTP_AMQP_URL", vhost.url.expose_secret())
            .env("VOICE_OTP_DATABASE_URL", database.url())
            .env("VOICE_OTP_KEYS", database.keys_text.expose_secret())
            .env("VOICE_OTP_TWILIO_URL", twilio_url)
            .env("VOICE_OTP_PUBLIC_URL", format!("http://{address}"))
            .env("VOICE_OTP_ALLOW_HTTP", "true")
            .env("VOICE_OTP_LISTEN", &address)
            .env("VOICE_OTP_LOG", "warn")
            .envs(settings.iter().copied())
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .context("start a worker")?;
        Ok(Self { child, address })
    }

    /// Starts a worker that listens at `address`, which its settings name too, and writes its log
    /// to `log`.
    pub(crate) fn spawn_in(
        settings: &[(&str, String)],
        address: String,
        log: Stdio,
    ) -> anyhow::Result<Self> {
        let child = Command::new(program()?)
            .arg("worker")
            .envs(settings.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .context("start a worker")?;
        Ok(Self { child, address })
    }

    /// Sends a signal.
    pub(crate) async fn signal(&self, name: &str) -> anyhow::Result<()> {
        let pid = self.child.id().context("the worker is running")?;
        let sent = Command::new("kill")
            .args([format!("-{name}"), pid.to_string()])
            .status()
            .await?;
        anyhow::ensure!(sent.success(), "kill -{name}: {sent}");
        Ok(())
    }

    pub(crate) async fn ready(&self) -> anyhow::Result<()> {
        let client = reqwest::Client::new();
        for _ in 0..6000 {
            let answer = client
                .get(format!("http://{}/readyz", self.address))
                .send()
                .await;
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        anyhow::bail!("the worker does not become ready")
    }

    /// The worker's peak memory, in bytes.
    pub(crate) fn peak_memory_bytes(&self) -> anyhow::Result<u64> {
        peak_memory_bytes(&self.child)
    }

    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        terminate(&mut self.child).await
    }

    /// Sends SIGKILL, as a crash.
    pub(crate) async fn kill(mut self) -> anyhow::Result<()> {
        Ok(self.child.kill().await?)
    }
}

/// A port that is free now.
pub(crate) fn free_port() -> anyhow::Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?
        .local_addr()?
        .port())
}

/// A program's peak memory, in bytes.
pub(crate) fn peak_memory_bytes(child: &Child) -> anyhow::Result<u64> {
    let pid = child.id().context("the process is running")?;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .context("VmHWM")?;
    let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kilobytes * 1024)
}

/// Sends SIGTERM, waits, and kills the program if it doesn't stop.
pub(crate) async fn terminate(child: &mut Child) -> anyhow::Result<()> {
    if let Some(pid) = child.id() {
        Command::new("kill")
            .args(["-TERM", &pid.to_string()])
            .status()
            .await?;
    }
    if tokio::time::timeout(Duration::from_secs(20), child.wait())
        .await
        .is_err()
    {
        child.kill().await?;
    }
    Ok(())
}
