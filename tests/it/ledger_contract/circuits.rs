//! Circuits: an account whose calls fail gets no slots for a while, then probes.

use std::time::Duration;

use voice_otp::delivery::{Change, State};
use voice_otp::ports::{Ledger as _, StartOutcome, Verdict};

use super::stage::{
    LEAD_TIME, Stage, admit, admit_group, begin, begun, find, give_slots, placing, plan_to_wait,
    register, save, tenant, waiting,
};
use crate::memory::sample::{Request, key};

contract!(
    a_half_open_circuit_allows_a_probe_every_two_seconds,
    a_circuit_that_opens_repeatedly_stays_open_longer,
    a_closed_circuit_restores_the_accounts_rate,
    an_open_circuit_finishes_no_delivery_that_could_still_be_in_time,
    a_half_open_circuit_is_probed_by_a_retry_if_nothing_else_waits,
);

const SECOND: Duration = Duration::from_secs(1);

async fn a_half_open_circuit_allows_a_probe_every_two_seconds<S: Stage>(stage: &S) {
    let pace_key = tenant(stage, "acme", 1, 100.0).await.pace_key;
    let (worker, start) = (register(stage).await, stage.now());
    waiting(stage, worker, &Request::new("acme", "a")).await;
    waiting(stage, worker, &Request::new("acme", "b").to(2)).await;
    assert_eq!(
        stage.ledger().open_circuit(&pace_key).await.unwrap(),
        Some(5 * SECOND)
    );
    assert_eq!(
        stage.ledger().open_circuit(&pace_key).await.unwrap(),
        None,
        "it is open"
    );
    assert!(
        stage
            .settings(&key("acme", "a").tenant_id)
            .await
            .unwrap()
            .circuit_open
    );
    let next = admit(stage, worker, &Request::new("acme", "c").to(3)).await;
    assert_eq!(placing(&next).slot.at, start + 9 * SECOND, "an estimate");
    for (id, at) in [("a", 5), ("b", 7), ("c", 9)] {
        assert_eq!(give_slots(stage, worker).await, [], "it is too early");
        stage.advance(2 * SECOND).await;
        if id == "a" {
            stage.advance(2 * SECOND).await;
        }
        let given = give_slots(stage, worker).await;
        assert_eq!(given, [(id.to_owned(), start + at * SECOND)], "one probe");
    }
    assert_eq!(stage.ledger().open_circuit("unknown").await.unwrap(), None);
}

async fn a_circuit_that_opens_repeatedly_stays_open_longer<S: Stage>(stage: &S) {
    let pace_key = tenant(stage, "acme", 1, 100.0).await.pace_key;
    waiting(stage, register(stage).await, &Request::new("acme", "a")).await;
    let mut waits = Vec::new();
    for _ in 0..6 {
        let wait = stage
            .ledger()
            .open_circuit(&pace_key)
            .await
            .unwrap()
            .unwrap();
        waits.push(wait.as_secs());
        stage.advance(wait).await;
    }
    assert_eq!(waits, [5, 10, 20, 40, 60, 60]);
}

async fn a_closed_circuit_restores_the_accounts_rate<S: Stage>(stage: &S) {
    let pace_key = tenant(stage, "acme", 1, 1.0).await.pace_key;
    let worker = register(stage).await;
    waiting(stage, worker, &Request::new("acme", "a")).await;
    waiting(stage, worker, &Request::new("acme", "b").to(2)).await;
    stage.ledger().open_circuit(&pace_key).await.unwrap();
    stage.advance(6 * SECOND).await;
    stage.ledger().close_circuit(&pace_key).await.unwrap();
    assert!(
        !stage
            .settings(&key("acme", "a").tenant_id)
            .await
            .unwrap()
            .circuit_open
    );
    let first = stage.now() + LEAD_TIME;
    assert_eq!(
        give_slots(stage, worker).await,
        [("a".to_owned(), first), ("b".to_owned(), first + SECOND)]
    );
    assert_eq!(
        stage.ledger().open_circuit(&pace_key).await.unwrap(),
        Some(5 * SECOND),
        "the count starts again at one"
    );
}

async fn an_open_circuit_finishes_no_delivery_that_could_still_be_in_time<S: Stage>(stage: &S) {
    let pace_key = tenant(stage, "acme", 1, 100.0).await.pace_key;
    let (worker, start) = (register(stage).await, stage.now());
    let last_moment = start + 60 * SECOND;
    let ask = |n: u32| {
        Request::new("acme", &format!("a{n:02}"))
            .to(n)
            .expires_in(90 * SECOND)
    };
    let mut group = Vec::new();
    for n in 0..40 {
        group.push(plan_to_wait(stage, &ask(n)).await);
    }
    let verdicts = admit_group(stage, worker, &group).await;
    assert!(
        verdicts
            .iter()
            .all(|verdict| matches!(verdict, Verdict::Admitted(_)))
    );
    stage.ledger().open_circuit(&pace_key).await.unwrap();
    let without_slot = find(stage, &key("acme", "a28")).await;
    assert_eq!(
        (without_slot.state, without_slot.revision),
        (State::Waiting, 1),
        "no delivery is written"
    );

    let verdict = admit(stage, worker, &ask(50)).await;
    let admitted = placing(&verdict);
    assert_eq!(
        (admitted.slot.at, admitted.held, admitted.begun),
        (last_moment, false, false)
    );
    let body = admitted.event.as_ref().unwrap().body.clone();
    assert!(
        body.contains(&voice_otp_schemas::request::rfc3339(last_moment)),
        "due at its deadline at the latest: {body}"
    );
    let newcomer = find(stage, &key("acme", "a50")).await;
    assert_eq!(
        (newcomer.state, newcomer.slot, newcomer.wake_at),
        (State::Waiting, None, last_moment)
    );
    let hopeless = admit(
        stage,
        worker,
        &Request::new("acme", "c").to(51).expires_in(34 * SECOND),
    )
    .await;
    assert!(
        matches!(hopeless, Verdict::Finished(_)),
        "no call is placed while the circuit is open"
    );

    let StartOutcome::Rescheduled { slot, revision } = begin(stage, worker, &without_slot).await
    else {
        panic!("it waits")
    };
    assert_eq!(
        (slot.at, revision),
        (last_moment, without_slot.revision + 1)
    );
    assert_eq!(
        find(stage, &without_slot.key).await.slot,
        None,
        "it still has no slot"
    );

    stage.advance(6 * SECOND).await;
    stage.ledger().close_circuit(&pace_key).await.unwrap();
    assert_eq!(give_slots(stage, worker).await.len(), 41);
    for name in ["a00", "a28", "a39", "a50"] {
        let slot = find(stage, &key("acme", name)).await.slot.unwrap();
        assert!(
            slot.at < stage.now() + 2 * SECOND,
            "{name} has a slot at the account's rate: {slot:?}"
        );
    }
}

async fn a_half_open_circuit_is_probed_by_a_retry_if_nothing_else_waits<S: Stage>(stage: &S) {
    let pace_key = tenant(stage, "acme", 1, 1.0).await.pace_key;
    let (worker, start) = (register(stage).await, stage.now());
    let first = begun(stage, worker, &Request::new("acme", "a")).await;
    let mut again = Change::unchanged(&first);
    again.end_attempt();
    again.delivery.state = State::Waiting;
    again.delivery.wake_at = start + SECOND;
    save(stage, worker, &again).await;
    stage.ledger().open_circuit(&pace_key).await.unwrap();
    assert_eq!(
        give_slots(stage, worker).await,
        [],
        "it waits for its retry"
    );
    stage.advance(5 * SECOND).await;
    let tried = find(stage, &first.key).await;
    let StartOutcome::Rescheduled { slot, .. } = begin(stage, worker, &tried).await else {
        panic!("it queues")
    };
    assert_eq!(slot.epoch, 0);
    let given = give_slots(stage, worker).await;
    assert_eq!(given, [("a".to_owned(), stage.now() + LEAD_TIME)]);
    stage.advance(LEAD_TIME).await;
    let tried = find(stage, &first.key).await;
    assert!(matches!(
        begin(stage, worker, &tried).await,
        StartOutcome::Started { .. }
    ));
}
