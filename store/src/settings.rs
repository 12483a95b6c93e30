//! Voice settings in Postgres: saving, listing, deleting. Secrets are sealed on the way in.

mod around;

use std::collections::BTreeMap;
use std::time::Duration;

use deadpool_postgres::PoolError;
use secrecy::{ExposeSecret, SecretString};
use tokio_postgres::Row;
use voice_otp::account::{AccountSid, ApiKeySid};
use voice_otp::policy::Voicemail;
use voice_otp::settings::{ApiKey, Credentials, Paused, Region, VoiceSettings, unproven_pace_key};
use voice_otp_schemas::phone::Country;
use voice_otp_schemas::{Locale, PhoneNumber, TenantId};

pub use self::around::{Circumstances, circumstances, offer, uses};
use crate::accounts;
use crate::keys::{Keyring, OpenError};
use crate::pool::Pool;

/// Why settings can't be had or saved.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database can't be reached.
    #[error("connect to Postgres")]
    Connect(#[source] PoolError),
    /// A statement failed.
    #[error("{0}")]
    Query(&'static str, #[source] tokio_postgres::Error),
    /// A secret can't be opened.
    #[error("open the secrets of tenant {0}")]
    Open(TenantId, #[source] OpenError),
    /// A row isn't what it should be.
    #[error("the settings of tenant {0} are damaged: {1}")]
    Damaged(TenantId, &'static str),
}

/// One tenant in a list.
#[derive(Debug, Clone)]
pub struct Summary {
    /// Whose.
    pub tenant_id: TenantId,
    /// The Twilio account.
    pub account_sid: String,
    /// Whether voice is on.
    pub enabled: bool,
    /// Whether calls are only pretended.
    pub test_mode: bool,
    /// The account's pace.
    pub calls_per_second: f64,
}

/// How long refused credentials are left alone.
const REFUSED_FOR: Duration = Duration::from_mins(1);

const COLUMNS: &str = "s.tenant_id, s.version, s.account_sid, s.key_id, s.auth_token, s.secondary_auth_token, s.api_key_secret, \
     s.from_number, s.api_key_sid, s.region, s.default_locale, s.ring_timeout_s, s.enabled, s.allowed_countries, \
     s.test_mode, s.publishers, s.manner, s.voicemail, s.redial, s.offered, s.proven, s.paused, s.refused_until is not null as refused, a.paused as account_paused, \
     coalesce((select p.trial_us is not null from pacing p where p.pace_key = \
       case when s.proven then s.account_sid else s.account_sid || '/' || s.tenant_id end), false) as on_trial, \
     a.calls_per_second";

/// Tenants and their settings; a tenant whose secrets can't be opened with these keys is an error of its own.
pub type Loaded = BTreeMap<TenantId, Result<VoiceSettings, Error>>;

/// Reads the settings of tenants.
///
/// # Errors
/// [`Error`] when the database can't be asked.
pub async fn load(pool: &Pool, keys: &Keyring, tenants: &[TenantId]) -> Result<Loaded, Error> {
    let ids: Vec<&str> = tenants.iter().map(TenantId::as_str).collect();
    let sql = format!(
        "select {COLUMNS} from voice_settings s join accounts a using (account_sid) where s.tenant_id = any ($1)"
    );
    let client = pool.get().await.map_err(Error::Connect)?;
    let statement = client
        .prepare_cached(&sql)
        .await
        .map_err(|error| Error::Query("prepare reading voice settings", error))?;
    let rows = client
        .query(&statement, &[&ids])
        .await
        .map_err(|error| Error::Query("read voice settings", error))?;
    let named = rows
        .iter()
        .filter_map(|row| Some((TenantId::parse(row.get(0)).ok()?, row)));
    Ok(named
        .map(|(tenant, row)| (tenant.clone(), read(row, tenant, keys)))
        .collect())
}

/// Reads the settings of one tenant; none if there are none.
///
/// # Errors
/// [`Error`], also when its secrets can't be opened.
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
    let damaged = |what| Error::Damaged(tenant_id.clone(), what);
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
        _ => None,
    };
    let countries: Vec<&str> = row.get("allowed_countries");
    let locale: Option<&str> = row.get("default_locale");
    let region: Option<&str> = row.get("region");
    let ring_timeout_s: i32 = row.get("ring_timeout_s");
    let proven: bool = row.get("proven");
    Ok(VoiceSettings {
        pace_key: if proven {
            account_sid.as_str().to_owned()
        } else {
            unproven_pace_key(&account_sid, &tenant_id)
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
        ring_timeout: Duration::from_secs(u64::try_from(ring_timeout_s).unwrap_or(30)),
        enabled: row.get("enabled"),
        allowed_countries: countries
            .into_iter()
            .filter_map(|country| Country::parse(country).ok())
            .collect(),
        test_mode: row.get("test_mode"),
        publishers: row.get("publishers"),
        manner: serde_json::from_value(row.get("manner")).map_err(|_| damaged("manner"))?,
        voicemail: Voicemail::from_word(row.get("voicemail"))
            .ok_or_else(|| damaged("voicemail"))?,
        redial: serde_json::from_value(row.get("redial")).map_err(|_| damaged("redial"))?,
        offered: row.get("offered"),
        paused: match (row.get("paused"), row.get("account_paused")) {
            (_, true) => Some(Paused::Account),
            (true, false) => Some(Paused::Tenant),
            (false, false) => None,
        },
        refused: row.get("refused"),
        on_trial: row.get("on_trial"),
        calls_per_second: row.get("calls_per_second"),
        account_sid,
        tenant_id,
    })
}

/// Where a sealed setting belongs.
fn place(tenant: &TenantId, column: &str) -> String {
    format!("{tenant}/voice_settings.{column}")
}

/// What is to be there already when settings are saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// Whatever there is, or nothing.
    Anything,
    /// No settings.
    Nothing,
    /// The settings of this version.
    Version(i64),
}

/// Saves a tenant's settings. `pace` changes the account's pace, for every tenant of the account; without it the
/// account keeps the pace that it has.
///
/// # Errors
/// [`Error`]; at the most the settings are saved then, and the pace, which is a statement of its own, isn't.
pub async fn save(
    pool: &Pool,
    keys: &Keyring,
    settings: &VoiceSettings,
    pace: Option<f64>,
) -> Result<(), Error> {
    save_expecting(pool, keys, settings, pace, Expected::Anything)
        .await
        .map(drop)
}

/// The same; false, and nothing is changed, if what is there is not what was expected.
///
/// # Errors
/// As of [`save`].
pub async fn save_expecting(
    pool: &Pool,
    keys: &Keyring,
    settings: &VoiceSettings,
    pace: Option<f64>,
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
    let ring_timeout_s = i32::try_from(settings.ring_timeout.as_secs()).unwrap_or(600);
    let region = settings.region.as_ref().map(ToString::to_string);
    let locale = settings.default_locale.as_ref().map(Locale::as_str);
    // Structs of strings and numbers always have a JSON form.
    let manner = serde_json::to_value(&settings.manner).unwrap_or_default();
    let redial = serde_json::to_value(&settings.redial).unwrap_or_default();

    let version = match expected {
        Expected::Anything => None,
        // No version is.
        Expected::Nothing => Some(0),
        Expected::Version(version) => Some(version),
    };
    let kept = Kept::of(
        present(pool, keys, &settings.tenant_id).await?.as_ref(),
        settings,
    );
    let client = pool.get().await.map_err(Error::Connect)?;
    let saved = client
        .execute(
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
                &kept.proven,
                &settings.publishers,
                &manner,
                &settings.voicemail.as_str(),
                &redial,
                &version,
                &settings.offered,
                &kept.auth_token,
                &kept.secondary_auth_token,
                &kept.api_key,
            ],
        )
        .await
        .map_err(|error| Error::Query("save voice settings", error))?;
    drop(client);
    if let Some(pace) = pace
        && saved > 0
    {
        accounts::set_rate(pool, &settings.account_sid, pace).await?;
    }
    Ok(saved > 0)
}

/// One statement: the account, if it is new, and the tenant's settings. Credentials that were refused are tried again.
const SAVE: &str = "with account as (insert into accounts (account_sid) values ($2) on conflict (account_sid) do nothing) \
    insert into voice_settings (tenant_id, account_sid, key_id, auth_token, secondary_auth_token, api_key_secret, \
      from_number, api_key_sid, region, default_locale, ring_timeout_s, enabled, allowed_countries, test_mode, proven, publishers, \
      manner, voicemail, redial, offered, auth_token_since, secondary_auth_token_since, api_key_since) \
    select $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $21, clock_timestamp(), \
        case when $5::bytea is not null then clock_timestamp() end, case when $6::bytea is not null then clock_timestamp() end \
      where coalesce($20::bigint, 0) = 0 or exists (select 1 from voice_settings where tenant_id = $1) \
    on conflict (tenant_id) do update set \
      version = nextval('voice_settings_version'), account_sid = excluded.account_sid, key_id = excluded.key_id, \
      auth_token = excluded.auth_token, secondary_auth_token = excluded.secondary_auth_token, \
      api_key_secret = excluded.api_key_secret, from_number = excluded.from_number, api_key_sid = excluded.api_key_sid, \
      region = excluded.region, default_locale = excluded.default_locale, ring_timeout_s = excluded.ring_timeout_s, \
      enabled = excluded.enabled, allowed_countries = excluded.allowed_countries, test_mode = excluded.test_mode, \
      proven = excluded.proven, publishers = excluded.publishers, manner = excluded.manner, \
      voicemail = excluded.voicemail, redial = excluded.redial, refused_until = null, \
      auth_token_since = case when $22 then voice_settings.auth_token_since else excluded.auth_token_since end, \
      secondary_auth_token_since = case when $23 then voice_settings.secondary_auth_token_since else excluded.secondary_auth_token_since end, \
      api_key_since = case when $24 then voice_settings.api_key_since else excluded.api_key_since end, \
      updated_at = clock_timestamp() where $20::bigint is null or voice_settings.version = $20";

/// What is there; none also where it can't be opened, and so can't be compared.
async fn present(
    pool: &Pool,
    keys: &Keyring,
    tenant: &TenantId,
) -> Result<Option<VoiceSettings>, Error> {
    match load_one(pool, keys, tenant).await {
        Err(Error::Open(..) | Error::Damaged(..)) => Ok(None),
        other => other,
    }
}

/// Which of the secrets stay as they are.
#[derive(Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
struct Kept {
    auth_token: bool,
    secondary_auth_token: bool,
    api_key: bool,
    /// Credentials that Twilio has taken stay proven until they, or the account, are changed.
    proven: bool,
}

impl Kept {
    fn of(present: Option<&VoiceSettings>, settings: &VoiceSettings) -> Self {
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
        let was_proven = present.pace_key == present.account_sid.as_str();
        Self {
            auth_token,
            secondary_auth_token: same(
                old.secondary_auth_token.as_ref(),
                new.secondary_auth_token.as_ref(),
            ),
            api_key,
            proven: was_proven
                && present.account_sid == settings.account_sid
                && auth_token
                && api_key,
        }
    }
}

/// Pauses a tenant: its requests are admitted and wait. Or resumes it: what waits gets new slots. False if there is no such tenant.
///
/// # Errors
/// [`Error`] when the database can't be asked.
pub async fn pause(pool: &Pool, tenant: &TenantId, paused: bool) -> Result<bool, Error> {
    let client = pool.get().await.map_err(Error::Connect)?;
    let rows = client
        .query("select pause_tenant($1, $2)", &[&tenant.as_str(), &paused])
        .await
        .map_err(|error| Error::Query("pause or resume the tenant", error))?;
    Ok(rows.first().is_some_and(|row| row.get(0)))
}

/// Notes that Twilio refused a tenant's credentials. False if that was known, or they have changed.
///
/// # Errors
/// [`Error`] when the database can't be asked.
pub async fn refuse(pool: &Pool, settings: &VoiceSettings) -> Result<bool, Error> {
    let client = pool.get().await.map_err(Error::Connect)?;
    let sql = "update voice_settings set refused_until = clock_timestamp() + $3::double precision * interval '1 second', \
               version = nextval('voice_settings_version') where tenant_id = $1 and version = $2 and refused_until is null";
    let noted = client
        .execute(
            sql,
            &[
                &settings.tenant_id.as_str(),
                &settings.version,
                &REFUSED_FOR.as_secs_f64(),
            ],
        )
        .await
        .map_err(|error| Error::Query("note that Twilio refuses credentials", error))?;
    Ok(noted > 0)
}

/// Notes that Twilio takes a tenant's credentials again.
///
/// # Errors
/// [`Error`] when the database can't be asked.
pub async fn take(pool: &Pool, settings: &VoiceSettings) -> Result<(), Error> {
    let client = pool.get().await.map_err(Error::Connect)?;
    let sql = "update voice_settings set refused_until = null, version = nextval('voice_settings_version') \
               where tenant_id = $1 and version = $2 and refused_until is not null";
    client
        .execute(sql, &[&settings.tenant_id.as_str(), &settings.version])
        .await
        .map_err(|error| Error::Query("note that Twilio takes credentials", error))?;
    Ok(())
}

/// Tenants whose refused credentials it is time to try again. Who asks has them for a while.
///
/// # Errors
/// [`Error`] when the database can't be asked.
pub async fn suspects(pool: &Pool, most: usize) -> Result<Vec<TenantId>, Error> {
    let client = pool.get().await.map_err(Error::Connect)?;
    let sql = "with due as (select tenant_id from (select clock_timestamp() as t offset 0) clock cross join lateral ( \
                 select tenant_id from voice_settings where refused_until <= t order by refused_until limit $1 \
                 for update skip locked) d) \
               update voice_settings s set refused_until = clock_timestamp() + $2::double precision * interval '1 second' \
                 from due where s.tenant_id = due.tenant_id returning s.tenant_id";
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    let rows = client
        .query(sql, &[&most, &REFUSED_FOR.as_secs_f64()])
        .await
        .map_err(|error| Error::Query("look for refused credentials", error))?;
    Ok(rows
        .iter()
        .filter_map(|row| TenantId::parse(row.get(0)).ok())
        .collect())
}

/// Lists tenants, in order.
///
/// # Errors
/// [`Error`] when the database can't be asked.
pub async fn list(pool: &Pool) -> Result<Vec<Summary>, Error> {
    let client = pool.get().await.map_err(Error::Connect)?;
    let rows = client
        .query(
            "select s.tenant_id, s.account_sid, s.enabled, s.test_mode, a.calls_per_second \
             from voice_settings s join accounts a using (account_sid) order by s.tenant_id",
            &[],
        )
        .await
        .map_err(|error| Error::Query("list tenants", error))?;
    let summary = |row: &Row| {
        Some(Summary {
            tenant_id: TenantId::parse(row.get(0)).ok()?,
            account_sid: row.get(1),
            enabled: row.get(2),
            test_mode: row.get(3),
            calls_per_second: row.get(4),
        })
    };
    Ok(rows.iter().filter_map(summary).collect())
}

/// The same, if they are of this version.
///
/// # Errors
/// [`Error`] when the database can't be asked.
pub async fn delete_version(pool: &Pool, tenant: &TenantId, version: i64) -> Result<bool, Error> {
    let client = pool.get().await.map_err(Error::Connect)?;
    let deleted = client
        .execute(
            "delete from voice_settings where tenant_id = $1 and version = $2",
            &[&tenant.as_str(), &version],
        )
        .await
        .map_err(|error| Error::Query("delete voice settings", error))?;
    Ok(deleted > 0)
}

/// Deletes a tenant's settings. False if there are none. What is under way ends as it may.
///
/// # Errors
/// [`Error`] when the database can't be asked.
pub async fn delete(pool: &Pool, tenant: &TenantId) -> Result<bool, Error> {
    let client = pool.get().await.map_err(Error::Connect)?;
    let deleted = client
        .execute(
            "delete from voice_settings where tenant_id = $1",
            &[&tenant.as_str()],
        )
        .await
        .map_err(|error| Error::Query("delete voice settings", error))?;
    Ok(deleted > 0)
}

/// Notes that Twilio has taken a tenant's credentials.
///
/// # Errors
/// [`Error`] when the database can't be asked.
pub async fn prove(pool: &Pool, settings: &VoiceSettings) -> Result<(), Error> {
    let client = pool.get().await.map_err(Error::Connect)?;
    client
        .execute(
            // The calls of its own pace are the account's now: the account's next slot is one interval away.
            "with proven as (update voice_settings set proven = true, version = nextval('voice_settings_version') \
               where tenant_id = $1 and version = $2 and not proven returning account_sid) \
             insert into pacing as p (pace_key, account_sid, interval_us, tat) \
             select a.account_sid, a.account_sid, pace_interval(a.calls_per_second), \
               clock_timestamp() + pace_interval(a.calls_per_second) * interval '1 microsecond' from accounts a join proven using (account_sid) \
             on conflict (pace_key) do update set tat = greatest(p.tat, excluded.tat)",
            &[&settings.tenant_id.as_str(), &settings.version],
        )
        .await
        .map_err(|error| Error::Query("note that the credentials work", error))?;
    Ok(())
}
