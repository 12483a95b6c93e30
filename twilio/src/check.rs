//! Checks whether a tenant's settings can work: against Twilio's API, and against the workers'
//! public URL.

use voice_otp::settings::VoiceSettings;

pub use self::finding::{Check, Finding, Verdict};

use crate::client::Client;

mod callback;
mod calling;
mod credentials;
mod finding;

/// Checks a tenant's settings. Changes nothing, and places no call.
pub async fn check(client: &Client, settings: &VoiceSettings) -> Vec<Finding> {
    let mut findings = credentials::check(client, settings).await;
    let usable = findings
        .iter()
        .all(|finding| finding.verdict != Verdict::Fault);
    if usable {
        findings.push(calling::check_from(client, settings).await);
        findings.extend(calling::check_countries(client, settings).await);
        findings.push(calling::check_balance(client, settings).await);
    }
    findings.push(callback::check(client, settings).await);
    findings
}
