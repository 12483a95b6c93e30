//! Checks the From number, the allowed countries and the balance.

use voice_otp::settings::VoiceSettings;

use super::finding::{Check, Finding, Verdict};
use crate::account::Ownership;
use crate::client::Client;

/// A balance below this is a warning, in the account's currency. It pays for some dozens of calls.
const LOW_BALANCE: f64 = 5.0;

pub(super) async fn check_from(client: &Client, settings: &VoiceSettings) -> Finding {
    let number = settings.from.expose();
    match client.ownership(settings, &settings.from).await {
        Ok(Ownership::Owned) => Finding::new(
            Check::From,
            Verdict::Ok,
            "from_owned",
            format!("the account owns {number}, and it can make calls"),
        ),
        Ok(Ownership::Verified) => Finding::new(
            Check::From,
            Verdict::Ok,
            "from_verified",
            format!("{number} is a verified caller ID of the account"),
        ),
        Ok(Ownership::WithoutVoice) => Finding::new(
            Check::From,
            Verdict::Fault,
            "from_without_voice",
            format!("the account owns {number}, but it can't make calls"),
        )
        .with_remedy("set a From number with the Voice capability"),
        Ok(Ownership::NotOwned) => Finding::new(
            Check::From,
            Verdict::Fault,
            "from_not_owned",
            format!("the account neither owns {number} nor has verified it as a caller ID"),
        )
        .with_remedy(
            "buy the number in this account, verify it as a caller ID, or set another From number",
        ),
        Err(failure) => Finding::unknown(Check::From, &failure),
    }
}

pub(super) async fn check_countries(client: &Client, settings: &VoiceSettings) -> Vec<Finding> {
    let mut findings = Vec::new();
    let (mut allowed, mut blocked, mut high_risk) = (Vec::new(), Vec::new(), Vec::new());
    for country in &settings.allowed_countries {
        match client.dialing_permission(settings, *country).await {
            Ok(permission) if permission.low_risk_numbers_enabled != Some(true) => {
                blocked.push(country.as_str());
            }
            Ok(permission) => {
                allowed.push(country.as_str());
                let risks = [
                    permission.high_risk_special_numbers_enabled,
                    permission.high_risk_tollfraud_numbers_enabled,
                ];
                if risks.contains(&Some(true)) {
                    high_risk.push(country.as_str());
                }
            }
            Err(failure) => findings.push(Finding::unknown(Check::Countries, &failure)),
        }
    }
    // One finding is enough to report that countries could not be checked.
    findings.truncate(1);
    if !allowed.is_empty() {
        findings.push(Finding::new(
            Check::Countries,
            Verdict::Ok,
            "countries_open",
            format!("Twilio allows calls to: {}", allowed.join(", ")),
        ));
    }
    if !blocked.is_empty() {
        let finding = Finding::new(
            Check::Countries,
            Verdict::Fault,
            "country_blocked",
            format!(
                "the settings allow countries that Twilio's geographic permissions block: {}",
                blocked.join(", ")
            ),
        );
        findings.push(finding.with_remedy(
            "allow them in the Twilio Console under Voice, Settings, Geo permissions, or remove \
             them from the tenant's allowed countries",
        ));
    }
    if !high_risk.is_empty() {
        let finding = Finding::new(
            Check::Countries,
            Verdict::Warning,
            "high_risk_numbers_open",
            format!(
                "Twilio allows calls to premium or fraud-prone numbers in: {}",
                high_risk.join(", ")
            ),
        );
        findings.push(finding.with_remedy(
            "switch off both high-risk classes in Twilio's geographic permissions: verification \
             codes don't go to such numbers",
        ));
    }
    findings
}

pub(super) async fn check_balance(client: &Client, settings: &VoiceSettings) -> Finding {
    let balance = match client.balance(settings).await {
        Ok(balance) => balance,
        Err(failure) if failure.http_status == Some(404) => {
            return Finding::new(
                Check::Balance,
                Verdict::Unknown,
                "no_balance_of_its_own",
                "the account has no balance of its own: a subaccount shares its parent's",
            );
        }
        Err(failure) => return Finding::unknown(Check::Balance, &failure),
    };
    let amount = balance.balance.unwrap_or_default();
    let message = format!(
        "the balance is {amount} {}",
        balance.currency.unwrap_or_default()
    );
    let finding = |verdict, code| Finding::new(Check::Balance, verdict, code, message);
    match amount.parse::<f64>() {
        Ok(amount) if amount <= 0.0 => {
            finding(Verdict::Fault, "no_balance").with_remedy("add funds in the Twilio Console")
        }
        Ok(amount) if amount < LOW_BALANCE => finding(Verdict::Warning, "little_balance")
            .with_remedy("add funds, or enable auto-recharge"),
        Ok(_) => finding(Verdict::Ok, "balance"),
        Err(_) => Finding::new(
            Check::Balance,
            Verdict::Unknown,
            "not_checked",
            "the balance that Twilio reports is not a number",
        ),
    }
}
