//! `voice-otp watch`.

use voice_otp_publisher::link;
use voice_otp_schemas::TenantId;

use crate::cli::Watch;
use crate::config::Checks;
use crate::tail::{Tail, line};
use crate::telemetry::say;
use crate::verb::{Failed, signals};

pub(crate) async fn run(args: Watch) -> Result<(), Failed> {
    let mut checks = Checks::default();
    let url = checks.broker(&args.broker);
    if let Some(tenant) = &args.tenant
        && let Err(error) = TenantId::parse(tenant)
    {
        checks.wrong(format!("--tenant: {error}"));
    }
    let url = checks.done(url)?;
    let (soft, _) = signals();
    let mut tries = 0;
    loop {
        let watching = async {
            let mut tail = Tail::start(&url, args.tenant.as_deref()).await?;
            tries = 0;
            while let Some((text, event)) = tail.next().await {
                say(&if args.json { text } else { line(&event) })?;
            }
            anyhow::bail!("the connection to the broker was lost")
        };
        let error: anyhow::Error = tokio::select! {
            ended = watching => match ended {
                Ok(()) => return Ok(()),
                Err(error) if error.is::<std::io::Error>() => return Ok(()),
                Err(error) => error,
            },
            () = soft.cancelled() => return Ok(()),
        };
        tracing::warn!(error = %error, "not watching, trying again");
        tokio::select! {
            () = tokio::time::sleep(link::pause(tries)) => tries += 1,
            () = soft.cancelled() => return Ok(()),
        }
    }
}
