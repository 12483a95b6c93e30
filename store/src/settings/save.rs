//! Saving settings, with their secrets sealed.

use secrecy::{ExposeSecret, SecretString};
use voice_otp::settings::{Credentials, VoiceSettings};
use voice_otp_schemas::phone::Country;
use voice_otp_schemas::{Locale, TenantId};

use super::{load_one, place};
use crate::keys::Keyring;
use crate::query::execute;
use crate::{Error, Pool, accounts};

/// Which settings must be there for a save to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// Any settings, or none.
    Anything,
    /// No settings: the tenant is new.
    Nothing,
    /// The settings of this version.
    Version(i64),
}

/// Saves a tenant's settings, whatever is there. `calls_per_second` changes the account's rate, for
/// every tenant of the account; `None` leaves it unchanged.
///
/// # Errors
/// [`Error`]; if the settings are saved and the rate, which is a statement of its own, is not, then
/// that is an error too.
pub async fn save(
    pool: &Pool,
    keys: &Keyring,
    settings: &VoiceSettings,
    calls_per_second: Option<f64>,
) -> Result<(), Error> {
    save_expecting(pool, keys, settings, calls_per_second, Expected::Anything)
        .await
        .map(drop)
}

const SAVE: &str = include_str!("../../sql/statements/save_settings.sql");

/// Like [`save`], but returns false and changes nothing if other settings are there than expected.
///
/// # Errors
/// The same as [`save`].
pub async fn save_expecting(
    pool: &Pool,
    keys: &Keyring,
    settings: &VoiceSettings,
    calls_per_second: Option<f64>,
    expected: Expected,
) -> Result<bool, Error> {
    let seal = |column: &str, secret: &str| {
        keys.seal(&place(&settings.tenant_id, column), secret.as_bytes())
    };
    let credentials = &settings.credentials;
    let auth_token = seal("auth_token", credentials.auth_token.expose_secret());
    let optional = |column: &str, secret: Option<&SecretString>| {
        secret.map(|secret| seal(column, secret.expose_secret()).sealed)
    };
    let secondary = optional(
        "secondary_auth_token",
        credentials.secondary_auth_token.as_ref(),
    );
    let api_key_secret = optional(
        "api_key_secret",
        credentials.api_key.as_ref().map(|key| &key.secret),
    );
    let api_key_sid = credentials.api_key.as_ref().map(|key| key.sid.as_str());
    let from_number = seal("from_number", settings.from.expose()).sealed;
    let countries: Vec<&str> = settings
        .allowed_countries
        .iter()
        .map(Country::as_str)
        .collect();
    // Draft::check allows at most 600 seconds, and so does the table.
    let ring_timeout_s = i32::try_from(settings.ring_timeout.as_secs()).unwrap_or(i32::MAX);
    let region = settings.region.as_ref().map(ToString::to_string);
    let locale = settings.default_locale.as_ref().map(Locale::as_str);
    let (speech, redial) = (json(&settings.speech), json(&settings.redial));

    let version = match expected {
        Expected::Anything => None,
        // Versions begin with 1.
        Expected::Nothing => Some(0),
        Expected::Version(version) => Some(version),
    };
    let present = find_present(pool, keys, &settings.tenant_id).await?;
    let unchanged = Unchanged::between(present.as_ref(), settings);
    let saved = execute(
        pool,
        "save voice settings",
        SAVE,
        &[
            &settings.tenant_id.as_str(),
            &settings.account_sid.as_str(),
            &auth_token.key_id,
            &auth_token.sealed,
            &secondary,
            &api_key_secret,
            &from_number,
            &api_key_sid,
            &region,
            &locale,
            &ring_timeout_s,
            &settings.enabled,
            &countries,
            &settings.test_mode,
            &unchanged.credentials_verified,
            &settings.publishers,
            &speech,
            &settings.voicemail.as_str(),
            &redial,
            &version,
            &settings.offered,
            &unchanged.auth_token,
            &unchanged.secondary_auth_token,
            &unchanged.api_key,
        ],
    )
    .await?;
    if let Some(calls_per_second) = calls_per_second
        && saved > 0
    {
        accounts::set_rate(pool, &settings.account_sid, calls_per_second).await?;
    }
    Ok(saved > 0)
}

#[expect(
    clippy::expect_used,
    reason = "structs of strings and numbers, with string keys, always have a JSON form"
)]
fn json(value: &impl serde::Serialize) -> serde_json::Value {
    serde_json::to_value(value).expect("settings have a JSON form")
}

/// The present settings; `None` also where they can't be read, and so can't be compared.
async fn find_present(
    pool: &Pool,
    keys: &Keyring,
    tenant: &TenantId,
) -> Result<Option<VoiceSettings>, Error> {
    match load_one(pool, keys, tenant).await {
        Err(Error::Open(..) | Error::Damaged(..)) => Ok(None),
        other => other,
    }
}

/// Which secrets a save leaves as they are.
#[derive(Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
struct Unchanged {
    auth_token: bool,
    secondary_auth_token: bool,
    api_key: bool,
    /// Verified credentials stay verified until they, or the account, are changed.
    credentials_verified: bool,
}

impl Unchanged {
    fn between(present: Option<&VoiceSettings>, settings: &VoiceSettings) -> Self {
        let Some(present) = present else {
            return Self::default();
        };
        let (old, new) = (&present.credentials, &settings.credentials);
        let same = |old: Option<&SecretString>, new: Option<&SecretString>| {
            old.map(ExposeSecret::expose_secret) == new.map(ExposeSecret::expose_secret)
        };
        let key =
            |credentials: &Credentials| credentials.api_key.as_ref().map(|key| key.sid.clone());
        let secret =
            |credentials: &Credentials| credentials.api_key.as_ref().map(|key| key.secret.clone());
        let auth_token = same(Some(&old.auth_token), Some(&new.auth_token));
        let api_key = key(old) == key(new) && same(secret(old).as_ref(), secret(new).as_ref());
        let were_verified = present.pace_key == present.account_sid.as_str();
        Self {
            auth_token,
            secondary_auth_token: same(
                old.secondary_auth_token.as_ref(),
                new.secondary_auth_token.as_ref(),
            ),
            api_key,
            credentials_verified: were_verified
                && present.account_sid == settings.account_sid
                && auth_token
                && api_key,
        }
    }
}
