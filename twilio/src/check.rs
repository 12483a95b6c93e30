//! Whether a tenant's settings can work: asked of Twilio, and of the worker by its public URL.

use secrecy::ExposeSecret as _;
use serde::Serialize;
use voice_otp::failure::{CallFailure, Class, Fault};
use voice_otp::settings::{Region, VoiceSettings};

use crate::account::Ownership;
use crate::client::{Client, PROBE_ANSWER};
use crate::signature;

/// What was found about one matter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The matter.
    pub check: Check,
    /// How grave it is.
    pub verdict: Verdict,
    /// A constant word for what was found.
    pub code: &'static str,
    /// What was found, in a sentence. Never a secret.
    pub message: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// What is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Check {
    /// The auth token, and the API key where there is one.
    Credentials,
    /// Whether the account is active.
    Account,
    /// Whether calls can come from the From number.
    From,
    /// Whether the allowed countries may be called.
    Countries,
    /// Whether there is money for calls.
    Balance,
    /// Whether Twilio's callbacks reach a worker.
    Callback,
}

/// How grave a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// Calls go out, and something deserves a look.
    Warning,
    /// Calls fail, or nobody learns what becomes of them.
    Fault,
    /// It could not be checked.
    Unknown,
}

/// Less than this is little: some dozens of calls.
const LITTLE: f64 = 5.0;
/// Twilio's code for a restricted API key without the permission that it would need.
const LACKS_PERMISSION: u32 = 70051;
/// Regions that credentials are looked for in when the configured one refuses them.
const REGIONS: [&str; 3] = ["us1", "ie1", "au1"];

impl Finding {
    /// Whether calls may fail for all that is known: a fault, or something that matters and could not be checked.
    pub fn is_bad(&self) -> bool {
        let matters = matches!(
            self.check,
            Check::Credentials | Check::Account | Check::From | Check::Countries
        );
        self.verdict == Verdict::Fault || (matters && self.verdict == Verdict::Unknown)
    }
}

/// Checks a tenant's settings. Nothing is changed, and no call is made.
pub async fn check(client: &Client, settings: &VoiceSettings) -> Vec<Finding> {
    let mut findings = credentials(client, settings).await;
    let usable = findings
        .iter()
        .all(|finding| finding.verdict != Verdict::Fault);
    if usable {
        findings.push(from(client, settings).await);
        findings.extend(countries(client, settings).await);
        findings.push(balance(client, settings).await);
    }
    findings.push(callback(client, settings).await);
    findings
}

fn finding(
    check: Check,
    verdict: Verdict,
    code: &'static str,
    message: impl Into<String>,
) -> Finding {
    Finding {
        check,
        verdict,
        code,
        message: message.into(),
        remedy: None,
    }
}

impl Finding {
    fn remedy(self, remedy: impl Into<String>) -> Self {
        Self {
            remedy: Some(remedy.into()),
            ..self
        }
    }
}

/// What can't be checked for a reason that isn't the settings'.
fn unknown(check: Check, failure: &CallFailure) -> Finding {
    finding(
        check,
        Verdict::Unknown,
        "not_checked",
        format!("could not be checked: {failure}"),
    )
    .remedy("check again; if it stays so, the API key may lack the permission to read this")
}

async fn credentials(client: &Client, settings: &VoiceSettings) -> Vec<Finding> {
    let token = &settings.credentials.auth_token;
    let account = match client
        .account(settings, token, settings.region.as_ref())
        .await
    {
        Ok(account) => account,
        Err(failure) if is_refused(&failure) => return vec![refused(client, settings).await],
        Err(failure) => return vec![unknown(Check::Credentials, &failure)],
    };
    let mut findings = vec![finding(
        Check::Credentials,
        Verdict::Ok,
        "credentials_work",
        "Twilio takes the SID and auth token",
    )];
    if settings.credentials.api_key.is_some() {
        findings.push(match client.may_list_calls(settings).await {
            Ok(()) => finding(Check::Credentials, Verdict::Ok, "api_key_works", "Twilio takes the API key"),
            Err(failure) if is_refused(&failure) || failure.provider_code == Some(LACKS_PERMISSION) => finding(
                Check::Credentials,
                Verdict::Fault,
                "api_key_refused",
                "Twilio refuses the API key",
            )
            .remedy(
                "enter the key's SID and secret again, or make a new key in the same account and region, with access to Calls",
            ),
            Err(failure) => unknown(Check::Credentials, &failure),
        });
    }
    if let Some(other) = &settings.credentials.secondary_auth_token
        && client
            .account(settings, other, settings.region.as_ref())
            .await
            .is_err_and(|failure| is_refused(&failure))
    {
        findings.push(
            finding(
                Check::Credentials,
                Verdict::Warning,
                "secondary_token_refused",
                "Twilio refuses the secondary auth token",
            )
            .remedy("take it away if the rotation is over; enter it again if it is still to come"),
        );
    }
    findings.push(match account.status.as_deref() {
        Some("active") if account.kind.as_deref() == Some("Trial") => {
            finding(Check::Account, Verdict::Warning, "trial_account", "the account is a trial account: Twilio refuses calls that bring their own text")
                .remedy("upgrade the account")
        }
        Some("active") => finding(Check::Account, Verdict::Ok, "account_active", "the account is active"),
        None => finding(Check::Account, Verdict::Unknown, "not_checked", "Twilio doesn't say whether the account is active"),
        Some(status) => finding(Check::Account, Verdict::Fault, "account_suspended", format!("the account is {status}: Twilio places no calls for it"))
            .remedy("look at the account's notices and billing in the Twilio console; a suspended account is reactivated there or by Twilio's support"),
    });
    findings
}

/// Twilio refuses SID and token here: perhaps they are another region's.
async fn refused(client: &Client, settings: &VoiceSettings) -> Finding {
    for region in REGIONS
        .into_iter()
        .filter_map(|region| Region::parse(region).ok())
    {
        let configured = settings
            .region
            .as_ref()
            .map_or("us1", |region| region.region.as_str());
        if region.region != configured
            && client
                .account(settings, &settings.credentials.auth_token, Some(&region))
                .await
                .is_ok()
        {
            return finding(
                Check::Credentials,
                Verdict::Fault,
                "wrong_region",
                format!("the SID and auth token are those of region {}, and the settings say {configured}", region.region),
            )
            .remedy(format!(
                "set the region to {}, or enter the auth token of {configured}: each region has its own",
                region.region
            ));
        }
    }
    finding(Check::Credentials, Verdict::Fault, "credentials_refused", "Twilio refuses the account SID with this auth token")
        .remedy("copy both again from the Twilio console; a rotated token no longer works, and a closed account's never does")
}

fn is_refused(failure: &CallFailure) -> bool {
    failure.class == Class::Permanent(Fault::Credentials)
}

async fn from(client: &Client, settings: &VoiceSettings) -> Finding {
    let number = settings.from.expose();
    match client.ownership(settings, &settings.from).await {
        Ok(Ownership::Owned) => finding(
            Check::From,
            Verdict::Ok,
            "from_owned",
            format!("{number} is the account's own and can make calls"),
        ),
        Ok(Ownership::Verified) => finding(
            Check::From,
            Verdict::Ok,
            "from_verified",
            format!("{number} is a verified caller ID of the account"),
        ),
        Ok(Ownership::WithoutVoice) => finding(
            Check::From,
            Verdict::Fault,
            "from_without_voice",
            format!("{number} is the account's own, and can't make calls"),
        )
        .remedy("take a number with the capability Voice"),
        Ok(Ownership::NotOwned) => finding(
            Check::From,
            Verdict::Fault,
            "from_not_owned",
            format!("{number} is neither the account's own nor a verified caller ID"),
        )
        .remedy("buy the number in this account, verify it as a caller ID, or set another From"),
        Err(failure) => unknown(Check::From, &failure),
    }
}

async fn countries(client: &Client, settings: &VoiceSettings) -> Vec<Finding> {
    let mut findings = Vec::new();
    let (mut open, mut blocked, mut risky) = (Vec::new(), Vec::new(), Vec::new());
    for country in &settings.allowed_countries {
        match client.dialing_permission(settings, *country).await {
            Ok(permission) if permission.low_risk_numbers_enabled != Some(true) => {
                blocked.push(country.as_str())
            }
            Ok(permission) => {
                open.push(country.as_str());
                let risks = [
                    permission.high_risk_special_numbers_enabled,
                    permission.high_risk_tollfraud_numbers_enabled,
                ];
                if risks.contains(&Some(true)) {
                    risky.push(country.as_str());
                }
            }
            Err(failure) => findings.push(unknown(Check::Countries, &failure)),
        }
    }
    // One is enough to say that it could not be checked.
    findings.truncate(1);
    if !open.is_empty() {
        findings.push(finding(
            Check::Countries,
            Verdict::Ok,
            "countries_open",
            format!("may be called: {}", open.join(", ")),
        ));
    }
    if !blocked.is_empty() {
        findings.push(
            finding(
                Check::Countries,
                Verdict::Fault,
                "country_blocked",
                format!("allowed here, and blocked by Twilio's geographic permissions: {}", blocked.join(", ")),
            )
            .remedy(
                "allow them in the Twilio console under Voice, Settings, Geo permissions; or take them off the tenant's list",
            ),
        );
    }
    if !risky.is_empty() {
        findings.push(
            finding(
                Check::Countries,
                Verdict::Warning,
                "high_risk_numbers_open",
                format!("premium or fraud-prone numbers may be called in: {}", risky.join(", ")),
            )
            .remedy("switch both high-risk classes off in Twilio's geographic permissions: nobody is called there for a code"),
        );
    }
    findings
}

async fn balance(client: &Client, settings: &VoiceSettings) -> Finding {
    let balance = match client.balance(settings).await {
        Ok(balance) => balance,
        Err(failure) if failure.http_status == Some(404) => {
            return finding(
                Check::Balance,
                Verdict::Unknown,
                "no_balance_of_its_own",
                "Twilio tells no balance: a subaccount shares its owner's",
            );
        }
        Err(failure) => return unknown(Check::Balance, &failure),
    };
    let amount = balance.balance.unwrap_or_default();
    let told = format!(
        "the balance is {amount} {}",
        balance.currency.unwrap_or_default()
    );
    match amount.parse::<f64>() {
        Ok(amount) if amount <= 0.0 => finding(Check::Balance, Verdict::Fault, "no_balance", told)
            .remedy("add funds in the Twilio console"),
        Ok(amount) if amount < LITTLE => {
            finding(Check::Balance, Verdict::Warning, "little_balance", told)
                .remedy("add funds, or switch auto-recharge on")
        }
        Ok(_) => finding(Check::Balance, Verdict::Ok, "balance", told),
        Err(_) => finding(
            Check::Balance,
            Verdict::Unknown,
            "not_checked",
            "Twilio's balance is not a number",
        ),
    }
}

/// Posts what Twilio would, signed as Twilio signs, to the public URL: a worker of ours says so if it gets there whole.
async fn callback(client: &Client, settings: &VoiceSettings) -> Finding {
    let Some(url) = client.probe_url() else {
        if settings.voicemail.needs_public_url() {
            let message = "no public URL is given, and the tenant's voicemail policy needs one";
            return finding(Check::Callback, Verdict::Fault, "voicemail_needs_public_url", message).remedy(
                "set VOICE_OTP_PUBLIC_URL here and for the workers, or the policy: voice-otp tenant set --voicemail speak",
            );
        }
        return finding(
            Check::Callback,
            Verdict::Unknown,
            "no_public_url",
            "no public URL is given: calls are polled",
        )
        .remedy("give the workers' VOICE_OTP_PUBLIC_URL to check it");
    };
    let params = vec![("Tenant".to_owned(), settings.tenant_id.as_str().to_owned())];
    let signature = signature::sign(
        settings.credentials.auth_token.expose_secret(),
        &url,
        &params,
    );
    let sent = client
        .post_public(&url, &params)
        .header("x-twilio-signature", signature)
        .send()
        .await;
    let fault = |code, message: String| finding(Check::Callback, Verdict::Fault, code, message);
    let response = match sent {
        Ok(response) => response,
        Err(error) => {
            let why = if error.is_timeout() {
                "does not answer in time"
            } else {
                "can't be reached"
            };
            return fault("callback_unreachable", format!("the public URL {why}, seen from here"))
                .remedy("is a worker running, does the name resolve, is the certificate good, does the proxy pass /twilio/ on?");
        }
    };
    let status = response.status().as_u16();
    match (status, response.text().await) {
        (200, Ok(body)) if body == PROBE_ANSWER => finding(
            Check::Callback,
            Verdict::Ok,
            "callback_reaches_a_worker",
            "the public URL reaches a worker, and signatures hold on the way",
        ),
        (403, _) => fault("callback_refused", "a worker is reached, and finds the signature wrong".to_owned())
            .remedy("give the workers the same VOICE_OTP_PUBLIC_URL as here, and see that the proxy leaves the body as it is"),
        _ => fault("callback_goes_elsewhere", format!("the public URL answers {status}, and not as a worker does"))
            .remedy("pass /twilio/ on to the workers, unchanged"),
    }
}
