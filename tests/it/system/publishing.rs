//! The publisher reports truthfully what the broker has stored.

use std::collections::HashSet;
use std::time::Duration;

use futures_util::future::join_all;
use voice_otp_publisher::{Message, PublishError, Publisher, Settings, topology};
use zeroize::Zeroizing;

use crate::harness::{Broker, Proxy, SilentQueue};

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_that_never_confirms_delays_no_other_message_and_hides_no_unroutable_one() {
    let broker = Broker::fresh().await;
    let silent = topology::CANCELLED_KEY;
    let proxy = SilentQueue::before(broker.address(), silent).await;
    let url = proxy.in_place_of(secrecy::ExposeSecret::expose_secret(&broker.url));
    let publisher = Publisher::start(Settings {
        timeout: Duration::from_secs(2),
        ..Settings::new(url.into(), "/test")
    })
    .unwrap();
    let mut unconfirmed = Vec::new();
    let started = std::time::Instant::now();
    let (mut id, mut stored) = (0, 0);
    // Until the messages to the silent queue are given up, and a while longer.
    while started.elapsed() < Duration::from_secs(8) {
        if unconfirmed.len() < 10 {
            id += 1;
            let result = publisher.enqueue(message(id, silent)).await.unwrap();
            unconfirmed.push(result);
        }
        let batch: Vec<(usize, &str)> = (0..50)
            .map(|n| {
                (
                    id + 1 + n,
                    if n % 5 == 0 {
                        "nowhere"
                    } else {
                        "otp.requested"
                    },
                )
            })
            .collect();
        id += batch.len();
        let publishing = join_all(batch.into_iter().map(async |(id, key)| {
            let result = publisher.publish(message(id, key)).await;
            match key {
                "nowhere" => matches!(result, Err(PublishError::Unroutable(_))),
                _ => result.is_ok(),
            }
        }));
        let truthful = tokio::time::timeout(Duration::from_secs(4), publishing)
            .await
            .expect("no message waits for another's confirm");
        assert!(truthful.iter().all(|truthful| *truthful));
        stored += 40;
    }
    let results = join_all(unconfirmed).await;
    assert!(
        results
            .iter()
            .all(|result| *result == Ok(Err(PublishError::SilentQueue))),
        "{results:?}"
    );
    assert_eq!(proxy.connections(), 1, "the connection is alive");
    assert_eq!(broker.depth(topology::REQUESTS).await, stored + 10);

    // Many messages that are never confirmed wear a channel out. It is replaced, and others go on.
    let many = join_all((0..40).map(|n| publisher.publish(message(1_000_000 + n, silent))));
    let others = async {
        for n in 0..40 {
            let result = publisher.publish(message(2_000_000 + n, "otp.requested"));
            result.await.unwrap();
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    };
    let (many, ()) = tokio::join!(many, others);
    assert!(many.iter().all(Result::is_err), "{many:?}");
    assert!((2..=4).contains(&proxy.connections()));
    publisher.close().await;
    broker.delete().await;
}
