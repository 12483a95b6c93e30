//! A tenant's voice provider: showing, saving, removing and checking it.

mod input;
mod redial;
mod speech;
mod view;

use serde_json::json;
use voice_otp::settings::{Setting, VoiceSettings, diff};
use voice_otp_schemas::TenantId;
use voice_otp_store::settings::{self, Expected};
use voice_otp_twilio::account::Balance;
use voice_otp_twilio::check::{self, Finding};

pub(crate) use self::input::NewVoiceProvider;
pub(crate) use self::redial::RedialRule;
#[cfg(test)]
pub(crate) use self::speech::Speech;
#[cfg(test)]
pub(crate) use self::view::SecretState;
pub(crate) use self::view::VoiceProvider;
use super::audit;
use crate::access::Principal;
use crate::problem::{FieldError, Problem};
use crate::state::Console;

/// The tenant's settings with their secrets; `None` if no provider is configured.
pub(crate) async fn load(
    console: &Console,
    tenant: &TenantId,
) -> Result<Option<VoiceSettings>, Problem> {
    Ok(settings::load_one(&console.pool, &console.keys, tenant).await?)
}

/// The tenant's provider without secrets; `None` if no provider is configured.
pub(crate) async fn show(
    console: &Console,
    tenant: &TenantId,
) -> Result<Option<VoiceProvider>, Problem> {
    let Some(settings) = load(console, tenant).await? else {
        return Ok(None);
    };
    let metadata = settings::metadata(&console.pool, tenant).await?;
    Ok(metadata.map(|metadata| VoiceProvider::new(&settings, &metadata)))
}

/// Saves the provider if the current version is the expected one.
pub(crate) async fn save(
    console: &Console,
    principal: &Principal,
    tenant: &TenantId,
    new: &NewVoiceProvider,
    expected: Expected,
) -> Result<VoiceProvider, Problem> {
    let current = match load(console, tenant).await {
        // Settings that can't be opened may be created again.
        Err(_) if expected == Expected::Nothing => None,
        other => other?,
    };
    let checked = check_input(console, tenant, new, current.as_ref())?;
    let rate = changed_rate(new, current.as_ref(), &checked);
    if rate.is_some() && !principal.is_operator() {
        authorize_rate(console, tenant, current.as_ref(), &checked).await?;
    }
    let saved =
        settings::save_expecting(&console.pool, &console.keys, &checked, rate, expected).await?;
    if !saved {
        return Err(Problem::version_conflict());
    }
    let saved = show(console, tenant)
        .await?
        .ok_or_else(Problem::version_conflict)?;
    let action = match current {
        Some(_) => "voice_provider.changed",
        None => "voice_provider.created",
    };
    let detail = diff(current.as_ref(), &checked, rate);
    audit::record(console, principal, Some(tenant), action, detail).await?;
    Ok(saved)
}

/// The settings that the input makes, or every problem with it.
fn check_input(
    console: &Console,
    tenant: &TenantId,
    new: &NewVoiceProvider,
    current: Option<&VoiceSettings>,
) -> Result<VoiceSettings, Problem> {
    let mut errors = Vec::new();
    let draft = new.draft(current, console.has_public_url, &mut errors);
    match draft.check(tenant.clone()) {
        Ok(checked) if errors.is_empty() => Ok(VoiceSettings {
            // Methods change it, not this form.
            offered: current.is_some_and(|current| current.offered),
            ..checked
        }),
        Ok(_) => Err(Problem::invalid(errors)),
        Err(problems) => {
            errors.extend(problems.into_iter().map(FieldError::from));
            Err(Problem::invalid(errors))
        }
    }
}

/// The account's new rate limit, if the input changes it.
fn changed_rate(
    new: &NewVoiceProvider,
    current: Option<&VoiceSettings>,
    checked: &VoiceSettings,
) -> Option<f64> {
    let same = |current: &VoiceSettings, rate: f64| {
        current.account_sid == checked.account_sid
            && (current.calls_per_second - rate).abs() <= f64::EPSILON
    };
    new.calls_per_second
        .filter(|rate| !current.is_some_and(|current| same(current, *rate)))
}

/// Whether a tenant administrator may change the account's rate limit. Account SIDs are not
/// secret: a tenant that only claims an account must not slow down its owner.
async fn authorize_rate(
    console: &Console,
    tenant: &TenantId,
    current: Option<&VoiceSettings>,
    checked: &VoiceSettings,
) -> Result<(), Problem> {
    let verified = current.is_some_and(|current| {
        current.account_sid == checked.account_sid
            && current.pace_key == current.account_sid.as_str()
    });
    let message = if !verified {
        "can be changed once Twilio has accepted a call with these credentials: save the other \
         settings first, and make a test call"
    } else if settings::is_account_shared(&console.pool, &checked.account_sid, tenant).await? {
        "is shared with other tenants that use this Twilio account: ask an operator to change it"
    } else {
        return Ok(());
    };
    let error = FieldError::of_setting(Setting::CallsPerSecond, message);
    Err(Problem::invalid(vec![error]))
}

/// Removes the provider if this is its current version.
pub(crate) async fn remove(
    console: &Console,
    principal: &Principal,
    tenant: &TenantId,
    version: i64,
) -> Result<(), Problem> {
    // Configuring the provider again would start calls that an operator has stopped.
    let restricted = load(console, tenant).await?.is_some_and(|settings| {
        !settings.enabled || settings.paused.is_some() || !settings.publishers.is_empty()
    });
    if restricted && !principal.is_operator() {
        return Err(Problem::operators_only(
            "An operator has disabled voice for this tenant, paused it or restricted its \
             publishers. Removing the provider would undo that: ask an operator to remove it.",
        ));
    }
    if !settings::delete_version(&console.pool, tenant, version).await? {
        let exists = settings::metadata(&console.pool, tenant).await?.is_some();
        return Err(if exists {
            Problem::version_conflict()
        } else {
            Problem::not_found()
        });
    }
    audit::record(
        console,
        principal,
        Some(tenant),
        "voice_provider.removed",
        json!({}),
    )
    .await
}

/// Asks Twilio whether calls with the saved settings can succeed. No call is placed.
pub(crate) async fn check(console: &Console, tenant: &TenantId) -> Result<Vec<Finding>, Problem> {
    let settings = load(console, tenant)
        .await?
        .ok_or_else(|| Problem::not_configured(tenant.as_str()))?;
    Ok(check::check(&console.twilio, &settings).await)
}

/// Asks Twilio for the balance of the account; `None` if Twilio doesn't answer.
pub(crate) async fn balance(
    console: &Console,
    tenant: &TenantId,
) -> Result<Option<Balance>, Problem> {
    let settings = load(console, tenant)
        .await?
        .ok_or_else(|| Problem::not_configured(tenant.as_str()))?;
    Ok(console.twilio.balance(&settings).await.ok())
}
