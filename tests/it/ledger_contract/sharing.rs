//! Pauses, circuits, shares and limits: what keeps an account's trouble, or one tenant's, from being the others'.

use std::time::Duration;

use voice_otp::delivery::State;
use voice_otp::ports::{Begun, Ledger as _, Verdict};
use voice_otp::settings::Paused;
use voice_otp_schemas::TenantId;
use voice_otp_schemas::status::Status;

use super::stage::{
    Stage, admit, admit_group, begin, begun, enlist, find, over, placing, plan, plan_to_wait,
    tenant, waiting,
};
use crate::memory::sample::{Ask, account, key, limits};

contract!(
    what_is_paused_waits_without_a_slot,
    who_resumes_gives_slots_in_the_order_of_coming,
    a_paused_tenant_keeps_the_others_of_its_account_going,
    a_pause_makes_earlier_plans_stale,
    an_open_circuit_lets_one_through_now_and_then,
    a_circuit_opened_again_and_again_waits_longer,
    a_closed_circuit_gives_the_account_its_pace_back,
    an_open_circuit_ends_nobody_who_may_yet_be_in_time,
    one_tenant_holds_at_most_its_share_of_a_shared_account,
    a_tenant_alone_in_its_account_has_all_of_it,
    no_more_calls_are_in_progress_than_the_account_may_have,
    who_was_tried_before_lets_others_go_first,
    what_is_due_late_is_nobodys_and_claimed_before_its_time,
    a_hopeless_request_is_refused_with_its_wait,
);

const SECOND: Duration = Duration::from_secs(1);

fn id(tenant: &str) -> TenantId {
    TenantId::parse(tenant).unwrap()
}

async fn what_is_paused_waits_without_a_slot<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 1.0).await;
    let (worker, start) = (enlist(stage).await, stage.now());
    stage.pause(&id("acme"), true).await;
    assert_eq!(
        stage.settings(&id("acme")).await.unwrap().paused,
        Some(Paused::Tenant)
    );
    let Verdict::Parked(events) =
        admit(stage, worker, &Ask::new("acme", "a").living(90 * SECOND)).await
    else {
        panic!("it waits")
    };
    let told: Vec<Status> = events.iter().filter_map(|event| event.status).collect();
    assert_eq!(told, [Status::Accepted, Status::Deferred]);
    let row = find(stage, &key("acme", "a")).await;
    assert_eq!(
        (row.state, row.slot, row.sequence),
        (State::Waiting, None, 2)
    );
    assert_eq!(
        row.wake_at,
        start + 60 * SECOND,
        "due at its last moment only"
    );
    assert!(stage.ledger().claim(worker, 10).await.unwrap().is_empty());
}

async fn who_resumes_gives_slots_in_the_order_of_coming<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 0.1).await;
    let worker = enlist(stage).await;
    stage.pause_account(&account(1), true).await;
    for (n, name) in (1..).zip(["b", "a"]) {
        admit(stage, worker, &Ask::new("acme", name).calling(n)).await;
        stage.advance(SECOND).await;
    }
    let hopeless = admit(
        stage,
        worker,
        &Ask::new("acme", "c").calling(3).living(40 * SECOND),
    )
    .await;
    assert!(matches!(hopeless, Verdict::Parked(_)));
    let now = stage.now();
    stage.pause_account(&account(1), false).await;
    // The first slot leaves time for somebody to claim it.
    let first = now + Duration::from_millis(700);
    assert_eq!(find(stage, &key("acme", "b")).await.slot.unwrap().at, first);
    assert_eq!(
        find(stage, &key("acme", "a")).await.slot.unwrap().at,
        first + 10 * SECOND
    );
    let late = find(stage, &key("acme", "c")).await;
    assert_eq!(
        (late.slot, late.wake_at),
        (None, now),
        "its slot would be too late: it is ended at once"
    );
    let next = admit(stage, worker, &Ask::new("acme", "d").calling(4)).await;
    assert_eq!(
        placing(&next).slot.at,
        first + 20 * SECOND,
        "nobody overtakes"
    );
    assert_eq!(
        stage.ledger().claim(worker, 10).await.unwrap().len(),
        2,
        "they are anybody's"
    );
}

async fn a_paused_tenant_keeps_the_others_of_its_account_going<S: Stage>(stage: &S) {
    for name in ["acme", "bell"] {
        let settings = tenant(stage, name, 1, 1.0).await;
        stage.prove(&settings).await;
    }
    stage.advance(5 * SECOND).await;
    let worker = enlist(stage).await;
    stage.pause(&id("acme"), true).await;
    assert!(matches!(
        admit(stage, worker, &Ask::new("acme", "a")).await,
        Verdict::Parked(_)
    ));
    let other = admit(stage, worker, &Ask::new("bell", "a").calling(2)).await;
    assert_eq!(placing(&other).slot.at, stage.now());
}

async fn a_pause_makes_earlier_plans_stale<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 1.0).await;
    let worker = enlist(stage).await;
    let before = plan(stage, &Ask::new("acme", "a")).await;
    stage.pause_account(&account(1), true).await;
    assert!(matches!(
        admit_group(stage, worker, &[before]).await[0],
        Verdict::StaleSettings
    ));
}

async fn an_open_circuit_lets_one_through_now_and_then<S: Stage>(stage: &S) {
    let pace_key = tenant(stage, "acme", 1, 100.0).await.pace_key;
    let (worker, start) = (enlist(stage).await, stage.now());
    waiting(stage, worker, &Ask::new("acme", "a")).await;
    let b = waiting(stage, worker, &Ask::new("acme", "b").calling(2)).await;
    assert_eq!(
        stage.ledger().trip(&pace_key).await.unwrap(),
        Some(5 * SECOND)
    );
    assert_eq!(
        stage.ledger().trip(&pace_key).await.unwrap(),
        None,
        "it is open"
    );
    assert!(stage.settings(&id("acme")).await.unwrap().on_trial);
    assert_eq!(
        find(stage, &key("acme", "a")).await.slot.unwrap().at,
        start + 5 * SECOND
    );
    assert_eq!(
        find(stage, &b.key).await.slot.unwrap().at,
        start + 7 * SECOND
    );
    let next = admit(stage, worker, &Ask::new("acme", "c").calling(3)).await;
    assert_eq!(placing(&next).slot.at, start + 9 * SECOND);
    assert_eq!(stage.ledger().trip("nobody's").await.unwrap(), None);
}

async fn a_circuit_opened_again_and_again_waits_longer<S: Stage>(stage: &S) {
    let pace_key = tenant(stage, "acme", 1, 100.0).await.pace_key;
    waiting(stage, enlist(stage).await, &Ask::new("acme", "a")).await;
    let mut waits = Vec::new();
    for _ in 0..6 {
        let wait = stage.ledger().trip(&pace_key).await.unwrap().unwrap();
        waits.push(wait.as_secs());
        stage.advance(wait).await;
    }
    assert_eq!(waits, [5, 10, 20, 40, 60, 60]);
}

async fn a_closed_circuit_gives_the_account_its_pace_back<S: Stage>(stage: &S) {
    let pace_key = tenant(stage, "acme", 1, 1.0).await.pace_key;
    let worker = enlist(stage).await;
    waiting(stage, worker, &Ask::new("acme", "a")).await;
    let b = waiting(stage, worker, &Ask::new("acme", "b").calling(2)).await;
    stage.ledger().trip(&pace_key).await.unwrap();
    stage.advance(6 * SECOND).await;
    stage.ledger().mend(&pace_key).await.unwrap();
    assert!(!stage.settings(&id("acme")).await.unwrap().on_trial);
    // What is under way may have been a slot of the next fifty milliseconds.
    assert_eq!(
        find(stage, &b.key).await.slot.unwrap().at,
        stage.now() + 2 * SECOND + Duration::from_millis(50)
    );
    assert_eq!(
        stage.ledger().trip(&pace_key).await.unwrap(),
        Some(5 * SECOND),
        "it counts anew"
    );
}

async fn an_open_circuit_ends_nobody_who_may_yet_be_in_time<S: Stage>(stage: &S) {
    let pace_key = tenant(stage, "acme", 1, 100.0).await.pace_key;
    let (worker, start) = (enlist(stage).await, stage.now());
    let last_moment = start + 60 * SECOND;
    let ask = |n: u32| {
        Ask::new("acme", &format!("a{n:02}"))
            .calling(n)
            .living(90 * SECOND)
    };
    let mut group = Vec::new();
    for n in 0..40 {
        group.push(plan_to_wait(stage, &ask(n)).await);
    }
    let verdicts = admit_group(stage, worker, &group).await;
    assert!(
        verdicts
            .iter()
            .all(|verdict| matches!(verdict, Verdict::Placing(_)))
    );
    stage.ledger().trip(&pace_key).await.unwrap();
    assert_eq!(
        find(stage, &key("acme", "a27")).await.slot.unwrap().at,
        start + 59 * SECOND
    );
    let parked = find(stage, &key("acme", "a28")).await;
    assert_eq!(
        (parked.state, parked.slot, parked.wake_at),
        (State::Waiting, None, last_moment)
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
        "due at its last moment at the latest: {body}"
    );
    let newcomer = find(stage, &key("acme", "a50")).await;
    assert_eq!(
        (newcomer.state, newcomer.slot, newcomer.wake_at),
        (State::Waiting, None, last_moment)
    );
    let hopeless = admit(
        stage,
        worker,
        &Ask::new("acme", "c").calling(51).living(34 * SECOND),
    )
    .await;
    assert!(
        matches!(hopeless, Verdict::Ended(_)),
        "no call is placed before the hold's end"
    );

    let Begun::Wait { slot, revision } = begin(stage, worker, &parked).await else {
        panic!("it waits")
    };
    assert_eq!((slot.at, revision), (last_moment, parked.revision + 1));
    assert_eq!(
        find(stage, &parked.key).await.slot,
        None,
        "it is still parked"
    );

    stage.advance(6 * SECOND).await;
    stage.ledger().mend(&pace_key).await.unwrap();
    for name in ["a00", "a28", "a39", "a50"] {
        let slot = find(stage, &key("acme", name)).await.slot.unwrap();
        assert!(
            slot.at < stage.now() + 2 * SECOND,
            "{name} has its place at the account's pace: {slot:?}"
        );
    }
}

async fn one_tenant_holds_at_most_its_share_of_a_shared_account<S: Stage>(stage: &S) {
    for name in ["acme", "bell"] {
        let settings = tenant(stage, name, 1, 1.0).await;
        stage.prove(&settings).await;
    }
    stage.limit(&account(1), None, 0.5).await;
    stage.advance(5 * SECOND).await;
    let worker = enlist(stage).await;
    let mut group = Vec::new();
    for n in 0..30 {
        group.push(
            plan_to_wait(
                stage,
                &Ask::new("acme", &format!("a{n}"))
                    .calling(n)
                    .living(50 * SECOND),
            )
            .await,
        );
    }
    let verdicts = admit_group(stage, worker, &group).await;
    let placed = verdicts
        .iter()
        .filter(|verdict| matches!(verdict, Verdict::Placing(_)))
        .count();
    assert_eq!(
        placed, 10,
        "half of the twenty slots before its last moment"
    );
    assert_eq!(over(&verdicts[29])[0].status, Some(Status::Expired));
    assert!(
        over(&verdicts[29])[0]
            .body
            .contains(r#""estimated_wait_ms":29000"#),
        "{}",
        over(&verdicts[29])[0].body
    );
    // A slot in the present is not ahead any more.
    let again = plan_to_wait(
        stage,
        &Ask::new("acme", "more").calling(40).living(50 * SECOND),
    )
    .await;
    assert!(matches!(
        admit_group(stage, worker, &[again]).await[0],
        Verdict::Placing(_)
    ));
    let again = plan_to_wait(
        stage,
        &Ask::new("acme", "most").calling(41).living(50 * SECOND),
    )
    .await;
    assert!(matches!(
        admit_group(stage, worker, &[again]).await[0],
        Verdict::Ended(_)
    ));
    let other = admit(
        stage,
        worker,
        &Ask::new("bell", "a").calling(50).living(50 * SECOND),
    )
    .await;
    assert_eq!(
        placing(&other).slot.at,
        stage.now() + 11 * SECOND,
        "the other has its place"
    );
}

async fn a_tenant_alone_in_its_account_has_all_of_it<S: Stage>(stage: &S) {
    let settings = tenant(stage, "acme", 1, 1.0).await;
    stage.prove(&settings).await;
    stage.advance(5 * SECOND).await;
    let mut group = Vec::new();
    for n in 0..30 {
        group.push(
            plan_to_wait(
                stage,
                &Ask::new("acme", &format!("a{n}"))
                    .calling(n)
                    .living(50 * SECOND),
            )
            .await,
        );
    }
    let verdicts = admit_group(stage, enlist(stage).await, &group).await;
    assert_eq!(
        verdicts
            .iter()
            .filter(|verdict| matches!(verdict, Verdict::Placing(_)))
            .count(),
        21
    );
}

async fn no_more_calls_are_in_progress_than_the_account_may_have<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 100.0).await;
    stage.limit(&account(1), Some(2), 0.5).await;
    let worker = enlist(stage).await;
    let mut rows = Vec::new();
    for (n, name) in (1..).zip(["a", "b", "c"]) {
        let verdict = admit(stage, worker, &Ask::new("acme", name).calling(n)).await;
        assert!(
            !placing(&verdict).begun,
            "who is counted is begun by itself"
        );
        rows.push(find(stage, &key("acme", name)).await);
    }
    stage.advance(Duration::from_millis(20)).await;
    assert!(matches!(
        begin(stage, worker, &rows[0]).await,
        Begun::Go { .. }
    ));
    assert!(matches!(
        begin(stage, worker, &rows[1]).await,
        Begun::Go { .. }
    ));
    assert_eq!(begin(stage, worker, &rows[2]).await, Begun::Full);
    let mut failed = voice_otp::delivery::Change::of(&find(stage, &rows[0].key).await);
    failed.expire(stage.now());
    super::stage::save(stage, worker, &failed).await;
    assert!(
        matches!(begin(stage, worker, &rows[2]).await, Begun::Go { .. }),
        "one is over"
    );
}

async fn who_was_tried_before_lets_others_go_first<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 0.1).await;
    let (worker, start) = (enlist(stage).await, stage.now());
    let first = begun(stage, worker, &Ask::new("acme", "a")).await;
    let mut again = voice_otp::delivery::Change::of(&first);
    again.retire_attempt();
    again.delivery.state = State::Waiting;
    again.delivery.wake_at = start + SECOND;
    super::stage::save(stage, worker, &again).await;
    waiting(stage, worker, &Ask::new("acme", "b").calling(2)).await;
    stage.advance(SECOND).await;
    let tried = find(stage, &first.key).await;
    let Begun::Wait { slot, revision } = begin(stage, worker, &tried).await else {
        panic!("there is a backlog")
    };
    assert_eq!(
        (slot.at, slot.epoch, revision),
        (start + 20 * SECOND, 0, tried.revision),
        "nothing is reserved for it"
    );
    let fresh = waiting(stage, worker, &Ask::new("acme", "c").calling(3)).await;
    assert_eq!(fresh.slot.unwrap().at, start + 20 * SECOND);
    stage.advance(30 * SECOND).await;
    assert!(
        matches!(begin(stage, worker, &tried).await, Begun::Go { .. }),
        "the backlog is over"
    );
}

async fn what_is_due_late_is_nobodys_and_claimed_before_its_time<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 0.1).await;
    let (worker, other) = (enlist(stage).await, enlist(stage).await);
    waiting(stage, worker, &Ask::new("acme", "a")).await;
    let verdict = admit(stage, worker, &Ask::new("acme", "b").calling(2)).await;
    assert!(!placing(&verdict).held);
    let before = (10 * SECOND)
        .checked_sub(limits().claim_ahead + Duration::from_millis(1))
        .unwrap();
    stage.advance(before).await;
    let other = if stage.ledger().beat(other).await.unwrap().alive {
        other
    } else {
        enlist(stage).await
    };
    let b = key("acme", "b");
    assert!(
        !stage
            .ledger()
            .claim(other, 10)
            .await
            .unwrap()
            .iter()
            .any(|row| row.key == b)
    );
    stage.advance(Duration::from_millis(1)).await;
    let claimed = stage.ledger().claim(other, 10).await.unwrap();
    let taken = claimed
        .iter()
        .find(|row| row.key == b)
        .expect("its time has nearly come");
    assert_eq!(
        taken.slot,
        Some(placing(&verdict).slot),
        "it keeps its slot"
    );
}

async fn a_hopeless_request_is_refused_with_its_wait<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 0.1).await;
    let (worker, start) = (enlist(stage).await, stage.now());
    for n in 0..7 {
        waiting(
            stage,
            worker,
            &Ask::new("acme", &format!("a{n}")).calling(n),
        )
        .await;
    }
    let refused = admit(
        stage,
        worker,
        &Ask::new("acme", "late").calling(9).living(80 * SECOND),
    )
    .await;
    assert!(
        over(&refused)[0]
            .body
            .contains(r#""estimated_wait_ms":70000"#),
        "{}",
        over(&refused)[0].body
    );
    let next = admit(stage, worker, &Ask::new("acme", "next").calling(10)).await;
    assert_eq!(
        placing(&next).slot.at,
        start + 70 * SECOND,
        "nothing was reserved for it"
    );
}
