//! Cancellations by user: which requests they cancel, and how long they are remembered.

use std::time::Duration;

use voice_otp::delivery::CancelCause;
use voice_otp::ports::{Ledger as _, UserCancellation, Verdict};
use voice_otp_schemas::{Timestamp, UserRef};

use super::stage::{Stage, admit, register, tenant, waiting};
use crate::memory::sample::{Request, key, limits};

contract! {
    a_request_that_is_not_newer_than_its_users_cancellation_is_not_placed,
    a_cancellation_by_user_cancels_stored_requests_that_are_not_newer,
    a_cancellation_whose_time_is_far_ahead_cancels_nothing_that_comes_later,
    a_cancellation_by_user_is_forgotten_once_no_code_lives_that_is_older,
}

fn of_jane(tenant: &str, time: Option<Timestamp>) -> UserCancellation {
    UserCancellation {
        tenant_id: key(tenant, "any").tenant_id,
        user_ref: UserRef::parse("jane").unwrap(),
        time,
    }
}

async fn cancel<S: Stage>(stage: &S, cancellations: &[UserCancellation]) {
    let recorded = stage.ledger().cancel_users(cancellations).await.unwrap();
    assert_eq!(recorded, vec![true; cancellations.len()]);
}

fn request(id: &str) -> Request {
    Request::new("acme", id).of_user("jane")
}

fn assert_cancelled(verdict: &Verdict) {
    let cancelled = matches!(verdict, Verdict::Inadmissible(CancelCause::Request));
    assert!(cancelled, "{verdict:?}");
}

async fn a_request_that_is_not_newer_than_its_users_cancellation_is_not_placed<S: Stage>(
    stage: &S,
) {
    tenant(stage, "acme", 1, 100.0).await;
    tenant(stage, "bell", 2, 100.0).await;
    let worker = register(stage).await;
    let cancelled_at = stage.now();
    // In one set, twice, and again: the latest counts.
    let earlier = of_jane("acme", Some(cancelled_at - Duration::from_secs(9)));
    cancel(
        stage,
        &[of_jane("acme", Some(cancelled_at)), earlier.clone()],
    )
    .await;
    cancel(stage, &[earlier]).await;
    stage.advance(Duration::from_secs(5)).await;
    let ago = |seconds| Duration::from_secs(seconds);
    for (id, age) in [("older", 6), ("same", 5)] {
        assert_cancelled(&admit(stage, worker, &request(id).requested_ago(ago(age))).await);
    }
    for ask in [
        request("newer").requested_ago(ago(4)),
        Request::new("acme", "june")
            .of_user("june")
            .requested_ago(ago(6))
            .to(2),
        Request::new("bell", "bell")
            .of_user("jane")
            .requested_ago(ago(6)),
        Request::new("acme", "no-user").requested_ago(ago(6)).to(3),
    ] {
        let verdict = admit(stage, worker, &ask).await;
        assert!(matches!(verdict, Verdict::Admitted(_)), "{verdict:?}");
    }
}

async fn a_cancellation_by_user_cancels_stored_requests_that_are_not_newer<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 100.0).await;
    let worker = register(stage).await;
    let older = waiting(
        stage,
        worker,
        &request("older").requested_ago(Duration::from_secs(2)),
    )
    .await;
    waiting(stage, worker, &request("newer").to(2)).await;
    let in_between = stage.now() - Duration::from_secs(1);
    let cancellations = [
        of_jane("acme", Some(in_between)),
        of_jane("acme", None),
        of_jane("bell", None),
    ];
    let ids = |found: &[voice_otp::delivery::Delivery]| {
        let mut ids: Vec<String> = found
            .iter()
            .map(|one| one.key.delivery_id.to_string())
            .collect();
        ids.sort();
        ids
    };
    let found = stage.ledger().find_users(&cancellations).await.unwrap();
    let found: Vec<Vec<String>> = found.iter().map(|found| ids(found)).collect();
    assert_eq!(found, [vec!["older"], vec!["newer", "older"], vec![]]);
    // As an admission looks that ran at the same moment.
    let jane = UserRef::parse("jane").unwrap();
    let both = [(older.key, jane.clone()), (key("acme", "newer"), jane)];
    assert!(
        stage
            .ledger()
            .find_cancelled(&both)
            .await
            .unwrap()
            .is_empty()
    );
    cancel(stage, &cancellations[..1]).await;
    assert_eq!(
        ids(&stage.ledger().find_cancelled(&both).await.unwrap()),
        ["older"]
    );
    assert!(stage.ledger().find_cancelled(&[]).await.unwrap().is_empty());
}

async fn a_cancellation_whose_time_is_far_ahead_cancels_nothing_that_comes_later<S: Stage>(
    stage: &S,
) {
    tenant(stage, "acme", 1, 100.0).await;
    let worker = register(stage).await;
    cancel(
        stage,
        &[of_jane("acme", Some(stage.now() + Duration::from_hours(1)))],
    )
    .await;
    assert_cancelled(&admit(stage, worker, &request("before")).await);
    stage.advance(Duration::from_secs(31)).await;
    let verdict = admit(stage, worker, &request("after")).await;
    assert!(matches!(verdict, Verdict::Admitted(_)), "{verdict:?}");
}

async fn a_cancellation_by_user_is_forgotten_once_no_code_lives_that_is_older<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 100.0).await;
    let worker = register(stage).await;
    let cancelled_at = stage.now();
    cancel(stage, &[of_jane("acme", Some(cancelled_at))]).await;
    let codes_live = limits().recent / 2;
    for (id, more, remembered) in [
        ("a", Duration::ZERO, true),
        ("b", Duration::from_secs(1), false),
    ] {
        let later = cancelled_at + codes_live + more - stage.now();
        stage.advance(later.to_std().unwrap()).await;
        stage.ledger().archive_finished().await.unwrap();
        let age = (stage.now() - cancelled_at).to_std().unwrap();
        let verdict = admit(stage, worker, &request(id).requested_ago(age)).await;
        let is_cancelled = matches!(verdict, Verdict::Inadmissible(CancelCause::Request));
        assert_eq!(is_cancelled, remembered, "{verdict:?}");
    }
}

/// Runs on Postgres alone: in memory nothing is locked.
#[tokio::test]
async fn a_locked_row_holds_up_no_other_row_of_its_set() {
    use voice_otp::ports::{Marked, Saved};

    use super::stage::{PgStage, find};

    let stage = PgStage::new().await;
    tenant(&stage, "acme", 1, 100.0).await;
    let worker = register(&stage).await;
    let mut keys = Vec::new();
    for (n, id) in (1..).zip(["a", "b", "c"]) {
        keys.push(
            waiting(&stage, worker, &Request::new("acme", id).to(n))
                .await
                .key,
        );
    }
    cancel(&stage, &[of_jane("acme", None)]).await;
    let other = stage.pool().get().await.unwrap();
    other
        .batch_execute(
            "begin; select 1 from deliveries where delivery_id = 'b' for update; \
                        select 1 from cancelled_users for update",
        )
        .await
        .unwrap();
    let recorded = Marked::Recorded {
        awaits_redial: false,
    };
    assert_eq!(
        stage.ledger().mark_verified(&keys).await.unwrap(),
        [recorded, Marked::RowLocked, recorded]
    );
    let june = UserCancellation {
        user_ref: UserRef::parse("june").unwrap(),
        ..of_jane("acme", None)
    };
    assert_eq!(
        stage
            .ledger()
            .cancel_users(&[of_jane("acme", None), june])
            .await
            .unwrap(),
        [false, true]
    );
    let mut changes = Vec::new();
    for key in &keys {
        let found = find(&stage, key).await;
        changes.extend(found.cancel(CancelCause::Request, stage.now()));
    }
    let saved = stage.ledger().save(worker, &changes).await.unwrap();
    assert!(matches!(
        saved[..],
        [Saved::Saved { .. }, Saved::RowLocked, Saved::Saved { .. }]
    ));
    other.batch_execute("rollback").await.unwrap();
    assert_eq!(
        stage.ledger().mark_verified(&keys).await.unwrap(),
        [recorded; 3]
    );
    drop(other);
    stage.close().await;
}
