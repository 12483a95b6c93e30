//! A separate system for each test: a vhost, a schema, a simulated Twilio, and workers as
//! processes.

mod broker;
pub(crate) mod pgbouncer;
pub(crate) mod postgres;
mod program;
mod proxy;
pub(crate) mod raw_amqp;
mod servers;
mod silent_queue;
mod statuses;

use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use tokio_util::sync::CancellationToken;
use voice_otp::account::AccountSid;
use voice_otp::settings::Draft;
use voice_otp_publisher::{Publisher, Settings};
use voice_otp_schemas::TenantId;
use voice_otp_simulator::{self as simulator, Account, Simulator};
use voice_otp_store::Keyring;
use voice_otp_store::settings;

pub(crate) use broker::Broker;
pub(crate) use program::{Console, Program, Worker, memory_bytes};
pub(crate) use proxy::{Direction, Proxy};
pub(crate) use servers::Servers;
pub(crate) use silent_queue::SilentQueue;
pub(crate) use statuses::Statuses;

use crate::database::Database;

/// The account of the tests' tenants.
pub(crate) const ACCOUNT: &str = "ACaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
/// The account's auth token: a canary that must not appear in any sink.
pub(crate) const AUTH_TOKEN: &str = "c4naryc4naryc4naryc4naryc4nary00";
/// The account's number.
pub(crate) const FROM: &str = "+12025550190";

/// Environment variables of a program.
pub(crate) type Environment = Vec<(&'static str, String)>;

/// One test's system.
pub(crate) struct System {
    pub(crate) database: Database,
    pub(crate) broker: Broker,
    pub(crate) simulator: Simulator,
    pub(crate) twilio_url: String,
    pub(crate) keys_text: SecretString,
    pub(crate) keys: Keyring,
    pub(crate) publisher: Publisher,
    shutdown: CancellationToken,
}

impl System {
    /// A system with a tenant `acme` at this many calls per second. The simulated Twilio runs 20
    /// times as fast as real time.
    pub(crate) async fn start(calls_per_second: f64) -> Self {
        let (database, broker) = (Database::fresh().await, Broker::fresh().await);
        let (system, ()) = Self::start_on(database, broker, calls_per_second, |_| async {}).await;
        system
    }

    /// Like [`start`](Self::start), on a database and a broker that `prepare` makes ready, with the
    /// environment of a program in this system.
    pub(crate) async fn start_on<T, F: Future<Output = T>>(
        database: Database,
        broker: Broker,
        calls_per_second: f64,
        prepare: impl FnOnce(Environment) -> F,
    ) -> (Self, T) {
        // The process may not have used TLS yet, and then has no provider. An error means that it
        // has.
        drop(rustls::crypto::ring::default_provider().install_default());
        let keys_text = Keyring::generate("test");
        let keys = Keyring::parse(&keys_text).unwrap();
        let account = Account {
            numbers: vec![FROM.to_owned()],
            calls_per_second: 1e6,
            ..Account::new(ACCOUNT, AUTH_TOKEN)
        };
        let simulator = Simulator::new(simulator::Settings {
            accounts: vec![account],
            seed: 1,
            speed: 20.0,
        });
        let listener = voice_otp_server::listen("127.0.0.1:0").await.unwrap();
        let twilio_url = format!("http://{}", listener.local_addr().unwrap());
        let shutdown = CancellationToken::new();
        tokio_util::task::TaskTracker::new()
            .spawn(simulator.clone().serve(listener, shutdown.clone()));
        let prepared = prepare(environment(&broker, &database, &keys_text, &twilio_url)).await;
        let publisher = Publisher::start(Settings::new(broker.url.clone(), "/test")).unwrap();
        let system = Self {
            database,
            broker,
            simulator,
            twilio_url,
            keys_text,
            keys,
            publisher,
            shutdown,
        };
        system.tenant("acme", calls_per_second, |_| {}).await;
        (system, prepared)
    }

    /// Saves a tenant of the account, with verified credentials.
    pub(crate) async fn tenant(
        &self,
        id: &str,
        calls_per_second: f64,
        change: impl FnOnce(&mut Draft),
    ) {
        let mut draft = Draft {
            account_sid: ACCOUNT.to_owned(),
            auth_token: SecretString::from(AUTH_TOKEN),
            from: FROM.to_owned(),
            enabled: true,
            ..Draft::default()
        };
        change(&mut draft);
        let tenant = TenantId::parse(id).unwrap();
        let checked = draft.check(tenant.clone()).unwrap();
        settings::save(
            &self.database.pool,
            &self.keys,
            &checked,
            Some(calls_per_second),
        )
        .await
        .unwrap();
        let saved = settings::load_one(&self.database.pool, &self.keys, &tenant)
            .await
            .unwrap()
            .unwrap();
        settings::mark_credentials_verified(&self.database.pool, &saved)
            .await
            .unwrap();
    }

    /// Pauses the account of `acme`, or resumes it.
    pub(crate) async fn set_paused(&self, paused: bool) {
        let account = AccountSid::parse(ACCOUNT).unwrap();
        voice_otp_store::accounts::set_paused(&self.database.pool, &account, paused)
            .await
            .unwrap();
    }

    /// The environment of a program in this system.
    pub(crate) fn environment(&self) -> Environment {
        environment(
            &self.broker,
            &self.database,
            &self.keys_text,
            &self.twilio_url,
        )
    }

    /// Starts a worker with callbacks, and waits until it is ready.
    pub(crate) async fn worker(&self) -> Worker {
        self.worker_with(&[]).await
    }

    /// Starts a worker with callbacks and further settings, and waits until it is ready.
    pub(crate) async fn worker_with(&self, settings: &[(&'static str, String)]) -> Worker {
        let worker = Worker::start(self.environment(), true, settings).await;
        worker.ready().await;
        worker
    }

    /// Publishes raw JSON as a request.
    pub(crate) async fn publish_json(&self, json: &serde_json::Value) {
        self.broker
            .publish(b"application/cloudevents+json", json.to_string().as_bytes())
            .await;
    }

    /// The number of calls to a number.
    pub(crate) fn calls_to(&self, to: &str) -> usize {
        self.simulator
            .calls()
            .iter()
            .filter(|call| call.to == to)
            .count()
    }

    /// Shuts the system down and deletes its vhost and schema.
    pub(crate) async fn stop(self) {
        self.publisher.close().await;
        self.shutdown.cancel();
        self.broker.delete().await;
        self.database.drop_schema().await;
    }
}

fn environment(
    broker: &Broker,
    database: &Database,
    keys: &SecretString,
    twilio_url: &str,
) -> Environment {
    vec![
        ("VOICE_OTP_AMQP_URL", broker.url.expose_secret().to_owned()),
        (
            "VOICE_OTP_DATABASE_URL",
            database.url.expose_secret().to_owned(),
        ),
        ("VOICE_OTP_KEYS", keys.expose_secret().to_owned()),
        ("VOICE_OTP_TWILIO_URL", twilio_url.to_owned()),
        ("VOICE_OTP_POST_TIMEOUT", "2s".to_owned()),
        ("VOICE_OTP_SETTLE_AFTER", "1s".to_owned()),
        ("VOICE_OTP_GRACE", "10s".to_owned()),
    ]
}

/// A request as an auth service writes it, whose code expires after `life`.
pub(crate) fn request(id: &str, to: &str, code: &str, life: Duration) -> serde_json::Value {
    let expires_at = std::time::SystemTime::now() + life;
    serde_json::json!({
        "specversion": "1.0",
        "id": id,
        "source": "/test",
        "type": "dev.voiceotp.delivery.requested.v1",
        "time": rfc3339(std::time::SystemTime::now()),
        "data": { "tenant_id": "acme", "to": to, "code": code, "expires_at": rfc3339(expires_at) },
    })
}

/// A time in the format of events.
pub(crate) fn rfc3339(time: std::time::SystemTime) -> String {
    voice_otp_schemas::request::rfc3339(voice_otp_schemas::Timestamp::from(time))
}

/// The `n`th of the numbers whose calls are answered.
pub(crate) fn number(n: usize) -> String {
    const AREAS: [u32; 12] = [212, 213, 312, 415, 617, 702, 713, 808, 305, 404, 503, 602];
    format!(
        "+1{}{}{:04}",
        AREAS[n % AREAS.len()],
        200 + n / AREAS.len() / 10_000,
        1000 + n / AREAS.len() % 9000
    )
}
