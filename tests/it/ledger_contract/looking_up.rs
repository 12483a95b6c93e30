//! Looking deliveries up.

use std::time::Duration;

use voice_otp::account::CallSid;
use voice_otp::delivery::{AttemptId, Change, Details, Price, Retired, State};
use voice_otp::ports::{Ledger as _, Saved};
use voice_otp::progress::CallStatus;
use voice_otp_schemas::UserRef;
use voice_otp_schemas::status::Status;

use super::stage::{Stage, admit, begun, call, enlist, find, news, save, tenant, waiting};
use crate::memory::sample::{Ask, key};

contract!(
    a_delivery_is_found_by_its_key_alone,
    an_attempt_leads_to_its_delivery_also_when_it_is_over,
    a_user_leads_to_what_is_not_over_yet,
    calls_that_are_some_deliverys_are_known,
    a_code_that_was_entered_is_noted_where_there_is_a_delivery,
    a_call_that_is_over_while_its_delivery_is_not_is_known_and_no_news,
    calls_without_a_price_are_given_out_later_each_time_until_it_is_told,
);

async fn a_delivery_is_found_by_its_key_alone<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 1.0).await;
    let worker = enlist(stage).await;
    begun(stage, worker, &Ask::new("acme", "a")).await;
    for stranger in [key("acme", "b"), key("bell", "a"), key("acme", "A")] {
        assert!(
            stage.ledger().find(&stranger).await.unwrap().is_none(),
            "{stranger}"
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

async fn an_attempt_leads_to_its_delivery_also_when_it_is_over<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 1.0).await;
    let worker = enlist(stage).await;
    let row = begun(stage, worker, &Ask::new("acme", "a")).await;
    let attempt = row.attempt_id.unwrap();
    let found = stage
        .ledger()
        .find_attempt(attempt)
        .await
        .unwrap()
        .expect("it is under way");
    assert_eq!((found.delivery.key, found.over), (row.key.clone(), false));
    let mut retired = row.unbegin(stage.now());
    retired.retired = Some(Retired {
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
        .expect("it was its");
    assert_eq!(
        (found.delivery.key, found.delivery.attempt_id, found.over),
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

async fn a_user_leads_to_what_is_not_over_yet<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 1.0).await;
    tenant(stage, "bell", 2, 1.0).await;
    let worker = enlist(stage).await;
    let jane = UserRef::parse("jane").unwrap();
    begun(stage, worker, &Ask::new("acme", "a").of_user("jane")).await;
    waiting(
        stage,
        worker,
        &Ask::new("acme", "b").of_user("jane").calling(2),
    )
    .await;
    waiting(
        stage,
        worker,
        &Ask::new("acme", "c").of_user("june").calling(3),
    )
    .await;
    waiting(stage, worker, &Ask::new("acme", "d").calling(4)).await;
    waiting(stage, worker, &Ask::new("bell", "a").of_user("jane")).await;
    admit(
        stage,
        worker,
        &Ask::new("acme", "refused").of_user("jane").reading("12"),
    )
    .await;
    let found = async || {
        let found = stage
            .ledger()
            .find_user(&key("acme", "a").tenant_id, &jane)
            .await
            .unwrap();
        let mut ids: Vec<String> = found
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

async fn calls_that_are_some_deliverys_are_known<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 1.0).await;
    let worker = enlist(stage).await;
    let row = begun(stage, worker, &Ask::new("acme", "a")).await;
    let (ours, other) = (call(1, CallStatus::Queued), call(2, CallStatus::Queued));
    let known = async || {
        stage
            .ledger()
            .known_calls(&[ours.sid.clone(), other.sid.clone()])
            .await
            .unwrap()
    };
    assert_eq!(known().await, Vec::<CallSid>::new());
    save(stage, worker, &news(&row, &ours, stage.now())).await;
    assert_eq!(known().await, std::slice::from_ref(&ours.sid));
    // Also once it is over.
    let row = find(stage, &row.key).await;
    save(
        stage,
        worker,
        &news(&row, &call(1, CallStatus::Busy), stage.now()),
    )
    .await;
    assert_eq!(known().await, std::slice::from_ref(&ours.sid));
    assert!(stage.ledger().known_calls(&[]).await.unwrap().is_empty());
}

async fn a_call_that_is_over_while_its_delivery_is_not_is_known_and_no_news<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 1.0).await;
    let worker = enlist(stage).await;
    let row = begun(stage, worker, &Ask::new("acme", "a")).await;
    let (attempt, ours) = (row.attempt_id.unwrap(), call(1, CallStatus::Queued));
    save(stage, worker, &news(&row, &ours, stage.now())).await;
    let mut change = Change::of(&find(stage, &row.key).await);
    change.redial(
        stage.now(),
        Duration::from_secs(30),
        Status::Busy,
        Details::default(),
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
        .expect("it was its");
    assert!(found.over);
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

async fn calls_without_a_price_are_given_out_later_each_time_until_it_is_told<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 1.0).await;
    let worker = enlist(stage).await;
    let row = begun(stage, worker, &Ask::new("acme", "a")).await;
    save(
        stage,
        worker,
        &news(&row, &call(1, CallStatus::InProgress), stage.now()),
    )
    .await;
    let row = find(stage, &row.key).await;
    let mut over = call(1, CallStatus::Completed);
    over.duration_s = Some(30);
    save(stage, worker, &news(&row, &over, stage.now())).await;
    let asked = async || stage.ledger().unpriced(10).await.unwrap().len();
    assert_eq!(asked().await, 0, "not before Twilio can know");
    stage.advance(Duration::from_secs(16)).await;
    let owed = stage.ledger().unpriced(10).await.unwrap();
    assert_eq!(owed.len(), 1);
    assert_eq!(
        (&owed[0].key, &owed[0].call_sid, owed[0].attempt),
        (&row.key, &over.sid, 1)
    );
    assert_eq!(
        (owed[0].to_masked.clone(), owed[0].context.clone()),
        (row.to_masked.clone(), row.context.clone())
    );
    assert_eq!(asked().await, 0, "it has been given out");
    stage.advance(Duration::from_secs(31)).await;
    assert_eq!(asked().await, 1);
    stage.advance(Duration::from_secs(31)).await;
    assert_eq!(asked().await, 0, "twice as long the next time");
    stage.advance(Duration::from_secs(31)).await;
    assert_eq!(asked().await, 1);
    let price = Price {
        amount: "-0.0140".to_owned(),
        unit: "USD".to_owned(),
    };
    stage
        .ledger()
        .priced(&[(over.sid.clone(), price.clone())])
        .await
        .unwrap();
    stage.ledger().priced(&[(over.sid, price)]).await.unwrap();
    stage.advance(Duration::from_hours(2)).await;
    assert_eq!(asked().await, 0);
}

async fn a_code_that_was_entered_is_noted_where_there_is_a_delivery<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 1.0).await;
    let worker = enlist(stage).await;
    let row = begun(stage, worker, &Ask::new("acme", "a")).await;
    assert!(stage.ledger().verified(&row.key).await.unwrap());
    assert!(
        stage.ledger().verified(&row.key).await.unwrap(),
        "twice is no fault"
    );
    assert!(!stage.ledger().verified(&key("acme", "b")).await.unwrap());
    let noted = find(stage, &row.key).await;
    assert!(noted.verified && !row.verified);
    assert_eq!(
        noted.revision, row.revision,
        "whoever has it in hand need not look again"
    );
}
