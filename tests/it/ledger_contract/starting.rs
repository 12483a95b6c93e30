//! Starting the attempts of due deliveries.

use std::time::Duration;

use voice_otp::call::CallStatus;
use voice_otp::delivery::{Change, State};
use voice_otp::ports::{AttemptStart, Ledger as _, Saved, StartOutcome};

use super::stage::{
    Stage, admit, begin, begun, call, due, find, placing, register, save, tenant, update, waiting,
};
use crate::memory::sample::{Request, key, limits};

contract!(
    a_due_attempt_starts_and_its_intent_is_stored,
    a_moment_before_its_slot_counts_as_due,
    a_delivery_that_is_not_due_keeps_its_slot,
    a_slot_used_too_late_is_void,
    a_void_slot_on_an_idle_account_is_replaced_by_one_now,
    a_delivery_without_a_slot_gets_one,
    a_slot_of_another_rate_limit_is_void,
    void_slots_are_replaced_in_their_old_order,
    a_delivery_that_would_be_too_late_gets_no_slot,
    one_attempt_at_a_time_is_placed_on_a_line,
    of_two_on_one_line_in_a_batch_the_first_starts,
    a_delivery_that_was_changed_concurrently_does_not_start,
);

const SECOND: Duration = Duration::from_secs(1);

async fn a_due_attempt_starts_and_its_intent_is_stored<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 1.0).await;
    let worker = register(stage).await;
    begun(stage, worker, &Request::new("acme", "a")).await;
    let b = waiting(stage, worker, &Request::new("acme", "b").to(2)).await;
    stage.advance(SECOND).await;
    let asked = due(stage, &b).await;
    let answers = stage
        .ledger()
        .start_attempts(worker, std::slice::from_ref(&asked))
        .await
        .unwrap();
    assert_eq!(
        answers,
        [StartOutcome::Started {
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
    assert_eq!(row.sequence, 1, "it writes no status");
    assert_eq!(
        begin(stage, worker, &row).await,
        StartOutcome::Conflict,
        "a started attempt doesn't start again"
    );
}

async fn a_moment_before_its_slot_counts_as_due<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 1.0).await;
    let worker = register(stage).await;
    begun(stage, worker, &Request::new("acme", "a")).await;
    let b = waiting(stage, worker, &Request::new("acme", "b").to(2)).await;
    stage
        .advance(SECOND.checked_sub(limits().begin_ahead).unwrap())
        .await;
    assert_eq!(
        begin(stage, worker, &b).await,
        StartOutcome::Started {
            slot: b.slot.unwrap(),
            revision: 2
        }
    );
}

async fn a_delivery_that_is_not_due_keeps_its_slot<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 1.0).await;
    let worker = register(stage).await;
    begun(stage, worker, &Request::new("acme", "a")).await;
    let b = waiting(stage, worker, &Request::new("acme", "b").to(2)).await;
    assert_eq!(
        begin(stage, worker, &b).await,
        StartOutcome::Rescheduled {
            slot: b.slot.unwrap(),
            revision: 2
        }
    );
    let row = find(stage, &b.key).await;
    assert_eq!(
        (row.state, row.attempt, row.attempt_id, row.wake_at),
        (State::Waiting, 0, None, b.wake_at)
    );
    let next = admit(stage, worker, &Request::new("acme", "c").to(3)).await;
    assert_eq!(
        placing(&next).slot.at,
        stage.now() + 2 * SECOND,
        "asking too soon takes no slot"
    );
}

async fn a_slot_used_too_late_is_void<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 0.5).await;
    let (worker, start) = (register(stage).await, stage.now());
    begun(stage, worker, &Request::new("acme", "a")).await;
    let b = waiting(stage, worker, &Request::new("acme", "b").to(2)).await;
    stage
        .advance(2 * SECOND + limits().slot_late + Duration::from_millis(1))
        .await;
    let StartOutcome::Rescheduled { slot, revision: 2 } = begin(stage, worker, &b).await else {
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
        StartOutcome::Started { slot, revision: 3 },
        "late, but not too late"
    );
}

async fn a_void_slot_on_an_idle_account_is_replaced_by_one_now<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 0.5).await;
    let worker = register(stage).await;
    let a = waiting(stage, worker, &Request::new("acme", "a")).await;
    stage.advance(20 * SECOND).await;
    let StartOutcome::Started { slot, .. } = begin(stage, worker, &a).await else {
        panic!("the account is idle")
    };
    assert_eq!(slot.at, stage.now());
    let next = admit(stage, worker, &Request::new("acme", "b").to(2)).await;
    assert_eq!(
        placing(&next).slot.at,
        stage.now() + 2 * SECOND,
        "the new slot is reserved"
    );
}

async fn a_delivery_without_a_slot_gets_one<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 1.0).await;
    let worker = register(stage).await;
    let a = waiting(stage, worker, &Request::new("acme", "a")).await;
    let mut change = Change::unchanged(&a);
    change.delivery.slot = None;
    assert!(matches!(
        save(stage, worker, &change).await,
        Saved::Saved { .. }
    ));
    let a = find(stage, &a.key).await;
    let StartOutcome::Rescheduled { slot, .. } = begin(stage, worker, &a).await else {
        panic!("every start gets a slot")
    };
    assert_eq!(slot.at, stage.now() + SECOND);
}

async fn a_slot_of_another_rate_limit_is_void<S: Stage>(stage: &S) {
    let unproven = tenant(stage, "acme", 1, 0.1).await;
    let (worker, start) = (register(stage).await, stage.now());
    waiting(stage, worker, &Request::new("acme", "a")).await;
    let b = waiting(stage, worker, &Request::new("acme", "b").to(2)).await;
    let c = waiting(stage, worker, &Request::new("acme", "c").to(3)).await;
    stage.verify_credentials(&unproven).await;
    stage.advance(10 * SECOND).await;
    // From now on the tenant uses the account's rate limit, which has no reserved slot.
    let StartOutcome::Started { slot, .. } = begin(stage, worker, &b).await else {
        panic!("the account is idle")
    };
    assert_eq!(slot.at, start + 10 * SECOND);
    assert_eq!(
        find(stage, &b.key).await.pace_key.as_deref(),
        Some(unproven.account_sid.as_str())
    );
    let StartOutcome::Rescheduled { slot, .. } = begin(stage, worker, &c).await else {
        panic!("the account was just used")
    };
    assert_eq!(slot.at, start + 20 * SECOND);
}

async fn void_slots_are_replaced_in_their_old_order<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 0.5).await;
    let (worker, start) = (register(stage).await, stage.now());
    let mut rows = Vec::new();
    for (n, id) in (1..).zip(["a", "b", "c"]) {
        rows.push(waiting(stage, worker, &Request::new("acme", id).to(n)).await);
    }
    stage.advance(30 * SECOND).await;
    let mut group: Vec<AttemptStart> = Vec::new();
    for row in rows.iter().rev() {
        group.push(due(stage, row).await);
    }
    let answers = stage.ledger().start_attempts(worker, &group).await.unwrap();
    let slots: Vec<_> = answers
        .iter()
        .map(|answer| match answer {
            StartOutcome::Started { slot, .. } | StartOutcome::Rescheduled { slot, .. } => {
                slot.at - start
            }
            other => panic!("{other:?}"),
        })
        .map(|since| since.num_seconds())
        .collect();
    assert_eq!(slots, [34, 32, 30], "asked for in the reverse order");
    assert!(matches!(answers[2], StartOutcome::Started { .. }));
}

async fn a_delivery_that_would_be_too_late_gets_no_slot<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 0.1).await;
    let (worker, start) = (register(stage).await, stage.now());
    begun(stage, worker, &Request::new("acme", "a")).await;
    let b = waiting(
        stage,
        worker,
        &Request::new("acme", "b").to(2).expires_in(42 * SECOND),
    )
    .await;
    stage
        .advance(10 * SECOND + Duration::from_millis(300))
        .await;
    let StartOutcome::Rescheduled { slot, revision } = begin(stage, worker, &b).await else {
        panic!("its slot was void")
    };
    assert!(slot.at > b.place_by, "the slot says how late it would be");
    assert_eq!((slot.at, revision), (start + 20 * SECOND, 1));
    let row = find(stage, &b.key).await;
    assert_eq!((row.revision, row.slot), (1, b.slot), "nothing was written");
    let next = admit(stage, worker, &Request::new("acme", "c").to(3)).await;
    assert_eq!(
        placing(&next).slot.at,
        start + 20 * SECOND,
        "nothing was reserved"
    );
}

async fn one_attempt_at_a_time_is_placed_on_a_line<S: Stage>(stage: &S) {
    for (name, account) in [("acme", 1), ("bell", 1), ("other", 2)] {
        tenant(stage, name, account, 100.0).await;
    }
    let worker = register(stage).await;
    let a = begun(stage, worker, &Request::new("acme", "a").to(7)).await;
    let b = waiting(stage, worker, &Request::new("acme", "b").to(7)).await;
    let theirs = waiting(stage, worker, &Request::new("bell", "b").to(7)).await;
    let elsewhere = waiting(stage, worker, &Request::new("other", "b").to(7)).await;
    assert_eq!(begin(stage, worker, &b).await, StartOutcome::LineBusy);
    assert_eq!(
        begin(stage, worker, &theirs).await,
        StartOutcome::LineBusy,
        "a line belongs to the account, whichever the tenant"
    );
    assert!(
        matches!(
            begin(stage, worker, &elsewhere).await,
            StartOutcome::Started { .. }
        ),
        "another account has other lines"
    );
    assert_eq!(find(stage, &b.key).await.revision, 1, "nothing was written");
    // While the outcome is unknown the line stays busy.
    let unsettled = a.mark_unsettled(
        stage.now() + SECOND,
        stage.now() + 10 * SECOND,
        "no answer",
        stage.now(),
    );
    assert!(matches!(
        save(stage, worker, &unsettled).await,
        Saved::Saved { .. }
    ));
    assert_eq!(begin(stage, worker, &b).await, StartOutcome::LineBusy);
    // Twilio has the call, so the line is free.
    let a = find(stage, &a.key).await;
    let placed = update(&a, &call(1, CallStatus::Queued), stage.now());
    assert!(matches!(
        save(stage, worker, &placed).await,
        Saved::Saved { .. }
    ));
    assert!(matches!(
        begin(stage, worker, &b).await,
        StartOutcome::Started { .. }
    ));
}

async fn of_two_on_one_line_in_a_batch_the_first_starts<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 100.0).await;
    let worker = register(stage).await;
    let mut group = Vec::new();
    for id in ["a", "b"] {
        let row = waiting(stage, worker, &Request::new("acme", id).to(7)).await;
        group.push(due(stage, &row).await);
    }
    let answers = stage.ledger().start_attempts(worker, &group).await.unwrap();
    assert!(
        matches!(
            answers.as_slice(),
            [StartOutcome::Started { .. }, StartOutcome::LineBusy]
        ),
        "{answers:?}"
    );
}

async fn a_delivery_that_was_changed_concurrently_does_not_start<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 1.0).await;
    let worker = register(stage).await;
    let a = waiting(stage, worker, &Request::new("acme", "a")).await;
    assert!(matches!(
        save(stage, worker, &Change::unchanged(&a)).await,
        Saved::Saved { .. }
    ));
    assert_eq!(begin(stage, worker, &a).await, StartOutcome::Conflict);
    let newer = find(stage, &a.key).await;
    assert!(matches!(
        save(stage, worker, &newer.expire(stage.now())).await,
        Saved::Saved { .. }
    ));
    let finished = find(stage, &a.key).await;
    assert_eq!(
        begin(stage, worker, &finished).await,
        StartOutcome::Conflict,
        "a finished delivery doesn't start"
    );
    let mut other = newer.clone();
    other.key = key("acme", "never-admitted");
    assert_eq!(begin(stage, worker, &other).await, StartOutcome::Conflict);
}
