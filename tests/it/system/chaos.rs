//! Random faults on real servers: workers are killed and suspended, RabbitMQ and Postgres are
//! killed, connections to Twilio are cut, and POSTs stay unanswered. Afterwards the calls at Twilio
//! are compared with the published statuses.
//!
//! The test is a short run. `./dev chaos` runs a minute at 300 requests per second.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant, SystemTime};

use lapin::options::{BasicGetOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Connection, ConnectionProperties};
use rand::seq::{IndexedRandom as _, SliceRandom as _};
use secrecy::{ExposeSecret as _, SecretString};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use voice_otp::settings::Draft;
use voice_otp_publisher::publisher::TopologyScope;
use voice_otp_publisher::{Publisher, Settings, event, topology};
use voice_otp_schemas::TenantId;
use voice_otp_schemas::status::StatusEvent;
use voice_otp_simulator::{self as simulator, Account, CallReport, Faults, Simulator};
use voice_otp_store::{Keyring, Pool, migrate, settings};

use crate::harness::{ACCOUNT, AUTH_TOKEN, FROM, Proxy, Servers, Worker, number, request};

/// How long after its request a code expires.
const LIFE: Duration = Duration::from_mins(3);
/// The latest-start margin: no call is placed later than this before its code expires.
const LEAD: Duration = Duration::from_secs(30);
const STATUSES: &str = "chaos.statuses";
const WORKERS: usize = 3;

/// A fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    KillWorker,
    SuspendWorker,
    KillRabbit,
    KillPostgres,
    CutTwilio,
}

const FAULTS: [Fault; 5] = [
    Fault::KillWorker,
    Fault::SuspendWorker,
    Fault::KillRabbit,
    Fault::KillPostgres,
    Fault::CutTwilio,
];

/// The servers, workers and simulated Twilio of the test.
struct Chaos {
    servers: Servers,
    pool: Pool,
    simulator: Simulator,
    proxy: Proxy,
    environment: Vec<(&'static str, String)>,
    workers: Vec<Worker>,
    shutdown: CancellationToken,
}

fn number_of(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(default)
}

impl Chaos {
    async fn start() -> Self {
        drop(rustls::crypto::ring::default_provider().install_default());
        let servers = Servers::start().await;
        let pool = voice_otp_store::connect(&servers.database_url, 4).unwrap();
        migrate::apply(&pool).await.unwrap();
        let keys_text = Keyring::generate("chaos");
        let keys = Keyring::parse(&keys_text).unwrap();
        let draft = Draft {
            account_sid: ACCOUNT.to_owned(),
            auth_token: SecretString::from(AUTH_TOKEN),
            from: FROM.to_owned(),
            enabled: true,
            ..Draft::default()
        };
        let checked = draft.check(TenantId::parse("acme").unwrap()).unwrap();
        settings::save(&pool, &keys, &checked, Some(500.0))
            .await
            .unwrap();
        let saved = settings::load_one(&pool, &keys, &checked.tenant_id)
            .await
            .unwrap()
            .unwrap();
        settings::mark_credentials_verified(&pool, &saved)
            .await
            .unwrap();

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
        simulator.set_faults(Faults {
            unanswered_share: 0.05,
            ..Faults::default()
        });
        let listener = voice_otp_server::listen("127.0.0.1:0").await.unwrap();
        let proxy = Proxy::to(listener.local_addr().unwrap().to_string()).await;
        let shutdown = CancellationToken::new();
        TaskTracker::new().spawn(simulator.clone().serve(listener, shutdown.clone()));
        let environment = vec![
            (
                "VOICE_OTP_AMQP_URL",
                servers.amqp_url.expose_secret().to_owned(),
            ),
            (
                "VOICE_OTP_DATABASE_URL",
                servers.database_url.expose_secret().to_owned(),
            ),
            ("VOICE_OTP_KEYS", keys_text.expose_secret().to_owned()),
            ("VOICE_OTP_TWILIO_URL", format!("http://{}", proxy.address)),
            ("VOICE_OTP_POST_TIMEOUT", "2s".to_owned()),
            ("VOICE_OTP_SETTLE_AFTER", "2s".to_owned()),
            ("VOICE_OTP_GRACE", "10s".to_owned()),
        ];
        let mut chaos = Self {
            servers,
            pool,
            simulator,
            proxy,
            environment,
            workers: Vec::new(),
            shutdown,
        };
        for _ in 0..WORKERS {
            let worker = chaos.worker().await;
            worker.ready().await;
            chaos.workers.push(worker);
        }
        chaos.bind_statuses().await;
        chaos
    }

    async fn worker(&self) -> Worker {
        Worker::start(
            self.environment.clone(),
            true,
            &[("VOICE_OTP_LOG", "warn".to_owned())],
        )
        .await
    }

    /// Binds a durable queue for statuses, which outlives the broker's crash.
    async fn bind_statuses(&self) {
        let connection = self.connection().await;
        let channel = connection.create_channel().await.unwrap();
        let mut arguments = FieldTable::default();
        arguments.insert(
            "x-queue-type".into(),
            AMQPValue::LongString("quorum".into()),
        );
        let durable = QueueDeclareOptions {
            durable: true,
            ..QueueDeclareOptions::default()
        };
        channel
            .queue_declare(STATUSES.into(), durable, arguments)
            .await
            .unwrap();
        let options = QueueBindOptions::default();
        channel
            .queue_bind(
                STATUSES.into(),
                topology::STATUS.into(),
                "status.#".into(),
                options,
                FieldTable::default(),
            )
            .await
            .unwrap();
        connection.close(200, "done".into()).await.unwrap();
    }

    async fn connection(&self) -> Connection {
        Connection::connect(
            self.servers.amqp_url.expose_secret(),
            ConnectionProperties::default(),
        )
        .await
        .unwrap()
    }

    async fn inject(&mut self, fault: Fault) {
        let which = *(0..self.workers.len())
            .collect::<Vec<_>>()
            .choose(&mut rand::rng())
            .unwrap();
        match fault {
            Fault::KillWorker => {
                self.workers[which].kill().await;
                self.workers[which] = self.worker().await;
            }
            Fault::SuspendWorker => {
                // Longer than the worker's lease.
                self.workers[which].signal("STOP");
                tokio::time::sleep(Duration::from_secs(7)).await;
                self.workers[which].signal("CONT");
            }
            Fault::KillRabbit => {
                self.servers.kill_rabbitmq().await;
                self.servers.restart().await;
            }
            Fault::KillPostgres => {
                self.servers.kill_postgres().await;
                self.servers.restart().await;
            }
            Fault::CutTwilio => {
                self.proxy.close();
                tokio::time::sleep(Duration::from_millis(800)).await;
                self.proxy.open();
            }
        }
    }

    /// Waits until every delivery is final and published.
    async fn settle(&self, wanted: usize) {
        let count = async |sql: &str| -> i64 {
            match self.pool.get().await {
                Ok(client) => client
                    .query_one(sql, &[])
                    .await
                    .map_or(-1, |row| row.get(0)),
                Err(_) => -1,
            }
        };
        let settling = async {
            loop {
                let finished = count("select count(*) from deliveries where state = 'final'").await;
                let open = count("select count(*) from deliveries where state <> 'final'").await;
                let unpublished = count("select count(*) from outbox").await;
                if usize::try_from(finished).is_ok_and(|finished| finished >= wanted)
                    && open == 0
                    && unpublished == 0
                {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        };
        let in_time = tokio::time::timeout(LIFE + Duration::from_mins(3), settling).await;
        let left = "select coalesce(string_agg(delivery_id || ' ' || state, ', '), '') \
                    from deliveries where state <> 'final'";
        if in_time.is_err() {
            let client = self.pool.get().await.unwrap();
            let left: String = client.query_one(left, &[]).await.unwrap().get(0);
            panic!("not all deliveries are final: {left}");
        }
    }

    /// Consumes every published status.
    async fn statuses(&self) -> Vec<StatusEvent> {
        let connection = self.connection().await;
        let channel = connection.create_channel().await.unwrap();
        let mut events = Vec::new();
        while let Some(message) = channel
            .basic_get(STATUSES.into(), BasicGetOptions { no_ack: true })
            .await
            .unwrap()
        {
            events.push(serde_json::from_slice(&message.delivery.data).unwrap());
        }
        connection.close(200, "done".into()).await.unwrap();
        events
    }
}

/// A request: whether its publish was confirmed, and when its code expires.
struct Published {
    to: String,
    confirmed: bool,
    expires_at: SystemTime,
}

async fn publish(url: SecretString, rate: u64, seconds: u64) -> HashMap<String, Published> {
    let settings = Settings {
        timeout: Duration::from_mins(1),
        declare: TopologyScope::All,
        ..Settings::new(url, "/chaos")
    };
    let publisher = Publisher::start(settings).unwrap();
    let (start, tasks) = (Instant::now(), TaskTracker::new());
    let mut publishes = Vec::new();
    for n in 0..usize::try_from(rate * seconds).unwrap() {
        tokio::time::sleep(
            Duration::from_secs_f64(n as f64 / rate as f64).saturating_sub(start.elapsed()),
        )
        .await;
        let (id, to, publisher) = (format!("chaos-{n}"), number(n), publisher.clone());
        publishes.push(tasks.spawn(async move {
            let expires_at = SystemTime::now() + LIFE;
            let message = event::message(zeroize::Zeroizing::new(
                request(&id, &to, "493027", LIFE).to_string().into_bytes(),
            ))
            .unwrap();
            let confirmed = publisher.publish(message).await.is_ok();
            (
                id,
                Published {
                    to,
                    confirmed,
                    expires_at,
                },
            )
        }));
    }
    let mut published = HashMap::new();
    for one in publishes {
        let (id, one) = one.await.unwrap();
        published.insert(id, one);
    }
    publisher.close().await;
    published
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn through_random_faults_nothing_is_lost_called_twice_or_late() {
    let (rate, seconds) = (
        number_of("VOICE_OTP_CHAOS_RATE", 60),
        number_of("VOICE_OTP_CHAOS_SECONDS", 25),
    );
    let mut chaos = Chaos::start().await;
    let publishing =
        TaskTracker::new().spawn(publish(chaos.servers.amqp_url.clone(), rate, seconds));
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut faults = Vec::new();
    'faults: loop {
        let mut round = FAULTS;
        round.shuffle(&mut rand::rng());
        for fault in round {
            tokio::time::sleep(Duration::from_millis(1_500)).await;
            // Each fault occurs at least once.
            if Instant::now() > end && faults.len() >= FAULTS.len() {
                break 'faults;
            }
            chaos.inject(fault).await;
            faults.push(fault);
        }
    }
    let published = publishing.await.unwrap();
    let confirmed = published.values().filter(|one| one.confirmed).count();
    chaos.settle(confirmed).await;
    // Time for a second final status or a late call to appear.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let (calls, events) = (chaos.simulator.calls(), chaos.statuses().await);
    check(&published, &calls, &events);
    eprintln!(
        "{} requests ({confirmed} confirmed) at {rate}/s, {} calls, {} statuses, \
         {} faults {faults:?}, \
         5 % of POSTs unanswered: 0 lost, 0 doubled, 0 late",
        published.len(),
        calls.len(),
        events.len(),
        faults.len()
    );
    for worker in &mut chaos.workers {
        assert!(worker.terminate().await.success(), "{}", worker.log());
    }
    chaos.shutdown.cancel();
}

fn check(published: &HashMap<String, Published>, calls: &[CallReport], events: &[StatusEvent]) {
    let mut statuses_of: BTreeMap<&str, BTreeMap<u32, &StatusEvent>> = BTreeMap::new();
    for event in events {
        let first = statuses_of
            .entry(event.subject.as_str())
            .or_default()
            .entry(event.data.sequence)
            .or_insert(event);
        assert_eq!(*first, event, "a duplicate is the same event");
    }
    for (id, one) in published {
        let Some(statuses) = statuses_of.get(id.as_str()) else {
            assert!(!one.confirmed, "{id} was confirmed, and has no status");
            continue;
        };
        assert!(
            statuses.keys().copied().eq((1..).take(statuses.len())),
            "{id}: {:?}",
            statuses.keys()
        );
        let finals = statuses
            .values()
            .filter(|event| event.data.is_final)
            .count();
        assert_eq!(
            finals,
            1,
            "{id}: {:?}",
            statuses
                .values()
                .map(|event| event.data.status.as_str())
                .collect::<Vec<_>>()
        );
    }
    let mut by_number: HashMap<&str, Vec<&CallReport>> = HashMap::new();
    for call in calls {
        by_number.entry(call.to.as_str()).or_default().push(call);
    }
    for (id, one) in published {
        let Some(calls) = by_number.get(one.to.as_str()) else {
            continue;
        };
        assert_eq!(
            calls.len(),
            1,
            "{id} was called {} times: {calls:#?} {:?}",
            calls.len(),
            statuses_of.get(id.as_str())
        );
        let created: SystemTime = chrono::DateTime::parse_from_rfc3339(&calls[0].created)
            .unwrap()
            .into();
        assert!(
            created <= one.expires_at - LEAD + Duration::from_secs(1),
            "{id} was called late"
        );
    }
}
