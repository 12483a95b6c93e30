//! A separate Postgres schema for every test.

use secrecy::{ExposeSecret as _, SecretString};
use uuid::Uuid;
use voice_otp::settings::{Draft, VoiceSettings};
use voice_otp_schemas::{TenantId, Timestamp};
use voice_otp_store::{Keyring, Pool, migrate, settings};

/// A migrated schema. A test that fails leaves it behind, for inspection.
pub(crate) struct Database {
    /// Connections whose search path is the schema.
    pub(crate) pool: Pool,
    /// The URL of the schema.
    pub(crate) url: SecretString,
    schema: String,
}

const CONNECTIONS: usize = 4;

impl Database {
    /// A new schema, migrated.
    pub(crate) async fn fresh() -> Self {
        let database = Self::empty("").await;
        migrate::apply(&database.pool)
            .await
            .expect("the migrations apply");
        database
    }

    /// A new schema with nothing in it.
    pub(crate) async fn unmigrated() -> Self {
        Self::empty("").await
    }

    /// A new schema, migrated, in which time only advances by [`set_time`](Self::set_time).
    ///
    /// All SQL of the store reads the time by an unqualified `clock_timestamp()`. This schema has a
    /// function of that name and precedes `pg_catalog` in the search path, so its function is found
    /// first.
    pub(crate) async fn with_clock(now: Timestamp) -> Self {
        let database = Self::empty(",pg_catalog").await;
        let client = database.pool.get().await.expect("Postgres answers");
        let clock = "create table test_clock (moment timestamptz not null); \
                     create function clock_timestamp() returns timestamptz language sql volatile \
                     as 'select moment from test_clock'";
        client
            .batch_execute(clock)
            .await
            .expect("the clock can be made");
        client
            .execute("insert into test_clock (moment) values ($1)", &[&now])
            .await
            .expect("the clock can be set");
        drop(client);
        migrate::apply(&database.pool)
            .await
            .expect("the migrations apply");
        database
    }

    /// A new schema, migrated, whose time can be [set ahead](Self::set_ahead).
    ///
    /// Its `clock_timestamp()` precedes that of `pg_catalog`, as in
    /// [`with_clock`](Self::with_clock).
    pub(crate) async fn with_stepping_clock() -> Self {
        let database = Self::empty(",pg_catalog").await;
        let client = database.pool.get().await.expect("Postgres answers");
        let clock = "create table test_clock (ahead interval not null); \
                     insert into test_clock values ('0'); \
                     create function clock_timestamp() returns timestamptz language sql volatile \
                     as 'select pg_catalog.clock_timestamp() + ahead from test_clock'";
        client
            .batch_execute(clock)
            .await
            .expect("the clock can be made");
        drop(client);
        migrate::apply(&database.pool)
            .await
            .expect("the migrations apply");
        database
    }

    /// Sets the clock of a schema made [`with_stepping_clock`](Self::with_stepping_clock) so many
    /// seconds ahead of the true time, or behind it.
    pub(crate) async fn set_ahead(&self, seconds: i32) {
        let client = self.pool.get().await.expect("Postgres answers");
        let sql = format!("update test_clock set ahead = make_interval(secs => {seconds})");
        client
            .batch_execute(&sql)
            .await
            .expect("the clock can be set");
    }

    /// Sets the time of a schema made [`with_clock`](Self::with_clock).
    pub(crate) async fn set_time(&self, now: Timestamp) {
        let client = self.pool.get().await.expect("Postgres answers");
        let set = client
            .execute("update test_clock set moment = $1", &[&now])
            .await
            .expect("the clock can be set");
        assert_eq!(set, 1, "the schema has a clock");
    }

    /// A second pool, as another process would have.
    pub(crate) fn another_pool(&self) -> Pool {
        voice_otp_store::connect_worker(&self.url, CONNECTIONS)
            .expect("the URL has been used before")
    }

    /// Checks and saves a tenant's settings and reads them back.
    pub(crate) async fn save_tenant(
        &self,
        keys: &Keyring,
        tenant: &str,
        draft: &Draft,
    ) -> VoiceSettings {
        let tenant = TenantId::parse(tenant).unwrap();
        let checked = draft.check(tenant.clone()).expect("the draft is right");
        settings::save(&self.pool, keys, &checked, draft.calls_per_second)
            .await
            .expect("the settings are saved");
        settings::load_one(&self.pool, keys, &tenant)
            .await
            .expect("the settings can be read")
            .expect("they are there")
    }

    /// The server's host and port.
    pub(crate) fn address(&self) -> String {
        let authority = self.url.expose_secret().split('/').nth(2).unwrap();
        authority.rsplit('@').next().unwrap().to_owned()
    }

    /// Drops the schema, at the end of a test.
    pub(crate) async fn drop_schema(self) {
        let client = self.pool.get().await.expect("Postgres answers");
        client
            .batch_execute(&format!("drop schema {} cascade", self.schema))
            .await
            .expect("the schema can be dropped");
    }

    async fn empty(rest_of_path: &str) -> Self {
        let server = std::env::var("VOICE_OTP_DATABASE_URL")
            .expect("VOICE_OTP_DATABASE_URL must name a Postgres for tests; `./dev test` sets it");
        let schema = format!("t_{}", Uuid::new_v4().simple());
        let admin = voice_otp_store::connect(&SecretString::from(server.as_str()), 1)
            .expect("it is a Postgres URL");
        let client = admin.get().await.expect("Postgres answers");
        client
            .batch_execute(&format!("create schema {schema}"))
            .await
            .expect("a schema can be made");
        drop(client);
        let url = with_search_path(&server, &format!("{schema}{rest_of_path}"));
        let pool = voice_otp_store::connect_worker(&url, CONNECTIONS)
            .expect("the schema's URL is a Postgres URL");
        Self { pool, url, schema }
    }
}

/// A keyring with one random key.
pub(crate) fn keys() -> Keyring {
    Keyring::parse(&Keyring::generate("test")).unwrap()
}

fn with_search_path(server: &str, path: &str) -> SecretString {
    let separator = if server.contains('?') { '&' } else { '?' };
    let path = path.replace(',', "%2C");
    SecretString::from(format!(
        "{server}{separator}options=-c%20search_path%3D{path}"
    ))
}

#[tokio::test]
async fn every_test_has_its_own_migrated_schema() {
    let (one, two) = tokio::join!(Database::fresh(), Database::fresh());
    assert_ne!(one.url.expose_secret(), two.url.expose_secret());
    for database in [&one, &two] {
        let applied = migrate::apply(&database.pool).await.unwrap();
        assert_eq!(
            (applied.migrations, applied.functions),
            (0, 0),
            "nothing is left to apply"
        );
        migrate::check(&database.pool).await.unwrap();
    }
    one.drop_schema().await;
    two.drop_schema().await;
}

#[tokio::test]
async fn a_schema_with_a_clock_has_the_time_that_was_set() {
    let noon = chrono::DateTime::from_timestamp(1_770_000_000, 0).unwrap();
    let database = Database::with_clock(noon).await;
    let later = noon + std::time::Duration::from_secs(61);
    database.set_time(later).await;
    let client = database.another_pool().get().await.unwrap();
    let read: Timestamp = client
        .query_one("select clock_timestamp()", &[])
        .await
        .unwrap()
        .get(0);
    assert_eq!(read, later);
    drop(client);
    database.drop_schema().await;
}
