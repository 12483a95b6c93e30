//! `voice-otp tenant`.

mod check;
mod hearing;
pub(crate) mod test_call;

use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::json;
use voice_otp::settings::{Draft, Paused, VoiceSettings};
use voice_otp_schemas::TenantId;
use voice_otp_schemas::phone::Country;
use voice_otp_store::{Keyring, audit, connect, migrate, pool::Pool, settings};

use crate::cli::{Database, Sealing, Tenant, TenantSet};
use crate::config::{Checks, Wrong};
use crate::telemetry::say;
use crate::verb::Failed;

pub(crate) async fn run(verb: Tenant) -> Result<(), Failed> {
    match verb {
        Tenant::Set(args) => set(*args).await,
        Tenant::Show {
            id,
            json,
            database,
            sealing,
        } => show(&id, json, &database, &sealing).await,
        Tenant::List { json, database } => list(json, &database).await,
        Tenant::Check {
            id,
            json,
            reach,
            database,
            sealing,
        } => check::run(&id, json, &reach, &database, &sealing).await,
        Tenant::TestCall(args) => test_call::run(&args).await,
        Tenant::Pause { id, database } => pause(&id, true, &database).await,
        Tenant::Resume { id, database } => pause(&id, false, &database).await,
        Tenant::Delete { id, database } => delete(&id, &database).await,
    }
}

pub(crate) async fn open(checks: Checks, url: Option<SecretString>) -> Result<Pool, Failed> {
    let url = checks.done(url)?;
    let pool = connect(&url, 2).context("use the database URL")?;
    migrate::check(&pool).await.context("check the database")?;
    Ok(pool)
}

fn tenant_id(checks: &mut Checks, text: &str) -> Option<TenantId> {
    TenantId::parse(text)
        .map_err(|error| checks.wrong(format!("the tenant's id: {error}")))
        .ok()
}

async fn set(args: TenantSet) -> Result<(), Failed> {
    let mut checks = Checks::default();
    let id = tenant_id(&mut checks, &args.id);
    let keys = checks.keys(&args.sealing);
    let url = checks.database(&args.database);
    let ring_timeout = args.ring_timeout.as_deref().and_then(|text| {
        checks.duration(
            "--ring-timeout",
            text,
            Duration::from_secs(5),
            Duration::from_mins(10),
        )
    });
    let auth_token = secret(
        &mut checks,
        "--auth-token-file",
        args.auth_token_file.as_deref(),
    );
    let secondary = secret(
        &mut checks,
        "--secondary-auth-token-file",
        args.secondary_auth_token_file.as_deref(),
    );
    let api_key_secret = secret(
        &mut checks,
        "--api-key-secret-file",
        args.api_key_secret_file.as_deref(),
    );
    let hearing = hearing::read(&mut checks, &args);
    let (id, keys, url) = checks.done(
        id.zip(keys)
            .zip(url)
            .map(|((id, keys), url)| (id, keys, url)),
    )?;
    let pool = open(Checks::default(), Some(url)).await?;

    let present = settings::load_one(&pool, &keys, &id)
        .await
        .context("read the present settings")?;
    let mut draft = present.as_ref().map_or_else(
        || Draft {
            enabled: true,
            ..Draft::default()
        },
        draft_of,
    );
    let missing = if present.is_none() {
        missing_of(&args)
    } else {
        Vec::new()
    };
    if !missing.is_empty() {
        return Err(Failed::Usage(Wrong(missing)));
    }
    change(
        &mut draft,
        &args,
        ring_timeout,
        auth_token,
        secondary,
        api_key_secret,
    );
    hearing.apply(&mut draft);
    let checked = draft
        .check(id.clone())
        .map_err(|problems| Wrong(problems.iter().map(flag_of).collect()))?;
    settings::save(&pool, &keys, &checked, args.calls_per_second)
        .await
        .context("save the settings")?;
    let what = if present.is_some() {
        "voice_provider.changed"
    } else {
        "voice_provider.created"
    };
    note(
        &pool,
        &id,
        what,
        changes(present.as_ref(), &checked, args.calls_per_second),
    )
    .await?;
    say(&format!(
        "{} {id}",
        if present.is_some() {
            "changed"
        } else {
            "created"
        }
    ))?;
    Ok(())
}

/// What a new tenant can't do without.
fn missing_of(args: &TenantSet) -> Vec<String> {
    let needed = [
        ("--account-sid", args.account_sid.is_none()),
        ("--auth-token-file", args.auth_token_file.is_none()),
        ("--from", args.from.is_none()),
    ];
    needed
        .iter()
        .filter(|(_, missing)| *missing)
        .map(|(flag, _)| format!("{flag} is missing: the tenant is new"))
        .collect()
}

fn change(
    draft: &mut Draft,
    args: &TenantSet,
    ring_timeout: Option<Duration>,
    auth_token: Option<SecretString>,
    secondary: Option<SecretString>,
    api_key_secret: Option<SecretString>,
) {
    let not_empty = |secret: &SecretString| !secret.expose_secret().is_empty();
    draft.account_sid = args
        .account_sid
        .clone()
        .unwrap_or_else(|| draft.account_sid.clone());
    draft.auth_token = auth_token.unwrap_or_else(|| draft.auth_token.clone());
    if let Some(secondary) = secondary {
        draft.secondary_auth_token = Some(secondary).filter(not_empty);
    }
    match args.api_key_sid.as_deref() {
        Some("") => (draft.api_key_sid, draft.api_key_secret) = (None, None),
        Some(sid) => {
            (draft.api_key_sid, draft.api_key_secret) = (Some(sid.to_owned()), api_key_secret)
        }
        None => draft.api_key_secret = api_key_secret.or_else(|| draft.api_key_secret.clone()),
    }
    if args.from.is_some()
        && args.from.as_deref() != Some(&draft.from)
        && draft.allowed_countries == own_country(&draft.from)
    {
        // Only the From number's own country was allowed, and that changes with it.
        draft.allowed_countries.clear();
    }
    draft.from = args.from.clone().unwrap_or_else(|| draft.from.clone());
    draft.region = args
        .region
        .clone()
        .or_else(|| draft.region.clone())
        .filter(|region| !region.is_empty());
    draft.default_locale = args
        .locale
        .clone()
        .or_else(|| draft.default_locale.clone())
        .filter(|locale| !locale.is_empty());
    draft.ring_timeout = ring_timeout.or(draft.ring_timeout);
    if !args.allow_countries.is_empty() {
        draft.allowed_countries.clone_from(&args.allow_countries);
    }
    draft.test_mode = args.test_mode.unwrap_or(draft.test_mode);
    if !args.publishers.is_empty() {
        draft.publishers = args
            .publishers
            .iter()
            .filter(|user| !user.is_empty())
            .cloned()
            .collect();
    }
    draft.enabled = (draft.enabled || args.enable) && !args.disable;
    draft.calls_per_second = args.calls_per_second.or(draft.calls_per_second);
}

fn own_country(from: &str) -> Vec<String> {
    let number = voice_otp_schemas::PhoneNumber::parse(from).ok();
    number
        .and_then(|number| number.country())
        .iter()
        .map(ToString::to_string)
        .collect()
}

/// One secret of the settings.
type Secret = fn(&VoiceSettings) -> Option<String>;

/// What was changed, without secrets: for the audit log.
pub(crate) fn changes(
    old: Option<&VoiceSettings>,
    new: &VoiceSettings,
    pace: Option<f64>,
) -> serde_json::Value {
    let facts = |settings: &VoiceSettings| {
        json!({
            "account_sid": settings.account_sid.as_str(),
            "from": settings.from.masked(),
            "region": settings.region.as_ref().map(ToString::to_string),
            "default_locale": settings.default_locale,
            "ring_timeout_s": settings.ring_timeout.as_secs(),
            "allowed_countries": settings.allowed_countries.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "test_mode": settings.test_mode,
            "speech": settings.manner,
            "voicemail": settings.voicemail,
            "redial": settings.redial,
            "api_key_sid": settings.credentials.api_key.as_ref().map(|key| key.sid.to_string()),
        })
    };
    let (before, after) = (old.map(facts).unwrap_or_default(), facts(new));
    let mut changed = serde_json::Map::new();
    for (name, value) in after.as_object().into_iter().flatten() {
        let was = before.get(name).cloned().unwrap_or_default();
        if was != *value {
            changed.insert(name.clone(), json!({ "from": was, "to": value }));
        }
    }
    let secrets: [(&str, Secret); 4] = [
        ("auth_token", |settings| {
            Some(settings.credentials.auth_token.expose_secret().to_owned())
        }),
        ("secondary_auth_token", |settings| {
            settings
                .credentials
                .secondary_auth_token
                .as_ref()
                .map(|token| token.expose_secret().to_owned())
        }),
        ("api_key_secret", |settings| {
            settings
                .credentials
                .api_key
                .as_ref()
                .map(|key| key.secret.expose_secret().to_owned())
        }),
        // Two numbers may look the same masked.
        ("from", |settings| Some(settings.from.expose().to_owned())),
    ];
    for (name, secret) in secrets {
        if old.and_then(secret) != secret(new) && !changed.contains_key(name) {
            changed.insert(name.to_owned(), "replaced".into());
        }
    }
    if let Some(pace) = pace {
        changed.insert(
            "calls_per_second".to_owned(),
            json!({ "from": old.map(|old| old.calls_per_second), "to": pace }),
        );
    }
    changed.into()
}

pub(crate) fn draft_of(settings: &VoiceSettings) -> Draft {
    let credentials = &settings.credentials;
    Draft {
        account_sid: settings.account_sid.to_string(),
        auth_token: credentials.auth_token.clone(),
        secondary_auth_token: credentials.secondary_auth_token.clone(),
        api_key_sid: credentials.api_key.as_ref().map(|key| key.sid.to_string()),
        api_key_secret: credentials.api_key.as_ref().map(|key| key.secret.clone()),
        from: settings.from.expose().to_owned(),
        region: settings.region.as_ref().map(ToString::to_string),
        default_locale: settings.default_locale.as_ref().map(ToString::to_string),
        ring_timeout: Some(settings.ring_timeout),
        enabled: settings.enabled,
        allowed_countries: settings
            .allowed_countries
            .iter()
            .map(ToString::to_string)
            .collect(),
        test_mode: settings.test_mode,
        publishers: settings.publishers.clone(),
        manner: settings.manner.clone(),
        voicemail: settings.voicemail,
        redial: settings.redial.clone(),
        calls_per_second: Some(settings.calls_per_second),
    }
}

fn flag_of(problem: &voice_otp::settings::Problem) -> String {
    let flag = match problem.setting {
        "auth_token" => "--auth-token-file",
        "secondary_auth_token" => "--secondary-auth-token-file",
        "api_key_secret" => "--api-key-secret-file",
        "api_key_sid" => "--api-key-sid",
        "account_sid" => "--account-sid",
        "default_locale" => "--locale",
        "ring_timeout" => "--ring-timeout",
        "calls_per_second" => "--calls-per-second",
        "allowed_countries" => "--allow-country",
        "from" => "--from",
        "publishers" => "--publisher",
        "region" => "--region",
        "speech_rate" => "--speech-rate",
        "digit_pause" => "--digit-pause",
        "readings" => "--readings",
        "brand" => "--brand",
        "greeting" => "--greeting",
        "voice" => "--voice",
        "redial" => "--redial",
        other => other,
    };
    format!("{flag}: {}", problem.problem)
}

/// Reads a secret from a file or standard input: one line, without its end.
pub(crate) fn secret(checks: &mut Checks, flag: &str, file: Option<&Path>) -> Option<SecretString> {
    let file = file?;
    let mut text = String::new();
    let read = if file == Path::new("-") {
        std::io::stdin().read_to_string(&mut text).map(drop)
    } else {
        std::fs::read_to_string(file).map(|content| text = content)
    };
    match read {
        Ok(()) => Some(SecretString::from(text.trim_end_matches(['\r', '\n']))),
        Err(error) => {
            checks.wrong(format!("{flag}: can't read {}: {error}", file.display()));
            None
        }
    }
}

async fn show(
    id: &str,
    as_json: bool,
    database: &Database,
    sealing: &Sealing,
) -> Result<(), Failed> {
    let mut checks = Checks::default();
    let id = tenant_id(&mut checks, id);
    let (keys, url): (Option<Keyring>, _) = (checks.keys(sealing), checks.database(database));
    let (id, keys, url) = checks.done(
        id.zip(keys)
            .zip(url)
            .map(|((id, keys), url)| (id, keys, url)),
    )?;
    let pool = open(Checks::default(), Some(url)).await?;
    let found = settings::load_one(&pool, &keys, &id)
        .await
        .context("read the settings")?;
    let settings = found.ok_or_else(|| anyhow!("there is no tenant {id}"))?;
    let credentials = &settings.credentials;
    let shown = json!({
        "tenant_id": settings.tenant_id,
        "version": settings.version,
        "enabled": settings.enabled,
        "test_mode": settings.test_mode,
        "account_sid": settings.account_sid.as_str(),
        "auth_token_set": true,
        "secondary_auth_token_set": credentials.secondary_auth_token.is_some(),
        "api_key_sid": credentials.api_key.as_ref().map(|key| key.sid.as_str()),
        "from": settings.from.expose(),
        "region": settings.region.as_ref().map(ToString::to_string),
        "default_locale": settings.default_locale,
        "ring_timeout_s": settings.ring_timeout.as_secs(),
        "allowed_countries": settings.allowed_countries.iter().map(Country::as_str).collect::<Vec<_>>(),
        "publishers": settings.publishers,
        "speech": settings.manner,
        "voicemail": settings.voicemail,
        "redial": settings.redial,
        "calls_per_second": settings.calls_per_second,
        "paused": settings.paused.map(|paused| match paused {
            Paused::Tenant => "tenant",
            Paused::Account => "account",
        }),
        "credentials_refused_by_twilio": settings.refused,
        "credentials_taken_by_twilio": settings.pace_key == settings.account_sid.as_str(),
    });
    if as_json {
        say(&serde_json::to_string_pretty(&shown).context("write JSON")?)?;
        return Ok(());
    }
    for (name, value) in shown.as_object().into_iter().flatten() {
        let text = match value {
            serde_json::Value::Null => "-".to_owned(),
            serde_json::Value::String(text) => text.clone(),
            serde_json::Value::Array(items) => items
                .iter()
                .filter_map(|item| item.as_str())
                .collect::<Vec<_>>()
                .join(", "),
            other => other.to_string(),
        };
        say(&format!("{name:<28} {text}"))?;
    }
    Ok(())
}

async fn list(as_json: bool, database: &Database) -> Result<(), Failed> {
    let mut checks = Checks::default();
    let url = checks.database(database);
    let pool = open(checks, url).await?;
    let tenants = settings::list(&pool).await.context("list the tenants")?;
    if as_json {
        let all: Vec<_> = tenants
            .iter()
            .map(|tenant| json!({ "tenant_id": tenant.tenant_id, "account_sid": tenant.account_sid, "enabled": tenant.enabled, "test_mode": tenant.test_mode, "calls_per_second": tenant.calls_per_second }))
            .collect();
        say(&serde_json::to_string_pretty(&all).context("write JSON")?)?;
        return Ok(());
    }
    for tenant in tenants {
        let state = match (tenant.enabled, tenant.test_mode) {
            (false, _) => "off",
            (true, true) => "test mode",
            (true, false) => "on",
        };
        say(&format!(
            "{:<24} {:<36} {:>8} calls/s  {state}",
            tenant.tenant_id.as_str(),
            tenant.account_sid,
            tenant.calls_per_second
        ))?;
    }
    Ok(())
}

async fn pause(id: &str, paused: bool, database: &Database) -> Result<(), Failed> {
    let mut checks = Checks::default();
    let id = tenant_id(&mut checks, id);
    let url = checks.database(database);
    let (id, url) = checks.done(id.zip(url))?;
    let pool = open(Checks::default(), Some(url)).await?;
    if !settings::pause(&pool, &id, paused)
        .await
        .context("change the tenant")?
    {
        return Err(Failed::Error(anyhow!("there is no tenant {id}")));
    }
    note(
        &pool,
        &id,
        if paused {
            "tenant.paused"
        } else {
            "tenant.resumed"
        },
        json!({}),
    )
    .await?;
    say(&format!(
        "{} {id}",
        if paused { "paused" } else { "resumed" }
    ))?;
    Ok(())
}

/// Writes down what was changed.
async fn note(
    pool: &Pool,
    tenant: &TenantId,
    action: &str,
    detail: serde_json::Value,
) -> Result<(), Failed> {
    Ok(
        audit::write(pool, audit::COMMAND_LINE, Some(tenant), action, &detail)
            .await
            .context("write the audit log")?,
    )
}

async fn delete(id: &str, database: &Database) -> Result<(), Failed> {
    let mut checks = Checks::default();
    let id = tenant_id(&mut checks, id);
    let url = checks.database(database);
    let (id, url) = checks.done(id.zip(url))?;
    let pool = open(Checks::default(), Some(url)).await?;
    if settings::delete(&pool, &id)
        .await
        .context("delete the settings")?
    {
        note(&pool, &id, "voice_provider.removed", json!({})).await?;
        say(&format!("deleted {id}"))?;
        Ok(())
    } else {
        Err(Failed::Error(anyhow!("there is no tenant {id}")))
    }
}
