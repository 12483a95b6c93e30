//! Beginning of placements that are due.

use std::time::Duration;

use voice_otp::delivery::{Change, State};
use voice_otp::ports::{Begin, Begun, Ledger as _, Saved};
use voice_otp::progress::CallStatus;

use super::stage::{
    Stage, admit, begin, begun, call, due, enlist, find, news, placing, save, tenant, waiting,
};
use crate::memory::sample::{Ask, key, limits};

contract!(
    what_is_due_goes_and_its_intent_is_saved,
    a_moment_before_its_slot_counts_as_due,
    what_is_not_due_yet_waits_for_its_own_slot,
    a_slot_used_too_late_is_void,
    a_void_slot_on_an_idle_account_is_replaced_by_one_now,
    who_had_no_slot_gets_one,
    a_slot_of_another_pace_is_void,
    void_slots_are_replaced_in_their_old_order,
    who_would_be_too_late_gets_no_slot,
    one_placement_is_under_way_on_a_line,
    of_two_on_one_line_in_a_group_the_first_goes,
    who_was_changed_meanwhile_does_not_begin,
);

const SECOND: Duration = Duration::from_secs(1);

async fn what_is_due_goes_and_its_intent_is_saved<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 1.0).await;
    let worker = enlist(stage).await;
    begun(stage, worker, &Ask::new("acme", "a")).await;
    let b = waiting(stage, worker, &Ask::new("acme", "b").calling(2)).await;
    stage.advance(SECOND).await;
    let asked = due(stage, &b).await;
    let answers = stage
        .ledger()
        .begin(worker, std::slice::from_ref(&asked))
        .await
        .unwrap();
    assert_eq!(
        answers,
        [Begun::Go {
            slot: b.slot.unwrap(),
            revision: 2
        }]
    );
    let (row, now) = (find(stage, &b.key).await, stage.now());
    assert_eq!(
        (row.state, row.revision, row.attempt),
        (State::Placing, 2, 1)
    );
    assert_eq!(
        (row.attempt_id, row.intent_at),
        (Some(asked.attempt_id), Some(now))
    );
    assert_eq!((row.wake_at, row.slot), (now + limits().rescue, b.slot));
    assert_eq!(row.sequence, 1, "nothing is said by it");
    assert_eq!(
        begin(stage, worker, &row).await,
        Begun::Conflict,
        "what has begun doesn't begin again"
    );
}

async fn a_moment_before_its_slot_counts_as_due<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 1.0).await;
    let worker = enlist(stage).await;
    begun(stage, worker, &Ask::new("acme", "a")).await;
    let b = waiting(stage, worker, &Ask::new("acme", "b").calling(2)).await;
    stage
        .advance(SECOND.checked_sub(limits().begin_ahead).unwrap())
        .await;
    assert_eq!(
        begin(stage, worker, &b).await,
        Begun::Go {
            slot: b.slot.unwrap(),
            revision: 2
        }
    );
}

async fn what_is_not_due_yet_waits_for_its_own_slot<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 1.0).await;
    let worker = enlist(stage).await;
    begun(stage, worker, &Ask::new("acme", "a")).await;
    let b = waiting(stage, worker, &Ask::new("acme", "b").calling(2)).await;
    assert_eq!(
        begin(stage, worker, &b).await,
        Begun::Wait {
            slot: b.slot.unwrap(),
            revision: 2
        }
    );
    let row = find(stage, &b.key).await;
    assert_eq!(
        (row.state, row.attempt, row.attempt_id, row.wake_at),
        (State::Waiting, 0, None, b.wake_at)
    );
    let next = admit(stage, worker, &Ask::new("acme", "c").calling(3)).await;
    assert_eq!(
        placing(&next).slot.at,
        stage.now() + 2 * SECOND,
        "asking too soon uses no pace"
    );
}

async fn a_slot_used_too_late_is_void<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 0.5).await;
    let (worker, start) = (enlist(stage).await, stage.now());
    begun(stage, worker, &Ask::new("acme", "a")).await;
    let b = waiting(stage, worker, &Ask::new("acme", "b").calling(2)).await;
    stage
        .advance(2 * SECOND + limits().slot_late + Duration::from_millis(1))
        .await;
    let Begun::Wait { slot, revision: 2 } = begin(stage, worker, &b).await else {
        panic!("its slot was void")
    };
    assert_eq!(slot.at, start + 4 * SECOND);
    let row = find(stage, &b.key).await;
    assert_eq!((row.slot, row.wake_at), (Some(slot), slot.at));
    stage
        .advance((2 * SECOND).checked_sub(Duration::from_millis(2)).unwrap())
        .await;
    assert_eq!(
        begin(stage, worker, &row).await,
        Begun::Go { slot, revision: 3 },
        "late, but not too late"
    );
}

async fn a_void_slot_on_an_idle_account_is_replaced_by_one_now<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 0.5).await;
    let worker = enlist(stage).await;
    let a = waiting(stage, worker, &Ask::new("acme", "a")).await;
    stage.advance(20 * SECOND).await;
    let Begun::Go { slot, .. } = begin(stage, worker, &a).await else {
        panic!("the account is idle")
    };
    assert_eq!(slot.at, stage.now());
    let next = admit(stage, worker, &Ask::new("acme", "b").calling(2)).await;
    assert_eq!(
        placing(&next).slot.at,
        stage.now() + 2 * SECOND,
        "the new slot uses the pace"
    );
}

async fn who_had_no_slot_gets_one<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 1.0).await;
    let worker = enlist(stage).await;
    let a = waiting(stage, worker, &Ask::new("acme", "a")).await;
    let mut change = Change::of(&a);
    change.delivery.slot = None;
    assert!(matches!(
        save(stage, worker, &change).await,
        Saved::Saved { .. }
    ));
    let a = find(stage, &a.key).await;
    let Begun::Wait { slot, .. } = begin(stage, worker, &a).await else {
        panic!("every placement takes a slot")
    };
    assert_eq!(slot.at, stage.now() + SECOND);
}

async fn a_slot_of_another_pace_is_void<S: Stage>(stage: &S) {
    let unproven = tenant(stage, "acme", 1, 0.1).await;
    let (worker, start) = (enlist(stage).await, stage.now());
    waiting(stage, worker, &Ask::new("acme", "a")).await;
    let b = waiting(stage, worker, &Ask::new("acme", "b").calling(2)).await;
    let c = waiting(stage, worker, &Ask::new("acme", "c").calling(3)).await;
    stage.prove(&unproven).await;
    stage.advance(10 * SECOND).await;
    // From now on the tenant shares the account's pace, which nobody has used.
    let Begun::Go { slot, .. } = begin(stage, worker, &b).await else {
        panic!("the account is idle")
    };
    assert_eq!(slot.at, start + 10 * SECOND);
    assert_eq!(
        find(stage, &b.key).await.pace_key.as_deref(),
        Some(unproven.account_sid.as_str())
    );
    let Begun::Wait { slot, .. } = begin(stage, worker, &c).await else {
        panic!("the account was just used")
    };
    assert_eq!(slot.at, start + 20 * SECOND);
}

async fn void_slots_are_replaced_in_their_old_order<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 0.5).await;
    let (worker, start) = (enlist(stage).await, stage.now());
    let mut rows = Vec::new();
    for (n, id) in (1..).zip(["a", "b", "c"]) {
        rows.push(waiting(stage, worker, &Ask::new("acme", id).calling(n)).await);
    }
    stage.advance(30 * SECOND).await;
    let mut group: Vec<Begin> = Vec::new();
    for row in rows.iter().rev() {
        group.push(due(stage, row).await);
    }
    let answers = stage.ledger().begin(worker, &group).await.unwrap();
    let slots: Vec<_> = answers
        .iter()
        .map(|answer| match answer {
            Begun::Go { slot, .. } | Begun::Wait { slot, .. } => slot.at - start,
            other => panic!("{other:?}"),
        })
        .map(|since| since.num_seconds())
        .collect();
    assert_eq!(slots, [34, 32, 30], "asked for in the reverse order");
    assert!(matches!(answers[2], Begun::Go { .. }));
}

async fn who_would_be_too_late_gets_no_slot<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 0.1).await;
    let (worker, start) = (enlist(stage).await, stage.now());
    begun(stage, worker, &Ask::new("acme", "a")).await;
    let b = waiting(
        stage,
        worker,
        &Ask::new("acme", "b").calling(2).living(42 * SECOND),
    )
    .await;
    stage
        .advance(10 * SECOND + Duration::from_millis(300))
        .await;
    let Begun::Wait { slot, revision } = begin(stage, worker, &b).await else {
        panic!("its slot was void")
    };
    assert!(slot.at > b.place_by, "it is told how late it would be");
    assert_eq!((slot.at, revision), (start + 20 * SECOND, 1));
    let row = find(stage, &b.key).await;
    assert_eq!((row.revision, row.slot), (1, b.slot), "nothing was done");
    let next = admit(stage, worker, &Ask::new("acme", "c").calling(3)).await;
    assert_eq!(
        placing(&next).slot.at,
        start + 20 * SECOND,
        "nothing was reserved"
    );
}

async fn one_placement_is_under_way_on_a_line<S: Stage>(stage: &S) {
    for (name, account) in [("acme", 1), ("bell", 1), ("other", 2)] {
        tenant(stage, name, account, 100.0).await;
    }
    let worker = enlist(stage).await;
    let a = begun(stage, worker, &Ask::new("acme", "a").calling(7)).await;
    let b = waiting(stage, worker, &Ask::new("acme", "b").calling(7)).await;
    let theirs = waiting(stage, worker, &Ask::new("bell", "b").calling(7)).await;
    let elsewhere = waiting(stage, worker, &Ask::new("other", "b").calling(7)).await;
    assert_eq!(begin(stage, worker, &b).await, Begun::LineBusy);
    assert_eq!(
        begin(stage, worker, &theirs).await,
        Begun::LineBusy,
        "the line is the account's, over all tenants"
    );
    assert!(
        matches!(begin(stage, worker, &elsewhere).await, Begun::Go { .. }),
        "another account has other lines"
    );
    assert_eq!(find(stage, &b.key).await.revision, 1, "nothing was done");
    // While the outcome is unknown the line stays taken.
    let unsettled = a.unsettle(stage.now() + SECOND, stage.now() + 10 * SECOND, stage.now());
    assert!(matches!(
        save(stage, worker, &unsettled).await,
        Saved::Saved { .. }
    ));
    assert_eq!(begin(stage, worker, &b).await, Begun::LineBusy);
    // Twilio has the call: the line is free.
    let a = find(stage, &a.key).await;
    let placed = news(&a, &call(1, CallStatus::Queued), stage.now());
    assert!(matches!(
        save(stage, worker, &placed).await,
        Saved::Saved { .. }
    ));
    assert!(matches!(begin(stage, worker, &b).await, Begun::Go { .. }));
}

async fn of_two_on_one_line_in_a_group_the_first_goes<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 100.0).await;
    let worker = enlist(stage).await;
    let mut group = Vec::new();
    for id in ["a", "b"] {
        let row = waiting(stage, worker, &Ask::new("acme", id).calling(7)).await;
        group.push(due(stage, &row).await);
    }
    let answers = stage.ledger().begin(worker, &group).await.unwrap();
    assert!(
        matches!(answers.as_slice(), [Begun::Go { .. }, Begun::LineBusy]),
        "{answers:?}"
    );
}

async fn who_was_changed_meanwhile_does_not_begin<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 1.0).await;
    let worker = enlist(stage).await;
    let a = waiting(stage, worker, &Ask::new("acme", "a")).await;
    assert!(matches!(
        save(stage, worker, &Change::of(&a)).await,
        Saved::Saved { .. }
    ));
    assert_eq!(begin(stage, worker, &a).await, Begun::Conflict);
    let newer = find(stage, &a.key).await;
    assert!(matches!(
        save(stage, worker, &newer.expire(stage.now())).await,
        Saved::Saved { .. }
    ));
    let over = find(stage, &a.key).await;
    assert_eq!(
        begin(stage, worker, &over).await,
        Begun::Conflict,
        "what is over doesn't begin"
    );
    let mut stranger = newer.clone();
    stranger.key = key("acme", "never-admitted");
    assert_eq!(begin(stage, worker, &stranger).await, Begun::Conflict);
}
