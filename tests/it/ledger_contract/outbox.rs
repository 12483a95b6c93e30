//! Status events that are not known to be published.

use std::collections::HashSet;
use std::time::Duration;

use voice_otp::delivery::Change;
use voice_otp::ports::Ledger as _;
use voice_otp::ports::WorkerEpoch;
use voice_otp_schemas::Timestamp;
use voice_otp_schemas::reason::{Reason, ReasonCode};

use super::stage::{Stage, admit, find, register, save, tenant, waiting};
use crate::memory::sample::{Request, key, limits};

contract!(
    published_events_are_deleted,
    a_worker_lists_its_own_events_only_once_they_are_old,
    an_expired_workers_events_are_claimed_in_order_and_by_one_worker,
    an_event_after_a_live_workers_event_is_left_to_that_worker,
    a_lost_race_writes_no_event,
    no_more_events_are_claimed_than_the_limit,
);

/// The ids and sequences of the events that a worker claims.
async fn sweep<S: Stage>(stage: &S, worker: WorkerEpoch, most: usize) -> Vec<(String, u32)> {
    let events = stage
        .ledger()
        .claim_unpublished(worker, most)
        .await
        .unwrap();
    events
        .iter()
        .map(|event| (event.key.delivery_id.to_string(), event.sequence))
        .collect()
}

/// Writes one more status of a delivery.
async fn say<S: Stage>(stage: &S, worker: WorkerEpoch, id: &str) {
    let mut change = Change::unchanged(&find(stage, &key("acme", id)).await);
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

async fn published_events_are_deleted<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 1.0).await;
    let first = register(stage).await;
    waiting(stage, first, &Request::new("acme", "a")).await;
    say(stage, first, "a").await;
    stage
        .ledger()
        .delete_published(&[(key("acme", "a"), 1), (key("acme", "unknown"), 7)])
        .await
        .unwrap();
    stage.ledger().release_worker(first).await.unwrap();
    let second = register(stage).await;
    assert_eq!(sweep(stage, second, 10).await, places(&[("a", 2)]));
    stage
        .ledger()
        .delete_published(&[(key("acme", "a"), 2)])
        .await
        .unwrap();
    stage.ledger().delete_published(&[]).await.unwrap();
    let third = register(stage).await;
    stage.ledger().release_worker(second).await.unwrap();
    assert!(sweep(stage, third, 10).await.is_empty());
}

async fn a_worker_lists_its_own_events_only_once_they_are_old<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 1.0).await;
    let (worker, other) = (register(stage).await, register(stage).await);
    let none = HashSet::new();
    let own = |after| stage.ledger().find_own_unpublished(worker, after, 1, &none);
    let written = stage.now();
    waiting(stage, worker, &Request::new("acme", "a")).await;
    stage.advance(Duration::from_millis(1)).await;
    waiting(stage, worker, &Request::new("acme", "b").to(2)).await;
    say(stage, other, "a").await;
    let before = limits().forgotten.saturating_sub(Duration::from_millis(1));
    stage.advance(before).await;
    assert!(own(Timestamp::UNIX_EPOCH).await.unwrap().0.is_empty());
    stage.advance(Duration::from_millis(2)).await;
    assert!(
        sweep(stage, worker, 10).await.is_empty(),
        "what is the worker's own isn't claimed"
    );
    let (events, last) = own(Timestamp::UNIX_EPOCH).await.unwrap();
    let found: Vec<_> = events
        .iter()
        .map(|event| (&event.key, event.sequence))
        .collect();
    let a = key("acme", "a");
    assert_eq!(
        found,
        [(&a, 1), (&a, 2)],
        "with the other worker's after it"
    );
    assert_eq!(last, Some(written));
    let (events, last) = own(last.unwrap()).await.unwrap();
    assert_eq!((events.len(), &events[0].key), (1, &key("acme", "b")));
    let (events, last) = own(last.unwrap()).await.unwrap();
    assert_eq!((events.len(), last), (0, None));
    let without = HashSet::from([key("acme", "a").tenant_id]);
    let (events, _) = stage
        .ledger()
        .find_own_unpublished(worker, Timestamp::UNIX_EPOCH, 1, &without)
        .await
        .unwrap();
    assert!(events.is_empty(), "tenants that are left out aren't listed");
}

async fn an_expired_workers_events_are_claimed_in_order_and_by_one_worker<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 1.0).await;
    let (first, second, third) = (
        register(stage).await,
        register(stage).await,
        register(stage).await,
    );
    waiting(stage, first, &Request::new("acme", "b")).await;
    waiting(stage, first, &Request::new("acme", "a").to(2)).await;
    for id in ["a", "b", "a"] {
        say(stage, first, id).await;
    }
    assert!(
        sweep(stage, second, 10).await.is_empty(),
        "their worker's lease is valid"
    );
    stage.ledger().release_worker(first).await.unwrap();
    assert_eq!(
        sweep(stage, second, 10).await,
        places(&[("a", 1), ("a", 2), ("a", 3), ("b", 1), ("b", 2)])
    );
    assert!(
        sweep(stage, third, 10).await.is_empty(),
        "the second worker owns them now"
    );
}

async fn an_event_after_a_live_workers_event_is_left_to_that_worker<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 1.0).await;
    let (first, second, third) = (
        register(stage).await,
        register(stage).await,
        register(stage).await,
    );
    waiting(stage, first, &Request::new("acme", "a")).await;
    say(stage, second, "a").await;
    say(stage, third, "a").await;
    stage.ledger().release_worker(second).await.unwrap();
    assert!(
        sweep(stage, third, 10).await.is_empty(),
        "the first worker owns the earlier event"
    );
    stage.ledger().release_worker(first).await.unwrap();
    assert_eq!(
        sweep(stage, third, 10).await,
        places(&[("a", 1), ("a", 2), ("a", 3)]),
        "and the events after it"
    );
}

async fn a_lost_race_writes_no_event<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 1.0).await;
    let worker = register(stage).await;
    let row = waiting(stage, worker, &Request::new("acme", "a")).await;
    save(stage, worker, &Change::unchanged(&row)).await;
    save(stage, worker, &row.expire(stage.now())).await;
    admit(stage, worker, &Request::new("acme", "a")).await;
    stage.ledger().release_worker(worker).await.unwrap();
    let sweeper = register(stage).await;
    assert_eq!(
        sweep(stage, sweeper, 10).await,
        places(&[("a", 1)]),
        "neither the late change nor the duplicate"
    );
}

async fn no_more_events_are_claimed_than_the_limit<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 1.0).await;
    let first = register(stage).await;
    for id in ["b", "a"] {
        waiting(stage, first, &Request::new("acme", id)).await;
        stage.advance(Duration::from_millis(1)).await;
    }
    stage.ledger().release_worker(first).await.unwrap();
    let second = register(stage).await;
    assert_eq!(
        sweep(stage, second, 1).await,
        places(&[("b", 1)]),
        "the oldest"
    );
    assert_eq!(sweep(stage, second, 10).await, places(&[("a", 1)]));
}
