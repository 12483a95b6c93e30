//! Rate limits: slots, which tenants share them, and what makes them void.

use std::time::Duration;

use voice_otp::delivery::State;
use voice_otp::ports::{Ledger as _, StartOutcome, Verdict};
use voice_otp_schemas::Timestamp;
use voice_otp_schemas::status::Status;

use super::stage::{
    Stage, admit, admit_group, begin, find, finished, give_slots, placing, plan_to_wait, register,
    tenant, waiting,
};
use crate::memory::sample::{Request, account, key};

contract!(
    slots_are_spaced_by_the_accounts_interval,
    an_idle_account_gives_a_slot_at_once,
    an_unverified_tenant_has_its_own_rate_limit,
    verified_tenants_of_one_account_share_its_rate_limit,
    a_request_that_comes_too_late_is_refused_and_reserves_nothing,
    a_request_that_is_late_only_because_of_those_before_it_is_refused,
    a_changed_rate_voids_the_earlier_slots,
    throttling_voids_slots_and_gives_new_ones_only_after_the_wait,
    a_shorter_wait_shortens_nothing,
    throttling_an_unknown_account_does_nothing,
);

const SECOND: Duration = Duration::from_secs(1);
/// Slots of the next moments may be in use when the rate changes.
const MAYBE: Duration = Duration::from_millis(50);

/// Admits requests in one batch and returns their slots.
async fn slots<S: Stage>(stage: &S, asks: &[Request]) -> Vec<Timestamp> {
    let worker = register(stage).await;
    let mut group = Vec::new();
    for ask in asks {
        group.push(plan_to_wait(stage, ask).await);
    }
    admit_group(stage, worker, &group)
        .await
        .iter()
        .map(|verdict| placing(verdict).slot.at)
        .collect()
}

async fn slots_are_spaced_by_the_accounts_interval<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 0.5).await;
    let start = stage.now();
    let asks = ["a", "b", "c"].map(|id| Request::new("acme", id));
    assert_eq!(
        slots(stage, &asks).await,
        [start, start + 2 * SECOND, start + 4 * SECOND]
    );
    stage.advance(3 * SECOND).await;
    // The next batch continues where the last one ended.
    let asks = ["d", "e"].map(|id| Request::new("acme", id));
    assert_eq!(
        slots(stage, &asks).await,
        [start + 6 * SECOND, start + 8 * SECOND]
    );
}

async fn an_idle_account_gives_a_slot_at_once<S: Stage>(stage: &S) {
    // An interval that is no whole number of microseconds is rounded; the 1 % margin is larger.
    tenant(stage, "acme", 1, 7.0).await;
    let start = stage.now();
    let asks = ["a", "b", "c"].map(|id| Request::new("acme", id));
    let interval = Duration::from_micros(142_857);
    assert_eq!(
        slots(stage, &asks).await,
        [start, start + interval, start + 2 * interval]
    );
    stage.advance(Duration::from_mins(1)).await;
    assert_eq!(
        slots(stage, &[Request::new("acme", "d")]).await,
        [start + Duration::from_mins(1)],
        "no burst was saved up"
    );
}

async fn an_unverified_tenant_has_its_own_rate_limit<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 0.1).await;
    tenant(stage, "claimant", 1, 0.1).await;
    let start = stage.now();
    let asks = [
        Request::new("claimant", "a"),
        Request::new("claimant", "b"),
        Request::new("acme", "a"),
    ];
    assert_eq!(
        slots(stage, &asks).await,
        [start, start + 10 * SECOND, start],
        "naming an account doesn't slow its owner"
    );
}

async fn verified_tenants_of_one_account_share_its_rate_limit<S: Stage>(stage: &S) {
    let mut verified = Vec::new();
    for name in ["acme", "bell"] {
        let unproven = tenant(stage, name, 1, 0.1).await;
        assert_ne!(unproven.pace_key, account(1).as_str());
        stage.verify_credentials(&unproven).await;
        let settings = stage.settings(&unproven.tenant_id).await.unwrap();
        assert_eq!(settings.pace_key, account(1).as_str());
        assert!(
            settings.version > unproven.version,
            "plans made before are stale"
        );
        verified.push(settings);
    }
    let start = stage.now();
    let asks = [
        Request::new("acme", "a"),
        Request::new("bell", "a"),
        Request::new("acme", "b"),
    ];
    // Calls under the tenants' own rate limits were the account's too, so its first slot is one
    // interval away.
    assert_eq!(
        slots(stage, &asks).await,
        [
            start + 10 * SECOND,
            start + 20 * SECOND,
            start + 30 * SECOND
        ]
    );
    // The same credentials stay verified; others must be verified again.
    assert_eq!(
        tenant(stage, "acme", 1, 0.1).await.pace_key,
        account(1).as_str()
    );
    assert_ne!(
        tenant(stage, "acme", 2, 0.1).await.pace_key,
        account(2).as_str()
    );
    // A verification of an older version does not count.
    stage.verify_credentials(&verified[0]).await;
    assert_ne!(
        stage
            .settings(&verified[0].tenant_id)
            .await
            .unwrap()
            .pace_key,
        account(2).as_str()
    );
}

async fn a_request_that_comes_too_late_is_refused_and_reserves_nothing<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 0.1).await;
    let (worker, start) = (register(stage).await, stage.now());
    let mut group = Vec::new();
    // Half a minute of each code's time to live is kept for ringing and listening.
    for (id, life) in [("a", 35), ("b", 35), ("c", 60), ("d", 90)] {
        group.push(
            plan_to_wait(
                stage,
                &Request::new("acme", id).expires_in(Duration::from_secs(life)),
            )
            .await,
        );
    }
    let verdicts = admit_group(stage, worker, &group).await;
    assert_eq!(placing(&verdicts[0]).slot.at, start);
    assert_eq!(
        finished(&verdicts[1])[0].status,
        Some(Status::Expired),
        "its slot would be five seconds after its deadline"
    );
    assert_eq!(
        placing(&verdicts[2]).slot.at,
        start + 10 * SECOND,
        "the others move up"
    );
    assert_eq!(placing(&verdicts[3]).slot.at, start + 20 * SECOND);
    let refused = find(stage, &key("acme", "b")).await;
    assert_eq!(
        (refused.state, refused.slot, refused.sequence),
        (State::Final, None, 1)
    );
    let again = plan_to_wait(
        stage,
        &Request::new("acme", "b").expires_in(Duration::from_mins(9)),
    )
    .await;
    assert!(
        matches!(
            admit_group(stage, worker, &[again]).await[0],
            Verdict::Duplicate
        ),
        "it has its final status"
    );
    let next = admit(stage, worker, &Request::new("acme", "e")).await;
    assert_eq!(placing(&next).slot.at, start + 30 * SECOND);
}

async fn a_request_that_is_late_only_because_of_those_before_it_is_refused<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 0.1).await;
    let (worker, start) = (register(stage).await, stage.now());
    let mut group = Vec::new();
    for (id, life) in [("a", 35), ("b", 35), ("c", 45), ("d", 180)] {
        group.push(
            plan_to_wait(
                stage,
                &Request::new("acme", id).expires_in(Duration::from_secs(life)),
            )
            .await,
        );
    }
    let verdicts = admit_group(stage, worker, &group).await;
    // It would be in time if the refused one before it were not counted. All are counted first.
    assert_eq!(finished(&verdicts[2])[0].status, Some(Status::Expired));
    assert_eq!(placing(&verdicts[3]).slot.at, start + 10 * SECOND);
}

async fn a_changed_rate_voids_the_earlier_slots<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 0.1).await;
    let (worker, start) = (register(stage).await, stage.now());
    waiting(stage, worker, &Request::new("acme", "a")).await;
    let b = waiting(stage, worker, &Request::new("acme", "b").to(2)).await;
    assert_eq!(b.slot.unwrap().at, start + 10 * SECOND);
    tenant(stage, "acme", 1, 0.5).await;
    assert_eq!(find(stage, &b.key).await.revision, 1, "no row is written");
    let StartOutcome::Rescheduled { slot, .. } = begin(stage, worker, &b).await else {
        panic!("its old slot is void")
    };
    assert_eq!(slot.epoch, 0, "it has none yet");
    let next = admit(stage, worker, &Request::new("acme", "c").to(3)).await;
    assert_eq!(
        placing(&next).slot.at,
        start + 6 * SECOND + MAYBE,
        "the estimate: the new rate counts, and the order is kept"
    );
    let mut given = Vec::new();
    for _ in 0..5 {
        stage.advance(SECOND).await;
        given.extend(give_slots(stage, worker).await);
    }
    let slots = [("a", 2), ("b", 4), ("c", 6)];
    let slots = slots.map(|(id, at)| (id.to_owned(), start + at * SECOND + MAYBE));
    assert_eq!(
        given, slots,
        "slots at the new rate, in the order of admission"
    );
    // Saving the rate that the account has voids no slot.
    tenant(stage, "acme", 1, 0.5).await;
    let c = find(stage, &key("acme", "c")).await;
    assert_eq!(c.slot.unwrap().epoch, b.slot.unwrap().epoch + 1);
    let answer = begin(stage, worker, &c).await;
    assert_eq!(
        answer,
        StartOutcome::Rescheduled {
            slot: c.slot.unwrap(),
            revision: c.revision + 1
        }
    );
    // The queue is empty, so a request has a slot of its own again.
    stage.advance(2 * SECOND).await;
    assert_eq!(give_slots(stage, worker).await, []);
    waiting(stage, worker, &Request::new("acme", "d").to(4)).await;
    let d = find(stage, &key("acme", "d")).await;
    assert_eq!(d.slot.unwrap().at, start + 8 * SECOND + MAYBE);
}

async fn throttling_voids_slots_and_gives_new_ones_only_after_the_wait<S: Stage>(stage: &S) {
    let pace_key = tenant(stage, "acme", 1, 0.1).await.pace_key;
    tenant(stage, "bell", 2, 0.1).await;
    let (worker, start) = (register(stage).await, stage.now());
    waiting(stage, worker, &Request::new("acme", "a")).await;
    let b = waiting(stage, worker, &Request::new("acme", "b").to(2)).await;
    stage
        .ledger()
        .throttle_account(&pace_key, 30 * SECOND)
        .await
        .unwrap();
    stage.advance(10 * SECOND).await;
    let held = find(stage, &b.key).await;
    let StartOutcome::Rescheduled { slot, revision } = begin(stage, worker, &held).await else {
        panic!("nothing goes during a hold")
    };
    assert_eq!(
        (slot.at, slot.epoch, revision),
        (start + 50 * SECOND, 0, 2),
        "the estimated end of the queue"
    );
    let late = admit(
        stage,
        worker,
        &Request::new("acme", "c").expires_in(45 * SECOND),
    )
    .await;
    assert_eq!(finished(&late)[0].status, Some(Status::Expired));
    let next = admit(stage, worker, &Request::new("acme", "d").to(4)).await;
    assert_eq!(placing(&next).slot.at, start + 50 * SECOND);
    let other = admit(stage, worker, &Request::new("bell", "a")).await;
    assert_eq!(
        placing(&other).slot.at,
        stage.now(),
        "another account isn't throttled"
    );
    stage.advance(18 * SECOND).await;
    assert_eq!(give_slots(stage, worker).await, [], "the wait isn't over");
    stage.advance(SECOND).await;
    assert_eq!(
        give_slots(stage, worker).await,
        [("a".to_owned(), start + 30 * SECOND)]
    );
    stage.advance(SECOND).await;
    let a = find(stage, &key("acme", "a")).await;
    assert!(matches!(
        begin(stage, worker, &a).await,
        StartOutcome::Started { .. }
    ));
    stage.advance(9 * SECOND).await;
    assert_eq!(
        give_slots(stage, worker).await,
        [("b".to_owned(), start + 40 * SECOND)],
        "after the one before it"
    );
}

async fn a_shorter_wait_shortens_nothing<S: Stage>(stage: &S) {
    let pace_key = tenant(stage, "acme", 1, 1.0).await.pace_key;
    let (worker, start) = (register(stage).await, stage.now());
    waiting(stage, worker, &Request::new("acme", "a")).await;
    stage
        .ledger()
        .throttle_account(&pace_key, 30 * SECOND)
        .await
        .unwrap();
    stage
        .ledger()
        .throttle_account(&pace_key, 5 * SECOND)
        .await
        .unwrap();
    let next = admit(stage, worker, &Request::new("acme", "b").to(2)).await;
    assert_eq!(
        (placing(&next).slot.at, placing(&next).slot.epoch),
        (start + 31 * SECOND, 2)
    );
}

async fn throttling_an_unknown_account_does_nothing<S: Stage>(stage: &S) {
    stage
        .ledger()
        .throttle_account("unknown", SECOND)
        .await
        .unwrap();
    tenant(stage, "acme", 1, 1.0).await;
    let verdict = admit(stage, register(stage).await, &Request::new("acme", "a")).await;
    assert_eq!(placing(&verdict).slot.at, stage.now());
}
