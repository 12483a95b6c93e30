//! A broker that is killed, restarted and short of memory: every publish resolves truthfully in
//! bounded time, and spooled events arrive once the broker is back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use lapin::options::BasicGetOptions;
use lapin::{Connection, ConnectionProperties};
use secrecy::{ExposeSecret as _, SecretString};
use tokio_util::task::TaskTracker;
use voice_otp_publisher::publisher::TopologyScope;
use voice_otp_publisher::{PublishError, Publisher, Settings, Spool, StoredIn, spool, topology};
use voice_otp_schemas::envelope::Trace;
use voice_otp_schemas::request::{Cancelled, Requested, Target};
use voice_otp_schemas::{Context, DeliveryId, OtpCode, PhoneNumber, TenantId, Timestamp};
use voice_otp_store::Keyring;

use crate::harness::{Servers, number};

/// A code that must not appear in the spool file.
const CANARY: &str = "C4NARY77";
/// How long a publish waits for its confirm.
const TIMEOUT: Duration = Duration::from_secs(8);
/// How much longer than its timeout a publish may take: a window of confirms, and a new connection.
const SLACK: Duration = Duration::from_secs(12);
const TASKS: usize = 8;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn through_a_crash_and_a_memory_alarm_every_publish_resolves_truthfully_in_bounded_time() {
    let servers = Servers::start().await;
    let settings = Settings {
        timeout: TIMEOUT,
        declare: TopologyScope::All,
        ..Settings::new(servers.amqp_url.clone(), "/test")
    };
    let publisher = Publisher::start(settings).unwrap();
    publisher
        .request(&request("first", 0, Duration::from_mins(3)))
        .await
        .unwrap();

    let stop = Arc::new(AtomicBool::new(false));
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            TaskTracker::new().spawn(publish_until(Arc::clone(&stop), publisher.clone(), task))
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(1)).await;
    servers.kill_rabbitmq().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    servers.restart().await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    servers.memory_alarm(true).await;
    // Long enough for publishes to time out.
    tokio::time::sleep(TIMEOUT + Duration::from_secs(3)).await;
    servers.memory_alarm(false).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    stop.store(true, Ordering::SeqCst);
    let mut results = BTreeMap::new();
    for task in tasks {
        results.extend(task.await.unwrap());
    }
    publisher
        .request(&request("last", 0, Duration::from_mins(3)))
        .await
        .unwrap();
    publisher.close().await;

    let stored = drain(&servers.amqp_url).await;
    let lost: Vec<&String> = results
        .iter()
        .filter(|(id, reported)| **reported && !stored.contains(*id))
        .map(|(id, _)| id)
        .collect();
    assert!(
        lost.is_empty(),
        "reported as stored, and not in the queue: {lost:?}"
    );
    let (confirmed, unknown) = (
        results.values().filter(|reported| **reported).count(),
        results.values().filter(|reported| !**reported).count(),
    );
    assert!(confirmed > 500, "{confirmed} confirmed");
    // Some may be confirmed in the moment before the alarm.
    assert!(
        unknown >= TASKS / 2,
        "{unknown} unconfirmed; the alarm should block publishes for longer than their timeout"
    );
    eprintln!("{confirmed} confirmed, {unknown} unconfirmed, 0 false reports");
}

/// Publishes one request after another. Returns each id, and whether it was reported as stored.
async fn publish_until(
    stop: Arc<AtomicBool>,
    publisher: Publisher,
    task: usize,
) -> Vec<(String, bool)> {
    let mut results = Vec::new();
    for n in 0.. {
        if stop.load(Ordering::SeqCst) {
            break;
        }
        let (id, start) = (format!("{task}-{n}"), Instant::now());
        let result = publisher
            .request(&request(&id, n, Duration::from_mins(3)))
            .await;
        assert!(
            start.elapsed() < TIMEOUT + SLACK,
            "{id} took {:?}",
            start.elapsed()
        );
        assert!(
            matches!(
                result,
                Ok(()) | Err(PublishError::Unconfirmed(_) | PublishError::SilentQueue)
            ),
            "{id}: {result:?}"
        );
        results.push((id, result.is_ok()));
    }
    results
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spooled_events_outlive_the_outage_and_the_process_and_arrive_in_order_unless_expired() {
    let servers = Servers::start().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.spool");
    let keys = Keyring::parse(&Keyring::generate("spool")).unwrap();
    let start = async || {
        let settings = Settings {
            timeout: TIMEOUT,
            declare: TopologyScope::All,
            ..Settings::new(servers.amqp_url.clone(), "/test")
        };
        let publisher = Publisher::start(settings).unwrap();
        let settings = spool::Settings {
            confirm_timeout: Duration::from_millis(500),
            ..spool::Settings::new(&path, keys.clone())
        };
        let spool = Spool::start(publisher.clone(), settings).await.unwrap();
        (publisher, spool)
    };
    let life = Duration::from_mins(10);
    let (publisher, spool) = start().await;
    // The first one may be spooled until the topology is declared.
    spool.request(&request("before", 0, life)).await.unwrap();
    while spool.waiting() > 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(
        spool
            .request(&request("still-before", 0, life))
            .await
            .unwrap(),
        StoredIn::Broker
    );
    servers.kill_rabbitmq().await;
    let mut wanted = vec!["before".to_owned(), "still-before".to_owned()];
    for n in 0..40 {
        let (id, start) = (format!("spooled-{n:02}"), Instant::now());
        let life = if n % 10 == 3 {
            Duration::from_secs(3)
        } else {
            life
        };
        assert_eq!(
            spool.request(&request(&id, n, life)).await.unwrap(),
            StoredIn::File,
            "{id}"
        );
        assert!(
            start.elapsed() < Duration::from_secs(3),
            "{id} took {:?}",
            start.elapsed()
        );
        if n % 10 != 3 {
            wanted.push(id);
        }
    }
    let target = Target::Delivery(DeliveryId::parse("spooled-00").unwrap());
    let cancelled = Cancelled {
        tenant_id: TenantId::parse("acme").unwrap(),
        target,
        time: None,
    };
    assert_eq!(
        spool
            .cancel("the-cancellation", &cancelled, &Trace::default())
            .await
            .unwrap(),
        StoredIn::File
    );
    wanted.push("the-cancellation".to_owned());
    assert_eq!(spool.waiting(), 41);

    // No other process can open the file, and its content is not readable.
    let settings = spool::Settings::new(&path, keys.clone());
    let error = Spool::start(publisher.clone(), settings)
        .await
        .err()
        .expect("the file is locked");
    assert!(
        format!("{error}").contains("another process has it"),
        "{error}"
    );
    let bytes = std::fs::read(&path).unwrap();
    for canary in [CANARY, &number(7), "acme"] {
        assert!(
            !bytes
                .windows(canary.len())
                .any(|window| window == canary.as_bytes()),
            "{canary} is in the file"
        );
    }
    spool.close().await;
    publisher.close().await;
    let wrong_key =
        spool::Settings::new(&path, Keyring::parse(&Keyring::generate("other")).unwrap());
    let idle = Publisher::start(Settings::new(servers.amqp_url.clone(), "/test")).unwrap();
    let error = Spool::start(idle.clone(), wrong_key)
        .await
        .err()
        .expect("the events can't be unsealed");
    assert!(matches!(error, spool::Error::Key(_)), "{error}");
    idle.close().await;

    // The process restarts, and the broker comes back after some of the events have expired.
    let (publisher, spool) = start().await;
    assert_eq!(spool.waiting(), 41);
    servers.restart().await;
    let emptied = async {
        while spool.waiting() > 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), emptied)
        .await
        .expect("the spool is published");
    assert_eq!(spool.dropped(), 4);
    assert_eq!(
        spool.request(&request("after", 0, life)).await.unwrap(),
        StoredIn::Broker
    );
    wanted.push("after".to_owned());
    spool.close().await;
    publisher.close().await;
    let mut stored = drain(&servers.amqp_url).await;
    // Events that were unconfirmed when the broker died may be stored twice.
    let mut seen = std::collections::HashSet::new();
    stored.retain(|id| seen.insert(id.clone()));
    assert_eq!(stored, wanted);
}

fn request(id: &str, n: usize, life: Duration) -> Requested {
    let now: Timestamp = SystemTime::now().into();
    Requested {
        tenant_id: TenantId::parse("acme").unwrap(),
        delivery_id: DeliveryId::parse(id).unwrap(),
        to: PhoneNumber::parse(&number(n)).unwrap(),
        code: OtpCode::parse(CANARY).unwrap(),
        expires_at: now + life,
        locale: None,
        user_ref: None,
        extension: None,
        context: Context::default(),
        time: Some(now),
        trace: Trace::default(),
    }
}

/// Consumes every request in the queue. Returns their ids without the tenant, in order.
async fn drain(url: &SecretString) -> Vec<String> {
    let connection = Connection::connect(url.expose_secret(), ConnectionProperties::default())
        .await
        .unwrap();
    let channel = connection.create_channel().await.unwrap();
    let lane = topology::lane_queue(topology::lane_of(&TenantId::parse("acme").unwrap()));
    let mut ids = Vec::new();
    while let Some(message) = channel
        .basic_get(lane.as_str().into(), BasicGetOptions { no_ack: true })
        .await
        .unwrap()
    {
        let id = message
            .delivery
            .properties
            .message_id()
            .as_ref()
            .unwrap()
            .as_str()
            .to_owned();
        ids.push(id.strip_prefix("acme/").unwrap().to_owned());
    }
    connection.close(200, "done".into()).await.unwrap();
    ids
}
