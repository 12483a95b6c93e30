//! Two connections at once. On Postgres the statements truly meet; in memory they take turns.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use voice_otp::delivery::{Change, Key, State};
use voice_otp::plan::Admission;
use voice_otp::ports::{Begun, Directory as _, Ledger as _, Saved, Verdict};
use voice_otp_schemas::TenantId;
use voice_otp_schemas::reason::ReasonCode;
use voice_otp_store::Directory;

use super::stage::{Stage, due, enlist, find, placing, plan, plan_to_wait, tenant, waiting};
use crate::database::{Database, keys};
use crate::memory::sample::{Ask, draft};

contract!(
    two_admissions_of_one_id_at_once_are_one_new_and_one_repeat,
    two_refusals_of_one_id_at_once_are_one_ending_and_one_repeat,
    two_admissions_on_one_line_at_once_begin_one,
    two_admissions_for_one_user_at_once_begin_one_and_the_other_never_beside_it,
    a_cancellation_and_its_request_at_once_are_one_ending_or_one_call_to_take_back,
    groups_that_name_accounts_in_different_orders_do_not_block_each_other,
    two_groups_at_once_share_no_slot,
    two_begins_on_one_line_at_once_let_one_go,
    two_saves_of_one_revision_at_once_save_one,
    two_claims_at_once_take_nothing_twice,
);

const ROUNDS: usize = 20;

/// Admits two groups at once, each over a connection of its own.
async fn admit_both<S: Stage>(
    stage: &S,
    first: &[Admission],
    second: &[Admission],
) -> (Vec<Verdict>, Vec<Verdict>) {
    let worker = enlist(stage).await;
    let (first, second) = tokio::join!(
        stage.ledger().admit(worker, first),
        stage.second().admit(worker, second)
    );
    (
        first.expect("the first group is admitted"),
        second.expect("the second group is admitted"),
    )
}

async fn two_admissions_of_one_id_at_once_are_one_new_and_one_repeat<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 100.0).await;
    for round in 0..ROUNDS {
        let admission = plan_to_wait(stage, &Ask::new("acme", &format!("a{round}"))).await;
        let group = [admission];
        let (first, second) = admit_both(stage, &group, &group).await;
        let both = [&first[0], &second[0]];
        let new = both
            .iter()
            .filter(|verdict| matches!(verdict, Verdict::Placing(_)))
            .count();
        let known = both
            .iter()
            .filter(|verdict| matches!(verdict, Verdict::Repeat))
            .count();
        assert_eq!((new, known), (1, 1), "{both:?}");
    }
}

async fn two_refusals_of_one_id_at_once_are_one_ending_and_one_repeat<S: Stage>(stage: &S) {
    for round in 0..ROUNDS {
        let group = [plan(stage, &Ask::new("ghost", &format!("a{round}"))).await];
        let (first, second) = admit_both(stage, &group, &group).await;
        let both = [&first[0], &second[0]];
        let over = both
            .iter()
            .filter(|verdict| matches!(verdict, Verdict::Ended(_)))
            .count();
        let known = both
            .iter()
            .filter(|verdict| matches!(verdict, Verdict::Repeat))
            .count();
        assert_eq!((over, known), (1, 1), "{both:?}");
    }
}

async fn two_admissions_on_one_line_at_once_begin_one<S: Stage>(stage: &S) {
    // Two tenants of one account, each with a pace of its own as yet: no lock on a pace keeps them apart.
    for round in 0..ROUNDS {
        let (here, there) = (format!("acme{round}"), format!("bell{round}"));
        for name in [&here, &there] {
            tenant(stage, name, 1, 100.0).await;
        }
        let to = u32::try_from(round).unwrap();
        let first = [plan(stage, &Ask::new(&here, "a").calling(to)).await];
        let second = [plan(stage, &Ask::new(&there, "a").calling(to)).await];
        let (first, second) = admit_both(stage, &first, &second).await;
        let begun = [placing(&first[0]).begun, placing(&second[0]).begun];
        assert_eq!(begun.iter().filter(|begun| **begun).count(), 1, "{begun:?}");
    }
}

async fn two_admissions_for_one_user_at_once_begin_one_and_the_other_never_beside_it<S: Stage>(
    stage: &S,
) {
    tenant(stage, "acme", 1, 1_000.0).await;
    for round in 0..ROUNDS {
        let (user, to) = (format!("user{round}"), u32::try_from(round).unwrap() * 2);
        let asks =
            ["x", "y"].map(|name| Ask::new("acme", &format!("{name}{round}")).of_user(&user));
        let groups = [
            [plan(stage, &asks[0].clone().calling(to)).await],
            [plan(stage, &asks[1].clone().calling(to + 1)).await],
        ];
        let (first, second) = admit_both(stage, &groups[0], &groups[1]).await;
        let verdicts = [&first[0], &second[0]];
        let begun = verdicts
            .iter()
            .filter(|verdict| matches!(verdict, Verdict::Placing(admitted) if admitted.begun))
            .count();
        assert!(begun <= 1, "{verdicts:?}");
        // Whoever wasn't begun with its admission doesn't begin while the other is under way; the older never does.
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
            let worker = enlist(stage).await;
            let answer = super::stage::begin(stage, worker, &row).await;
            let allowed = if begun == 1 {
                matches!(answer, Begun::UserBusy | Begun::Superseded)
            } else {
                true
            };
            assert!(allowed, "{answer:?}");
        }
    }
}

async fn a_cancellation_and_its_request_at_once_are_one_ending_or_one_call_to_take_back<
    S: Stage,
>(
    stage: &S,
) {
    tenant(stage, "acme", 1, 1_000.0).await;
    let worker = enlist(stage).await;
    for round in 0..ROUNDS {
        let ask = Ask::new("acme", &format!("a{round}")).calling(u32::try_from(round).unwrap());
        let (admission, key) = ([plan(stage, &ask).await], ask.key());
        let (admitted, forbidden) = tokio::join!(
            stage.ledger().admit(worker, &admission),
            stage.second().forbid(&key)
        );
        let admitted = admitted.expect("it is admitted").remove(0);
        match (admitted, forbidden.expect("it is answered")) {
            // The cancellation was first: it is never placed.
            (Verdict::Unwanted(_), true) => {}
            // The request was first: the cancellation finds it.
            (Verdict::Placing(_), false) => {
                assert!(
                    find(stage, &key)
                        .await
                        .withdraw(ReasonCode::CancelledByRequest, stage.now())
                        .is_some()
                );
            }
            (admitted, forbidden) => panic!("{admitted:?}, forbidden: {forbidden}"),
        }
    }
}

async fn groups_that_name_accounts_in_different_orders_do_not_block_each_other<S: Stage>(
    stage: &S,
) {
    tenant(stage, "acme", 1, 100.0).await;
    tenant(stage, "bell", 2, 100.0).await;
    for round in 0..ROUNDS {
        let mut groups = Vec::new();
        for (side, names) in [("x", ["acme", "bell"]), ("y", ["bell", "acme"])] {
            let mut group = Vec::new();
            for name in names {
                group.push(plan_to_wait(stage, &Ask::new(name, &format!("{side}{round}"))).await);
            }
            groups.push(group);
        }
        let (first, second) = admit_both(stage, &groups[0], &groups[1]).await;
        assert!(
            first
                .iter()
                .chain(&second)
                .all(|verdict| matches!(verdict, Verdict::Placing(_))),
            "{first:?} {second:?}"
        );
    }
}

async fn two_groups_at_once_share_no_slot<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 10.0).await;
    let mut slots = Vec::new();
    for round in 0..5 {
        let mut groups = Vec::new();
        for side in ["x", "y"] {
            let mut group = Vec::new();
            for n in 0..10 {
                group.push(
                    plan_to_wait(stage, &Ask::new("acme", &format!("{side}{round}-{n}"))).await,
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
    assert_eq!(slots, wanted, "none twice, and no gap");
}

async fn two_begins_on_one_line_at_once_let_one_go<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 1_000.0).await;
    tenant(stage, "bell", 1, 1_000.0).await;
    let worker = enlist(stage).await;
    for round in 0..ROUNDS {
        let to = u32::try_from(round).unwrap();
        let mut asked = Vec::new();
        for name in ["acme", "bell"] {
            let row = waiting(
                stage,
                worker,
                &Ask::new(name, &format!("a{round}")).calling(to),
            )
            .await;
            asked.push([due(stage, &row).await]);
        }
        let (first, second) = tokio::join!(
            stage.ledger().begin(worker, &asked[0]),
            stage.second().begin(worker, &asked[1])
        );
        let answers = [first.unwrap()[0], second.unwrap()[0]];
        let went = answers
            .iter()
            .filter(|answer| matches!(answer, Begun::Go { .. }))
            .count();
        let busy = answers
            .iter()
            .filter(|answer| matches!(answer, Begun::LineBusy))
            .count();
        assert_eq!((went, busy), (1, 1), "{answers:?}");
    }
}

async fn two_saves_of_one_revision_at_once_save_one<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 100.0).await;
    let worker = enlist(stage).await;
    let mut row = waiting(stage, worker, &Ask::new("acme", "a")).await;
    for _ in 0..ROUNDS {
        let change = [Change::of(&row)];
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

async fn two_claims_at_once_take_nothing_twice<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 1_000.0).await;
    for round in 0..5 {
        let dead = enlist(stage).await;
        for n in 0..10 {
            waiting(stage, dead, &Ask::new("acme", &format!("{round}-{n}"))).await;
        }
        stage.advance(Duration::from_millis(100)).await;
        stage.ledger().retire(dead).await.unwrap();
        let (one, two) = (enlist(stage).await, enlist(stage).await);
        let (first, second) = tokio::join!(
            stage.ledger().claim(one, 100),
            stage.second().claim(two, 100)
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
        // The next round's are not to be mixed with these.
        for delivery_id in ids {
            let row = find(
                stage,
                &Key {
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

/// Two deliveries of one tenant come due together: the worker asks for its settings twice in one question.
#[tokio::test]
async fn a_tenant_asked_for_twice_in_one_question_stays_known() {
    let (database, keys) = (Database::fresh().await, keys());
    let known = database
        .save_tenant(&keys, "acme", &draft(1, 1.0))
        .await
        .tenant_id;
    let directory = Directory::new(database.pool.clone(), keys);
    let stop = CancellationToken::new();
    let listening =
        tokio::task::spawn(directory.clone().listen(database.url.clone(), stop.clone()));
    // The cache comes into use once the listener listens, which nothing tells: it is asked until then and beyond.
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
