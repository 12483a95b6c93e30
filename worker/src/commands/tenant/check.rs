//! `voice-otp tenant check`.

use std::time::Duration;

use anyhow::Context as _;
use voice_otp_twilio::check::{Finding, Verdict, check};
use voice_otp_twilio::client::{self, Client};

use crate::args::{Database, EncryptionKeys, TwilioUrls};
use crate::commands::CommandError;
use crate::commands::database::{load_tenant, open};
use crate::commands::input::tenant_id;
use crate::config::ArgumentChecker;
use crate::output::{print_json, print_line};

/// The timeout of a connection to Twilio, and of a request.
const TIMEOUT: Duration = Duration::from_secs(15);

pub(super) async fn run(
    id: &str,
    json: bool,
    twilio: &TwilioUrls,
    database: &Database,
    keys: &EncryptionKeys,
) -> Result<(), CommandError> {
    let mut checker = ArgumentChecker::default();
    let id = tenant_id(&mut checker, id);
    let (keys, url) = (checker.keys(keys), checker.database(database));
    let (base_url, public_url) = checker.twilio_urls(twilio);
    let (id, keys, url) = checker.finish(|| Some((id?, keys?, url?)))?;
    let settings = load_tenant(&open(&url).await?, &keys, &id).await?;
    let client = Client::new(client::Settings {
        base_url,
        public_url,
        connect_timeout: TIMEOUT,
        timeout: TIMEOUT,
    })
    .context("make an HTTP client")?;
    let findings = check(&client, &settings).await;
    if json {
        print_json(&findings)?;
    } else {
        for finding in &findings {
            print_line(&lines(finding))?;
        }
        if !settings.enabled {
            print_line("The tenant is disabled: voice-otp tenant set --enable")?;
        }
    }
    if findings.iter().any(Finding::is_bad) {
        Err(CommandError::Reported)
    } else {
        Ok(())
    }
}

/// A finding as text: the verdict and what was found, then what to do.
fn lines(finding: &Finding) -> String {
    let (word, style) = match finding.verdict {
        Verdict::Ok => ("ok", console::Style::new().green()),
        Verdict::Warning => ("warning", console::Style::new().yellow()),
        Verdict::Fault => ("failed", console::Style::new().red()),
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
