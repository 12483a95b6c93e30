//! Looking deliveries up.

use voice_otp::account::CallSid;
use voice_otp::delivery::{AttemptId, Retired};
use voice_otp::ports::{Ledger as _, Saved};
use voice_otp::progress::CallStatus;
use voice_otp_schemas::UserRef;

use super::stage::{Stage, admit, begun, call, enlist, find, news, save, tenant, waiting};
use crate::memory::sample::{Ask, key};

contract!(
    a_delivery_is_found_by_its_key_alone,
    an_attempt_leads_to_its_delivery_also_when_it_is_over,
    a_user_leads_to_what_is_not_over_yet,
    calls_that_are_some_deliverys_are_known,
    a_code_that_was_entered_is_noted_where_there_is_a_delivery,
);

async fn a_delivery_is_found_by_its_key_alone<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 1.0).await;
    let worker = enlist(stage).await;
    begun(stage, worker, &Ask::new("acme", "a")).await;
    for stranger in [key("acme", "b"), key("bell", "a"), key("acme", "A")] {
        assert!(stage.ledger().find(&stranger).await.unwrap().is_none(), "{stranger}");
    }
    let (first, second) = (find(stage, &key("acme", "a")).await, stage.second().find(&key("acme", "a")).await.unwrap().unwrap());
    assert_eq!(format!("{first:?}"), format!("{second:?}"));
}

async fn an_attempt_leads_to_its_delivery_also_when_it_is_over<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 1.0).await;
    let worker = enlist(stage).await;
    let row = begun(stage, worker, &Ask::new("acme", "a")).await;
    let attempt = row.attempt_id.unwrap();
    let found = stage.ledger().find_attempt(attempt).await.unwrap().expect("it is under way");
    assert_eq!((found.delivery.key, found.over), (row.key.clone(), false));
    let mut retired = row.unbegin(stage.now());
    retired.retired = Some(Retired { attempt, call: None });
    assert!(matches!(save(stage, worker, &retired).await, Saved::Saved { .. }));
    let found = stage.ledger().find_attempt(attempt).await.unwrap().expect("it was its");
    assert_eq!((found.delivery.key, found.delivery.attempt_id, found.over), (row.key, None, false));
    let unknown = AttemptId(uuid::Uuid::new_v4());
    assert!(stage.ledger().find_attempt(unknown).await.unwrap().is_none());
}

async fn a_user_leads_to_what_is_not_over_yet<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 1.0).await;
    tenant(stage, "bell", 2, 1.0).await;
    let worker = enlist(stage).await;
    let jane = UserRef::parse("jane").unwrap();
    begun(stage, worker, &Ask::new("acme", "a").of_user("jane")).await;
    waiting(stage, worker, &Ask::new("acme", "b").of_user("jane").calling(2)).await;
    waiting(stage, worker, &Ask::new("acme", "c").of_user("june").calling(3)).await;
    waiting(stage, worker, &Ask::new("acme", "d").calling(4)).await;
    waiting(stage, worker, &Ask::new("bell", "a").of_user("jane")).await;
    admit(stage, worker, &Ask::new("acme", "refused").of_user("jane").reading("12")).await;
    let found = async || {
        let found = stage.ledger().find_user(&key("acme", "a").tenant_id, &jane).await.unwrap();
        let mut ids: Vec<String> = found.iter().map(|row| row.key.delivery_id.to_string()).collect();
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
    let known = async || stage.ledger().known_calls(&[ours.sid.clone(), other.sid.clone()]).await.unwrap();
    assert_eq!(known().await, Vec::<CallSid>::new());
    save(stage, worker, &news(&row, &ours, stage.now())).await;
    assert_eq!(known().await, std::slice::from_ref(&ours.sid));
    // Also once it is over.
    let row = find(stage, &row.key).await;
    save(stage, worker, &news(&row, &call(1, CallStatus::Busy), stage.now())).await;
    assert_eq!(known().await, std::slice::from_ref(&ours.sid));
    assert!(stage.ledger().known_calls(&[]).await.unwrap().is_empty());
}

async fn a_code_that_was_entered_is_noted_where_there_is_a_delivery<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 1.0).await;
    let worker = enlist(stage).await;
    let row = begun(stage, worker, &Ask::new("acme", "a")).await;
    assert!(stage.ledger().verified(&row.key).await.unwrap());
    assert!(stage.ledger().verified(&row.key).await.unwrap(), "twice is no fault");
    assert!(!stage.ledger().verified(&key("acme", "b")).await.unwrap());
    assert_eq!(find(stage, &row.key).await.revision, row.revision, "whoever has it in hand need not look again");
}
