//! Connections to the database that fall silent: nothing is closed, nothing arrives.

use std::time::Duration;

use secrecy::ExposeSecret as _;

use crate::harness::{Direction, Proxy, System, number, request};

/// A call must be placed 20 s after the request at the latest: 30 s before its code expires.
const LIFE: Duration = Duration::from_secs(50);

async fn every_request_is_delivered_after_a_freeze(direction: Direction) {
    let system = System::start(50.0).await;
    let mut statuses = system.broker.statuses().await;
    let proxy = Proxy::to(system.database.address()).await;
    let url = proxy.in_place_of(system.database.url.expose_secret());
    let mut worker = system.worker_with(&[("VOICE_OTP_DATABASE_URL", url)]).await;
    for n in 0..40 {
        if n == 10 {
            assert!(proxy.freeze(direction) > 0, "there are connections");
        }
        let id = format!("frozen-{n}");
        system
            .publish_json(&request(&id, &number(400 + n), "493027", LIFE))
            .await;
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    statuses.until_finals(40, Duration::from_secs(90)).await;
    statuses.collect_for(Duration::from_millis(500)).await;
    let mut ids = std::collections::HashSet::new();
    statuses
        .seen
        .retain(|(_, event)| ids.insert((event.source.clone(), event.id.clone())));
    statuses.assert_sound();
    for n in 0..40 {
        let id = format!("frozen-{n}");
        assert_eq!(
            statuses.names(&id).last(),
            Some(&"delivered"),
            "{id}: {}\n{}",
            statuses.reason(&id),
            worker.log()
        );
        assert_eq!(system.calls_to(&number(400 + n)), 1, "{id}");
    }
    worker.ready().await;
    assert!(worker.terminate().await.success());
    system.stop().await;
}

#[tokio::test]
async fn frozen_in_both_directions() {
    every_request_is_delivered_after_a_freeze(Direction::Both).await;
}

#[tokio::test]
async fn frozen_towards_the_server() {
    every_request_is_delivered_after_a_freeze(Direction::ToServer).await;
}

#[tokio::test]
async fn frozen_towards_the_worker() {
    every_request_is_delivered_after_a_freeze(Direction::ToClient).await;
}
