//! `voice-otp healthcheck`: for a container image without any other HTTP client.

use std::time::Duration;

use anyhow::{Context as _, anyhow};

use super::CommandError;
use crate::args::Healthcheck;

const TIMEOUT: Duration = Duration::from_secs(3);

pub(super) async fn run(args: Healthcheck) -> Result<(), CommandError> {
    let (host, port) = args.listen.rsplit_once(':').unwrap_or(("", &args.listen));
    // A worker that listens on every address is asked on the loopback one.
    let host = if matches!(host, "0.0.0.0" | "[::]" | "") {
        "127.0.0.1"
    } else {
        host
    };
    let client = reqwest::Client::builder()
        .timeout(TIMEOUT)
        .no_proxy()
        .build()
        .context("make an HTTP client")?;
    let answer = client
        .get(format!("http://{host}:{port}/readyz"))
        .send()
        .await
        .context("ask the worker")?;
    if answer.status().is_success() {
        return Ok(());
    }
    let text = answer.text().await.context("read the worker's answer")?;
    let parts = text.trim().replace('\n', ", ");
    Err(CommandError::Failed(anyhow!(
        "the worker is not ready: {parts}"
    )))
}
