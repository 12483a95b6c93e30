//! Reading deliveries by key, attempt, user and call.

use std::time::Duration;

use voice_otp::account::CallSid;
use voice_otp::call::CallStatus;
use voice_otp::delivery::{AttemptId, Change, EndedAttempt, State, StatusDetails};
use voice_otp::ports::{Ledger as _, Marked, Saved, UserCancellation};
use voice_otp::price::Price;
use voice_otp::settings::policy::RedialOutcome;
use voice_otp_schemas::UserRef;

use super::stage::{Stage, admit, begun, call, find, register, save, tenant, update, waiting};
use crate::memory::sample::{Request, key};

contract!(
    a_delivery_is_found_by_its_key_alone,
    an_attempt_leads_to_its_delivery_even_after_it_ended,
    a_user_leads_to_open_deliveries,
    calls_that_belong_to_a_delivery_are_known,
    an_entered_code_is_recorded_if_the_delivery_exists,
    a_completed_call_of_an_open_delivery_is_known_and_its_updates_are_ignored,
    calls_without_a_price_are_claimed_at_growing_intervals_until_it_is_reported,
);

async fn a_delivery_is_found_by_its_key_alone<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 1.0).await;
    let worker = register(stage).await;
    begun(stage, worker, &Request::new("acme", "a")).await;
    for unknown in [key("acme", "b"), key("bell", "a"), key("acme", "A")] {
        assert!(
            stage.ledger().find(&unknown).await.unwrap().is_none(),
            "{unknown}"
        );
    }
    let (first, second) = (
        find(stage, &key("acme", "a")).await,
        stage
            .second()
            .find(&key("acme", "a"))
            .await
            .unwrap()
            .unwrap(),
    );
    assert_eq!(format!("{first:?}"), format!("{second:?}"));
}

async fn an_attempt_leads_to_its_delivery_even_after_it_ended<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 1.0).await;
    let worker = register(stage).await;
    let row = begun(stage, worker, &Request::new("acme", "a")).await;
    let attempt = row.attempt_id.unwrap();
    let found = stage
        .ledger()
        .find_attempt(attempt)
        .await
        .unwrap()
        .expect("the attempt is in progress");
    assert_eq!((found.delivery.key, found.ended), (row.key.clone(), false));
    let mut retired = row.revert_start(stage.now());
    retired.ended_attempt = Some(EndedAttempt {
        attempt,
        call: None,
    });
    assert!(matches!(
        save(stage, worker, &retired).await,
        Saved::Saved { .. }
    ));
    let found = stage
        .ledger()
        .find_attempt(attempt)
        .await
        .unwrap()
        .expect("the attempt is remembered");
    assert_eq!(
        (found.delivery.key, found.delivery.attempt_id, found.ended),
        (row.key, None, false)
    );
    let unknown = AttemptId(uuid::Uuid::new_v4());
    assert!(
        stage
            .ledger()
            .find_attempt(unknown)
            .await
            .unwrap()
            .is_none()
    );
}

async fn a_user_leads_to_open_deliveries<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 1.0).await;
    tenant(stage, "bell", 2, 1.0).await;
    let worker = register(stage).await;
    let jane = UserRef::parse("jane").unwrap();
    begun(stage, worker, &Request::new("acme", "a").of_user("jane")).await;
    waiting(
        stage,
        worker,
        &Request::new("acme", "b").of_user("jane").to(2),
    )
    .await;
    waiting(
        stage,
        worker,
        &Request::new("acme", "c").of_user("june").to(3),
    )
    .await;
    waiting(stage, worker, &Request::new("acme", "d").to(4)).await;
    waiting(stage, worker, &Request::new("bell", "a").of_user("jane")).await;
    admit(
        stage,
        worker,
        &Request::new("acme", "refused").of_user("jane").code("12"),
    )
    .await;
    let found = async || {
        let cancellation = UserCancellation {
            tenant_id: key("acme", "a").tenant_id,
            user_ref: jane.clone(),
            time: None,
        };
        let found = stage.ledger().find_users(&[cancellation]).await.unwrap();
        let mut ids: Vec<String> = found[0]
            .iter()
            .map(|row| row.key.delivery_id.to_string())
            .collect();
        ids.sort();
        ids
    };
    assert_eq!(found().await, ["a", "b"]);
    let b = find(stage, &key("acme", "b")).await;
    save(stage, worker, &b.expire(stage.now())).await;
    assert_eq!(found().await, ["a"]);
}

async fn calls_that_belong_to_a_delivery_are_known<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 1.0).await;
    let worker = register(stage).await;
    let row = begun(stage, worker, &Request::new("acme", "a")).await;
    let (ours, other) = (call(1, CallStatus::Queued), call(2, CallStatus::Queued));
    let known = async || {
        stage
            .ledger()
            .known_calls(&[ours.sid.clone(), other.sid.clone()])
            .await
            .unwrap()
    };
    assert_eq!(known().await, Vec::<CallSid>::new());
    save(stage, worker, &update(&row, &ours, stage.now())).await;
    assert_eq!(known().await, std::slice::from_ref(&ours.sid));
    // Also once it has finished.
    let row = find(stage, &row.key).await;
    save(
        stage,
        worker,
        &update(&row, &call(1, CallStatus::Busy), stage.now()),
    )
    .await;
    assert_eq!(known().await, std::slice::from_ref(&ours.sid));
    assert!(stage.ledger().known_calls(&[]).await.unwrap().is_empty());
}

async fn a_completed_call_of_an_open_delivery_is_known_and_its_updates_are_ignored<S: Stage>(
    stage: &S,
) {
    tenant(stage, "acme", 1, 1.0).await;
    let worker = register(stage).await;
    let row = begun(stage, worker, &Request::new("acme", "a")).await;
    let (attempt, ours) = (row.attempt_id.unwrap(), call(1, CallStatus::Queued));
    save(stage, worker, &update(&row, &ours, stage.now())).await;
    let mut change = Change::unchanged(&find(stage, &row.key).await);
    change.redial(
        stage.now(),
        Duration::from_secs(30),
        RedialOutcome::Busy,
        StatusDetails::default(),
    );
    assert!(matches!(
        save(stage, worker, &change).await,
        Saved::Saved { .. }
    ));
    let found = stage
        .ledger()
        .find_attempt(attempt)
        .await
        .unwrap()
        .expect("the attempt is remembered");
    assert!(found.ended);
    let waits = &found.delivery;
    assert_eq!(
        (
            waits.state,
            waits.redials,
            waits.attempt_id,
            waits.call_sid.is_none()
        ),
        (State::Waiting, 1, None, true)
    );
    assert_eq!(
        stage
            .ledger()
            .known_calls(std::slice::from_ref(&ours.sid))
            .await
            .unwrap(),
        [ours.sid]
    );
}

async fn calls_without_a_price_are_claimed_at_growing_intervals_until_it_is_reported<S: Stage>(
    stage: &S,
) {
    tenant(stage, "acme", 1, 1.0).await;
    let worker = register(stage).await;
    let row = begun(stage, worker, &Request::new("acme", "a")).await;
    save(
        stage,
        worker,
        &update(&row, &call(1, CallStatus::InProgress), stage.now()),
    )
    .await;
    let row = find(stage, &row.key).await;
    let mut completed = call(1, CallStatus::Completed);
    completed.duration_s = Some(30);
    save(stage, worker, &update(&row, &completed, stage.now())).await;
    let asked = async || stage.ledger().claim_unpriced_calls(10).await.unwrap().len();
    assert_eq!(asked().await, 0, "not before Twilio can have a price");
    stage.advance(Duration::from_secs(16)).await;
    let owed = stage.ledger().claim_unpriced_calls(10).await.unwrap();
    assert_eq!(owed.len(), 1);
    assert_eq!(
        (&owed[0].key, &owed[0].call_sid, owed[0].attempt),
        (&row.key, &completed.sid, 1)
    );
    assert_eq!(
        (owed[0].to_masked.clone(), owed[0].context.clone()),
        (row.to_masked.clone(), row.context.clone())
    );
    assert_eq!(asked().await, 0, "it has been claimed");
    stage.advance(Duration::from_secs(31)).await;
    assert_eq!(asked().await, 1);
    stage.advance(Duration::from_secs(31)).await;
    assert_eq!(asked().await, 0, "the next interval is twice as long");
    stage.advance(Duration::from_secs(31)).await;
    assert_eq!(asked().await, 1);
    let price = Price {
        amount: "-0.0140".to_owned(),
        unit: "USD".to_owned(),
    };
    stage
        .ledger()
        .clear_unpriced_calls(&[(completed.sid.clone(), price.clone())])
        .await
        .unwrap();
    stage
        .ledger()
        .clear_unpriced_calls(&[(completed.sid, price)])
        .await
        .unwrap();
    stage.advance(Duration::from_hours(2)).await;
    assert_eq!(asked().await, 0);
}

async fn an_entered_code_is_recorded_if_the_delivery_exists<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 1.0).await;
    let worker = register(stage).await;
    let row = begun(stage, worker, &Request::new("acme", "a")).await;
    let recorded = Marked::Recorded {
        awaits_redial: false,
    };
    let group = [row.key.clone(), key("acme", "b"), row.key.clone()];
    for _ in 0..2 {
        assert_eq!(
            stage.ledger().mark_verified(&group).await.unwrap(),
            [recorded, Marked::Unknown, recorded],
            "a second time is not an error"
        );
    }
    let noted = find(stage, &row.key).await;
    assert!(noted.verified && !row.verified);
    assert_eq!(
        noted.revision, row.revision,
        "the revision is unchanged, so that its owner need not read it again"
    );
}
