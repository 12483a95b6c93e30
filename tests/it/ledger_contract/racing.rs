//! Two connections at once. On Postgres the statements run concurrently; in memory they take turns.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use voice_otp::admission::Admission;
use voice_otp::delivery::{CancelCause, Change, State};
use voice_otp::ports::{
    Directory as _, Ledger as _, Saved, StartOutcome, UserCancellation, Verdict,
};
use voice_otp_schemas::DeliveryKey;
use voice_otp_schemas::{TenantId, UserRef};
use voice_otp_store::{Directory, Health};

use super::stage::{
    Stage, due, find, insert_tombstone, placing, plan, plan_to_wait, register, tenant, waiting,
};
use crate::database::{Database, keys};
use crate::memory::sample::{Request, draft};

contract!(
    two_concurrent_admissions_of_one_id_are_one_admission_and_one_duplicate,
    two_concurrent_refusals_of_one_id_are_one_final_status_and_one_duplicate,
    two_concurrent_admissions_on_one_line_start_one_attempt,
    two_concurrent_admissions_for_one_user_start_one_attempt_and_the_other_never_beside_it,
    a_concurrent_cancellation_and_request_are_one_final_status_or_one_call_to_cancel,
    a_concurrent_cancellation_by_user_and_request_see_each_other,
    batches_that_name_accounts_in_different_orders_do_not_deadlock,
    two_concurrent_batches_share_no_slot,
    two_concurrent_starts_on_one_line_start_one_attempt,
    two_concurrent_saves_of_one_revision_save_one,
    two_concurrent_claims_claim_nothing_twice,
);

const ROUNDS: usize = 20;

/// Admits two batches at once, each over its own connection.
async fn admit_both<S: Stage>(
    stage: &S,
    first: &[Admission],
    second: &[Admission],
) -> (Vec<Verdict>, Vec<Verdict>) {
    let worker = register(stage).await;
    let (first, second) = tokio::join!(
        stage.ledger().admit(worker, first),
        stage.second().admit(worker, second)
    );
    (
        first.expect("the first batch is admitted"),
        second.expect("the second batch is admitted"),
    )
}

async fn two_concurrent_admissions_of_one_id_are_one_admission_and_one_duplicate<S: Stage>(
    stage: &S,
) {
    tenant(stage, "acme", 1, 100.0).await;
    for round in 0..ROUNDS {
        let admission = plan_to_wait(stage, &Request::new("acme", &format!("a{round}"))).await;
        let group = [admission];
        let (first, second) = admit_both(stage, &group, &group).await;
        let both = [&first[0], &second[0]];
        let new = both
            .iter()
            .filter(|verdict| matches!(verdict, Verdict::Admitted(_)))
            .count();
        let known = both
            .iter()
            .filter(|verdict| matches!(verdict, Verdict::Duplicate))
            .count();
        assert_eq!((new, known), (1, 1), "{both:?}");
    }
}

async fn two_concurrent_refusals_of_one_id_are_one_final_status_and_one_duplicate<S: Stage>(
    stage: &S,
) {
    for round in 0..ROUNDS {
        let group = [plan(stage, &Request::new("ghost", &format!("a{round}"))).await];
        let (first, second) = admit_both(stage, &group, &group).await;
        let both = [&first[0], &second[0]];
        let finished = both
            .iter()
            .filter(|verdict| matches!(verdict, Verdict::Finished(_)))
            .count();
        let known = both
            .iter()
            .filter(|verdict| matches!(verdict, Verdict::Duplicate))
            .count();
        assert_eq!((finished, known), (1, 1), "{both:?}");
    }
}

async fn two_concurrent_admissions_on_one_line_start_one_attempt<S: Stage>(stage: &S) {
    // Two tenants of one account, each with its own rate limit so far: no pacing row serialises
    // them.
    for round in 0..ROUNDS {
        let (here, there) = (format!("acme{round}"), format!("bell{round}"));
        for name in [&here, &there] {
            tenant(stage, name, 1, 100.0).await;
        }
        let to = u32::try_from(round).unwrap();
        let first = [plan(stage, &Request::new(&here, "a").to(to)).await];
        let second = [plan(stage, &Request::new(&there, "a").to(to)).await];
        let (first, second) = admit_both(stage, &first, &second).await;
        let begun = [placing(&first[0]).begun, placing(&second[0]).begun];
        assert_eq!(begun.iter().filter(|begun| **begun).count(), 1, "{begun:?}");
    }
}

async fn two_concurrent_admissions_for_one_user_start_one_attempt_and_the_other_never_beside_it<
    S: Stage,
>(
    stage: &S,
) {
    tenant(stage, "acme", 1, 1_000.0).await;
    for round in 0..ROUNDS {
        let (user, to) = (format!("user{round}"), u32::try_from(round).unwrap() * 2);
        let asks =
            ["x", "y"].map(|name| Request::new("acme", &format!("{name}{round}")).of_user(&user));
        let groups = [
            [plan(stage, &asks[0].clone().to(to)).await],
            [plan(stage, &asks[1].clone().to(to + 1)).await],
        ];
        let (first, second) = admit_both(stage, &groups[0], &groups[1]).await;
        let verdicts = [&first[0], &second[0]];
        let begun = verdicts
            .iter()
            .filter(|verdict| matches!(verdict, Verdict::Admitted(admitted) if admitted.begun))
            .count();
        assert!(begun <= 1, "{verdicts:?}");
        // The other one doesn't start while the first is in progress; the older one never does.
        stage.advance(Duration::from_millis(10)).await;
        for ask in &asks {
            let Some(row) = stage
                .ledger()
                .find(&ask.key())
                .await
                .unwrap()
                .filter(|row| row.state == State::Waiting)
            else {
                continue;
            };
            let worker = register(stage).await;
            let answer = super::stage::begin(stage, worker, &row).await;
            let allowed = if begun == 1 {
                matches!(answer, StartOutcome::UserBusy | StartOutcome::Superseded)
            } else {
                true
            };
            assert!(allowed, "{answer:?}");
        }
    }
}

async fn a_concurrent_cancellation_and_request_are_one_final_status_or_one_call_to_cancel<
    S: Stage,
>(
    stage: &S,
) {
    tenant(stage, "acme", 1, 1_000.0).await;
    let worker = register(stage).await;
    for round in 0..ROUNDS {
        let ask = Request::new("acme", &format!("a{round}")).to(u32::try_from(round).unwrap());
        let (admission, key) = ([plan(stage, &ask).await], ask.key());
        let (admitted, forbidden) = tokio::join!(
            stage.ledger().admit(worker, &admission),
            insert_tombstone(stage.second(), &key)
        );
        let admitted = admitted.expect("it is admitted").remove(0);
        match (admitted, forbidden.expect("it is answered")) {
            // The cancellation was first, so the request is never placed.
            (Verdict::Inadmissible(_), true) => {}
            // The request was first, so the cancellation finds it.
            (Verdict::Admitted(_), false) => {
                assert!(
                    find(stage, &key)
                        .await
                        .cancel(CancelCause::Request, stage.now())
                        .is_some()
                );
            }
            (admitted, forbidden) => panic!("{admitted:?}, forbidden: {forbidden}"),
        }
    }
}

async fn a_concurrent_cancellation_by_user_and_request_see_each_other<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 1_000.0).await;
    let worker = register(stage).await;
    for round in 0..10 * ROUNDS {
        let user = format!("user-{round}");
        let ask = Request::new("acme", &format!("a{round}"))
            .to(u32::try_from(round).unwrap())
            .of_user(&user);
        let admission = [plan(stage, &ask).await];
        let cancellation = [UserCancellation {
            tenant_id: ask.key().tenant_id,
            user_ref: UserRef::parse(&user).unwrap(),
            time: Some(stage.now()),
        }];
        // Each acts, and looks for the other after that.
        let request = async {
            let verdicts = stage.ledger().admit(worker, &admission).await.unwrap();
            let user_ref = cancellation[0].user_ref.clone();
            let stored = [(ask.key(), user_ref)];
            let found = stage.ledger().find_cancelled(&stored);
            matches!(verdicts[0], Verdict::Inadmissible(CancelCause::Request))
                || !found.await.unwrap().is_empty()
        };
        let cancelling = async {
            let recorded = stage.second().cancel_users(&cancellation).await.unwrap();
            assert_eq!(recorded, [true]);
            !stage.second().find_users(&cancellation).await.unwrap()[0].is_empty()
        };
        let (request, cancelling) = tokio::join!(request, cancelling);
        assert!(request || cancelling, "neither sees the other");
    }
}

async fn batches_that_name_accounts_in_different_orders_do_not_deadlock<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 100.0).await;
    tenant(stage, "bell", 2, 100.0).await;
    for round in 0..ROUNDS {
        let mut groups = Vec::new();
        for (side, names) in [("x", ["acme", "bell"]), ("y", ["bell", "acme"])] {
            let mut group = Vec::new();
            for name in names {
                group.push(
                    plan_to_wait(stage, &Request::new(name, &format!("{side}{round}"))).await,
                );
            }
            groups.push(group);
        }
        let (first, second) = admit_both(stage, &groups[0], &groups[1]).await;
        assert!(
            first
                .iter()
                .chain(&second)
                .all(|verdict| matches!(verdict, Verdict::Admitted(_))),
            "{first:?} {second:?}"
        );
    }
}

async fn two_concurrent_batches_share_no_slot<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 10.0).await;
    let mut slots = Vec::new();
    for round in 0..5 {
        let mut groups = Vec::new();
        for side in ["x", "y"] {
            let mut group = Vec::new();
            for n in 0..10 {
                group.push(
                    plan_to_wait(stage, &Request::new("acme", &format!("{side}{round}-{n}"))).await,
                );
            }
            groups.push(group);
        }
        let (first, second) = admit_both(stage, &groups[0], &groups[1]).await;
        slots.extend(
            first
                .iter()
                .chain(&second)
                .map(|verdict| placing(verdict).slot.at),
        );
    }
    slots.sort();
    let start = stage.now();
    let wanted: Vec<_> = (0..100)
        .map(|n| start + n * Duration::from_millis(100))
        .collect();
    assert_eq!(slots, wanted, "no slot twice, and no gap");
}

async fn two_concurrent_starts_on_one_line_start_one_attempt<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 1_000.0).await;
    tenant(stage, "bell", 1, 1_000.0).await;
    let worker = register(stage).await;
    for round in 0..ROUNDS {
        let to = u32::try_from(round).unwrap();
        let mut asked = Vec::new();
        for name in ["acme", "bell"] {
            let row = waiting(
                stage,
                worker,
                &Request::new(name, &format!("a{round}")).to(to),
            )
            .await;
            asked.push([due(stage, &row).await]);
        }
        let (first, second) = tokio::join!(
            stage.ledger().start_attempts(worker, &asked[0]),
            stage.second().start_attempts(worker, &asked[1])
        );
        let answers = [first.unwrap()[0], second.unwrap()[0]];
        let went = answers
            .iter()
            .filter(|answer| matches!(answer, StartOutcome::Started { .. }))
            .count();
        let busy = answers
            .iter()
            .filter(|answer| matches!(answer, StartOutcome::LineBusy))
            .count();
        assert_eq!((went, busy), (1, 1), "{answers:?}");
    }
}

async fn two_concurrent_saves_of_one_revision_save_one<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 100.0).await;
    let worker = register(stage).await;
    let mut row = waiting(stage, worker, &Request::new("acme", "a")).await;
    for _ in 0..ROUNDS {
        let change = [Change::unchanged(&row)];
        let (first, second) = tokio::join!(
            stage.ledger().save(worker, &change),
            stage.second().save(worker, &change)
        );
        let answers = [first.unwrap()[0], second.unwrap()[0]];
        let saved = answers
            .iter()
            .filter(|answer| matches!(answer, Saved::Saved { .. }))
            .count();
        assert_eq!(saved, 1, "{answers:?}");
        let newer = find(stage, &row.key).await;
        assert_eq!(newer.revision, row.revision + 1);
        row = newer;
    }
}

async fn two_concurrent_claims_claim_nothing_twice<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 1_000.0).await;
    for round in 0..5 {
        let expired = register(stage).await;
        for n in 0..10 {
            waiting(
                stage,
                expired,
                &Request::new("acme", &format!("{round}-{n}")),
            )
            .await;
        }
        stage.advance(Duration::from_millis(100)).await;
        stage.ledger().release_worker(expired).await.unwrap();
        let (one, two) = (register(stage).await, register(stage).await);
        let (first, second) = tokio::join!(
            stage.ledger().claim_due(one, 100),
            stage.second().claim_due(two, 100)
        );
        let mut ids: Vec<_> = first
            .unwrap()
            .into_iter()
            .chain(second.unwrap())
            .map(|row| row.key.delivery_id)
            .collect();
        let taken = ids.len();
        ids.sort();
        ids.dedup();
        assert_eq!((taken, ids.len()), (10, 10));
        // Keeps the next round's deliveries apart from these.
        for delivery_id in ids {
            let row = find(
                stage,
                &DeliveryKey {
                    tenant_id: TenantId::parse("acme").unwrap(),
                    delivery_id,
                },
            )
            .await;
            stage
                .ledger()
                .save(one, &[row.expire(stage.now())])
                .await
                .unwrap();
        }
    }
}

/// Two deliveries of one tenant are due together: the worker names the tenant twice in one query.
#[tokio::test]
async fn a_tenant_named_twice_in_one_query_stays_cached() {
    let (database, keys) = (Database::fresh().await, keys());
    let known = database
        .save_tenant(&keys, "acme", &draft(1, 1.0))
        .await
        .tenant_id;
    let directory = Directory::new(database.pool.clone(), keys, Health::default());
    let stop = CancellationToken::new();
    let listening =
        tokio::task::spawn(directory.clone().listen(database.url.clone(), stop.clone()));
    // The cache is used once the listener is connected, which no signal shows: the query is
    // repeated until then and beyond.
    for _ in 0..40 {
        let both = directory
            .settings(&[known.clone(), known.clone()])
            .await
            .unwrap();
        assert!(both.contains_key(&known));
        let one = directory
            .settings(std::slice::from_ref(&known))
            .await
            .unwrap();
        assert!(one.contains_key(&known), "it was there a moment ago");
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    stop.cancel();
    listening.await.unwrap();
    database.drop_schema().await;
}
