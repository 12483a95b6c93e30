//! Worker registrations, and claiming the deliveries of expired ones.

use std::time::Duration;

use voice_otp::delivery::{Delivery, State};
use voice_otp::ports::Ledger as _;
use voice_otp::ports::WorkerEpoch;

use super::stage::{Stage, admit, begun, find, register, tenant, waiting};
use crate::memory::sample::{Request, limits};

contract!(
    a_lease_is_valid_while_heartbeats_arrive,
    every_registration_has_its_own_epoch,
    due_deliveries_of_an_expired_worker_are_claimed_and_those_of_a_live_one_are_not,
    deliveries_that_are_not_due_are_not_claimed,
    a_released_workers_deliveries_can_be_claimed_at_once,
    a_started_attempt_is_claimed_only_after_its_rescue_time,
    a_worker_lists_its_own_that_are_overdue,
    long_overdue_deliveries_are_claimed_even_from_a_live_worker,
    no_more_are_claimed_than_the_limit_the_most_overdue_first,
    finished_deliveries_are_not_claimed,
);

const SECOND: Duration = Duration::from_secs(1);

/// The ids of the deliveries that a worker claims, each once, in order.
async fn claim<S: Stage>(stage: &S, worker: WorkerEpoch, most: usize) -> Vec<String> {
    let claimed = stage.ledger().claim_due(worker, most).await.unwrap();
    let mut ids: Vec<String> = claimed
        .iter()
        .map(|row: &Delivery| row.key.delivery_id.to_string())
        .collect();
    ids.sort();
    ids.dedup();
    ids
}

/// Advances the time while these workers send heartbeats.
async fn live_on<S: Stage>(stage: &S, workers: &[WorkerEpoch], time: Duration) {
    let end = stage.now() + time;
    while stage.now() < end {
        let step = (end - stage.now())
            .to_std()
            .unwrap()
            .min(limits().lease.checked_sub(SECOND).unwrap());
        stage.advance(step).await;
        for worker in workers {
            assert!(stage.ledger().heartbeat(*worker).await.unwrap().alive);
        }
    }
}

async fn a_lease_is_valid_while_heartbeats_arrive<S: Stage>(stage: &S) {
    let worker = register(stage).await;
    live_on(stage, &[worker], 20 * SECOND).await;
    stage.advance(limits().lease).await;
    let heartbeat = stage.ledger().heartbeat(worker).await.unwrap();
    assert_eq!(
        (heartbeat.alive, heartbeat.now),
        (false, stage.now()),
        "a lease is expired at the moment when it ends"
    );
    assert!(
        !stage.ledger().heartbeat(worker).await.unwrap().alive,
        "an expired lease is not extended"
    );
    assert!(
        !stage
            .ledger()
            .heartbeat(WorkerEpoch(9_999))
            .await
            .unwrap()
            .alive
    );
}

async fn every_registration_has_its_own_epoch<S: Stage>(stage: &S) {
    let (first, now) = stage.ledger().register_worker("one").await.unwrap();
    assert_eq!(now, stage.now());
    let (second, _) = stage.ledger().register_worker("one").await.unwrap();
    assert_ne!(second, first);
    stage.ledger().release_worker(first).await.unwrap();
    assert!(!stage.ledger().heartbeat(first).await.unwrap().alive);
    assert!(stage.ledger().heartbeat(second).await.unwrap().alive);
}

async fn due_deliveries_of_an_expired_worker_are_claimed_and_those_of_a_live_one_are_not<
    S: Stage,
>(
    stage: &S,
) {
    tenant(stage, "acme", 1, 1.0).await;
    let (first, second) = (register(stage).await, register(stage).await);
    let row = waiting(stage, first, &Request::new("acme", "a")).await;
    assert!(
        claim(stage, second, 10).await.is_empty(),
        "its owner's lease is valid"
    );
    live_on(stage, &[second], limits().lease).await;
    let claimed = stage.ledger().claim_due(second, 10).await.unwrap();
    let taken = claimed.first().expect("its owner's lease has expired");
    assert_eq!(
        (&taken.key, taken.revision, taken.state),
        (&row.key, row.revision + 1, State::Waiting)
    );
    assert_eq!(
        format!("{taken:?}"),
        format!("{:?}", find(stage, &row.key).await)
    );
    let third = register(stage).await;
    assert!(
        claim(stage, third, 10).await.is_empty(),
        "the second worker owns it now"
    );
}

async fn deliveries_that_are_not_due_are_not_claimed<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 0.1).await;
    let first = register(stage).await;
    waiting(stage, first, &Request::new("acme", "a")).await;
    waiting(stage, first, &Request::new("acme", "b")).await;
    stage.ledger().release_worker(first).await.unwrap();
    let second = register(stage).await;
    assert_eq!(claim(stage, second, 10).await, ["a"]);
    live_on(stage, &[second], 10 * SECOND).await;
    assert!(claim(stage, second, 10).await.contains(&"b".to_owned()));
}

async fn a_released_workers_deliveries_can_be_claimed_at_once<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 1.0).await;
    let (first, second) = (register(stage).await, register(stage).await);
    waiting(stage, first, &Request::new("acme", "a")).await;
    stage.ledger().release_worker(first).await.unwrap();
    assert_eq!(claim(stage, second, 10).await, ["a"]);
}

async fn a_started_attempt_is_claimed_only_after_its_rescue_time<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 1.0).await;
    let (first, second) = (register(stage).await, register(stage).await);
    let row = begun(stage, first, &Request::new("acme", "a")).await;
    stage.ledger().release_worker(first).await.unwrap();
    assert!(
        claim(stage, second, 10).await.is_empty(),
        "its POST may be under way"
    );
    live_on(stage, &[second], limits().rescue).await;
    let claimed = stage.ledger().claim_due(second, 10).await.unwrap();
    assert_eq!(
        (claimed[0].state, claimed[0].attempt_id),
        (State::Placing, row.attempt_id)
    );
}

async fn a_worker_lists_its_own_that_are_overdue<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 1.0).await;
    let worker = register(stage).await;
    let row = waiting(stage, worker, &Request::new("acme", "a")).await;
    live_on(stage, &[worker], limits().forgotten).await;
    assert!(
        claim(stage, worker, 10).await.is_empty(),
        "not overdue by enough"
    );
    live_on(stage, &[worker], Duration::from_millis(1)).await;
    assert_eq!(claim(stage, worker, 10).await, ["a"]);
    assert_eq!(
        find(stage, &row.key).await.revision,
        row.revision,
        "the worker owned it already"
    );
}

async fn long_overdue_deliveries_are_claimed_even_from_a_live_worker<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 1.0).await;
    let (first, second) = (register(stage).await, register(stage).await);
    waiting(stage, first, &Request::new("acme", "a")).await;
    live_on(stage, &[first, second], Duration::from_mins(1)).await;
    assert!(claim(stage, second, 10).await.is_empty());
    live_on(stage, &[first, second], SECOND).await;
    assert_eq!(claim(stage, second, 10).await, ["a"]);
}

async fn no_more_are_claimed_than_the_limit_the_most_overdue_first<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 1.0).await;
    let first = register(stage).await;
    for id in ["a", "b", "c"] {
        waiting(stage, first, &Request::new("acme", id)).await;
    }
    stage.advance(2 * SECOND).await;
    stage.ledger().release_worker(first).await.unwrap();
    let second = register(stage).await;
    assert_eq!(claim(stage, second, 2).await, ["a", "b"]);
    let third = register(stage).await;
    assert_eq!(claim(stage, third, 2).await, ["c"]);
}

async fn finished_deliveries_are_not_claimed<S: Stage>(stage: &S) {
    let (first, second) = (register(stage).await, register(stage).await);
    admit(stage, first, &Request::new("ghost", "a")).await;
    stage.ledger().release_worker(first).await.unwrap();
    stage.advance(Duration::from_secs(2)).await;
    assert!(claim(stage, second, 10).await.is_empty());
}
