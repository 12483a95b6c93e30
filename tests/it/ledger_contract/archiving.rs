//! Archiving: finished deliveries move to daily partitions, and are recognised while they are kept.

use std::time::Duration;

use voice_otp::delivery::{CancelCause, State};
use voice_otp::ports::{Ledger as _, Verdict};
use voice_otp::settings::Draft;

use super::stage::{Stage, admit, begun, find, insert_tombstone, register, save, tenant};
use crate::memory::sample::{Request, draft, limits};

contract! {
    a_duplicate_after_midnight_is_recognised_by_another_worker,
    an_archived_delivery_is_recognised_and_other_content_conflicts,
    a_delivery_past_its_retention_is_new,
    open_and_recently_finished_deliveries_are_not_archived,
    a_delivery_cancelled_before_it_arrives_is_not_placed,
    no_tombstone_is_inserted_for_a_delivery_that_exists,
    a_request_of_no_tenant_is_a_row_for_minutes_and_is_not_archived,
    overdue_deliveries_are_counted,
}

/// Admits a request that is finished at once, since its tenant is disabled, and publishes its
/// status.
async fn finish<S: Stage>(stage: &S, id: &str) {
    let disabled = Draft {
        enabled: false,
        ..draft(9, 1.0)
    };
    stage.save_tenant("refusing", &disabled).await;
    let (worker, ask) = (register(stage).await, Request::new("refusing", id));
    assert!(matches!(
        admit(stage, worker, &ask).await,
        Verdict::Finished(_)
    ));
    publish(stage, &ask).await;
}

/// Marks all of a delivery's events as published.
async fn publish<S: Stage>(stage: &S, ask: &Request) {
    let events: Vec<_> = (1..5).map(|sequence| (ask.key(), sequence)).collect();
    stage
        .ledger()
        .delete_published(&events)
        .await
        .expect("the write succeeds");
}

async fn again<S: Stage>(stage: &S, ask: &Request) -> Verdict {
    let worker = register(stage).await;
    let admission = super::stage::plan(stage, ask).await;
    stage
        .second()
        .admit(worker, &[admission])
        .await
        .expect("it is admitted")
        .remove(0)
}

async fn archive<S: Stage>(stage: &S) -> u64 {
    let mut sum = 0;
    loop {
        let moved = stage
            .ledger()
            .archive_finished()
            .await
            .expect("archiving succeeds");
        sum += moved;
        if moved == 0 {
            return sum;
        }
    }
}

async fn a_duplicate_after_midnight_is_recognised_by_another_worker<S: Stage>(stage: &S) {
    let to_midnight = Duration::from_mins(24 * 60 - 160) - Duration::from_millis(100);
    stage.advance(to_midnight).await;
    assert_eq!(
        stage.now().format("%H:%M:%S%.3f").to_string(),
        "23:59:59.900"
    );
    finish(stage, "a").await;
    stage.advance(Duration::from_millis(200)).await;
    assert_eq!(
        stage.now().format("%H:%M:%S%.3f").to_string(),
        "00:00:00.100"
    );
    assert!(matches!(
        again(stage, &Request::new("refusing", "a")).await,
        Verdict::Duplicate
    ));
    archive(stage).await;
    assert!(matches!(
        again(stage, &Request::new("refusing", "a")).await,
        Verdict::Duplicate
    ));
    // Archived to the day on which it finished, and recognised after the next midnight too.
    stage.advance(Duration::from_hours(25)).await;
    assert_eq!(archive(stage).await, 1);
    assert!(matches!(
        again(stage, &Request::new("refusing", "a")).await,
        Verdict::Duplicate
    ));
}

async fn an_archived_delivery_is_recognised_and_other_content_conflicts<S: Stage>(stage: &S) {
    for n in 0..30 {
        finish(stage, &format!("d{n}")).await;
        stage.advance(Duration::from_hours(1)).await;
    }
    assert_eq!(
        archive(stage).await,
        28,
        "two finished less than two hours ago, or exactly two hours ago"
    );
    for n in 0..30 {
        let ask = Request::new("refusing", &format!("d{n}"));
        assert!(
            matches!(again(stage, &ask).await, Verdict::Duplicate),
            "d{n}"
        );
        assert!(
            matches!(
                again(stage, &ask.code("other1")).await,
                Verdict::ConflictingDuplicate
            ),
            "d{n}"
        );
    }
    assert!(
        stage
            .ledger()
            .find(&Request::new("refusing", "d0").key())
            .await
            .unwrap()
            .is_none(),
        "it is no longer in the table of deliveries"
    );
}

async fn a_delivery_past_its_retention_is_new<S: Stage>(stage: &S) {
    finish(stage, "old").await;
    stage
        .advance(limits().recent + Duration::from_secs(1))
        .await;
    assert_eq!(archive(stage).await, 1);
    stage.advance(limits().retention).await;
    finish(stage, "later").await;
    archive(stage).await;
    assert!(
        matches!(
            again(stage, &Request::new("refusing", "old")).await,
            Verdict::Duplicate
        ),
        "its day did not end long enough ago"
    );
    stage.advance(Duration::from_hours(48)).await;
    archive(stage).await;
    assert!(
        matches!(
            again(stage, &Request::new("refusing", "old")).await,
            Verdict::Finished(_)
        ),
        "it is dropped with its day"
    );
    assert!(matches!(
        again(stage, &Request::new("refusing", "later")).await,
        Verdict::Duplicate
    ));
}

async fn open_and_recently_finished_deliveries_are_not_archived<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 1.0).await;
    let worker = register(stage).await;
    let under_way = begun(stage, worker, &Request::new("acme", "under-way")).await;
    stage.advance(Duration::from_hours(30)).await;
    finish(stage, "lately").await;
    assert_eq!(archive(stage).await, 0);
    assert_eq!(find(stage, &under_way.key).await.state, State::Placing);
    save(stage, worker, &under_way.expire(stage.now())).await;
    stage
        .advance(limits().recent + Duration::from_secs(1))
        .await;
    assert_eq!(
        archive(stage).await,
        1,
        "the other has an unpublished event"
    );
    publish(stage, &Request::new("acme", "under-way")).await;
    assert_eq!(archive(stage).await, 1);
}

async fn a_delivery_cancelled_before_it_arrives_is_not_placed<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 1.0).await;
    let (worker, ask) = (register(stage).await, Request::new("acme", "early"));
    assert!(insert_tombstone(stage.ledger(), &ask.key()).await.unwrap());
    assert!(
        !insert_tombstone(stage.ledger(), &ask.key()).await.unwrap(),
        "there is one already"
    );
    let mut admission = super::stage::plan(stage, &ask).await;
    let verdict = stage
        .ledger()
        .admit(worker, std::slice::from_ref(&admission))
        .await
        .unwrap()
        .remove(0);
    assert!(
        matches!(verdict, Verdict::Inadmissible(CancelCause::Request)),
        "{verdict:?}"
    );
    admission.finish_inadmissible(CancelCause::Request, stage.now());
    let verdict = stage
        .ledger()
        .admit(worker, std::slice::from_ref(&admission))
        .await
        .unwrap()
        .remove(0);
    assert!(matches!(verdict, Verdict::Finished(_)), "{verdict:?}");
    assert!(matches!(again(stage, &ask).await, Verdict::Duplicate));
    publish(stage, &ask).await;
    // A tombstone whose request never arrives is deleted.
    insert_tombstone(stage.ledger(), &Request::new("acme", "never").key())
        .await
        .unwrap();
    stage
        .advance(limits().recent + Duration::from_secs(1))
        .await;
    assert_eq!(archive(stage).await, 2);
    assert!(matches!(
        again(stage, &Request::new("acme", "never")).await,
        Verdict::Admitted(_)
    ));
}

async fn no_tombstone_is_inserted_for_a_delivery_that_exists<S: Stage>(stage: &S) {
    finish(stage, "there").await;
    assert!(
        !insert_tombstone(stage.ledger(), &Request::new("refusing", "there").key())
            .await
            .unwrap()
    );
    stage
        .advance(limits().recent + Duration::from_secs(1))
        .await;
    archive(stage).await;
    assert!(
        !insert_tombstone(stage.ledger(), &Request::new("refusing", "there").key())
            .await
            .unwrap(),
        "nor for an archived one"
    );
}

async fn a_request_of_no_tenant_is_a_row_for_minutes_and_is_not_archived<S: Stage>(stage: &S) {
    let worker = register(stage).await;
    let [unknown, invalid] = [
        Request::new("made-up", "unknown"),
        Request::new("made-up", "invalid").code("12"),
    ];
    for ask in [&unknown, &invalid] {
        let verdict = admit(stage, worker, ask).await;
        assert!(matches!(verdict, Verdict::Finished(_)), "{verdict:?}");
        assert!(matches!(again(stage, ask).await, Verdict::Duplicate));
    }
    let early = Request::new("made-up", "cancelled").key();
    assert!(insert_tombstone(stage.ledger(), &early).await.unwrap());
    publish(stage, &unknown).await;
    stage.advance(Duration::from_mins(4)).await;
    assert_eq!(archive(stage).await, 0);
    stage.advance(Duration::from_mins(2)).await;
    assert_eq!(
        archive(stage).await,
        2,
        "the third has an unpublished event"
    );
    publish(stage, &invalid).await;
    assert_eq!(archive(stage).await, 1);
    for ask in [&unknown, &invalid] {
        assert!(stage.ledger().find(&ask.key()).await.unwrap().is_none());
        let verdict = again(stage, ask).await;
        assert!(
            matches!(verdict, Verdict::Finished(_)),
            "it is new: {verdict:?}"
        );
    }
}

async fn overdue_deliveries_are_counted<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 1.0).await;
    let worker = register(stage).await;
    begun(stage, worker, &Request::new("acme", "a")).await;
    let margin = Duration::from_mins(6);
    stage.advance(Duration::from_mins(3) + margin).await;
    let (one, two) = (register(stage).await, register(stage).await);
    let count = |worker| stage.ledger().count_overdue(worker, margin);
    assert_eq!(count(one).await.unwrap() + count(two).await.unwrap(), 0);
    stage.advance(Duration::from_millis(1)).await;
    let counts = [count(one).await.unwrap(), count(two).await.unwrap()];
    assert!(counts == [0, 1] || counts == [1, 0], "one of them counts");
}
