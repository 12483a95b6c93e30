//! `voice-otp tenant set`.

use std::time::Duration;

use anyhow::Context as _;
use secrecy::{ExposeSecret as _, SecretString};
use voice_otp::settings::{Draft, Problem, Setting, diff};
use voice_otp_schemas::PhoneNumber;
use voice_otp_store::settings;

use super::speech_args::SpeechArgs;
use crate::args::TenantSet;
use crate::commands::CommandError;
use crate::commands::database::{open, write_audit};
use crate::commands::input::{read_secret, tenant_id};
use crate::config::{ArgumentChecker, UsageError};
use crate::output::print_line;

/// The values of the flags that are read before the present settings are known.
struct Changes {
    auth_token: Option<SecretString>,
    secondary_auth_token: Option<SecretString>,
    api_key_secret: Option<SecretString>,
    ring_timeout: Option<Duration>,
    speech: SpeechArgs,
}

pub(super) async fn run(args: TenantSet) -> Result<(), CommandError> {
    let mut checker = ArgumentChecker::default();
    let id = tenant_id(&mut checker, &args.id);
    let keys = checker.keys(&args.keys);
    let url = checker.database(&args.database);
    let changes = read_changes(&mut checker, &args);
    let (id, keys, url) = checker.finish(|| Some((id?, keys?, url?)))?;
    let pool = open(&url).await?;

    let present = settings::load_one(&pool, &keys, &id)
        .await
        .context("read the present settings")?;
    let mut draft = match &present {
        Some(present) => Draft::from(present),
        None => new_draft(&args)?,
    };
    apply(changes, &args, &mut draft);
    let checked = draft
        .check(id.clone())
        .map_err(|problems| UsageError(problems.iter().map(problem_of_flag).collect()))?;
    settings::save(&pool, &keys, &checked, args.calls_per_second)
        .await
        .context("save the settings")?;
    let (action, done) = if present.is_some() {
        ("voice_provider.changed", "changed")
    } else {
        ("voice_provider.created", "created")
    };
    let difference = diff(present.as_ref(), &checked, args.calls_per_second);
    write_audit(&pool, Some(&id), action, &difference).await?;
    print_line(&format!("{done} {id}"))?;
    Ok(())
}

/// The draft of a tenant that doesn't exist yet, which needs the settings without a default.
fn new_draft(args: &TenantSet) -> Result<Draft, UsageError> {
    let required = [
        (Setting::AccountSid, args.account_sid.is_some()),
        (Setting::AuthToken, args.auth_token_file.is_some()),
        (Setting::From, args.from.is_some()),
    ];
    let missing = required.iter().filter(|(_, given)| !given);
    let missing: Vec<String> = missing
        .map(|(setting, _)| format!("{} is missing: the tenant is new", setting.field().flag))
        .collect();
    if !missing.is_empty() {
        return Err(UsageError(missing));
    }
    Ok(Draft {
        enabled: true,
        ..Draft::default()
    })
}

fn read_changes(checker: &mut ArgumentChecker, args: &TenantSet) -> Changes {
    let mut secret = |setting: Setting, file: &Option<std::path::PathBuf>| {
        read_secret(checker, setting.field().flag, file.as_deref())
    };
    let auth_token = secret(Setting::AuthToken, &args.auth_token_file);
    let secondary_auth_token = secret(Setting::SecondaryAuthToken, &args.secondary_auth_token_file);
    let api_key_secret = secret(Setting::ApiKeySecret, &args.api_key_secret_file);
    let ring_timeout = args.ring_timeout.as_deref().and_then(|text| {
        let (min, max) = (Duration::from_secs(5), Duration::from_mins(10));
        checker.duration(Setting::RingTimeout.field().flag, text, min, max)
    });
    Changes {
        auth_token,
        secondary_auth_token,
        api_key_secret,
        ring_timeout,
        speech: SpeechArgs::read(checker, args),
    }
}

/// Changes the settings whose flags are given.
fn apply(changes: Changes, args: &TenantSet, draft: &mut Draft) {
    if let Some(sid) = &args.account_sid {
        draft.account_sid.clone_from(sid);
    }
    if let Some(token) = changes.auth_token {
        draft.auth_token = token;
    }
    if let Some(token) = changes.secondary_auth_token {
        draft.secondary_auth_token = Some(token).filter(|t| !t.expose_secret().is_empty());
    }
    match args.api_key_sid.as_deref() {
        Some("") => (draft.api_key_sid, draft.api_key_secret) = (None, None),
        // Another key has another secret, so the present one is not kept.
        Some(sid) => {
            (draft.api_key_sid, draft.api_key_secret) =
                (Some(sid.to_owned()), changes.api_key_secret);
        }
        None => {
            draft.api_key_secret = changes
                .api_key_secret
                .or_else(|| draft.api_key_secret.take());
        }
    }
    if let Some(from) = &args.from {
        if *from != draft.from && draft.allowed_countries == own_country(&draft.from) {
            // Only the From number's own country was allowed; the new number's takes its place.
            draft.allowed_countries.clear();
        }
        draft.from.clone_from(from);
    }
    set_or_remove(&mut draft.region, args.region.as_ref());
    set_or_remove(&mut draft.default_locale, args.locale.as_ref());
    draft.ring_timeout = changes.ring_timeout.or(draft.ring_timeout);
    if !args.allow_countries.is_empty() {
        draft.allowed_countries.clone_from(&args.allow_countries);
    }
    draft.test_mode = args.test_mode.unwrap_or(draft.test_mode);
    if !args.publishers.is_empty() {
        let named = args.publishers.iter().filter(|user| !user.is_empty());
        draft.publishers = named.cloned().collect();
    }
    draft.enabled = (draft.enabled || args.enable) && !args.disable;
    draft.calls_per_second = args.calls_per_second.or(draft.calls_per_second);
    changes.speech.apply(draft);
}

/// Sets an optional setting; an empty text removes it.
fn set_or_remove(present: &mut Option<String>, given: Option<&String>) {
    if let Some(given) = given {
        *present = Some(given.clone()).filter(|text| !text.is_empty());
    }
}

fn own_country(from: &str) -> Vec<String> {
    let country = PhoneNumber::parse(from)
        .ok()
        .and_then(|number| number.country());
    country.iter().map(ToString::to_string).collect()
}

/// A problem, under the name of the flag that caused it.
fn problem_of_flag(problem: &Problem) -> String {
    format!("{}: {}", problem.setting.field().flag, problem.problem)
}
