//! Admission: a verdict per request, and the rows that it inserts.

use std::time::Duration;

use voice_otp::admission::SettingsBasis;
use voice_otp::delivery::{Delivery, State};
use voice_otp::ports::{Ledger as _, Verdict};
use voice_otp::settings::Draft;
use voice_otp_schemas::reason::ReasonCode;
use voice_otp_schemas::status::{Status, StatusEvent};

use super::stage::{
    Stage, accepted_event, admit, admit_group, begun, find, finished, placing, plan, plan_to_wait,
    register, tenant, waiting,
};
use crate::memory::sample::{Request, draft, key, limits, number};

contract!(
    a_new_request_is_placed_a_duplicate_is_recognised_and_other_content_conflicts,
    one_id_twice_in_a_batch_is_one_admission_and_one_duplicate,
    tenants_may_use_the_same_ids,
    only_new_requests_use_the_accounts_rate,
    stale_settings_are_reported_and_nothing_is_written,
    a_request_finished_at_once_becomes_a_final_row_and_its_duplicate_is_recognised,
    in_test_mode_two_statuses_are_published,
    an_admitted_delivery_can_be_read_back,
    no_attempt_starts_without_an_attempt_id,
    only_one_attempt_on_a_line_starts_with_its_admission,
    the_returned_events_are_those_in_the_outbox,
);

async fn a_new_request_is_placed_a_duplicate_is_recognised_and_other_content_conflicts<S: Stage>(
    stage: &S,
) {
    tenant(stage, "acme", 1, 1.0).await;
    let worker = register(stage).await;
    let ask = Request::new("acme", "a");
    let verdict = admit(stage, worker, &ask).await;
    assert!(placing(&verdict).begun);
    assert_eq!(placing(&verdict).slot.at, stage.now());
    assert!(matches!(
        admit(stage, worker, &ask).await,
        Verdict::Duplicate
    ));
    // Expiry, context and user are not part of the content that is compared.
    let retold = ask
        .clone()
        .expires_in(Duration::from_mins(5))
        .of_user("jane");
    assert!(matches!(
        admit(stage, worker, &retold).await,
        Verdict::Duplicate
    ));
    for other in [
        ask.clone().to(2),
        ask.clone().code("111111"),
        ask.clone().with_extension("9"),
    ] {
        assert!(
            matches!(
                admit(stage, worker, &other).await,
                Verdict::ConflictingDuplicate
            ),
            "{other:?}"
        );
    }
    assert_eq!(
        find(stage, &ask.key()).await.revision,
        1,
        "no duplicate changed it"
    );
}

async fn one_id_twice_in_a_batch_is_one_admission_and_one_duplicate<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 1.0).await;
    let worker = register(stage).await;
    let (a, b) = (Request::new("acme", "a"), Request::new("acme", "b").to(2));
    let mut group = Vec::new();
    for ask in [&a, &b, &a, &a.clone().code("111111")] {
        group.push(plan(stage, ask).await);
    }
    let verdicts = admit_group(stage, worker, &group).await;
    let [
        Verdict::Admitted(_),
        Verdict::Admitted(second),
        Verdict::Duplicate,
        Verdict::ConflictingDuplicate,
    ] = verdicts.as_slice()
    else {
        panic!("{verdicts:?}");
    };
    assert_eq!(
        second.slot.at,
        stage.now() + Duration::from_secs(1),
        "duplicates in a batch take no slot"
    );
}

async fn tenants_may_use_the_same_ids<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 1.0).await;
    tenant(stage, "bell", 2, 1.0).await;
    let worker = register(stage).await;
    let group = [
        plan(stage, &Request::new("acme", "a")).await,
        plan(stage, &Request::new("bell", "a").code("111111")).await,
    ];
    let verdicts = admit_group(stage, worker, &group).await;
    assert!(
        verdicts
            .iter()
            .all(|verdict| matches!(verdict, Verdict::Admitted(_))),
        "{verdicts:?}"
    );
}

async fn only_new_requests_use_the_accounts_rate<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 0.5).await;
    let worker = register(stage).await;
    let a = Request::new("acme", "a");
    admit(stage, worker, &a).await;
    for _ in 0..3 {
        admit(stage, worker, &a).await;
    }
    // A refusal takes no slot either.
    let ghost = admit(stage, worker, &Request::new("ghost", "a")).await;
    assert_eq!(finished(&ghost).len(), 1);
    let verdict = admit(stage, worker, &Request::new("acme", "b").to(2)).await;
    assert_eq!(
        placing(&verdict).slot.at,
        stage.now() + Duration::from_secs(2)
    );
}

async fn stale_settings_are_reported_and_nothing_is_written<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 0.5).await;
    let worker = register(stage).await;
    let ask = Request::new("acme", "a");
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
        "the stale one took no slot"
    );
    // A duplicate is recognised whatever settings its plan was made from.
    let mut again = plan(stage, &ask).await;
    again.basis = SettingsBasis::Version(-7);
    assert!(matches!(
        admit_group(stage, worker, &[again]).await[0],
        Verdict::Duplicate
    ));
}

async fn a_request_finished_at_once_becomes_a_final_row_and_its_duplicate_is_recognised<
    S: Stage,
>(
    stage: &S,
) {
    let worker = register(stage).await;
    let ask = Request::new("ghost", "a");
    let verdict = admit(stage, worker, &ask).await;
    let [rejected] = finished(&verdict) else {
        panic!("{verdict:?}")
    };
    assert_eq!(
        (rejected.status, rejected.sequence),
        (Some(Status::Rejected), 1)
    );
    let row = find(stage, &ask.key()).await;
    assert_eq!(
        (row.state, row.final_status, row.sequence),
        (State::Final, Some(Status::Rejected), 1)
    );
    assert!(row.secrets.is_none(), "the secret part isn't stored");
    assert!(matches!(
        admit(stage, worker, &ask).await,
        Verdict::Duplicate
    ));
    // Also once the tenant has settings: the delivery has its final status.
    tenant(stage, "ghost", 1, 1.0).await;
    assert!(matches!(
        admit(stage, worker, &ask).await,
        Verdict::Duplicate
    ));
    assert!(matches!(
        admit(stage, worker, &ask.to(2)).await,
        Verdict::ConflictingDuplicate
    ));
}

async fn in_test_mode_two_statuses_are_published<S: Stage>(stage: &S) {
    stage
        .save_tenant(
            "acme",
            &Draft {
                test_mode: true,
                ..draft(1, 1.0)
            },
        )
        .await;
    let worker = register(stage).await;
    let verdict = admit(stage, worker, &Request::new("acme", "a")).await;
    let statuses: Vec<_> = finished(&verdict)
        .iter()
        .map(|event| (event.status, event.sequence))
        .collect();
    assert_eq!(
        statuses,
        [(Some(Status::Accepted), 1), (Some(Status::Delivered), 2)]
    );
    let row = find(stage, &key("acme", "a")).await;
    assert_eq!(
        (row.state, row.final_status, row.sequence),
        (State::Final, Some(Status::Delivered), 2)
    );
    stage.ledger().release_worker(worker).await.unwrap();
    let sweeper = register(stage).await;
    assert_eq!(
        stage.ledger().claim_unpublished(sweeper, 10).await.unwrap(),
        finished(&verdict)
    );
}

async fn an_admitted_delivery_can_be_read_back<S: Stage>(stage: &S) {
    let settings = tenant(stage, "acme", 1, 1.0).await;
    let worker = register(stage).await;
    let (now, ask) = (
        stage.now(),
        Request::new("acme", "a")
            .to(7)
            .code("A1b2C3")
            .with_extension("12#"),
    );
    let row = begun(stage, worker, &ask).await;
    let order = row.secrets.as_ref().expect("it has its secret part");
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
    assert!(row.attempt_id.is_some() && row.call_sid.is_none() && row.final_status.is_none());
}

async fn no_attempt_starts_without_an_attempt_id<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 1.0).await;
    let worker = register(stage).await;
    let row = waiting(stage, worker, &Request::new("acme", "a")).await;
    assert_eq!(
        (row.state, row.attempt, row.attempt_id, row.intent_at),
        (State::Waiting, 0, None, None)
    );
    assert_eq!(row.wake_at, row.slot.unwrap().at);
}

async fn only_one_attempt_on_a_line_starts_with_its_admission<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 100.0).await;
    let worker = register(stage).await;
    let mut group = Vec::new();
    for (id, to) in [("a", 1), ("b", 1), ("c", 2)] {
        group.push(plan(stage, &Request::new("acme", id).to(to)).await);
    }
    let verdicts = admit_group(stage, worker, &group).await;
    let begun: Vec<bool> = verdicts
        .iter()
        .map(|verdict| placing(verdict).begun)
        .collect();
    assert_eq!(begun, [true, false, true]);
    let verdict = admit(stage, worker, &Request::new("acme", "d").to(1)).await;
    assert!(!placing(&verdict).begun, "the line is still busy");
    let row = find(stage, &key("acme", "d")).await;
    assert_eq!((row.state, row.attempt_id), (State::Waiting, None));
}

async fn the_returned_events_are_those_in_the_outbox<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 0.1).await;
    let worker = register(stage).await;
    let mut group = Vec::new();
    for (id, to, life) in [("a", 1, 180), ("b", 2, 180), ("c", 3, 35)] {
        let ask = Request::new("acme", id)
            .to(to)
            .expires_in(Duration::from_secs(life));
        group.push(plan_to_wait(stage, &ask).await);
    }
    let verdicts = admit_group(stage, worker, &group).await;
    let second: StatusEvent = serde_json::from_str(&accepted_event(&verdicts[1]).body).unwrap();
    let due_at = voice_otp_schemas::request::rfc3339(stage.now() + Duration::from_secs(10));
    assert_eq!(second.data.due_at, Some(due_at));
    let backlog: StatusEvent = serde_json::from_str(&finished(&verdicts[2])[0].body).unwrap();
    let reason = backlog.data.reason.expect("the final status has a reason");
    assert_eq!(
        (backlog.data.status, reason.code),
        (Status::Expired, ReasonCode::AccountBacklog)
    );
    assert_eq!(reason.estimated_wait_ms, Some(20_000));
    let answered = vec![
        accepted_event(&verdicts[0]),
        accepted_event(&verdicts[1]),
        finished(&verdicts[2])[0].clone(),
    ];
    stage.ledger().release_worker(worker).await.unwrap();
    let sweeper = register(stage).await;
    assert_eq!(
        stage.ledger().claim_unpublished(sweeper, 10).await.unwrap(),
        answered,
        "byte for byte"
    );
    let ended: Delivery = find(stage, &key("acme", "c")).await;
    assert_eq!(
        (ended.final_status, ended.slot, ended.secrets.is_none()),
        (Some(Status::Expired), None, true)
    );
}
