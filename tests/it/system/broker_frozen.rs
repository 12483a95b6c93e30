//! Connections to the broker that stay open and carry nothing, while new ones work: they are
//! noticed by heartbeat, left, and replaced. No one is called twice, and a status that is published
//! again is the same event.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use secrecy::ExposeSecret as _;
use voice_otp_publisher::{Message, Publisher, Settings, connection, topology};
use zeroize::Zeroizing;

use crate::harness::{Broker, Direction, Proxy, System, number, request};

/// After this time a frozen connection is replaced: 12 to 18 seconds until it is noticed, and a new
/// one.
const REPLACED: Duration = Duration::from_secs(20);
/// How long a request that isn't delayed by the frozen connection may take to be placed, beside
/// other tests.
const PROMPT: Duration = Duration::from_secs(8);
const LIFE: Duration = Duration::from_mins(3);

#[tokio::test]
async fn connections_of_a_worker_that_freeze_towards_the_broker_are_replaced() {
    every_request_ends_after_a_freeze(Direction::ToServer).await;
}

#[tokio::test]
async fn connections_of_a_worker_that_freeze_from_the_broker_are_replaced() {
    every_request_ends_after_a_freeze(Direction::ToClient).await;
}

#[tokio::test]
async fn connections_of_a_worker_that_freeze_in_both_directions_are_replaced() {
    every_request_ends_after_a_freeze(Direction::Both).await;
}

/// Two requests a second for 40 seconds, with a freeze at the start.
async fn every_request_ends_after_a_freeze(direction: Direction) {
    let system = System::start(100.0).await;
    let mut statuses = system.broker.statuses().await;
    let proxy = Proxy::to(system.broker.address()).await;
    let url = proxy.in_place_of(system.broker.url.expose_secret());
    let mut worker = system.worker_with(&[("VOICE_OTP_AMQP_URL", url)]).await;
    let publish = async |n: usize| {
        let id = format!("frozen-{n}");
        let event = request(&id, &number(400 + n), "493027", LIFE);
        system.publish_json(&event).await;
    };
    publish(0).await;
    statuses.until_finals(1, Duration::from_secs(20)).await;
    assert_eq!(worker.threads("lapin-io-loop"), 3);

    // Some are in flight.
    for n in 1..10 {
        publish(n).await;
    }
    let frozen = Instant::now();
    assert_eq!(
        proxy.freeze(direction),
        3,
        "of requests, returned messages and statuses"
    );
    let mut published = HashMap::new();
    for n in 10..90 {
        published.insert(format!("frozen-{n}"), frozen.elapsed());
        publish(n).await;
        statuses.collect_for(Duration::from_millis(500)).await;
    }
    let every_delivery_ended = |seen: &[(String, voice_otp_schemas::status::StatusEvent)]| {
        let finals = seen.iter().filter(|(_, event)| event.data.is_final);
        finals
            .map(|(_, event)| &event.subject)
            .collect::<HashSet<_>>()
            .len()
            == 90
    };
    statuses
        .until(
            "each request ends",
            Duration::from_mins(1),
            every_delivery_ended,
        )
        .await;

    // At least once: a status whose confirm was lost is published again, as the same event.
    let all = statuses.seen.len();
    let mut texts: HashMap<String, String> = HashMap::new();
    statuses.seen.retain(|(text, event)| {
        let earlier = texts.insert(event.id.clone(), text.clone());
        assert!(
            earlier.as_ref().is_none_or(|earlier| earlier == text),
            "{text}"
        );
        earlier.is_none()
    });
    let again = all - statuses.seen.len();
    statuses.assert_sound();
    for n in 0..90 {
        let id = format!("frozen-{n}");
        assert_eq!(system.calls_to(&number(400 + n)), 1, "{id}");
        assert_eq!(statuses.names(&id).last(), Some(&"delivered"), "{id}");
    }
    let calls = system.simulator.calls();
    let frozen_at = std::time::SystemTime::now() - frozen.elapsed();
    let mut longest = Duration::ZERO;
    for (id, at) in &published {
        let n: usize = id.rsplit('-').next().unwrap().parse().unwrap();
        let call = calls
            .iter()
            .find(|call| call.to == number(400 + n))
            .unwrap();
        let created = chrono::DateTime::parse_from_rfc3339(&call.created).unwrap();
        let placed = std::time::SystemTime::from(created)
            .duration_since(frozen_at)
            .unwrap_or_default();
        longest = longest.max(placed.saturating_sub(*at));
        assert!(
            placed < REPLACED + PROMPT || placed < *at + PROMPT,
            "{id}: published {at:?} after the freeze, placed after {placed:?}"
        );
    }
    assert_eq!(
        worker.threads("lapin-io-loop"),
        3,
        "the frozen connections have left no thread behind"
    );
    eprintln!("{direction:?}: longest wait {longest:?}, {again} statuses published again");
    assert!(worker.terminate().await.success());
    system.stop().await;
}

#[tokio::test]
async fn a_worker_stops_within_its_grace_period_although_its_connections_are_frozen() {
    let system = System::start(100.0).await;
    let proxy = Proxy::to(system.broker.address()).await;
    let url = proxy.in_place_of(system.broker.url.expose_secret());
    let mut worker = system.worker_with(&[("VOICE_OTP_AMQP_URL", url)]).await;
    proxy.freeze(Direction::Both);
    let started = Instant::now();
    assert!(worker.terminate().await.success());
    assert!(
        started.elapsed() < Duration::from_secs(10),
        "{:?}",
        started.elapsed()
    );
    assert!(
        !worker.log().contains("the grace period has passed"),
        "{}",
        worker.log()
    );
    system.stop().await;
}

#[tokio::test]
async fn a_publish_on_a_frozen_connection_is_confirmed_on_a_new_one() {
    for direction in [Direction::ToServer, Direction::ToClient, Direction::Both] {
        let (broker, proxy, publisher) = publisher_behind_a_proxy().await;
        publisher.publish(message(0, 100)).await.unwrap();
        proxy.freeze(direction);
        let started = Instant::now();
        publisher.publish(message(1, 100)).await.unwrap();
        let took = started.elapsed();
        assert!(took < REPLACED + PROMPT, "{direction:?}: {took:?}");
        let started = Instant::now();
        publisher.publish(message(2, 100)).await.unwrap();
        assert!(started.elapsed() < PROMPT);
        // Only an answer that was lost leads to a second copy.
        let copies = broker.depth(topology::REQUESTS).await;
        assert!(
            (3..=4).contains(&copies),
            "{direction:?}: {copies} messages"
        );
        publisher.close().await;
        broker.delete().await;
    }
}

/// More than the buffers of the sockets hold, so that no heartbeat can be written either.
#[tokio::test]
async fn publishes_that_fill_the_socket_of_a_frozen_connection_are_confirmed_on_a_new_one() {
    let (broker, proxy, publisher) = publisher_behind_a_proxy().await;
    publisher.publish(message(0, 100)).await.unwrap();
    proxy.freeze(Direction::ToServer);
    let started = Instant::now();
    let publishes = (1..=256).map(|id| publisher.publish(message(id, 60_000)));
    for result in futures_util::future::join_all(publishes).await {
        result.unwrap();
    }
    let took = started.elapsed();
    assert!(took < REPLACED + PROMPT, "{took:?}");
    assert_eq!(broker.depth(topology::REQUESTS).await, 257);
    publisher.close().await;
    broker.delete().await;
}

#[tokio::test]
async fn closing_does_not_wait_for_a_frozen_connection() {
    for direction in [Direction::ToServer, Direction::ToClient, Direction::Both] {
        let (broker, proxy, publisher) = publisher_behind_a_proxy().await;
        let url = proxy.in_place_of(broker.url.expose_secret()).into();
        let idle = connection::connect(&url, "idle").await.unwrap();
        proxy.freeze(direction);
        let started = Instant::now();
        publisher.close().await;
        idle.close().await;
        assert!(started.elapsed() < Duration::from_secs(8), "{direction:?}");
        broker.delete().await;
    }
}

async fn publisher_behind_a_proxy() -> (Broker, Proxy, Publisher) {
    let broker = Broker::fresh().await;
    let proxy = Proxy::to(broker.address()).await;
    let url = proxy.in_place_of(broker.url.expose_secret());
    let publisher = Publisher::start(Settings::new(url.into(), "/test")).unwrap();
    (broker, proxy, publisher)
}

fn message(id: usize, bytes: usize) -> Message {
    Message {
        exchange: topology::REQUESTS,
        routing_key: topology::REQUESTED_KEY.to_owned(),
        message_id: format!("message-{id}"),
        kind: "test",
        content_type: "text/plain",
        headers: Vec::new(),
        expiration: None,
        body: Zeroizing::new(vec![b'x'; bytes]),
    }
}
