//! Messages that can't be read, and messages that end their workers, harm no one else.

use std::time::{Duration, Instant};

use lapin::BasicProperties;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldArray, FieldTable};
use secrecy::ExposeSecret as _;
use voice_otp::settings::Draft;
use voice_otp_publisher::topology::{self, LANES, lane_key, lane_queue};
use voice_otp_schemas::TenantId;
use voice_otp_store::Keyring;

use crate::harness::{
    ACCOUNT, AUTH_TOKEN, Broker, FROM, Statuses, System, Worker, number, request,
};

const LIFE: Duration = Duration::from_mins(3);
const JSON: &str = "application/cloudevents+json";
/// A message whose body isn't JSON.
const UNREADABLE: &[u8] = b"{\"no\": \"json";

fn acme() -> TenantId {
    TenantId::parse("acme").unwrap()
}

fn acme_key() -> String {
    lane_key(topology::REQUESTED_KEY, &acme())
}

/// Publishes messages without waiting for confirms.
async fn send(broker: &Broker, exchange: &str, key: &str, bodies: &[Vec<u8>], headers: FieldTable) {
    let channel = broker.connection.create_channel().await.unwrap();
    // A channel that closes before its publishes are confirmed loses some of them.
    let confirms = ConfirmSelectOptions { nowait: false };
    channel.confirm_select(confirms).await.unwrap();
    let mut unconfirmed = Vec::with_capacity(bodies.len());
    for body in bodies {
        let properties = BasicProperties::default()
            .with_content_type(JSON.into())
            .with_delivery_mode(2)
            .with_headers(headers.clone());
        let options = BasicPublishOptions::default();
        let publishing =
            channel.basic_publish(exchange.into(), key.into(), options, body, properties);
        unconfirmed.push(publishing.await.unwrap());
    }
    for confirm in unconfirmed {
        drop(confirm.await.unwrap());
    }
    channel.close(200, "done".into()).await.unwrap();
}

async fn send_unreadable(broker: &Broker, key: &str, count: usize) {
    let bodies = vec![UNREADABLE.to_vec(); count];
    send(
        broker,
        topology::REQUESTS,
        key,
        &bodies,
        FieldTable::default(),
    )
    .await;
}

fn body(id: &str, n: usize) -> Vec<u8> {
    request(id, &number(n), "493027", LIFE)
        .to_string()
        .into_bytes()
}

/// Publishes requests of `acme` in its lane, and waits until each has ended.
async fn deliver(
    system: &System,
    statuses: &mut Statuses,
    prefix: &str,
    first: usize,
    count: usize,
) {
    let bodies: Vec<_> = (0..count)
        .map(|n| body(&format!("{prefix}-{n}"), first + n))
        .collect();
    let none = FieldTable::default();
    send(
        &system.broker,
        topology::REQUESTS,
        &acme_key(),
        &bodies,
        none,
    )
    .await;
    let ended = |seen: &[(String, voice_otp_schemas::status::StatusEvent)]| {
        let finals = seen.iter().filter(|(_, event)| event.data.is_final);
        finals
            .filter(|(_, event)| event.subject.starts_with(prefix))
            .count()
            == count
    };
    statuses
        .until("each request ends", Duration::from_secs(30), ended)
        .await;
}

/// The lines that an operator sees.
fn lines(worker: &Worker) -> Vec<String> {
    let log = worker.log();
    let levels = [" INFO ", " WARN ", " ERROR "];
    log.lines()
        .filter(|line| levels.iter().any(|level| line.contains(level)))
        .filter(|line| !line.contains("delivery finished"))
        .map(str::to_owned)
        .collect()
}

async fn wait_until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let in_time = tokio::time::timeout(Duration::from_mins(3), waiting).await;
    assert!(in_time.is_ok(), "{what}: not within three minutes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_unreadable_messages_delays_no_other_tenant() {
    const FLOOD: usize = 10_000;
    let system = System::start(1_000.0).await;
    let mut statuses = system.broker.statuses().await;
    let mut worker = system.worker().await;
    let mut slowest = [Duration::ZERO; 2];
    let mut flood = Box::pin(send_unreadable(
        &system.broker,
        topology::REQUESTED_KEY,
        FLOOD,
    ));
    let mut is_flooding = true;
    for (round, slowest) in slowest.iter_mut().enumerate() {
        for n in 0..30 {
            let started = Instant::now();
            let prefix = format!("innocent-{round}-{n}");
            let delivering = deliver(&system, &mut statuses, &prefix, 100 * round + n, 1);
            tokio::pin!(delivering);
            loop {
                tokio::select! {
                    () = &mut flood, if is_flooding && round == 1 => is_flooding = false,
                    () = &mut delivering => break,
                }
            }
            *slowest = started.elapsed().max(*slowest);
        }
    }
    if is_flooding {
        flood.as_mut().await;
    }
    drop(flood);
    eprintln!("the slowest delivery, quiet and beside the flood: {slowest:?}");
    assert!(
        slowest[1] < slowest[0] * 4 + Duration::from_secs(3),
        "{slowest:?}"
    );
    wait_until("the flood is dropped", async || {
        worker.metric("voice_otp_dead_letters_total").await
            + worker
                .metric("voice_otp_dead_letters_dropped_total{cause=\"budget\"}")
                .await
            == FLOOD as u64
    })
    .await;
    let letters = system.broker.depth(topology::DEAD).await;
    assert!((200..600).contains(&letters), "{letters} letters");
    assert_eq!(system.broker.depth(topology::REQUESTS).await, 0);
    let lines = lines(&worker);
    assert!(lines.len() < 40, "{lines:#?}");
    assert!(worker.terminate().await.success());
    system.stop().await;
}

#[tokio::test]
async fn copies_of_a_message_in_other_lanes_are_dropped_unread() {
    let system = System::start(1_000.0).await;
    let mut statuses = system.broker.statuses().await;
    // It logs little: a trace of each copy is as long as its headers.
    let quiet = [("VOICE_OTP_LOG", "info".to_owned())];
    let mut worker = system.worker_with(&quiet).await;
    let mut keys = FieldArray::default();
    for lane in 0..LANES {
        keys.push(AMQPValue::LongString(
            format!("otp.requested.{lane:03}").as_str().into(),
        ));
    }
    let mut headers = FieldTable::default();
    headers.insert("CC".into(), AMQPValue::FieldArray(keys));
    let mut bodies: Vec<_> = (0..10).map(|n| body(&format!("copied-{n}"), n)).collect();
    bodies.extend(vec![UNREADABLE.to_vec(); 10]);
    let key = topology::REQUESTED_KEY;
    send(&system.broker, topology::REQUESTS, key, &bodies, headers).await;
    statuses.until_finals(10, Duration::from_secs(30)).await;
    let copies = 20 * u64::from(LANES);
    wait_until("every copy is dropped", async || {
        worker.metric("voice_otp_message_copies_total").await >= copies
    })
    .await;
    assert_eq!(system.broker.dead_letters(10).await.len(), 10);
    assert_eq!(worker.metric("voice_otp_dead_letters_total").await, 10);
    statuses.assert_sound();
    assert!(worker.terminate().await.success());
    system.stop().await;
}

#[tokio::test]
async fn a_full_and_then_a_deleted_dead_letter_queue_stops_nothing_else() {
    let system = System::start(1_000.0).await;
    let mut statuses = system.broker.statuses().await;
    // As an operator may have declared it: it refuses instead of dropping the oldest.
    system.broker.delete_queue(topology::DEAD).await;
    let mut arguments = FieldTable::default();
    arguments.insert(
        "x-queue-type".into(),
        AMQPValue::LongString("quorum".into()),
    );
    arguments.insert("x-max-length".into(), AMQPValue::LongInt(1));
    let overflow = AMQPValue::LongString("reject-publish".into());
    arguments.insert("x-overflow".into(), overflow);
    let channel = system.broker.connection.create_channel().await.unwrap();
    let durable = QueueDeclareOptions {
        durable: true,
        ..QueueDeclareOptions::default()
    };
    let declaring = channel.queue_declare(topology::DEAD.into(), durable, arguments);
    drop(declaring.await.unwrap());

    let mut worker = system.worker().await;
    // More than the lane's prefetch.
    for round in 0..3 {
        send_unreadable(&system.broker, &acme_key(), 150).await;
        deliver(
            &system,
            &mut statuses,
            &format!("full-{round}"),
            10 * round,
            5,
        )
        .await;
    }
    let text = worker.readiness(true).await;
    assert!(
        text.contains("dead letters: degraded: not stored for") && text.contains("is full"),
        "{text}"
    );
    let refused = worker
        .metric("voice_otp_dead_letters_dropped_total{cause=\"refused\"}")
        .await;
    let waiting = worker.metric("voice_otp_dead_letters_waiting").await;
    assert!(
        refused > 0 && (1..=31).contains(&waiting),
        "{refused} refused, {waiting} wait"
    );
    assert_eq!(
        worker
            .log()
            .matches("dead letters are not stored; retrying")
            .count(),
        1
    );

    system.broker.delete_queue(topology::DEAD).await;
    wait_until("the queue is declared again", async || {
        system.broker.has_queue(topology::DEAD).await
    })
    .await;
    wait_until("what waited is stored", async || {
        worker.metric("voice_otp_dead_letters_waiting").await == 0
    })
    .await;
    let text = worker.readiness(true).await;
    assert!(text.contains("dead letters: ok"), "{text}");
    assert!(system.broker.depth(topology::DEAD).await > 0);
    assert_eq!(
        worker
            .log()
            .matches("dead letters are stored again")
            .count(),
        1
    );
    let lines = lines(&worker);
    assert!(lines.len() < 40, "{lines:#?}");
    statuses.assert_sound();
    assert!(worker.terminate().await.success());
    system.stop().await;
}

#[tokio::test]
async fn a_missing_permission_for_dead_letters_stops_no_status() {
    let system = System::start(1_000.0).await;
    let mut statuses = system.broker.statuses().await;
    let user = system.broker.user().await;
    user.permit(".*", "^voice-otp\\.", ".*").await;
    let url = user.url.expose_secret().to_owned();
    let mut worker = system.worker_with(&[("VOICE_OTP_AMQP_URL", url)]).await;
    send_unreadable(&system.broker, &acme_key(), 150).await;
    let mut text = String::new();
    wait_until("readiness names it", async || {
        text = worker.readiness(true).await;
        text.contains("ACCESS_REFUSED")
    })
    .await;
    deliver(&system, &mut statuses, "forbidden", 0, 10).await;
    user.permit(".*", ".*", ".*").await;
    wait_until("letters are stored again", async || {
        worker.readiness(true).await.contains("dead letters: ok")
    })
    .await;
    assert!(system.broker.depth(topology::DEAD).await > 0);
    let lines = lines(&worker);
    assert!(lines.len() < 40, "{lines:#?}");
    assert!(worker.terminate().await.success());
    user.delete().await;
    system.stop().await;
}

/// Starts a worker, waits until it has every message of the queue in hand, and kills it.
async fn kill_with_messages_in_hand(system: &System, queue: &str) {
    let mut worker = Worker::start(system.environment(), true, &[]).await;
    wait_until("the worker takes the messages", async || {
        system.broker.depth(queue).await == 0
    })
    .await;
    worker.kill().await;
    wait_until("they are back", async || {
        system.broker.depth(queue).await > 0
    })
    .await;
}

#[tokio::test]
async fn a_message_that_ends_its_workers_is_given_up_and_the_others_are_placed() {
    let system = System::start(1_000.0).await;
    let mut statuses = system.broker.statuses().await;
    // A tenant whose secrets no worker can open: its message stays in the workers' hands.
    let lost = Draft {
        account_sid: ACCOUNT.to_owned(),
        auth_token: AUTH_TOKEN.into(),
        from: FROM.to_owned(),
        enabled: true,
        ..Draft::default()
    };
    let other_keys = Keyring::parse(&Keyring::generate("other")).unwrap();
    system
        .database
        .save_tenant(&other_keys, "lost", &lost)
        .await;
    let mut culprit = request("culprit", &number(99), "493027", LIFE);
    culprit["data"]["tenant_id"] = "lost".into();
    let mut bodies = vec![culprit.to_string().into_bytes()];
    bodies.extend((0..9).map(|n| body(&format!("good-{n}"), n)));

    let client = system.database.pool.get().await.unwrap();
    // None of them is finished when the first worker ends.
    client
        .batch_execute("begin; lock table deliveries")
        .await
        .unwrap();
    let none = FieldTable::default();
    send(&system.broker, "", topology::RETURNED, &bodies, none).await;
    wait_until("all are stored", async || {
        system.broker.depth(topology::RETURNED).await == 10
    })
    .await;
    kill_with_messages_in_hand(&system, topology::RETURNED).await;
    client.batch_execute("commit").await.unwrap();
    for _ in 0..3 {
        kill_with_messages_in_hand(&system, topology::RETURNED).await;
    }
    let mut worker = system.worker().await;
    let letters = system.broker.dead_letters(1).await;
    assert_eq!(letters[0]["reason"], "given_up");
    assert_eq!(letters[0]["delivery_id"], serde_json::Value::Null);
    statuses.until_finals(9, Duration::from_mins(1)).await;
    // A status may be published again after a kill; a call is not placed again.
    for n in 0..9 {
        assert_eq!(system.calls_to(&number(n)), 1, "good-{n}");
    }
    assert!(worker.terminate().await.success());
    drop(client);
    system.stop().await;
}

#[tokio::test]
async fn messages_of_a_lane_that_came_back_too_often_go_to_the_returned_ones() {
    let system = System::start(1_000.0).await;
    let mut statuses = system.broker.statuses().await;
    let lane = lane_queue(topology::lane_of(&acme()));
    let client = system.database.pool.get().await.unwrap();
    client
        .batch_execute("begin; lock table deliveries")
        .await
        .unwrap();
    let bodies: Vec<_> = (0..3).map(|n| body(&format!("lane-{n}"), n)).collect();
    let none = FieldTable::default();
    send(
        &system.broker,
        topology::REQUESTS,
        &acme_key(),
        &bodies,
        none,
    )
    .await;
    wait_until("all are stored", async || {
        system.broker.depth(&lane).await == 3
    })
    .await;
    for _ in 0..4 {
        kill_with_messages_in_hand(&system, &lane).await;
    }
    client.batch_execute("commit").await.unwrap();
    let mut worker = system.worker().await;
    statuses.until_finals(3, Duration::from_mins(1)).await;
    let log = worker.log();
    assert_eq!(log.matches("a message has come back too often").count(), 3);
    for n in 0..3 {
        assert_eq!(system.calls_to(&number(n)), 1, "lane-{n}");
    }
    assert!(worker.terminate().await.success());
    drop(client);
    system.stop().await;
}
