//! Status events until they are known to be published.

use std::time::Duration;

use voice_otp::delivery::{Change, WorkerEpoch};
use voice_otp::ports::Ledger as _;
use voice_otp_schemas::reason::{Reason, ReasonCode};

use super::stage::{Stage, admit, enlist, find, save, tenant, waiting};
use crate::memory::sample::{Ask, key, limits};

contract!(
    what_is_published_is_forgotten,
    a_worker_is_given_its_own_events_only_once_they_are_old,
    a_dead_workers_events_are_swept_in_order_and_by_one_only,
    an_event_whose_forerunner_a_living_worker_has_is_left_to_it,
    a_lost_race_says_nothing,
    no_more_are_swept_than_asked_for,
);

/// The ids and sequences of what a worker is given to publish.
async fn sweep<S: Stage>(stage: &S, worker: WorkerEpoch, most: usize) -> Vec<(String, u32)> {
    let events = stage.ledger().unpublished(worker, most).await.unwrap();
    events
        .iter()
        .map(|event| (event.key.delivery_id.to_string(), event.sequence))
        .collect()
}

/// Says one more status of a delivery.
async fn say<S: Stage>(stage: &S, worker: WorkerEpoch, id: &str) {
    let mut change = Change::of(&find(stage, &key("acme", id)).await);
    change.delivery.wake_at = change.delivery.announced_at.unwrap() + Duration::from_secs(2);
    change.defer(stage.now(), Reason::new(ReasonCode::Pace, "it waits"));
    save(stage, worker, &change).await;
}

fn places(places: &[(&str, u32)]) -> Vec<(String, u32)> {
    places
        .iter()
        .map(|(id, sequence)| ((*id).to_owned(), *sequence))
        .collect()
}

async fn what_is_published_is_forgotten<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 1.0).await;
    let first = enlist(stage).await;
    waiting(stage, first, &Ask::new("acme", "a")).await;
    say(stage, first, "a").await;
    stage
        .ledger()
        .published(&[(key("acme", "a"), 1), (key("acme", "unknown"), 7)])
        .await
        .unwrap();
    stage.ledger().retire(first).await.unwrap();
    let second = enlist(stage).await;
    assert_eq!(sweep(stage, second, 10).await, places(&[("a", 2)]));
    stage
        .ledger()
        .published(&[(key("acme", "a"), 2)])
        .await
        .unwrap();
    stage.ledger().published(&[]).await.unwrap();
    let third = enlist(stage).await;
    stage.ledger().retire(second).await.unwrap();
    assert!(sweep(stage, third, 10).await.is_empty());
}

async fn a_worker_is_given_its_own_events_only_once_they_are_old<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 1.0).await;
    let worker = enlist(stage).await;
    waiting(stage, worker, &Ask::new("acme", "a")).await;
    stage.advance(limits().forgotten).await;
    assert!(sweep(stage, worker, 10).await.is_empty());
    stage.advance(Duration::from_millis(1)).await;
    assert_eq!(sweep(stage, worker, 10).await, places(&[("a", 1)]));
    assert_eq!(
        sweep(stage, worker, 10).await,
        places(&[("a", 1)]),
        "until it is published"
    );
}

async fn a_dead_workers_events_are_swept_in_order_and_by_one_only<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 1.0).await;
    let (first, second, third) = (
        enlist(stage).await,
        enlist(stage).await,
        enlist(stage).await,
    );
    waiting(stage, first, &Ask::new("acme", "b")).await;
    waiting(stage, first, &Ask::new("acme", "a").calling(2)).await;
    for id in ["a", "b", "a"] {
        say(stage, first, id).await;
    }
    assert!(
        sweep(stage, second, 10).await.is_empty(),
        "their worker lives"
    );
    stage.ledger().retire(first).await.unwrap();
    assert_eq!(
        sweep(stage, second, 10).await,
        places(&[("a", 1), ("a", 2), ("a", 3), ("b", 1), ("b", 2)])
    );
    assert!(
        sweep(stage, third, 10).await.is_empty(),
        "they are the second worker's now"
    );
}

async fn an_event_whose_forerunner_a_living_worker_has_is_left_to_it<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 1.0).await;
    let (first, second, third) = (
        enlist(stage).await,
        enlist(stage).await,
        enlist(stage).await,
    );
    waiting(stage, first, &Ask::new("acme", "a")).await;
    say(stage, second, "a").await;
    say(stage, third, "a").await;
    stage.ledger().retire(second).await.unwrap();
    assert!(
        sweep(stage, third, 10).await.is_empty(),
        "the first worker has the one before"
    );
    stage.ledger().retire(first).await.unwrap();
    assert_eq!(
        sweep(stage, third, 10).await,
        places(&[("a", 1), ("a", 2), ("a", 3)]),
        "and what waits behind it"
    );
}

async fn a_lost_race_says_nothing<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 1.0).await;
    let worker = enlist(stage).await;
    let row = waiting(stage, worker, &Ask::new("acme", "a")).await;
    save(stage, worker, &Change::of(&row)).await;
    save(stage, worker, &row.expire(stage.now())).await;
    admit(stage, worker, &Ask::new("acme", "a")).await;
    stage.ledger().retire(worker).await.unwrap();
    let sweeper = enlist(stage).await;
    assert_eq!(
        sweep(stage, sweeper, 10).await,
        places(&[("a", 1)]),
        "neither the late change nor the repeat"
    );
}

async fn no_more_are_swept_than_asked_for<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 1.0).await;
    let first = enlist(stage).await;
    for id in ["b", "a"] {
        waiting(stage, first, &Ask::new("acme", id)).await;
        stage.advance(Duration::from_millis(1)).await;
    }
    stage.ledger().retire(first).await.unwrap();
    let second = enlist(stage).await;
    assert_eq!(
        sweep(stage, second, 1).await,
        places(&[("b", 1)]),
        "the oldest"
    );
    assert_eq!(sweep(stage, second, 10).await, places(&[("a", 1)]));
}
