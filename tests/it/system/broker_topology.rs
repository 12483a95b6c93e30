//! The queues: how many the lanes share, on brokers that limit them or have others already, and
//! consumers that the broker cancels.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lapin::options::{BasicGetOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use secrecy::ExposeSecret as _;
use tokio_util::task::TaskTracker;
use voice_otp_publisher::topology::{self, LANES, LaneCount, LaneQueues, QueueSpread, lane_queue};
use voice_otp_publisher::{Message, Publisher, Settings};
use voice_otp_schemas::TenantId;
use zeroize::Zeroizing;

use crate::harness::{Broker, Proxy, Statuses, System, number, request};

const LIFE: Duration = Duration::from_mins(3);

/// How often each message is in the queues, by its id. Empties them.
async fn copies(broker: &Broker, queues: &LaneQueues) -> HashMap<String, u32> {
    let channel = broker.connection.create_channel().await.unwrap();
    let mut copies = HashMap::new();
    let shared = topology::REQUESTS.to_owned();
    for queue in queues.names().into_iter().chain([shared]) {
        let options = BasicGetOptions { no_ack: true };
        while let Some(message) = channel
            .basic_get(queue.as_str().into(), options)
            .await
            .unwrap()
        {
            let id = message.delivery.properties.message_id().clone().unwrap();
            *copies.entry(id.as_str().to_owned()).or_default() += 1;
        }
    }
    copies
}

fn lane_message(id: &str, lane: u16) -> Message {
    Message {
        exchange: topology::REQUESTS,
        routing_key: format!("{}.{lane:03}", topology::REQUESTED_KEY),
        message_id: id.to_owned(),
        kind: "test",
        content_type: "text/plain",
        headers: Vec::new(),
        expiration: None,
        body: Zeroizing::new(b"x".to_vec()),
    }
}

async fn publish_to_every_lane(publisher: &Publisher, round: &str) {
    let publishes = (0..LANES).map(async |lane| {
        let message = lane_message(&format!("{round}-{lane}"), lane);
        publisher.publish(message).await.unwrap();
    });
    futures_util::future::join_all(publishes).await;
}

fn publisher(broker: &Broker) -> Publisher {
    Publisher::start(Settings::new(broker.url.clone(), "/test")).unwrap()
}

async fn declare(broker: &Broker, lanes: u16) -> LaneQueues {
    let lanes = LaneCount::new(lanes).unwrap();
    topology::declare(&broker.connection, lanes).await.unwrap()
}

#[tokio::test]
async fn each_message_reaches_one_queue_when_the_number_of_lanes_has_changed() {
    let broker = Broker::empty().await;
    let publisher = publisher(&broker);
    let mut rounds = 0_usize;
    let mut found = LaneQueues::default();
    for lanes in [128, 16, 1, 64, 128, 2] {
        found = declare(&broker, lanes).await;
        publish_to_every_lane(&publisher, &format!("with-{rounds}-{lanes}")).await;
        rounds += 1;
    }
    assert_eq!(found.count(), LaneCount::new(2));
    assert_eq!(
        found.names().len(),
        128,
        "the others have messages and are consumed too"
    );
    let copies = copies(&broker, &found).await;
    assert_eq!(copies.len(), rounds * usize::from(LANES));
    assert!(copies.values().all(|copies| *copies == 1), "{copies:?}");
    publisher.close().await;
    broker.delete().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_message_is_lost_while_workers_with_different_numbers_of_lanes_declare_them() {
    let broker = Broker::fresh().await;
    let publisher = publisher(&broker);
    let stop = Arc::new(AtomicBool::new(false));
    let publishing = {
        let (publisher, stop) = (publisher.clone(), Arc::clone(&stop));
        TaskTracker::new().spawn(async move {
            let mut rounds = 0_usize;
            while !stop.load(Ordering::SeqCst) {
                publish_to_every_lane(&publisher, &format!("round-{rounds}")).await;
                rounds += 1;
            }
            rounds
        })
    };
    for lanes in [16, 128, 4, 64, 1, 128, 32] {
        declare(&broker, lanes).await;
    }
    stop.store(true, Ordering::SeqCst);
    let rounds = publishing.await.unwrap();
    let found = declare(&broker, 32).await;
    let copies = copies(&broker, &found).await;
    assert_eq!(copies.len(), rounds * usize::from(LANES));
    let duplicates = copies.values().filter(|copies| **copies > 1).count();
    eprintln!(
        "{} messages, {duplicates} in more than one queue",
        copies.len()
    );
    publisher.close().await;
    broker.delete().await;
}

#[tokio::test]
async fn a_publisher_before_the_first_worker_needs_no_lanes() {
    let broker = Broker::empty().await;
    let publisher = publisher(&broker);
    publish_to_every_lane(&publisher, "before").await;
    assert_eq!(broker.depth(topology::REQUESTS).await, u32::from(LANES));
    let found = declare(&broker, 8).await;
    publish_to_every_lane(&publisher, "after").await;
    assert_eq!(broker.depth(topology::REQUESTS).await, u32::from(LANES));
    // A publisher that connects later leaves the lanes alone.
    let later = self::publisher(&broker);
    publish_to_every_lane(&later, "later").await;
    let copies = copies(&broker, &found).await;
    assert_eq!(copies.len(), 3 * usize::from(LANES));
    assert!(copies.values().all(|copies| *copies == 1), "{copies:?}");
    later.close().await;
    publisher.close().await;
    broker.delete().await;
}

#[tokio::test]
async fn a_limit_of_queues_leaves_each_lane_a_queue() {
    for (limit, lanes, queues) in [(100, 64, 68), (67, 32, 36), (5, 1, 5), (4, 0, 4)] {
        let broker = Broker::empty().await;
        broker.limit_queues(limit).await;
        let found = declare(&broker, 128).await;
        assert_eq!(found.count(), LaneCount::new(lanes), "limit {limit}");
        let listed: Vec<serde_json::Value> =
            serde_json::from_str(&broker.listed_queues().await).unwrap();
        assert_eq!(listed.len(), queues, "limit {limit}: no queue is left over");
        let publisher = publisher(&broker);
        publish_to_every_lane(&publisher, "limited").await;
        let copies = copies(&broker, &found).await;
        assert_eq!(copies.len(), usize::from(LANES));
        assert!(copies.values().all(|copies| *copies == 1), "{copies:?}");
        publisher.close().await;
        broker.delete().await;
    }
}

#[tokio::test]
async fn a_worker_without_room_for_its_lanes_warns_once_and_places_calls() {
    let system = System::start(50.0).await;
    // The vhost of the system has 128 lanes already; this one has room for fewer.
    let limited = Broker::empty().await;
    limited.limit_queues(60).await;
    let url = limited.url.expose_secret().to_owned();
    let mut worker = system.worker_with(&[("VOICE_OTP_AMQP_URL", url)]).await;
    let mut statuses = limited.statuses().await;
    let publisher = publisher(&limited);
    for n in 0..20 {
        let tenant = format!("tenant-{n}");
        system.tenant(&tenant, 50.0, |_| {}).await;
        let mut event = request(&format!("limited-{n}"), &number(n), "493027", LIFE);
        event["data"]["tenant_id"] = tenant.as_str().into();
        let tenant = TenantId::parse(&tenant).unwrap();
        let mut message = lane_message(&format!("limited-{n}"), topology::lane_of(&tenant));
        message.content_type = "application/cloudevents+json";
        message.body = Zeroizing::new(event.to_string().into_bytes());
        publisher.publish(message).await.unwrap();
    }
    statuses.until_finals(20, Duration::from_secs(40)).await;
    assert_eq!(
        worker.log().matches("no room for so many queues").count(),
        1
    );
    assert!(worker.terminate().await.success());
    publisher.close().await;
    limited.delete().await;
    system.stop().await;
}

#[tokio::test]
async fn queues_that_exist_with_other_arguments_are_used_as_they_are() {
    let broker = Broker::empty().await;
    let channel = broker.connection.create_channel().await.unwrap();
    let durable = QueueDeclareOptions {
        durable: true,
        ..QueueDeclareOptions::default()
    };
    // As an earlier version declared them, but one of them by hand.
    for (n, name) in (0..64).map(lane_queue).enumerate() {
        let mut arguments = FieldTable::default();
        arguments.insert(
            "x-queue-type".into(),
            AMQPValue::LongString("quorum".into()),
        );
        let limit = if n == 7 { 5 } else { 20 };
        arguments.insert("x-delivery-limit".into(), AMQPValue::LongInt(limit));
        for (name, value) in [
            ("x-dead-letter-exchange", ""),
            ("x-dead-letter-routing-key", topology::RETURNED),
            ("x-dead-letter-strategy", "at-least-once"),
            ("x-overflow", "reject-publish"),
        ] {
            arguments.insert(name.into(), AMQPValue::LongString(value.into()));
        }
        channel
            .queue_declare(name.as_str().into(), durable, arguments)
            .await
            .unwrap();
    }
    let found = declare(&broker, 128).await;
    assert_eq!(found.names().len(), 128);
    topology::restore_all(&broker.connection, &found)
        .await
        .unwrap();
    let listed: Vec<serde_json::Value> =
        serde_json::from_str(&broker.listed_queues().await).unwrap();
    let locator = |name: &str| {
        let queue = listed.iter().find(|queue| queue["name"] == name).unwrap();
        queue["arguments"]["x-queue-leader-locator"]
            .as_str()
            .map(str::to_owned)
    };
    assert_eq!(locator(&lane_queue(7)), None);
    assert_eq!(locator(topology::REQUESTS).as_deref(), Some("balanced"));
    assert_eq!(locator(topology::STATUS_LOG).as_deref(), Some("balanced"));

    let spread = QueueSpread::from_management_api(&broker.listed_queues().await).unwrap();
    assert_eq!(spread.leads.values().sum::<usize>(), 129, "{spread:?}");
    assert_eq!(spread.problems(1), [""; 0]);
    broker.delete().await;
}

#[tokio::test]
async fn a_connection_that_comes_after_another_one_works_before_anything_is_declared() {
    let system = System::start(50.0).await;
    let mut statuses = system.broker.statuses().await;
    let user = system.broker.user().await;
    let proxy = Proxy::to(system.broker.address()).await;
    let url = proxy.in_place_of(user.url.expose_secret());
    let mut worker = system.worker_with(&[("VOICE_OTP_AMQP_URL", url)]).await;
    let deliver = async |id: &str, statuses: &mut Statuses, ended| {
        let event = request(id, &number(600 + ended), "493027", LIFE);
        system.publish_json(&event).await;
        statuses.until_finals(ended, Duration::from_secs(20)).await;
    };
    deliver("declared", &mut statuses, 1).await;
    // Whoever may not configure a queue can't declare one either that exists.
    user.permit("^$", ".*", ".*").await;
    proxy.close();
    proxy.open();
    deliver("not-declared", &mut statuses, 2).await;
    worker.until_log("failed to restore the queues", 1).await;
    // Queues that are gone are declared by the connection after the one that finds them gone.
    user.permit(".*", ".*", ".*").await;
    let lane = lane_queue(topology::lane_of(&TenantId::parse("acme").unwrap()));
    proxy.close();
    system.broker.delete_queue(&lane).await;
    system.broker.delete_queue(topology::REQUESTS).await;
    system.broker.delete_exchange(topology::STATUS).await;
    proxy.open();
    let declared = async {
        for queue in [topology::REQUESTS, &lane] {
            while !system.broker.has_queue(queue).await {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    };
    let in_time = tokio::time::timeout(Duration::from_secs(20), declared).await;
    assert!(in_time.is_ok(), "{}", worker.log());
    let mut statuses = system.broker.statuses().await;
    deliver("declared-again", &mut statuses, 1).await;
    assert!(worker.terminate().await.success());
    user.delete().await;
    system.stop().await;
}

#[tokio::test]
async fn a_consumer_that_the_broker_cancels_is_resumed_and_the_others_go_on() {
    let system = System::start(50.0).await;
    let mut statuses = system.broker.statuses().await;
    let mut worker = system.worker().await;
    let lane = lane_queue(topology::lane_of(&TenantId::parse("acme").unwrap()));
    let mut ended = 0;
    for round in 0..3 {
        system.broker.delete_queue(&lane).await;
        system.broker.delete_queue(topology::REQUESTS).await;
        worker
            .until_log("consuming the queue again", 2 * (round + 1))
            .await;
        for key in ["shared", "lane"] {
            let n = 500 + ended;
            let id = format!("{key}-{round}");
            let event = request(&id, &number(n), "493027", LIFE);
            if key == "shared" {
                system.publish_json(&event).await;
            } else {
                let mut message =
                    lane_message(&id, topology::lane_of(&TenantId::parse("acme").unwrap()));
                message.content_type = "application/cloudevents+json";
                message.body = Zeroizing::new(event.to_string().into_bytes());
                system.publisher.publish(message).await.unwrap();
            }
            ended += 1;
        }
        statuses.until_finals(ended, Duration::from_secs(20)).await;
    }
    let log = worker.log();
    assert_eq!(
        log.matches("consuming requests").count(),
        1,
        "on the same connection"
    );
    assert_eq!(log.matches("the broker cancelled a consumer").count(), 6);
    assert!(worker.terminate().await.success());
    system.stop().await;
}
