//! Reading settings and opening their secrets.

use std::collections::BTreeMap;
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use tokio_postgres::Row;
use voice_otp::account::{AccountSid, ApiKeySid};
use voice_otp::settings::policy::Voicemail;
use voice_otp::settings::{
    ApiKey, Credentials, Paused, Region, VoiceSettings, unverified_pace_key,
};
use voice_otp_schemas::phone::Country;
use voice_otp_schemas::{Locale, PhoneNumber, TenantId};

use super::{place, tenant_id};
use crate::keys::Keyring;
use crate::query::query_prepared;
use crate::{Error, Pool};

/// Tenants and their settings. A tenant whose settings can't be read has an error of its own.
pub type Loaded = BTreeMap<TenantId, Result<VoiceSettings, Error>>;

const LOAD: &str = include_str!("../../sql/statements/load_settings.sql");

/// Reads the settings of tenants. Tenants without settings are missing from the map.
///
/// # Errors
/// [`Error`] when the database can't be asked.
pub async fn load(pool: &Pool, keys: &Keyring, tenants: &[TenantId]) -> Result<Loaded, Error> {
    let ids: Vec<&str> = tenants.iter().map(TenantId::as_str).collect();
    let rows = query_prepared(pool, "read voice settings", LOAD, &[&ids]).await?;
    rows.iter()
        .map(|row| {
            let tenant = tenant_id(row)?;
            Ok((tenant.clone(), read(row, tenant, keys)))
        })
        .collect()
}

/// Reads the settings of one tenant; `None` if it has none.
///
/// # Errors
/// [`Error`], also when the settings' secrets can't be opened.
pub async fn load_one(
    pool: &Pool,
    keys: &Keyring,
    tenant: &TenantId,
) -> Result<Option<VoiceSettings>, Error> {
    load(pool, keys, std::slice::from_ref(tenant))
        .await?
        .remove(tenant)
        .transpose()
}

fn read(row: &Row, tenant_id: TenantId, keys: &Keyring) -> Result<VoiceSettings, Error> {
    let damaged = |column| Error::Damaged(tenant_id.clone(), column);
    let key_id: String = row.get("key_id");
    let open = |column: &'static str| -> Result<Option<SecretString>, Error> {
        let Some(sealed): Option<Vec<u8>> = row.get(column) else {
            return Ok(None);
        };
        let opened = keys
            .open(&place(&tenant_id, column), &key_id, &sealed)
            .map_err(|error| Error::Open(tenant_id.clone(), error))?;
        let text = std::str::from_utf8(&opened).map_err(|_| damaged(column))?;
        Ok(Some(SecretString::from(text)))
    };
    let account_sid =
        AccountSid::parse(row.get("account_sid")).map_err(|_| damaged("account_sid"))?;
    let from = open("from_number")?.ok_or_else(|| damaged("from_number"))?;
    let api_key = match (
        row.get::<_, Option<&str>>("api_key_sid"),
        open("api_key_secret")?,
    ) {
        (Some(sid), Some(secret)) => Some(ApiKey {
            sid: ApiKeySid::parse(sid).map_err(|_| damaged("api_key_sid"))?,
            secret,
        }),
        // A constraint of the table keeps either from standing alone.
        _ => None,
    };
    let countries: Vec<&str> = row.get("allowed_countries");
    let locale: Option<&str> = row.get("default_locale");
    let region: Option<&str> = row.get("region");
    let ring_timeout_s = u64::try_from(row.get::<_, i32>("ring_timeout_s"))
        .map_err(|_| damaged("ring_timeout_s"))?;
    Ok(VoiceSettings {
        pace_key: if row.get("credentials_verified") {
            account_sid.as_str().to_owned()
        } else {
            unverified_pace_key(&account_sid, &tenant_id)
        },
        version: row.get("version"),
        credentials: Credentials {
            auth_token: open("auth_token")?.ok_or_else(|| damaged("auth_token"))?,
            secondary_auth_token: open("secondary_auth_token")?,
            api_key,
        },
        from: PhoneNumber::parse(from.expose_secret()).map_err(|_| damaged("from_number"))?,
        region: region
            .map(Region::parse)
            .transpose()
            .map_err(|_| damaged("region"))?,
        default_locale: locale
            .map(Locale::parse)
            .transpose()
            .map_err(|_| damaged("default_locale"))?,
        ring_timeout: Duration::from_secs(ring_timeout_s),
        enabled: row.get("enabled"),
        // A country that this program doesn't know is not allowed, which is the safe side.
        allowed_countries: countries
            .into_iter()
            .filter_map(|country| Country::parse(country).ok())
            .collect(),
        test_mode: row.get("test_mode"),
        publishers: row.get("publishers"),
        speech: serde_json::from_value(row.get("speech")).map_err(|_| damaged("speech"))?,
        voicemail: Voicemail::parse(row.get("voicemail")).ok_or_else(|| damaged("voicemail"))?,
        redial: serde_json::from_value(row.get("redial")).map_err(|_| damaged("redial"))?,
        offered: row.get("offered"),
        paused: match (row.get("paused"), row.get("account_paused")) {
            (_, true) => Some(Paused::Account),
            (true, false) => Some(Paused::Tenant),
            (false, false) => None,
        },
        credentials_rejected: row.get("credentials_rejected"),
        circuit_open: row.get("circuit_open"),
        calls_per_second: row.get("calls_per_second"),
        account_sid,
        tenant_id,
    })
}
