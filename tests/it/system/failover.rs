//! Workers shut down and are killed; the broker and the database become unavailable and come back.
//! Nothing is lost, and no user is called twice.

use std::time::Duration;

use secrecy::ExposeSecret as _;

use crate::harness::{Proxy, System, number, request};

const LIFE: Duration = Duration::from_mins(3);

#[tokio::test]
async fn a_worker_that_is_asked_to_stop_finishes_and_hands_the_rest_over() {
    let system = System::start(10.0).await;
    let mut statuses = system.broker.statuses().await;
    let mut first = system.worker().await;
    for n in 0..40 {
        system
            .publish_json(&request(
                &format!("handed-{n}"),
                &number(100 + n),
                "493027",
                LIFE,
            ))
            .await;
    }
    let some = |seen: &[(String, voice_otp_schemas::status::StatusEvent)]| {
        seen.iter()
            .filter(|(_, event)| event.data.status.as_str() == "placed")
            .count()
            >= 5
    };
    statuses
        .until("some are placed", Duration::from_secs(20), some)
        .await;
    let status = first.terminate().await;
    assert!(status.success(), "{}", first.log());
    let _second = system.worker().await;
    statuses.until_finals(40, Duration::from_mins(1)).await;
    statuses.collect_for(Duration::from_millis(500)).await;
    statuses.assert_sound();
    for n in 0..40 {
        assert_eq!(system.calls_to(&number(100 + n)), 1, "handed-{n}");
        assert_eq!(
            statuses.names(&format!("handed-{n}")).last(),
            Some(&"delivered")
        );
    }
    system.stop().await;
}

#[tokio::test]
async fn the_deliveries_of_a_killed_worker_are_taken_over_and_no_user_is_called_twice() {
    let system = System::start(20.0).await;
    let mut statuses = system.broker.statuses().await;
    let mut first = system.worker().await;
    for n in 0..60 {
        system
            .publish_json(&request(
                &format!("orphan-{n}"),
                &number(200 + n),
                "493027",
                LIFE,
            ))
            .await;
    }
    let some = |seen: &[(String, voice_otp_schemas::status::StatusEvent)]| {
        seen.iter()
            .filter(|(_, event)| event.data.status.as_str() == "placed")
            .count()
            >= 10
    };
    statuses
        .until("some are placed", Duration::from_secs(20), some)
        .await;
    first.kill().await;
    let _second = system.worker().await;
    statuses.until_finals(60, Duration::from_secs(90)).await;
    statuses.collect_for(Duration::from_millis(500)).await;
    // A status that was published, but was still in the outbox at the kill, may be published twice,
    // with the same id.
    let mut ids = std::collections::HashSet::new();
    statuses
        .seen
        .retain(|(_, event)| ids.insert((event.source.clone(), event.id.clone())));
    statuses.assert_sound();
    for n in 0..60 {
        let id = format!("orphan-{n}");
        assert_eq!(
            system.calls_to(&number(200 + n)),
            1,
            "{id}: {:?} {}",
            statuses.names(&id),
            statuses.reason(&id)
        );
        assert_eq!(statuses.names(&id).last(), Some(&"delivered"), "{id}");
    }
    system.stop().await;
}

#[tokio::test]
async fn an_unavailable_broker_is_waited_for() {
    let system = System::start(50.0).await;
    let mut statuses = system.broker.statuses().await;
    let proxy = Proxy::to(system.broker.address()).await;
    let url = proxy.in_place_of(system.broker.url.expose_secret());
    let mut worker = system.worker_with(&[("VOICE_OTP_AMQP_URL", url)]).await;
    system
        .publish_json(&request("before", &number(301), "493027", LIFE))
        .await;
    let placed = |seen: &[(String, voice_otp_schemas::status::StatusEvent)]| {
        seen.iter()
            .any(|(_, event)| event.data.status.as_str() == "placed")
    };
    statuses
        .until("it is placed", Duration::from_secs(20), placed)
        .await;
    proxy.close();
    worker.readiness(false).await;
    system
        .publish_json(&request("during-outage", &number(302), "493027", LIFE))
        .await;
    // The call continues; its statuses wait in the outbox.
    tokio::time::sleep(Duration::from_secs(3)).await;
    proxy.open();
    worker.ready().await;
    statuses.until_finals(2, Duration::from_secs(40)).await;
    statuses.collect_for(Duration::from_millis(500)).await;
    let mut ids = std::collections::HashSet::new();
    statuses
        .seen
        .retain(|(_, event)| ids.insert(event.id.clone()));
    statuses.assert_sound();
    assert!(
        ["before", "during-outage"]
            .iter()
            .all(|id| statuses.names(id).last() == Some(&"delivered"))
    );
    assert_eq!(
        (system.calls_to(&number(301)), system.calls_to(&number(302))),
        (1, 1)
    );
    assert!(worker.log().contains("retrying"), "the log says so");
    assert!(worker.terminate().await.success());
    system.stop().await;
}

#[tokio::test]
async fn an_unavailable_database_is_waited_for() {
    let system = System::start(50.0).await;
    let mut statuses = system.broker.statuses().await;
    let url = system.database.url.expose_secret().to_owned();
    let server = url
        .split_once('@')
        .unwrap()
        .1
        .split('/')
        .next()
        .unwrap()
        .to_owned();
    let proxy = Proxy::to(server).await;
    let mut worker = system
        .worker_with(&[("VOICE_OTP_DATABASE_URL", proxy.in_place_of(&url))])
        .await;
    system
        .publish_json(&request("before", &number(311), "493027", LIFE))
        .await;
    let placed = |seen: &[(String, voice_otp_schemas::status::StatusEvent)]| {
        seen.iter()
            .any(|(_, event)| event.data.status.as_str() == "placed")
    };
    statuses
        .until("it is placed", Duration::from_secs(20), placed)
        .await;
    proxy.close();
    system
        .publish_json(&request("during-outage", &number(312), "493027", LIFE))
        .await;
    worker.readiness(false).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    proxy.open();
    worker.ready().await;
    statuses.until_finals(2, Duration::from_mins(1)).await;
    statuses.collect_for(Duration::from_millis(500)).await;
    let mut ids = std::collections::HashSet::new();
    statuses
        .seen
        .retain(|(_, event)| ids.insert(event.id.clone()));
    statuses.assert_sound();
    assert!(
        ["before", "during-outage"]
            .iter()
            .all(|id| statuses.names(id).last() == Some(&"delivered")),
        "{:?}",
        statuses.names("before")
    );
    assert_eq!(
        (system.calls_to(&number(311)), system.calls_to(&number(312))),
        (1, 1)
    );
    assert!(worker.terminate().await.success(), "{}", worker.log());
    system.stop().await;
}
