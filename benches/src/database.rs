//! A migrated Postgres schema for one measurement, with its tenants.

use anyhow::Context as _;
use futures_util::{TryStreamExt as _, stream};
use secrecy::{ExposeSecret as _, SecretString};
use voice_otp::settings::Draft;
use voice_otp_schemas::TenantId;
use voice_otp_store::{Keyring, Pool, migrate, settings};

use crate::broker::from_environment;

/// A migrated schema.
pub(crate) struct Database {
    /// The URL of the schema.
    pub(crate) url: SecretString,
    /// The server's URL, without a schema.
    pub(crate) server: String,
    /// The schema's name.
    pub(crate) schema: String,
    pub(crate) pool: Pool,
    /// The keys that seal the tenants' secrets.
    pub(crate) keys_text: SecretString,
    keys: Keyring,
}

/// The auth token of every account.
pub(crate) const AUTH_TOKEN: &str = "0123456789abcdef0123456789abcdef";
/// The From number of every tenant.
pub(crate) const FROM: &str = "+12025550190";
/// The connections of this program.
const CONNECTIONS: usize = 4;

/// A Twilio account and its tenants.
pub(crate) struct Account {
    pub(crate) number: usize,
    pub(crate) calls_per_second: f64,
    /// The tenants' ids.
    pub(crate) tenants: Vec<String>,
}

impl Account {
    /// The account with this number, and one tenant `t<number>`.
    pub(crate) fn with_one_tenant(number: usize, calls_per_second: f64) -> Self {
        Self {
            number,
            calls_per_second,
            tenants: vec![format!("t{number}")],
        }
    }

    pub(crate) fn sid(&self) -> String {
        format!("AC{:032x}", self.number)
    }
}

impl Database {
    pub(crate) async fn fresh() -> anyhow::Result<Self> {
        let server = from_environment("VOICE_OTP_DATABASE_URL")?;
        let schema = format!("bench_{}", uuid::Uuid::new_v4().simple());
        let admin = voice_otp_store::connect(&SecretString::from(server.as_str()), 1)?;
        admin
            .get()
            .await?
            .batch_execute(&format!("create schema {schema}"))
            .await?;
        let separator = if server.contains('?') { '&' } else { '?' };
        let url = SecretString::from(format!(
            "{server}{separator}options=-c%20search_path%3D{schema}"
        ));
        let pool = voice_otp_store::connect(&url, CONNECTIONS)?;
        migrate::apply(&pool).await?;
        let keys_text = Keyring::generate("bench");
        let keys = Keyring::parse(&keys_text)?;
        Ok(Self {
            url,
            server,
            schema,
            pool,
            keys_text,
            keys,
        })
    }

    /// Saves tenants with verified credentials, and the peers' table of them.
    pub(crate) async fn tenants(&self, accounts: &[Account]) -> anyhow::Result<()> {
        let drafts = accounts
            .iter()
            .flat_map(|account| account.tenants.iter().map(move |tenant| (account, tenant)));
        stream::iter(drafts.map(anyhow::Ok))
            .try_for_each_concurrent(CONNECTIONS, |(account, tenant)| async move {
                let draft = Draft {
                    account_sid: account.sid(),
                    auth_token: SecretString::from(AUTH_TOKEN),
                    from: FROM.to_owned(),
                    enabled: true,
                    calls_per_second: Some(account.calls_per_second),
                    ..Draft::default()
                };
                let checked = draft
                    .check(TenantId::parse(tenant)?)
                    .map_err(|wrong| anyhow::anyhow!("{wrong:?}"))?;
                Ok(settings::save(
                    &self.pool,
                    &self.keys,
                    &checked,
                    Some(account.calls_per_second),
                )
                .await?)
            })
            .await?;
        let sql = "update voice_settings set credentials_verified = true; \
                   create table if not exists bench_tenants (tenant_id text primary key, \
                     account_sid text, auth_token text, from_number text); \
                   insert into bench_tenants select tenant_id, account_sid, \
                     '0123456789abcdef0123456789abcdef', '+12025550190' \
                     from voice_settings on conflict do nothing; \
                   analyze";
        Ok(self.pool.get().await?.batch_execute(sql).await?)
    }

    /// The number that a query returns.
    pub(crate) async fn count(&self, sql: &str) -> anyhow::Result<i64> {
        Ok(self.pool.get().await?.query_one(sql, &[]).await?.get(0))
    }

    pub(crate) async fn drop_schema(self) -> anyhow::Result<()> {
        let client = self.pool.get().await.context("connect to Postgres")?;
        Ok(client
            .batch_execute(&format!("drop schema {} cascade", self.schema))
            .await?)
    }

    pub(crate) fn url(&self) -> String {
        self.url.expose_secret().to_owned()
    }
}
