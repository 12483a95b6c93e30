//! `voice-otp watch`.

use std::collections::HashSet;
use std::time::Duration;

use voice_otp_publisher::clock;
use voice_otp_publisher::connection::reconnect_delay;
use voice_otp_publisher::statuses::StatusStream;
use voice_otp_schemas::TenantId;

use super::{CommandError, shutdown_signals, status_line};
use crate::args::Watch;
use crate::config::ArgumentChecker;
use crate::output::print_line;

/// Half of the events that are remembered. After a lost connection the log is read again from where
/// the older half begins, and what was printed before is skipped.
const REMEMBERED_EVENTS: usize = 20_000;
/// The maximum difference between an event's time and its place in the log.
const CLOCK_SKEW: Duration = Duration::from_secs(10);
/// The retention of the log of statuses: `--since` reaches no further back.
const MAX_SINCE: Duration = Duration::from_hours(30 * 24);

pub(super) async fn run(args: Watch) -> Result<(), CommandError> {
    let mut checker = ArgumentChecker::default();
    let url = checker.broker(&args.broker, &args.cleartext);
    if let Some(tenant) = &args.tenant {
        checker.parse("--tenant", tenant, TenantId::parse);
    }
    let since = args.since.as_deref();
    let back =
        since.and_then(|text| checker.duration("--since", text, Duration::from_secs(1), MAX_SINCE));
    let url = checker.finish(|| url)?;
    let mut since = back.map(|back| clock::now() - back);
    // The events printed last, in two halves, each up to `REMEMBERED_EVENTS`.
    let (mut older, mut newer) = (HashSet::new(), HashSet::new());
    let mut newer_began = clock::now() - CLOCK_SKEW;
    let (soft, _) = shutdown_signals();
    let mut failures = 0;
    loop {
        let watching = async {
            let tenant = args.tenant.as_deref();
            let mut statuses = match since {
                Some(since) => StatusStream::since(&url, tenant, since).await?,
                None => StatusStream::subscribe(&url, tenant).await?,
            };
            failures = 0;
            while let Some((text, event)) = statuses.next().await {
                if let Some(from) = &mut since {
                    if older.contains(&text) || !newer.insert(text.clone()) {
                        continue;
                    }
                    if newer.len() > REMEMBERED_EVENTS {
                        older = std::mem::take(&mut newer);
                        *from = std::mem::replace(&mut newer_began, clock::now() - CLOCK_SKEW);
                    }
                }
                print_line(&if args.json {
                    text
                } else {
                    status_line::received(&event)
                })?;
            }
            anyhow::bail!("the connection to the broker was lost")
        };
        let error: anyhow::Error = tokio::select! {
            ended = watching => match ended {
                Ok(()) => return Ok(()),
                // Standard output is closed.
                Err(error) if error.is::<std::io::Error>() => return Ok(()),
                Err(error) => error,
            },
            () = soft.cancelled() => return Ok(()),
        };
        tracing::warn!(error = %error, "failed to read statuses; retrying");
        tokio::select! {
            () = tokio::time::sleep(reconnect_delay(failures)) => failures += 1,
            () = soft.cancelled() => return Ok(()),
        }
    }
}
