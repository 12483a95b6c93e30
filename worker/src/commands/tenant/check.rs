//! `voice-otp tenant check`.

use std::time::Duration;

use anyhow::{Context as _, anyhow};
use voice_otp_store::settings;
use voice_otp_twilio::check::{Finding, Verdict, check};
use voice_otp_twilio::client::{self, Client};

use super::{open, tenant_id};
use crate::cli::{Database, Reach, Sealing};
use crate::config::Checks;
use crate::telemetry::say;
use crate::verb::Failed;

/// The longest an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(15);

pub(super) async fn run(
    id: &str,
    json: bool,
    reach: &Reach,
    database: &Database,
    sealing: &Sealing,
) -> Result<(), Failed> {
    let mut checks = Checks::default();
    let id = tenant_id(&mut checks, id);
    let (keys, url) = (checks.keys(sealing), checks.database(database));
    let (base_url, public_url) = checks.reach(reach);
    let (id, keys, url) = checks.done(
        id.zip(keys)
            .zip(url)
            .map(|((id, keys), url)| (id, keys, url)),
    )?;
    let pool = open(Checks::default(), Some(url)).await?;
    let found = settings::load_one(&pool, &keys, &id)
        .await
        .context("read the settings")?;
    let settings =
        found.ok_or_else(|| anyhow!("there is no tenant {id}; voice-otp tenant set makes one"))?;
    let client = Client::new(client::Settings {
        base_url,
        public_url,
        connect_timeout: PATIENCE,
        timeout: PATIENCE,
    })
    .context("make an HTTP client")?;
    let findings = check(&client, &settings).await;
    if json {
        say(&serde_json::to_string_pretty(&findings).context("write JSON")?)?;
    } else {
        for finding in &findings {
            say(&lines(finding))?;
        }
        if !settings.enabled {
            say("voice is switched off for the tenant: voice-otp tenant set --enable")?;
        }
    }
    if findings.iter().any(Finding::is_bad) {
        Err(Failed::Told)
    } else {
        Ok(())
    }
}

/// A finding for a person.
fn lines(finding: &Finding) -> String {
    let (word, style) = match finding.verdict {
        Verdict::Ok => ("ok", console::Style::new().green()),
        Verdict::Warning => ("warning", console::Style::new().yellow()),
        Verdict::Fault => ("fault", console::Style::new().red()),
        Verdict::Unknown => ("unknown", console::Style::new().dim()),
    };
    let mut text = format!(
        "{} {}: {}",
        style.apply_to(format!("{word:<8}")),
        finding.code,
        finding.message
    );
    if let Some(remedy) = &finding.remedy {
        text.push_str(&format!("\n         {remedy}"));
    }
    text
}
