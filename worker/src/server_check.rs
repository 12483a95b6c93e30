//! What a program does about its database server at start: it refuses one on which it can't work,
//! and logs what else isn't right, once.

use std::time::Duration;

use anyhow::{Context as _, bail};
use secrecy::SecretString;
use tokio_util::sync::CancellationToken;
use voice_otp_store::DatabaseUrl;
use voice_otp_store::grants::Program;
use voice_otp_store::server_checks::{self, Severity};

/// The pause between two tries to reach the server.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Checks the server as soon as it answers. Returns `false` if `stop` is cancelled before.
///
/// # Errors
/// When a pooler loses the program's sessions, or its role lacks rights.
pub(crate) async fn wait(
    url: &SecretString,
    program: Program,
    stop: &CancellationToken,
) -> anyhow::Result<bool> {
    let url = DatabaseUrl::parse(url).context("use the database URL")?;
    let mut failing = false;
    loop {
        match server_checks::check(&url, program).await {
            Ok(findings) => {
                report(&findings)?;
                return Ok(true);
            }
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "database unavailable; retrying"
                    );
                }
            }
        }
        tokio::select! {
            () = tokio::time::sleep(RETRY_PAUSE) => {}
            () = stop.cancelled() => return Ok(false),
        }
    }
}

/// Checks the server if it answers.
///
/// # Errors
/// As for [`wait`].
pub(crate) async fn once(url: &SecretString, program: Program) -> anyhow::Result<()> {
    let url = DatabaseUrl::parse(url).context("use the database URL")?;
    match server_checks::check(&url, program).await {
        Ok(findings) => report(&findings),
        Err(error) => {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the database server can't be checked"
            );
            Ok(())
        }
    }
}

fn report(findings: &[server_checks::Finding]) -> anyhow::Result<()> {
    for finding in findings {
        if finding.prevents_start() {
            bail!("{}", finding.text);
        }
        let (check, found) = (finding.name, &finding.text);
        match finding.severity {
            Severity::Ok => tracing::debug!(check, found, "database server checked"),
            Severity::Warning => tracing::warn!(check, found, "database server checked"),
            Severity::Error => tracing::error!(check, found, "database server checked"),
        }
    }
    Ok(())
}
