//! `voice-otp watch`.

use std::collections::HashSet;
use std::time::Duration;

use voice_otp_publisher::link;
use voice_otp_schemas::TenantId;

use crate::cli::Watch;
use crate::config::Checks;
use crate::tail::Tail;
use crate::telemetry::say;
use crate::verb::{Failed, publish_clock, signals};

/// How many events are remembered at the least, so that none is shown twice after a lost connection.
const REMEMBERED: usize = 20_000;
/// How much later than its time an event may be in the log.
const SKEW: Duration = Duration::from_secs(10);

pub(crate) async fn run(args: Watch) -> Result<(), Failed> {
    let mut checks = Checks::default();
    let url = checks.broker(&args.broker);
    if let Some(tenant) = &args.tenant
        && let Err(error) = TenantId::parse(tenant)
    {
        checks.wrong(format!("--tenant: {error}"));
    }
    let longest = Duration::from_hours(30 * 24);
    let back = args
        .since
        .as_deref()
        .and_then(|text| checks.duration("--since", text, Duration::from_secs(1), longest));
    let url = checks.done(url)?;
    let mut since = back.map(|back| publish_clock() - back);
    // What was told lately, in two halves: after a lost connection some of it is read again.
    let (mut old, mut young) = (HashSet::new(), HashSet::new());
    let mut turned = publish_clock() - SKEW;
    let (soft, _) = signals();
    let mut tries = 0;
    loop {
        let watching = async {
            let tenant = args.tenant.as_deref();
            let mut tail = match since {
                Some(since) => Tail::since(&url, tenant, since).await?,
                None => Tail::start(&url, tenant).await?,
            };
            tries = 0;
            while let Some((text, event)) = tail.next().await {
                if let Some(from) = &mut since {
                    if old.contains(&text) || !young.insert(text.clone()) {
                        continue;
                    }
                    if young.len() > REMEMBERED {
                        old = std::mem::take(&mut young);
                        // What is read again after a lost connection is remembered: it reaches back to where the older half began.
                        *from = std::mem::replace(&mut turned, publish_clock() - SKEW);
                    }
                }
                say(&if args.json { text } else { event.line() })?;
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
