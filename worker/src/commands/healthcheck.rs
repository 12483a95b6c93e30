//! `voice-otp healthcheck`: for a container that has nothing else to ask with.

use std::time::Duration;

use anyhow::{Context as _, anyhow};

use crate::cli::Healthcheck;
use crate::verb::Failed;

pub(crate) async fn run(args: Healthcheck) -> Result<(), Failed> {
    let port = args.listen.rsplit(':').next().unwrap_or_default();
    let host = args
        .listen
        .strip_suffix(&format!(":{port}"))
        .unwrap_or_default();
    let host = if matches!(host, "0.0.0.0" | "[::]" | "") {
        "127.0.0.1"
    } else {
        host
    };
    let client = reqwest::Client::builder()
        .timeout(Duration::from_secs(3))
        .no_proxy()
        .build()
        .context("make a client")?;
    let answer = client
        .get(format!("http://{host}:{port}/readyz"))
        .send()
        .await
        .context("ask the worker")?;
    if answer.status().is_success() {
        return Ok(());
    }
    let text = answer.text().await.unwrap_or_default();
    Err(Failed::Error(anyhow!(
        "the worker is not ready: {}",
        text.trim().replace('\n', ", ")
    )))
}
