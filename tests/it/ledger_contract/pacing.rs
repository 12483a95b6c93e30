//! The account's pace: slots, who shares them, and what voids them.

use std::time::Duration;

use voice_otp::delivery::State;
use voice_otp::ports::{Begun, Ledger as _, Verdict};
use voice_otp_schemas::Timestamp;
use voice_otp_schemas::status::Status;

use super::stage::{
    Stage, admit, admit_group, begin, enlist, find, over, placing, plan_to_wait, tenant, waiting,
};
use crate::memory::sample::{Ask, account, key};

contract!(
    slots_are_spaced_by_the_accounts_interval,
    an_idle_account_starts_at_once,
    an_unproven_tenant_has_a_pace_of_its_own,
    proven_tenants_of_one_account_share_its_pace,
    who_comes_too_late_is_refused_and_nothing_is_reserved_for_it,
    who_is_late_only_for_those_before_is_refused_as_well,
    a_changed_pace_voids_the_slots_before,
    a_hold_voids_slots_and_gives_new_ones_only_after_it,
    a_shorter_hold_shortens_nothing,
    a_hold_of_an_unknown_account_does_nothing,
);

const SECOND: Duration = Duration::from_secs(1);
/// Slots of the next moments may be under way when the pace changes.
const MAYBE: Duration = Duration::from_millis(50);

/// Admits requests in one group, and says when each one's slot is.
async fn slots<S: Stage>(stage: &S, asks: &[Ask]) -> Vec<Timestamp> {
    let worker = enlist(stage).await;
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
    let asks = ["a", "b", "c"].map(|id| Ask::new("acme", id));
    assert_eq!(
        slots(stage, &asks).await,
        [start, start + 2 * SECOND, start + 4 * SECOND]
    );
    stage.advance(3 * SECOND).await;
    // The next group goes on where the last one ended.
    let asks = ["d", "e"].map(|id| Ask::new("acme", id));
    assert_eq!(
        slots(stage, &asks).await,
        [start + 6 * SECOND, start + 8 * SECOND]
    );
}

async fn an_idle_account_starts_at_once<S: Stage>(stage: &S) {
    // An interval that is no whole number of microseconds is rounded; more than that is kept back.
    tenant(stage, "acme", 1, 7.0).await;
    let start = stage.now();
    let asks = ["a", "b", "c"].map(|id| Ask::new("acme", id));
    let interval = Duration::from_micros(142_857);
    assert_eq!(
        slots(stage, &asks).await,
        [start, start + interval, start + 2 * interval]
    );
    stage.advance(Duration::from_mins(1)).await;
    assert_eq!(
        slots(stage, &[Ask::new("acme", "d")]).await,
        [start + Duration::from_mins(1)],
        "no burst was saved up"
    );
}

async fn an_unproven_tenant_has_a_pace_of_its_own<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 0.1).await;
    tenant(stage, "claimant", 1, 0.1).await;
    let start = stage.now();
    let asks = [
        Ask::new("claimant", "a"),
        Ask::new("claimant", "b"),
        Ask::new("acme", "a"),
    ];
    assert_eq!(
        slots(stage, &asks).await,
        [start, start + 10 * SECOND, start],
        "claiming an account slows nobody"
    );
}

async fn proven_tenants_of_one_account_share_its_pace<S: Stage>(stage: &S) {
    let mut proven = Vec::new();
    for name in ["acme", "bell"] {
        let unproven = tenant(stage, name, 1, 0.1).await;
        assert_ne!(unproven.pace_key, account(1).as_str());
        stage.prove(&unproven).await;
        let settings = stage.settings(&unproven.tenant_id).await.unwrap();
        assert_eq!(settings.pace_key, account(1).as_str());
        assert!(
            settings.version > unproven.version,
            "plans made before are stale"
        );
        proven.push(settings);
    }
    let start = stage.now();
    let asks = [
        Ask::new("acme", "a"),
        Ask::new("bell", "a"),
        Ask::new("acme", "b"),
    ];
    // The calls of their own paces were the account's too, so its first slot is one interval away.
    assert_eq!(
        slots(stage, &asks).await,
        [
            start + 10 * SECOND,
            start + 20 * SECOND,
            start + 30 * SECOND
        ]
    );
    // The same credentials stay proven; others must prove themselves again.
    assert_eq!(
        tenant(stage, "acme", 1, 0.1).await.pace_key,
        account(1).as_str()
    );
    assert_ne!(
        tenant(stage, "acme", 2, 0.1).await.pace_key,
        account(2).as_str()
    );
    // What was true of an older version proves nothing.
    stage.prove(&proven[0]).await;
    assert_ne!(
        stage.settings(&proven[0].tenant_id).await.unwrap().pace_key,
        account(2).as_str()
    );
}

async fn who_comes_too_late_is_refused_and_nothing_is_reserved_for_it<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 0.1).await;
    let (worker, start) = (enlist(stage).await, stage.now());
    let mut group = Vec::new();
    // Half a minute of each life is kept for ringing and listening.
    for (id, life) in [("a", 35), ("b", 35), ("c", 60), ("d", 90)] {
        group.push(
            plan_to_wait(
                stage,
                &Ask::new("acme", id).living(Duration::from_secs(life)),
            )
            .await,
        );
    }
    let verdicts = admit_group(stage, worker, &group).await;
    assert_eq!(placing(&verdicts[0]).slot.at, start);
    assert_eq!(
        over(&verdicts[1])[0].status,
        Some(Status::Expired),
        "its slot would be five seconds after its last moment"
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
    let again = plan_to_wait(stage, &Ask::new("acme", "b").living(Duration::from_mins(9))).await;
    assert!(
        matches!(
            admit_group(stage, worker, &[again]).await[0],
            Verdict::Repeat
        ),
        "it has had its ending"
    );
    let next = admit(stage, worker, &Ask::new("acme", "e")).await;
    assert_eq!(placing(&next).slot.at, start + 30 * SECOND);
}

async fn who_is_late_only_for_those_before_is_refused_as_well<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 0.1).await;
    let (worker, start) = (enlist(stage).await, stage.now());
    let mut group = Vec::new();
    for (id, life) in [("a", 35), ("b", 35), ("c", 45), ("d", 180)] {
        group.push(
            plan_to_wait(
                stage,
                &Ask::new("acme", id).living(Duration::from_secs(life)),
            )
            .await,
        );
    }
    let verdicts = admit_group(stage, worker, &group).await;
    // It would be in time if the one before, which is refused, were not counted: who is counted is decided first.
    assert_eq!(over(&verdicts[2])[0].status, Some(Status::Expired));
    assert_eq!(placing(&verdicts[3]).slot.at, start + 10 * SECOND);
}

async fn a_changed_pace_voids_the_slots_before<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 0.1).await;
    let (worker, start) = (enlist(stage).await, stage.now());
    waiting(stage, worker, &Ask::new("acme", "a")).await;
    let b = waiting(stage, worker, &Ask::new("acme", "b").calling(2)).await;
    assert_eq!(b.slot.unwrap().at, start + 10 * SECOND);
    tenant(stage, "acme", 1, 0.5).await;
    assert_eq!(
        begin(stage, worker, &b).await,
        Begun::Conflict,
        "its old slot is void"
    );
    let again = find(stage, &b.key).await;
    let slot = again.slot.unwrap();
    assert_eq!(
        (slot.at, slot.epoch),
        (start + 4 * SECOND + MAYBE, b.slot.unwrap().epoch + 1),
        "it has its place in the new pace"
    );
    let next = admit(stage, worker, &Ask::new("acme", "c").calling(3)).await;
    assert_eq!(
        placing(&next).slot.at,
        start + 6 * SECOND + MAYBE,
        "the new pace counts, and nobody overtakes"
    );
    // Saving the pace that the account has voids nothing.
    tenant(stage, "acme", 1, 0.5).await;
    let c = find(stage, &key("acme", "c")).await;
    let answer = begin(stage, worker, &c).await;
    assert_eq!(
        answer,
        Begun::Wait {
            slot: c.slot.unwrap(),
            revision: c.revision + 1
        }
    );
}

async fn a_hold_voids_slots_and_gives_new_ones_only_after_it<S: Stage>(stage: &S) {
    let pace_key = tenant(stage, "acme", 1, 0.1).await.pace_key;
    tenant(stage, "bell", 2, 0.1).await;
    let (worker, start) = (enlist(stage).await, stage.now());
    waiting(stage, worker, &Ask::new("acme", "a")).await;
    let b = waiting(stage, worker, &Ask::new("acme", "b").calling(2)).await;
    stage.ledger().hold(&pace_key, 30 * SECOND).await.unwrap();
    stage.advance(10 * SECOND).await;
    let held = find(stage, &b.key).await;
    let Begun::Wait { slot, revision } = begin(stage, worker, &held).await else {
        panic!("nothing goes during a hold")
    };
    assert_eq!(
        (slot.at, slot.epoch, revision),
        (start + 40 * SECOND, b.slot.unwrap().epoch + 1, 3),
        "after the one before it"
    );
    let late = admit(stage, worker, &Ask::new("acme", "c").living(45 * SECOND)).await;
    assert_eq!(over(&late)[0].status, Some(Status::Expired));
    let next = admit(stage, worker, &Ask::new("acme", "d").calling(4)).await;
    assert_eq!(placing(&next).slot.at, start + 50 * SECOND);
    let stranger = admit(stage, worker, &Ask::new("bell", "a")).await;
    assert_eq!(
        placing(&stranger).slot.at,
        stage.now(),
        "another account doesn't wait"
    );
    stage.advance(30 * SECOND).await;
    let b = find(stage, &b.key).await;
    assert!(matches!(begin(stage, worker, &b).await, Begun::Go { .. }));
}

async fn a_shorter_hold_shortens_nothing<S: Stage>(stage: &S) {
    let pace_key = tenant(stage, "acme", 1, 1.0).await.pace_key;
    let (worker, start) = (enlist(stage).await, stage.now());
    waiting(stage, worker, &Ask::new("acme", "a")).await;
    stage.ledger().hold(&pace_key, 30 * SECOND).await.unwrap();
    stage.ledger().hold(&pace_key, 5 * SECOND).await.unwrap();
    let next = admit(stage, worker, &Ask::new("acme", "b").calling(2)).await;
    assert_eq!(
        (placing(&next).slot.at, placing(&next).slot.epoch),
        (start + 31 * SECOND, 2)
    );
}

async fn a_hold_of_an_unknown_account_does_nothing<S: Stage>(stage: &S) {
    stage.ledger().hold("nobody's", SECOND).await.unwrap();
    tenant(stage, "acme", 1, 1.0).await;
    let verdict = admit(stage, enlist(stage).await, &Ask::new("acme", "a")).await;
    assert_eq!(placing(&verdict).slot.at, stage.now());
}
