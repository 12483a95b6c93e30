//! Callbacks that Twilio did not send, and those for calls of the previous release.

use std::time::Duration;

use uuid::Uuid;
use voice_otp_twilio::signature;

use crate::harness::{AUTH_TOKEN, System, Worker, request};

const LIFE: Duration = Duration::from_mins(3);
const SOON: Duration = Duration::from_secs(20);
/// A well-formed signature, of nothing.
const SOME_SIGNATURE: &str = "RSOYDt4T1cUTdK1PDd93/VVr8B8=";

/// Sends a callback about an attempt.
async fn post(worker: &Worker, attempt: Uuid, form: &[(String, String)], signature: &str) -> u16 {
    let mut request = reqwest::Client::new()
        .post(url(worker, attempt))
        .form(form)
        .timeout(SOON);
    if !signature.is_empty() {
        request = request.header("x-twilio-signature", signature);
    }
    request.send().await.unwrap().status().as_u16()
}

fn url(worker: &Worker, attempt: Uuid) -> String {
    format!(
        "http://{}/twilio/status/{}",
        worker.address,
        attempt.simple()
    )
}

fn form(call_sid: &str, status: &str) -> Vec<(String, String)> {
    [("CallSid", call_sid), ("CallStatus", status)]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec()
}

#[tokio::test]
async fn made_up_callbacks_are_refused_without_the_database() {
    let system = System::start(50.0).await;
    let worker = system.worker().await;
    let form = form(&format!("CA{}", "0".repeat(32)), "completed");
    // A look-up would wait for this transaction.
    let client = system.database.pool.get().await.unwrap();
    client
        .batch_execute("begin; lock table deliveries in access exclusive mode")
        .await
        .unwrap();
    for _ in 0..100 {
        let forged = uuid::Builder::from_custom_bytes(Uuid::new_v4().into_bytes()).into_uuid();
        assert_eq!(post(&worker, forged, &form, SOME_SIGNATURE).await, 404);
    }
    let older = Uuid::new_v4();
    assert_eq!(
        post(&worker, older, &form, "").await,
        403,
        "a request without a signature is refused at once"
    );
    let asked = post(&worker, older, &form, SOME_SIGNATURE);
    let in_time = tokio::time::timeout(Duration::from_millis(500), asked).await;
    assert!(in_time.is_err(), "an attempt without a tag is looked up");
    client.batch_execute("rollback").await.unwrap();
    system.stop().await;
}

#[tokio::test]
async fn callbacks_for_calls_of_the_previous_release_are_accepted() {
    let system = System::start(50.0).await;
    let worker = system.worker().await;
    let mut statuses = system.broker.statuses().await;
    system
        .publish_json(&request("older", "+12025550102", "493027", LIFE))
        .await;
    let placed = |seen: &[(String, voice_otp_schemas::status::StatusEvent)]| {
        seen.iter()
            .any(|(_, event)| event.data.status.as_str() == "placed")
    };
    statuses.until("it is placed", SOON, placed).await;
    // The previous release would have given the attempt an id like this.
    let older = Uuid::new_v4();
    let client = system.database.pool.get().await.unwrap();
    let changed = client
        .query(
            "update deliveries set attempt_id = $1, revision = revision + 1 \
              where delivery_id = 'older' and state = 'calling' returning call_sid",
            &[&older],
        )
        .await
        .unwrap();
    let call_sid: String = changed.first().expect("the call is in progress").get(0);
    let form = form(&call_sid, "busy");
    let signature = signature::sign(AUTH_TOKEN, &url(&worker, older), &form);
    assert_eq!(post(&worker, older, &form, &signature).await, 204);
    statuses.until_finals(1, SOON).await;
    assert_eq!(statuses.names("older").last(), Some(&"busy"));
    system.stop().await;
}
