//! Messages that are meant to harm whoever reads them: each ends as a dead letter or is processed,
//! the worker lives in bounded memory, and other tenants' calls are placed meanwhile.

use std::time::Duration;

use futures_util::StreamExt as _;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use secrecy::ExposeSecret as _;
use voice_otp_publisher::statuses::StatusStream;
use voice_otp_publisher::topology::{LANES, lane_queue};
use voice_otp_publisher::{connection, topology};

use crate::harness::raw_amqp::{RawMessage, RawPublisher, long, short};
use crate::harness::{System, Worker, number, request};

const LIFE: Duration = Duration::from_mins(3);
/// How long a request of a tenant that attacks no one may take to its final status, beside the
/// attack and other tests.
const PROMPT: Duration = Duration::from_secs(20);
const JSON: &[u8] = b"application/cloudevents+json";
/// How many messages of a kind attack.
const EACH: usize = 100;

/// A message to the queue of requests.
fn hostile(headers: Vec<u8>, body: &[u8]) -> RawMessage {
    RawMessage {
        exchange: topology::REQUESTS.into(),
        routing_key: topology::REQUESTED_KEY.into(),
        content_type: JSON.to_vec(),
        headers,
        body: body.to_vec(),
    }
}

/// Tables inside tables, or arrays inside arrays, as deep as fits these bytes.
fn nested(kind: u8, bytes: usize) -> Vec<u8> {
    let prefix: &[u8] = if kind == b'F' { b"\0F" } else { b"A" };
    let level = prefix.len() + 4;
    let mut table = if kind == b'A' { vec![0] } else { Vec::new() };
    for left in (0..bytes / level).rev() {
        table.extend(prefix);
        table.extend(u32::try_from(left * level).unwrap().to_be_bytes());
    }
    table
}

/// A table with this many entries, without values.
fn wide(entries: usize) -> Vec<u8> {
    // No name is CC, which the broker reads.
    let name = |at: usize| {
        [
            1 + u8::try_from(at / 128 % 66).unwrap(),
            u8::try_from(at % 128).unwrap(),
        ]
    };
    (0..entries)
        .flat_map(|at| [short(&name(at)), b"V".to_vec()].concat())
        .collect()
}

/// A JSON array of small objects, with about this many bytes. Parsed, it needs many times as many.
fn objects(bytes: usize) -> Vec<u8> {
    [b"[".as_slice(), &br#"{"":0},"#.repeat(bytes / 7), b"0]"].concat()
}

/// The header with which the broker copies a message to queues, or to what they are bound to.
fn copied_to(queues: &[String]) -> Vec<u8> {
    let names = queues
        .iter()
        .map(|name| [b"S".to_vec(), long(name.as_bytes())].concat());
    let names: Vec<u8> = names.flatten().collect();
    [short(b"CC"), b"A".to_vec(), long(&names)].concat()
}

/// Starts a worker that logs little: a trace of a hostile message is as long as the message.
async fn quiet_worker(system: &System) -> Worker {
    let quiet = [("VOICE_OTP_LOG", "info".to_owned())];
    system.worker_with(&quiet).await
}

/// Publishes messages, each with a request of another tenant. Returns how many of the messages the
/// broker has taken.
async fn attack(system: &System, messages: &[RawMessage]) -> usize {
    let mut publisher = RawPublisher::connect(&system.broker.url).await;
    let mut taken = 0;
    for (n, message) in messages.iter().enumerate() {
        match publisher.publish(message).await {
            Ok(()) => taken += 1,
            Err(_) => publisher = RawPublisher::connect(&system.broker.url).await,
        }
        let event = request(&format!("good-{n}"), &number(10 + n), "493027", LIFE);
        system.publish_json(&event).await;
    }
    taken
}

/// Waits until the worker has handled so many hostile messages: by dead letters, whose number is
/// returned first, or, beyond the publisher's budget and for copies, without.
async fn until_handled(worker: &Worker, wanted: u64) -> (usize, u64) {
    let handled = async {
        loop {
            let letters = worker.metric("voice_otp_dead_letters_total").await;
            let dropped = "voice_otp_dead_letters_dropped_total{cause=\"budget\"}";
            let others = worker.metric(dropped).await
                + worker.metric("voice_otp_message_copies_total").await;
            if letters + others >= wanted {
                return (letters.try_into().unwrap(), others);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let handled = tokio::time::timeout(Duration::from_mins(2), handled).await;
    handled.expect("every message is handled")
}

#[tokio::test]
async fn no_headers_of_a_message_end_the_worker_or_its_connection() {
    let system = System::start(1_000.0).await;
    let mut statuses = system.broker.statuses().await;
    let mut worker = quiet_worker(&system).await;
    let kinds = [
        nested(b'F', 6_000),
        nested(b'A', 6_000),
        wide(30_000),
        [short(b"n\xff\xfe"), b"S".to_vec(), long(b"text")].concat(),
        [short(b"table"), b"F".to_vec(), long(b"\x01\xffV")].concat(),
        [short(b"unsigned"), b"L".to_vec(), vec![0; 8]].concat(),
        [short(b"x-voice-otp-body-bytes"), b"l".to_vec(), vec![1; 8]].concat(),
    ];
    let mut messages: Vec<RawMessage> = (0..EACH)
        .flat_map(|_| kinds.clone().map(|headers| hostile(headers, b"{}")))
        .collect();
    // Types that RabbitMQ 3.10 refuses.
    for value in [b"?".as_slice(), b"U\0\0"] {
        messages.push(hostile([short(b"type"), value.to_vec()].concat(), b"{}"));
    }
    // As deep as fits a frame. The broker needs seconds for each, so it makes the copies.
    let lanes: Vec<String> = (0..LANES).map(lane_queue).take(EACH - 1).collect();
    for kind in *b"FA" {
        let headers = [copied_to(&lanes), nested(kind, 127_000)].concat();
        messages.push(RawMessage {
            exchange: Vec::new(),
            routing_key: topology::REQUESTS.into(),
            ..hostile(headers, b"{}")
        });
    }
    // A routing key that isn't UTF-8 reaches the queue as a copy.
    messages.push(RawMessage {
        exchange: Vec::new(),
        routing_key: b"\xff\xfe".to_vec(),
        ..hostile(copied_to(&[topology::REQUESTS.to_owned()]), b"{}")
    });
    messages.push(RawMessage {
        content_type: b"text/\xff".to_vec(),
        ..hostile(Vec::new(), b"{}")
    });
    worker.forget_peak_memory();
    let before = worker.peak_memory_mib();

    let taken = attack(&system, &messages).await;

    assert!(taken > 5 * EACH, "the broker took {taken} messages only");
    statuses.until_finals(messages.len(), PROMPT).await;
    statuses.assert_sound();
    let wanted = (taken + 2 * lanes.len()).try_into().unwrap();
    let (letters, others) = until_handled(&worker, wanted).await;
    eprintln!("{wanted} messages: {letters} dead letters, {others} dropped or copies");
    let letters = system.broker.dead_letters(letters).await;
    for reason in [
        "deeper than 8",
        "16384 bytes",
        "UTF-8",
        "begins with x-voice-otp-",
    ] {
        let named = letters.iter().filter(|letter| {
            let removed = letter["removed"].as_str();
            removed.is_some_and(|removed| removed.contains(reason))
        });
        assert!(named.count() > 10, "{reason}");
    }
    assert!(letters.iter().all(|letter| letter["body_bytes"] == 2));
    let grown = worker.peak_memory_mib() - before;
    assert!(grown < 150, "{grown} MiB more");
    assert!(worker.lives());
    assert_eq!(worker.log().matches("consuming requests").count(), 1);
    drop(worker);
    system.stop().await;
}

#[tokio::test]
async fn a_long_body_costs_no_memory_and_delays_no_one() {
    let system = System::start(1_000.0).await;
    let mut statuses = system.broker.statuses().await;
    let mut worker = quiet_worker(&system).await;
    worker.forget_peak_memory();
    let before = worker.peak_memory_mib();
    // A broker with the limit that the operator's guide sets takes the first two lengths only.
    let mut messages: Vec<RawMessage> = [65_600, 130_000, 4 << 20, 16 << 20, 100 << 20]
        .map(|bytes: usize| hostile(Vec::new(), &objects(bytes)))
        .into();
    messages.extend(vec![messages[1].clone(); EACH]);

    let taken = attack(&system, &messages).await;

    assert!(taken >= EACH + 2, "the broker took {taken} messages only");
    statuses.until_finals(messages.len(), PROMPT).await;
    let letters = system.broker.dead_letters(taken).await;
    assert!(letters.iter().all(|letter| letter["reason"] == "too_long"));
    let mut lengths: Vec<u64> = letters
        .iter()
        .map(|letter| letter["body_bytes"].as_u64().unwrap())
        .collect();
    lengths.sort_unstable();
    let mut wanted: Vec<u64> = messages
        .iter()
        .map(|message| message.body.len() as u64)
        .collect();
    wanted.sort_unstable();
    assert_eq!(lengths, wanted[..taken]);
    let grown = worker.peak_memory_mib() - before;
    assert!(grown < 50, "{grown} MiB more");
    assert!(worker.lives());
    assert_eq!(worker.log().matches("consuming requests").count(), 1);
    drop(worker);
    system.stop().await;
}

#[tokio::test]
async fn a_stream_of_statuses_goes_on_after_messages_that_attack_it() {
    let system = System::start(50.0).await;
    let worker = quiet_worker(&system).await;
    let mut stream = StatusStream::subscribe(&system.broker.url, None)
        .await
        .unwrap();
    let mut publisher = RawPublisher::connect(&system.broker.url).await;
    for headers in [nested(b'F', 131_000), wide(30_000), short(b"\xff")] {
        let message = RawMessage {
            exchange: topology::STATUS.into(),
            routing_key: b"status.delivered.acme".to_vec(),
            headers,
            ..hostile(Vec::new(), &b" ".repeat(100_000))
        };
        if publisher.publish(&message).await.is_err() {
            publisher = RawPublisher::connect(&system.broker.url).await;
        }
    }
    let event = request("after-the-attack", &number(5), "493027", LIFE);
    system.publish_json(&event).await;
    let receiving = async {
        let mut names = Vec::new();
        while !names.contains(&"delivered") {
            let status = stream.next_status().await.expect("the connection lives");
            names.push(status.data.status.as_str());
        }
        names
    };
    let names = tokio::time::timeout(PROMPT, receiving).await.unwrap();
    assert_eq!(names.first(), Some(&"accepted"), "{names:?}");
    drop(worker);
    system.stop().await;
}

#[tokio::test]
async fn unacknowledged_messages_are_bounded_in_bytes_and_the_connection_outlives_the_wait() {
    const MESSAGES: usize = 400;
    const LIMIT: usize = 1 << 20;
    let broker = crate::harness::Broker::empty().await;
    let queue = "held";
    let admin = broker.connection.create_channel().await.unwrap();
    let (options, none) = (QueueDeclareOptions::default(), FieldTable::default());
    admin
        .queue_declare(queue.into(), options, none)
        .await
        .unwrap();
    let mut publisher = RawPublisher::connect(&broker.url).await;
    let message = RawMessage {
        exchange: Vec::new(),
        routing_key: queue.into(),
        ..hostile(Vec::new(), &b"x".repeat(65_536))
    };
    for _ in 0..MESSAGES {
        publisher.publish(&message).await.unwrap();
    }
    // lapin leaves a connection on which nothing arrives for two seconds.
    let url = format!("{}?heartbeat=1", broker.url.expose_secret()).into();
    let consuming = connection::connect_to_consume(&url, "held", LIMIT as u64)
        .await
        .unwrap();
    let channel = consuming.connection.create_channel().await.unwrap();
    let each = BasicQosOptions { global: false };
    channel.basic_qos(10_000, each).await.unwrap();
    let (options, none) = (BasicConsumeOptions::default(), FieldTable::default());
    let mut consumer = channel
        .basic_consume(queue.into(), "".into(), options, none)
        .await
        .unwrap();
    let mut held = Vec::new();
    let silence = Duration::from_secs(4);
    while let Ok(delivery) = tokio::time::timeout(silence, consumer.next()).await {
        held.push(delivery.unwrap().unwrap());
    }
    let bytes: usize = held.iter().map(|delivery| delivery.data.len()).sum();
    assert!(
        (LIMIT / 2..LIMIT + 65_536).contains(&bytes),
        "{bytes} bytes"
    );
    assert!(consuming.is_up(), "the connection was given up");

    let mut received = held.len();
    for delivery in held {
        delivery.ack(BasicAckOptions::default()).await.unwrap();
    }
    while received < MESSAGES {
        let next = tokio::time::timeout(PROMPT, consumer.next()).await.unwrap();
        received += 1;
        let acking = next.unwrap().unwrap();
        acking.ack(BasicAckOptions::default()).await.unwrap();
    }
    consuming.close().await;
    broker.delete().await;
}
