//! Workers' lives, and what of the dead is taken over.

use std::time::Duration;

use voice_otp::delivery::{Delivery, State, WorkerEpoch};
use voice_otp::ports::Ledger as _;

use super::stage::{Stage, admit, begun, enlist, find, tenant, waiting};
use crate::memory::sample::{Ask, limits};

contract!(
    a_worker_lives_as_long_as_it_beats,
    every_life_has_an_epoch_of_its_own,
    a_dead_workers_due_deliveries_are_claimed_and_a_living_ones_are_not,
    what_is_not_due_is_not_claimed,
    who_retires_hands_over_at_once,
    a_begun_placement_is_taken_over_only_after_its_rescue,
    a_worker_lists_its_own_that_are_overdue,
    what_is_long_overdue_is_taken_even_from_a_living_worker,
    no_more_are_claimed_than_asked_for_the_most_overdue_first,
    what_is_over_is_not_claimed,
);

const SECOND: Duration = Duration::from_secs(1);

/// The ids of what a worker claims, each once, in order.
async fn claim<S: Stage>(stage: &S, worker: WorkerEpoch, most: usize) -> Vec<String> {
    let claimed = stage.ledger().claim(worker, most).await.unwrap();
    let mut ids: Vec<String> = claimed
        .iter()
        .map(|row: &Delivery| row.key.delivery_id.to_string())
        .collect();
    ids.sort();
    ids.dedup();
    ids
}

/// Lets time pass while these workers go on beating.
async fn live_on<S: Stage>(stage: &S, workers: &[WorkerEpoch], time: Duration) {
    let end = stage.now() + time;
    while stage.now() < end {
        let step = (end - stage.now())
            .to_std()
            .unwrap()
            .min(limits().lease.checked_sub(SECOND).unwrap());
        stage.advance(step).await;
        for worker in workers {
            assert!(stage.ledger().beat(*worker).await.unwrap().alive);
        }
    }
}

async fn a_worker_lives_as_long_as_it_beats<S: Stage>(stage: &S) {
    let worker = enlist(stage).await;
    live_on(stage, &[worker], 20 * SECOND).await;
    stage.advance(limits().lease).await;
    let beat = stage.ledger().beat(worker).await.unwrap();
    assert_eq!(
        (beat.alive, beat.now),
        (false, stage.now()),
        "a lease that has just ended has ended"
    );
    assert!(
        !stage.ledger().beat(worker).await.unwrap().alive,
        "nobody rises from the dead"
    );
    assert!(!stage.ledger().beat(WorkerEpoch(9_999)).await.unwrap().alive);
}

async fn every_life_has_an_epoch_of_its_own<S: Stage>(stage: &S) {
    let (first, now) = stage.ledger().enlist("one").await.unwrap();
    assert_eq!(now, stage.now());
    let (second, _) = stage.ledger().enlist("one").await.unwrap();
    assert!(second > first);
    stage.ledger().retire(first).await.unwrap();
    assert!(!stage.ledger().beat(first).await.unwrap().alive);
    assert!(stage.ledger().beat(second).await.unwrap().alive);
}

async fn a_dead_workers_due_deliveries_are_claimed_and_a_living_ones_are_not<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 1.0).await;
    let (first, second) = (enlist(stage).await, enlist(stage).await);
    let row = waiting(stage, first, &Ask::new("acme", "a")).await;
    assert!(claim(stage, second, 10).await.is_empty(), "its owner lives");
    live_on(stage, &[second], limits().lease).await;
    let claimed = stage.ledger().claim(second, 10).await.unwrap();
    let taken = claimed.first().expect("its owner is dead");
    assert_eq!(
        (&taken.key, taken.revision, taken.state),
        (&row.key, row.revision + 1, State::Waiting)
    );
    assert_eq!(
        format!("{taken:?}"),
        format!("{:?}", find(stage, &row.key).await)
    );
    let third = enlist(stage).await;
    assert!(
        claim(stage, third, 10).await.is_empty(),
        "it is the second worker's now"
    );
}

async fn what_is_not_due_is_not_claimed<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 0.1).await;
    let first = enlist(stage).await;
    waiting(stage, first, &Ask::new("acme", "a")).await;
    waiting(stage, first, &Ask::new("acme", "b")).await;
    stage.ledger().retire(first).await.unwrap();
    let second = enlist(stage).await;
    assert_eq!(claim(stage, second, 10).await, ["a"]);
    live_on(stage, &[second], 10 * SECOND).await;
    assert!(claim(stage, second, 10).await.contains(&"b".to_owned()));
}

async fn who_retires_hands_over_at_once<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 1.0).await;
    let (first, second) = (enlist(stage).await, enlist(stage).await);
    waiting(stage, first, &Ask::new("acme", "a")).await;
    stage.ledger().retire(first).await.unwrap();
    assert_eq!(claim(stage, second, 10).await, ["a"]);
}

async fn a_begun_placement_is_taken_over_only_after_its_rescue<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 1.0).await;
    let (first, second) = (enlist(stage).await, enlist(stage).await);
    let row = begun(stage, first, &Ask::new("acme", "a")).await;
    stage.ledger().retire(first).await.unwrap();
    assert!(
        claim(stage, second, 10).await.is_empty(),
        "its POST may be on its way"
    );
    live_on(stage, &[second], limits().rescue).await;
    let claimed = stage.ledger().claim(second, 10).await.unwrap();
    assert_eq!(
        (claimed[0].state, claimed[0].attempt_id),
        (State::Placing, row.attempt_id)
    );
}

async fn a_worker_lists_its_own_that_are_overdue<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 1.0).await;
    let worker = enlist(stage).await;
    let row = waiting(stage, worker, &Ask::new("acme", "a")).await;
    live_on(stage, &[worker], limits().forgotten).await;
    assert!(
        claim(stage, worker, 10).await.is_empty(),
        "not overdue enough"
    );
    live_on(stage, &[worker], Duration::from_millis(1)).await;
    assert_eq!(claim(stage, worker, 10).await, ["a"]);
    assert_eq!(
        find(stage, &row.key).await.revision,
        row.revision,
        "it was its own already"
    );
}

async fn what_is_long_overdue_is_taken_even_from_a_living_worker<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 1.0).await;
    let (first, second) = (enlist(stage).await, enlist(stage).await);
    waiting(stage, first, &Ask::new("acme", "a")).await;
    live_on(stage, &[first, second], Duration::from_mins(1)).await;
    assert!(claim(stage, second, 10).await.is_empty());
    live_on(stage, &[first, second], SECOND).await;
    assert_eq!(claim(stage, second, 10).await, ["a"]);
}

async fn no_more_are_claimed_than_asked_for_the_most_overdue_first<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 1.0).await;
    let first = enlist(stage).await;
    for id in ["a", "b", "c"] {
        waiting(stage, first, &Ask::new("acme", id)).await;
    }
    stage.advance(2 * SECOND).await;
    stage.ledger().retire(first).await.unwrap();
    let second = enlist(stage).await;
    assert_eq!(claim(stage, second, 2).await, ["a", "b"]);
    let third = enlist(stage).await;
    assert_eq!(claim(stage, third, 2).await, ["c"]);
}

async fn what_is_over_is_not_claimed<S: Stage>(stage: &S) {
    let (first, second) = (enlist(stage).await, enlist(stage).await);
    admit(stage, first, &Ask::new("ghost", "a")).await;
    stage.ledger().retire(first).await.unwrap();
    stage.advance(Duration::from_secs(2)).await;
    assert!(claim(stage, second, 10).await.is_empty());
}
