//! Pauses, shares and limits, which keep one tenant or account from delaying the others.

use std::time::Duration;

use voice_otp::delivery::State;
use voice_otp::ports::{Ledger as _, StartOutcome, Verdict};
use voice_otp::settings::Paused;
use voice_otp_schemas::TenantId;
use voice_otp_schemas::status::Status;

use super::stage::{
    LEAD_TIME, Stage, admit, admit_group, begin, begun, find, finished, give_slots, placing, plan,
    plan_to_wait, register, tenant, waiting,
};
use crate::memory::sample::{Request, account, key, limits};

contract!(
    a_paused_delivery_waits_without_a_slot,
    resuming_gives_slots_in_the_order_of_arrival,
    a_paused_tenant_keeps_the_others_of_its_account_going,
    a_pause_makes_earlier_plans_stale,
    a_tenant_holds_at_most_its_share_of_a_shared_account,
    a_tenant_alone_in_its_account_has_all_of_it,
    calls_in_progress_never_exceed_the_accounts_limit,
    a_retry_yields_to_deliveries_without_an_attempt,
    a_delivery_due_later_has_no_owner_and_is_claimed_before_its_time,
    a_request_that_cannot_meet_its_deadline_is_refused_with_its_wait,
);

const SECOND: Duration = Duration::from_secs(1);

fn id(tenant: &str) -> TenantId {
    TenantId::parse(tenant).unwrap()
}

async fn a_paused_delivery_waits_without_a_slot<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 1.0).await;
    let (worker, start) = (register(stage).await, stage.now());
    stage.pause(&id("acme"), true).await;
    assert_eq!(
        stage.settings(&id("acme")).await.unwrap().paused,
        Some(Paused::Tenant)
    );
    let Verdict::AdmittedWithoutSlot(events) = admit(
        stage,
        worker,
        &Request::new("acme", "a").expires_in(90 * SECOND),
    )
    .await
    else {
        panic!("it waits")
    };
    let statuses: Vec<Status> = events.iter().filter_map(|event| event.status).collect();
    assert_eq!(statuses, [Status::Accepted, Status::Deferred]);
    let row = find(stage, &key("acme", "a")).await;
    assert_eq!(
        (row.state, row.slot, row.sequence),
        (State::Waiting, None, 2)
    );
    assert_eq!(row.wake_at, start + 60 * SECOND, "due at its deadline only");
    assert!(
        stage
            .ledger()
            .claim_due(worker, 10)
            .await
            .unwrap()
            .is_empty()
    );
}

async fn resuming_gives_slots_in_the_order_of_arrival<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 0.1).await;
    let worker = register(stage).await;
    stage.pause_account(&account(1), true).await;
    for (n, name) in (1..).zip(["b", "a"]) {
        admit(stage, worker, &Request::new("acme", name).to(n)).await;
        stage.advance(SECOND).await;
    }
    let hopeless = admit(
        stage,
        worker,
        &Request::new("acme", "c").to(3).expires_in(40 * SECOND),
    )
    .await;
    assert!(matches!(hopeless, Verdict::AdmittedWithoutSlot(_)));
    let now = stage.now();
    stage.pause_account(&account(1), false).await;
    let mut given = give_slots(stage, worker).await;
    let next = admit(stage, worker, &Request::new("acme", "d").to(4)).await;
    assert!(!placing(&next).held, "it waits behind them");
    for _ in 0..2 {
        stage.advance(10 * SECOND).await;
        given.extend(give_slots(stage, worker).await);
    }
    let first = now + LEAD_TIME;
    assert_eq!(
        given,
        [
            ("b".to_owned(), first),
            ("a".to_owned(), first + 10 * SECOND),
            ("d".to_owned(), first + 20 * SECOND)
        ],
        "the order is kept, and the one that can't be in time takes no slot"
    );
    let late = find(stage, &key("acme", "c")).await;
    assert_eq!((late.slot, late.wake_at), (None, late.place_by));
}

async fn a_paused_tenant_keeps_the_others_of_its_account_going<S: Stage>(stage: &S) {
    for name in ["acme", "bell"] {
        let settings = tenant(stage, name, 1, 1.0).await;
        stage.verify_credentials(&settings).await;
    }
    stage.advance(5 * SECOND).await;
    let worker = register(stage).await;
    stage.pause(&id("acme"), true).await;
    assert!(matches!(
        admit(stage, worker, &Request::new("acme", "a")).await,
        Verdict::AdmittedWithoutSlot(_)
    ));
    let other = admit(stage, worker, &Request::new("bell", "a").to(2)).await;
    assert_eq!(placing(&other).slot.at, stage.now());
}

async fn a_pause_makes_earlier_plans_stale<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 1.0).await;
    let worker = register(stage).await;
    let before = plan(stage, &Request::new("acme", "a")).await;
    stage.pause_account(&account(1), true).await;
    assert!(matches!(
        admit_group(stage, worker, &[before]).await[0],
        Verdict::StaleSettings
    ));
}

async fn a_tenant_holds_at_most_its_share_of_a_shared_account<S: Stage>(stage: &S) {
    for name in ["acme", "bell"] {
        let settings = tenant(stage, name, 1, 1.0).await;
        stage.verify_credentials(&settings).await;
    }
    stage.limit(&account(1), None, 0.5).await;
    stage.advance(5 * SECOND).await;
    let worker = register(stage).await;
    let mut group = Vec::new();
    for n in 0..30 {
        group.push(
            plan_to_wait(
                stage,
                &Request::new("acme", &format!("a{n}"))
                    .to(n)
                    .expires_in(50 * SECOND),
            )
            .await,
        );
    }
    let verdicts = admit_group(stage, worker, &group).await;
    let placed = verdicts
        .iter()
        .filter(|verdict| matches!(verdict, Verdict::Admitted(_)))
        .count();
    assert_eq!(placed, 10, "half of the twenty slots before its deadline");
    assert_eq!(finished(&verdicts[29])[0].status, Some(Status::Expired));
    assert!(
        finished(&verdicts[29])[0]
            .body
            .contains(r#""estimated_wait_ms":29000"#),
        "{}",
        finished(&verdicts[29])[0].body
    );
    // A slot of this moment is no longer ahead.
    let again = plan_to_wait(
        stage,
        &Request::new("acme", "more").to(40).expires_in(50 * SECOND),
    )
    .await;
    assert!(matches!(
        admit_group(stage, worker, &[again]).await[0],
        Verdict::Admitted(_)
    ));
    let again = plan_to_wait(
        stage,
        &Request::new("acme", "most").to(41).expires_in(50 * SECOND),
    )
    .await;
    assert!(matches!(
        admit_group(stage, worker, &[again]).await[0],
        Verdict::Finished(_)
    ));
    let other = admit(
        stage,
        worker,
        &Request::new("bell", "a").to(50).expires_in(50 * SECOND),
    )
    .await;
    assert_eq!(
        placing(&other).slot.at,
        stage.now() + 11 * SECOND,
        "the other tenant has a slot"
    );
}

async fn a_tenant_alone_in_its_account_has_all_of_it<S: Stage>(stage: &S) {
    let settings = tenant(stage, "acme", 1, 1.0).await;
    stage.verify_credentials(&settings).await;
    stage.advance(5 * SECOND).await;
    let mut group = Vec::new();
    for n in 0..30 {
        group.push(
            plan_to_wait(
                stage,
                &Request::new("acme", &format!("a{n}"))
                    .to(n)
                    .expires_in(50 * SECOND),
            )
            .await,
        );
    }
    let verdicts = admit_group(stage, register(stage).await, &group).await;
    assert_eq!(
        verdicts
            .iter()
            .filter(|verdict| matches!(verdict, Verdict::Admitted(_)))
            .count(),
        20,
        "all but the slot at the deadline itself, which could not be used"
    );
}

async fn calls_in_progress_never_exceed_the_accounts_limit<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 100.0).await;
    stage.limit(&account(1), Some(2), 0.5).await;
    let worker = register(stage).await;
    let mut rows = Vec::new();
    for (n, name) in (1..).zip(["a", "b", "c"]) {
        let verdict = admit(stage, worker, &Request::new("acme", name).to(n)).await;
        assert!(
            !placing(&verdict).begun,
            "an attempt under a limit never starts with its admission"
        );
        rows.push(find(stage, &key("acme", name)).await);
    }
    stage.advance(Duration::from_millis(20)).await;
    assert!(matches!(
        begin(stage, worker, &rows[0]).await,
        StartOutcome::Started { .. }
    ));
    assert!(matches!(
        begin(stage, worker, &rows[1]).await,
        StartOutcome::Started { .. }
    ));
    assert_eq!(
        begin(stage, worker, &rows[2]).await,
        StartOutcome::AtConcurrencyLimit
    );
    let mut failed = voice_otp::delivery::Change::unchanged(&find(stage, &rows[0].key).await);
    failed.expire(stage.now());
    super::stage::save(stage, worker, &failed).await;
    assert!(
        matches!(
            begin(stage, worker, &rows[2]).await,
            StartOutcome::Started { .. }
        ),
        "one has finished"
    );
}

async fn a_retry_yields_to_deliveries_without_an_attempt<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 0.1).await;
    let (worker, start) = (register(stage).await, stage.now());
    let first = begun(stage, worker, &Request::new("acme", "a")).await;
    let mut again = voice_otp::delivery::Change::unchanged(&first);
    again.end_attempt();
    again.delivery.state = State::Waiting;
    again.delivery.wake_at = start + SECOND;
    super::stage::save(stage, worker, &again).await;
    waiting(stage, worker, &Request::new("acme", "b").to(2)).await;
    stage.advance(SECOND).await;
    let tried = find(stage, &first.key).await;
    let StartOutcome::Rescheduled { slot, revision } = begin(stage, worker, &tried).await else {
        panic!("there is a backlog")
    };
    assert_eq!(
        (slot.at, slot.epoch, revision),
        (start + 20 * SECOND, 0, tried.revision),
        "it reserves nothing"
    );
    let fresh = waiting(stage, worker, &Request::new("acme", "c").to(3)).await;
    assert_eq!(fresh.slot.unwrap().at, start + 20 * SECOND);
    stage.advance(30 * SECOND).await;
    assert!(
        matches!(
            begin(stage, worker, &tried).await,
            StartOutcome::Started { .. }
        ),
        "there is no backlog any more"
    );
}

async fn a_delivery_due_later_has_no_owner_and_is_claimed_before_its_time<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 0.1).await;
    let (worker, other) = (register(stage).await, register(stage).await);
    waiting(stage, worker, &Request::new("acme", "a")).await;
    let verdict = admit(stage, worker, &Request::new("acme", "b").to(2)).await;
    assert!(!placing(&verdict).held);
    let before = (10 * SECOND)
        .checked_sub(limits().claim_ahead + Duration::from_millis(1))
        .unwrap();
    stage.advance(before).await;
    let other = if stage.ledger().heartbeat(other).await.unwrap().alive {
        other
    } else {
        register(stage).await
    };
    let b = key("acme", "b");
    assert!(
        !stage
            .ledger()
            .claim_due(other, 10)
            .await
            .unwrap()
            .iter()
            .any(|row| row.key == b)
    );
    stage.advance(Duration::from_millis(1)).await;
    let claimed = stage.ledger().claim_due(other, 10).await.unwrap();
    let taken = claimed
        .iter()
        .find(|row| row.key == b)
        .expect("it is nearly due");
    assert_eq!(
        taken.slot,
        Some(placing(&verdict).slot),
        "it keeps its slot"
    );
}

async fn a_request_that_cannot_meet_its_deadline_is_refused_with_its_wait<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 0.1).await;
    let (worker, start) = (register(stage).await, stage.now());
    for n in 0..7 {
        waiting(stage, worker, &Request::new("acme", &format!("a{n}")).to(n)).await;
    }
    let refused = admit(
        stage,
        worker,
        &Request::new("acme", "late").to(9).expires_in(80 * SECOND),
    )
    .await;
    assert!(
        finished(&refused)[0]
            .body
            .contains(r#""estimated_wait_ms":70000"#),
        "{}",
        finished(&refused)[0].body
    );
    let next = admit(stage, worker, &Request::new("acme", "next").to(10)).await;
    assert_eq!(
        placing(&next).slot.at,
        start + 70 * SECOND,
        "it reserved nothing"
    );
}
