//! Admission: a verdict per input, and what becomes a row.

use std::time::Duration;

use voice_otp::delivery::{Delivery, State};
use voice_otp::plan::Basis;
use voice_otp::ports::{Ledger as _, Verdict};
use voice_otp::settings::Draft;
use voice_otp_schemas::reason::ReasonCode;
use voice_otp_schemas::status::{Status, StatusEvent};

use super::stage::{
    Stage, admit, admit_group, begun, enlist, find, over, placing, plan, plan_to_wait, said,
    tenant, waiting,
};
use crate::memory::sample::{Ask, draft, key, limits, number};

contract!(
    what_is_new_is_placed_a_repeat_is_known_and_other_content_conflicts,
    one_id_twice_in_a_group_is_one_new_and_one_repeat,
    tenants_may_use_the_same_ids,
    only_what_is_new_uses_the_accounts_pace,
    settings_that_are_stale_are_told_and_nothing_is_done,
    a_plan_that_ends_becomes_a_final_row_and_its_repeat_is_a_repeat,
    in_test_mode_two_statuses_are_said,
    what_was_admitted_can_be_read_back,
    nothing_begins_without_an_attempt,
    only_one_placement_on_a_line_begins_with_its_admission,
    what_was_answered_is_what_the_outbox_has,
);

async fn what_is_new_is_placed_a_repeat_is_known_and_other_content_conflicts<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 1.0).await;
    let worker = enlist(stage).await;
    let ask = Ask::new("acme", "a");
    let verdict = admit(stage, worker, &ask).await;
    assert!(placing(&verdict).begun);
    assert_eq!(placing(&verdict).slot.at, stage.now());
    assert!(matches!(admit(stage, worker, &ask).await, Verdict::Repeat));
    // When it expires, in which context and for whom is not what makes it another request.
    let retold = ask.clone().living(Duration::from_mins(5)).of_user("jane");
    assert!(matches!(
        admit(stage, worker, &retold).await,
        Verdict::Repeat
    ));
    for other in [
        ask.clone().calling(2),
        ask.clone().reading("111111"),
        ask.clone().with_extension("9"),
    ] {
        assert!(
            matches!(admit(stage, worker, &other).await, Verdict::Conflict),
            "{other:?}"
        );
    }
    assert_eq!(
        find(stage, &ask.key()).await.revision,
        1,
        "none of that changed it"
    );
}

async fn one_id_twice_in_a_group_is_one_new_and_one_repeat<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 1.0).await;
    let worker = enlist(stage).await;
    let (a, b) = (Ask::new("acme", "a"), Ask::new("acme", "b").calling(2));
    let mut group = Vec::new();
    for ask in [&a, &b, &a, &a.clone().reading("111111")] {
        group.push(plan(stage, ask).await);
    }
    let verdicts = admit_group(stage, worker, &group).await;
    let [
        Verdict::Placing(_),
        Verdict::Placing(second),
        Verdict::Repeat,
        Verdict::Conflict,
    ] = verdicts.as_slice()
    else {
        panic!("{verdicts:?}");
    };
    assert_eq!(
        second.slot.at,
        stage.now() + Duration::from_secs(1),
        "twins use no pace"
    );
}

async fn tenants_may_use_the_same_ids<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 1.0).await;
    tenant(stage, "bell", 2, 1.0).await;
    let worker = enlist(stage).await;
    let group = [
        plan(stage, &Ask::new("acme", "a")).await,
        plan(stage, &Ask::new("bell", "a").reading("111111")).await,
    ];
    let verdicts = admit_group(stage, worker, &group).await;
    assert!(
        verdicts
            .iter()
            .all(|verdict| matches!(verdict, Verdict::Placing(_))),
        "{verdicts:?}"
    );
}

async fn only_what_is_new_uses_the_accounts_pace<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 0.5).await;
    let worker = enlist(stage).await;
    let a = Ask::new("acme", "a");
    admit(stage, worker, &a).await;
    for _ in 0..3 {
        admit(stage, worker, &a).await;
    }
    // A refusal uses none either.
    let ghost = admit(stage, worker, &Ask::new("ghost", "a")).await;
    assert_eq!(over(&ghost).len(), 1);
    let verdict = admit(stage, worker, &Ask::new("acme", "b").calling(2)).await;
    assert_eq!(
        placing(&verdict).slot.at,
        stage.now() + Duration::from_secs(2)
    );
}

async fn settings_that_are_stale_are_told_and_nothing_is_done<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 0.5).await;
    let worker = enlist(stage).await;
    let ask = Ask::new("acme", "a");
    let old = plan(stage, &ask).await;
    tenant(stage, "acme", 1, 0.5).await;
    let verdicts = admit_group(stage, worker, &[old.clone(), old]).await;
    assert!(
        verdicts
            .iter()
            .all(|verdict| matches!(verdict, Verdict::StaleSettings)),
        "{verdicts:?}"
    );
    assert!(stage.ledger().find(&ask.key()).await.unwrap().is_none());
    let verdict = admit(stage, worker, &ask).await;
    assert_eq!(
        placing(&verdict).slot.at,
        stage.now(),
        "the stale one used no pace"
    );
    // What is known is known, whatever its plan was made from.
    let mut again = plan(stage, &ask).await;
    again.basis = Basis::Version(-7);
    assert!(matches!(
        admit_group(stage, worker, &[again]).await[0],
        Verdict::Repeat
    ));
}

async fn a_plan_that_ends_becomes_a_final_row_and_its_repeat_is_a_repeat<S: Stage>(stage: &S) {
    let worker = enlist(stage).await;
    let ask = Ask::new("ghost", "a");
    let verdict = admit(stage, worker, &ask).await;
    let [rejected] = over(&verdict) else {
        panic!("{verdict:?}")
    };
    assert_eq!(
        (rejected.status, rejected.sequence),
        (Some(Status::Rejected), 1)
    );
    let row = find(stage, &ask.key()).await;
    assert_eq!(
        (row.state, row.ended, row.sequence),
        (State::Final, Some(Status::Rejected), 1)
    );
    assert!(row.order.is_none(), "the secret part isn't kept");
    assert!(matches!(admit(stage, worker, &ask).await, Verdict::Repeat));
    // Also once the tenant is there: it has had its ending.
    tenant(stage, "ghost", 1, 1.0).await;
    assert!(matches!(admit(stage, worker, &ask).await, Verdict::Repeat));
    assert!(matches!(
        admit(stage, worker, &ask.calling(2)).await,
        Verdict::Conflict
    ));
}

async fn in_test_mode_two_statuses_are_said<S: Stage>(stage: &S) {
    stage
        .save_tenant(
            "acme",
            &Draft {
                test_mode: true,
                ..draft(1, 1.0)
            },
        )
        .await;
    let worker = enlist(stage).await;
    let verdict = admit(stage, worker, &Ask::new("acme", "a")).await;
    let told: Vec<_> = over(&verdict)
        .iter()
        .map(|event| (event.status, event.sequence))
        .collect();
    assert_eq!(
        told,
        [(Some(Status::Accepted), 1), (Some(Status::Delivered), 2)]
    );
    let row = find(stage, &key("acme", "a")).await;
    assert_eq!(
        (row.state, row.ended, row.sequence),
        (State::Final, Some(Status::Delivered), 2)
    );
    stage.ledger().retire(worker).await.unwrap();
    let sweeper = enlist(stage).await;
    assert_eq!(
        stage.ledger().unpublished(sweeper, 10).await.unwrap(),
        over(&verdict)
    );
}

async fn what_was_admitted_can_be_read_back<S: Stage>(stage: &S) {
    let settings = tenant(stage, "acme", 1, 1.0).await;
    let worker = enlist(stage).await;
    let (now, ask) = (
        stage.now(),
        Ask::new("acme", "a")
            .calling(7)
            .reading("A1b2C3")
            .with_extension("12#"),
    );
    let row = begun(stage, worker, &ask).await;
    let order = row.order.as_ref().expect("it has its secret part");
    assert_eq!(
        (order.to.expose(), order.code.expose()),
        (number(7).as_str(), "A1b2C3")
    );
    assert_eq!(order.extension.as_ref().unwrap().expose(), "12#");
    assert_eq!(
        (row.revision, row.state, row.sequence, row.attempt),
        (1, State::Placing, 1, 1)
    );
    assert_eq!(row.account_sid, Some(settings.account_sid));
    assert_eq!(row.pace_key, Some(settings.pace_key));
    assert_eq!(
        (row.requested_at, row.admitted_at, row.intent_at),
        (Some(now), now, Some(now))
    );
    assert_eq!(
        (row.expires_at, row.place_by),
        (now + Duration::from_mins(3), now + Duration::from_secs(150))
    );
    assert_eq!((row.slot.unwrap().at, row.announced_at), (now, Some(now)));
    assert_eq!(row.wake_at, now + limits().rescue);
    assert_eq!(row.to_masked.as_deref(), Some("+1415*****07"));
    assert_eq!(row.context.entries()["flow"], "login");
    assert!(row.trace.traceparent.is_some());
    assert!(row.attempt_id.is_some() && row.call_sid.is_none() && row.ended.is_none());
}

async fn nothing_begins_without_an_attempt<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 1.0).await;
    let worker = enlist(stage).await;
    let row = waiting(stage, worker, &Ask::new("acme", "a")).await;
    assert_eq!(
        (row.state, row.attempt, row.attempt_id, row.intent_at),
        (State::Waiting, 0, None, None)
    );
    assert_eq!(row.wake_at, row.slot.unwrap().at);
}

async fn only_one_placement_on_a_line_begins_with_its_admission<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 100.0).await;
    let worker = enlist(stage).await;
    let mut group = Vec::new();
    for (id, to) in [("a", 1), ("b", 1), ("c", 2)] {
        group.push(plan(stage, &Ask::new("acme", id).calling(to)).await);
    }
    let verdicts = admit_group(stage, worker, &group).await;
    let begun: Vec<bool> = verdicts
        .iter()
        .map(|verdict| placing(verdict).begun)
        .collect();
    assert_eq!(begun, [true, false, true]);
    let verdict = admit(stage, worker, &Ask::new("acme", "d").calling(1)).await;
    assert!(!placing(&verdict).begun, "the line is still taken");
    let row = find(stage, &key("acme", "d")).await;
    assert_eq!((row.state, row.attempt_id), (State::Waiting, None));
}

async fn what_was_answered_is_what_the_outbox_has<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 0.1).await;
    let worker = enlist(stage).await;
    let mut group = Vec::new();
    for (id, to, life) in [("a", 1, 180), ("b", 2, 180), ("c", 3, 35)] {
        let ask = Ask::new("acme", id)
            .calling(to)
            .living(Duration::from_secs(life));
        group.push(plan_to_wait(stage, &ask).await);
    }
    let verdicts = admit_group(stage, worker, &group).await;
    let second: StatusEvent = serde_json::from_str(&said(&verdicts[1]).body).unwrap();
    let due_at = voice_otp_schemas::request::rfc3339(stage.now() + Duration::from_secs(10));
    assert_eq!(second.data.due_at, Some(due_at));
    let backlog: StatusEvent = serde_json::from_str(&over(&verdicts[2])[0].body).unwrap();
    let reason = backlog.data.reason.expect("an early ending says why");
    assert_eq!(
        (backlog.data.status, reason.code),
        (Status::Expired, ReasonCode::AccountBacklog)
    );
    assert_eq!(reason.estimated_wait_ms, Some(20_000));
    let answered = vec![
        said(&verdicts[0]),
        said(&verdicts[1]),
        over(&verdicts[2])[0].clone(),
    ];
    stage.ledger().retire(worker).await.unwrap();
    let sweeper = enlist(stage).await;
    assert_eq!(
        stage.ledger().unpublished(sweeper, 10).await.unwrap(),
        answered,
        "byte for byte"
    );
    let ended: Delivery = find(stage, &key("acme", "c")).await;
    assert_eq!(
        (ended.ended, ended.slot, ended.order.is_none()),
        (Some(Status::Expired), None, true)
    );
}
