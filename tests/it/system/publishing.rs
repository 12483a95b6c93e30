//! The publisher reports truthfully what the broker has stored.

use std::collections::HashSet;
use std::time::Duration;

use futures_util::future::join_all;
use voice_otp_publisher::{Message, PublishError, Publisher, Settings, topology};
use zeroize::Zeroizing;

use crate::harness::{Broker, Proxy};

fn message(id: usize, routing_key: &str) -> Message {
    Message {
        exchange: topology::REQUESTS,
        routing_key: routing_key.to_owned(),
        message_id: format!("m-{id}"),
        kind: "test",
        content_type: "text/plain",
        headers: Vec::new(),
        expiration: None,
        body: Zeroizing::new(format!("{id}").into_bytes()),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unroutable_message_is_never_reported_as_stored_to_any_of_sixteen_tasks() {
    let broker = Broker::fresh().await;
    let publisher = Publisher::start(Settings::new(broker.url.clone(), "/test")).unwrap();
    let tasks = (0..16).map(|task| {
        let publisher = publisher.clone();
        tokio_util::task::TaskTracker::new().spawn(async move {
            let sends = (0..250).map(|n| {
                let (id, publisher) = (task * 250 + n, publisher.clone());
                let key = if id % 5 == 0 {
                    "nowhere"
                } else {
                    "otp.requested"
                };
                async move { (id, publisher.publish(message(id, key)).await) }
            });
            join_all(sends).await
        })
    });
    let results: Vec<_> = join_all(tasks)
        .await
        .into_iter()
        .flat_map(Result::unwrap)
        .collect();
    let stored: HashSet<usize> = results
        .iter()
        .filter(|(_, result)| result.is_ok())
        .map(|(id, _)| *id)
        .collect();
    let false_reports = results
        .iter()
        .filter(|(id, result)| result.is_ok() == (id % 5 == 0))
        .count();
    assert_eq!((false_reports, stored.len()), (0, 3200));
    assert!(
        results
            .iter()
            .filter(|(id, _)| id % 5 == 0)
            .all(|(_, result)| matches!(result, Err(PublishError::Unroutable(_))))
    );
    assert_eq!(broker.depth(topology::REQUESTS).await, 3200);
    publisher.close().await;
    broker.delete().await;
}

#[tokio::test]
async fn a_lost_connection_is_reestablished_and_waiting_messages_are_published() {
    let broker = Broker::fresh().await;
    let proxy = Proxy::to(broker.address()).await;
    let url = proxy.in_place_of(secrecy::ExposeSecret::expose_secret(&broker.url));
    let settings = Settings {
        timeout: Duration::from_secs(20),
        ..Settings::new(url.into(), "/test")
    };
    let publisher = Publisher::start(settings.clone()).unwrap();
    publisher
        .publish(message(0, "otp.requested"))
        .await
        .unwrap();
    proxy.close();
    let waiting = join_all((1..50).map(|id| publisher.publish(message(id, "otp.requested"))));
    let opening = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        proxy.open();
    };
    let (results, ()) = tokio::join!(waiting, opening);
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    assert!(
        broker.depth(topology::REQUESTS).await >= 50,
        "each message at least once"
    );

    proxy.close();
    let hasty = Publisher::start(Settings {
        timeout: Duration::from_secs(1),
        ..settings
    })
    .unwrap();
    let started = std::time::Instant::now();
    let error = hasty
        .publish(message(60, "otp.requested"))
        .await
        .unwrap_err();
    assert!(matches!(error, PublishError::Unconfirmed(_)), "{error}");
    assert!(
        started.elapsed() < Duration::from_secs(15),
        "in bounded time: {:?}",
        started.elapsed()
    );
    publisher.close().await;
    hasty.close().await;
    broker.delete().await;
}
