//! Checks the credentials, and the status of the account.

use voice_otp::call::failure::CallFailure;
use voice_otp::settings::{Region, VoiceSettings};

use super::finding::{Check, Finding, Verdict, are_credentials_rejected};
use crate::account::Account;
use crate::client::Client;

/// The code for a restricted API key without the required permission
/// (<https://www.twilio.com/docs/api/errors/70051>).
const LACKS_PERMISSION: u32 = 70051;

/// The regions in which rejected credentials are tried
/// (<https://www.twilio.com/docs/global-infrastructure>).
const REGIONS: [&str; 3] = ["us1", "ie1", "au1"];

/// The region of `api.twilio.com`.
const DEFAULT_REGION: &str = "us1";

pub(super) async fn check(client: &Client, settings: &VoiceSettings) -> Vec<Finding> {
    let token = &settings.credentials.auth_token;
    let account = match client
        .account(settings, token, settings.region.as_ref())
        .await
    {
        Ok(account) => account,
        Err(failure) if are_credentials_rejected(&failure) => {
            return vec![explain_rejection(client, settings).await];
        }
        Err(failure) => return vec![Finding::unknown(Check::Credentials, &failure)],
    };
    let mut findings = vec![Finding::new(
        Check::Credentials,
        Verdict::Ok,
        "credentials_work",
        "Twilio accepts the account SID and the auth token",
    )];
    if settings.credentials.api_key.is_some() {
        findings.push(api_key(client.verify_call_access(settings).await));
    }
    if let Some(secondary) = &settings.credentials.secondary_auth_token
        && client
            .account(settings, secondary, settings.region.as_ref())
            .await
            .is_err_and(|failure| are_credentials_rejected(&failure))
    {
        let finding = Finding::new(
            Check::Credentials,
            Verdict::Warning,
            "secondary_token_refused",
            "Twilio rejects the secondary auth token",
        );
        findings.push(finding.with_remedy(
            "remove it if the rotation is complete; otherwise copy it again from the Twilio \
             Console",
        ));
    }
    findings.push(account_status(&account));
    findings
}

fn api_key(result: Result<(), CallFailure>) -> Finding {
    let rejected = |failure: &CallFailure| {
        are_credentials_rejected(failure) || failure.provider_code == Some(LACKS_PERMISSION)
    };
    match result {
        Ok(()) => Finding::new(
            Check::Credentials,
            Verdict::Ok,
            "api_key_works",
            "Twilio accepts the API key",
        ),
        Err(failure) if rejected(&failure) => Finding::new(
            Check::Credentials,
            Verdict::Fault,
            "api_key_refused",
            "Twilio rejects the API key",
        )
        .with_remedy(
            "enter the key's SID and secret again, or create a key with access to Calls in the \
             same account and region",
        ),
        Err(failure) => Finding::unknown(Check::Credentials, &failure),
    }
}

fn account_status(account: &Account) -> Finding {
    match account.status.as_deref() {
        Some("active") if account.kind.as_deref() == Some("Trial") => Finding::new(
            Check::Account,
            Verdict::Warning,
            "trial_account",
            "the account is a trial account: Twilio refuses calls with custom TwiML",
        )
        .with_remedy("upgrade the account"),
        Some("active") => Finding::new(
            Check::Account,
            Verdict::Ok,
            "account_active",
            "the account is active",
        ),
        None => Finding::new(
            Check::Account,
            Verdict::Unknown,
            "not_checked",
            "Twilio does not report whether the account is active",
        ),
        Some(status) => Finding::new(
            Check::Account,
            Verdict::Fault,
            "account_suspended",
            format!("the account is {status}: Twilio places no calls for it"),
        )
        .with_remedy(
            "check the account's notices and billing in the Twilio Console; reactivate a \
             suspended account there, or ask Twilio's support",
        ),
    }
}

/// Finds out whether rejected credentials belong to another region.
async fn explain_rejection(client: &Client, settings: &VoiceSettings) -> Finding {
    let configured = settings
        .region
        .as_ref()
        .map_or(DEFAULT_REGION, |region| region.region.as_str());
    for region in REGIONS
        .into_iter()
        .filter_map(|region| Region::parse(region).ok())
        .filter(|region| region.region != configured)
    {
        let token = &settings.credentials.auth_token;
        if client.account(settings, token, Some(&region)).await.is_ok() {
            return Finding::new(
                Check::Credentials,
                Verdict::Fault,
                "wrong_region",
                format!(
                    "the auth token belongs to region {}, and the settings have region \
                     {configured}",
                    region.region
                ),
            )
            .with_remedy(format!(
                "set the region to {}, or enter the auth token of {configured}: each region has \
                 its own",
                region.region
            ));
        }
    }
    Finding::new(
        Check::Credentials,
        Verdict::Fault,
        "credentials_refused",
        "Twilio rejects the account SID with this auth token",
    )
    .with_remedy(
        "copy both again from the Twilio Console; a token that was rotated out, or that belongs to \
         a closed account, no longer works",
    )
}
