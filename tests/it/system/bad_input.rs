//! Bad input of every kind is answered as the contract says, and the next good request succeeds.

use std::time::Duration;

use lapin::BasicProperties;
use serde_json::{Value, json};
use voice_otp_publisher::topology;

use crate::harness::{System, number, request};

const LIFE: Duration = Duration::from_mins(3);

fn with(id: &str, change: impl FnOnce(&mut Value)) -> Value {
    let mut event = request(id, &number(5), "493027", LIFE);
    change(&mut event);
    event
}

#[tokio::test]
async fn readable_requests_are_answered_and_unreadable_ones_are_dead_lettered() {
    let system = System::start(50.0).await;
    system
        .tenant("off", 50.0, |draft| draft.enabled = false)
        .await;
    let mut statuses = system.broker.statuses().await;
    let _worker = system.worker().await;

    let answered = [
        (
            "no-number",
            with("no-number", |event| {
                drop(event["data"].as_object_mut().unwrap().remove("to"));
            }),
            "rejected",
            "invalid_request",
        ),
        (
            "bad-number",
            with("bad-number", |event| {
                event["data"]["to"] = json!("0171 5551234");
            }),
            "rejected",
            "invalid_request",
        ),
        (
            "impossible",
            with("impossible", |event| {
                event["data"]["to"] = json!("+19995550123");
            }),
            "rejected",
            "invalid_request",
        ),
        (
            "number-type",
            with("number-type", |event| {
                event["data"]["to"] = json!(14_155_552_671_u64);
            }),
            "rejected",
            "invalid_request",
        ),
        (
            "no-code",
            with("no-code", |event| {
                drop(event["data"].as_object_mut().unwrap().remove("code"));
            }),
            "rejected",
            "invalid_request",
        ),
        (
            "long-code",
            with("long-code", |event| {
                event["data"]["code"] = json!("12345678901");
            }),
            "rejected",
            "invalid_request",
        ),
        (
            "sealed",
            with("sealed", |event| {
                event["data"]["sealed_code"] = json!({ "key_id": "a", "box": "AAAA" });
            }),
            "rejected",
            "sealed_code_unsupported",
        ),
        (
            "no-expiry",
            with("no-expiry", |event| {
                event["data"]["expires_at"] = json!("soon");
            }),
            "rejected",
            "invalid_request",
        ),
        (
            "far-expiry",
            request("far-expiry", &number(5), "493027", Duration::from_hours(2)),
            "rejected",
            "invalid_request",
        ),
        (
            "expired",
            with("expired", |event| {
                event["data"]["expires_at"] = json!("2020-01-01T00:00:00Z");
            }),
            "expired",
            "expired_on_arrival",
        ),
        (
            "too-soon",
            request("too-soon", &number(5), "493027", Duration::from_secs(10)),
            "expired",
            "expired_on_arrival",
        ),
        (
            "controls",
            with("controls", |event| {
                event["data"]["user_ref"] = json!("a\u{7}b");
            }),
            "rejected",
            "invalid_request",
        ),
        (
            "controls-elsewhere",
            with("controls-elsewhere", |event| {
                event["data"]["unknown"] = json!("a\u{7}b");
            }),
            "rejected",
            "invalid_request",
        ),
        (
            "unknown",
            with("unknown", |event| {
                event["data"]["tenant_id"] = json!("unknown");
            }),
            "rejected",
            "unknown_tenant",
        ),
        (
            "off",
            with("off", |event| event["data"]["tenant_id"] = json!("off")),
            "rejected",
            "voice_disabled",
        ),
        (
            "abroad",
            with("abroad", |event| {
                event["data"]["to"] = json!("+34911234567");
            }),
            "rejected",
            "destination_not_allowed",
        ),
    ];
    for (_, event, ..) in &answered {
        system.publish_json(event).await;
    }
    let json_type = b"application/cloudevents+json";
    let good = request("good-but", &number(6), "493027", LIFE).to_string();
    let unreadable: [(&[u8], Vec<u8>, &str); 9] = [
        (json_type, b"{\"no\": \"json".to_vec(), "not_json"),
        (json_type, b"\xff\xfe".to_vec(), "not_json"),
        (json_type, b"".to_vec(), "not_json"),
        (json_type, vec![b' '; 100_000], "too_long"),
        (b"text/plain", good.clone().into_bytes(), "content_type"),
        (
            b"application/json",
            good.clone().into_bytes(),
            "content_type",
        ),
        (
            json_type,
            good.replace("requested.v1", "requested.v9").into_bytes(),
            "unknown_type",
        ),
        (
            json_type,
            good.replace("\"acme\"", "\"ac.me\"").into_bytes(),
            "nameless",
        ),
        (
            json_type,
            good.replace("\"1.0\"", "\"0.3\"").into_bytes(),
            "attribute",
        ),
    ];
    for (content_type, body, _) in &unreadable {
        system.broker.publish(content_type, body).await;
    }
    system
        .broker
        .publish_with(BasicProperties::default(), good.as_bytes())
        .await;

    statuses
        .until_finals(answered.len(), Duration::from_secs(30))
        .await;
    let letters = system.broker.dead_letters(unreadable.len() + 1).await;
    let mut reasons: Vec<&str> = letters
        .iter()
        .map(|letter| letter["reason"].as_str().unwrap())
        .collect();
    let mut wanted: Vec<&str> = unreadable
        .iter()
        .map(|(.., reason)| *reason)
        .chain(["content_type"])
        .collect();
    reasons.sort_unstable();
    wanted.sort_unstable();
    assert_eq!(reasons, wanted);
    for (id, _, status, reason) in &answered {
        assert_eq!(
            (statuses.names(id), statuses.reason(id).as_str()),
            (vec![*status], *reason),
            "{id}"
        );
    }

    system
        .publish_json(&request("the-next", &number(7), "493027", LIFE))
        .await;
    statuses
        .until_finals(answered.len() + 1, Duration::from_secs(30))
        .await;
    assert_eq!(statuses.names("the-next").last(), Some(&"delivered"));
    assert_eq!(system.calls_to(&number(5)) + system.calls_to(&number(6)), 0);
    assert_eq!(system.broker.depth(topology::REQUESTS).await, 0);
    statuses.assert_sound();
    system.stop().await;
}

#[tokio::test]
async fn one_id_in_one_burst_is_one_call_and_different_content_is_dead_lettered() {
    let system = System::start(50.0).await;
    let mut statuses = system.broker.statuses().await;
    let _first = system.worker().await;
    let _second = system.worker().await;
    let event = request("twice", &number(8), "493027", LIFE);
    let other = request("twice", &number(8), "493028", LIFE);
    for _ in 0..20 {
        system.publish_json(&event).await;
    }
    for _ in 0..3 {
        system.publish_json(&other).await;
    }
    statuses.until_finals(1, Duration::from_secs(30)).await;
    let letters = system.broker.dead_letters(3).await;
    assert!(
        letters
            .iter()
            .all(|letter| letter["reason"] == "conflicting_duplicate"
                && letter["delivery_id"] == "twice")
    );
    // A duplicate after the final status publishes nothing either.
    system.publish_json(&event).await;
    system
        .publish_json(&request("after", &number(9), "493027", LIFE))
        .await;
    statuses.until_finals(2, Duration::from_secs(30)).await;
    statuses.collect_for(Duration::from_millis(500)).await;
    assert_eq!(system.calls_to(&number(8)), 1);
    assert_eq!(
        statuses.names("twice"),
        ["accepted", "placed", "ringing", "answered", "delivered"]
    );
    statuses.assert_sound();
    system.stop().await;
}

#[tokio::test]
async fn a_callback_without_a_valid_signature_changes_nothing() {
    let system = System::start(50.0).await;
    let mut statuses = system.broker.statuses().await;
    let worker = system.worker().await;
    system
        .publish_json(&request("forged", "+12025550102", "493027", LIFE))
        .await;
    let placed = |seen: &[(String, voice_otp_schemas::status::StatusEvent)]| {
        seen.iter()
            .any(|(_, event)| event.data.status.as_str() == "placed")
    };
    statuses
        .until("it is placed", Duration::from_secs(20), placed)
        .await;
    let call = system.simulator.calls().pop().unwrap();
    let path = call.callback_path.unwrap();
    let path = path.split(['#', '?']).next().unwrap().to_owned();
    // One connection per request: the worker closes a connection after a body that is too long, and
    // the next request on it would fail.
    let client = reqwest::Client::builder()
        .pool_max_idle_per_host(0)
        .build()
        .unwrap();
    let form = format!("CallSid={}&CallStatus=completed&CallDuration=60", call.sid);
    let post = |path: String, body: String, signature: Option<&'static str>, kind: &'static str| {
        let request = client
            .post(format!("http://{}{path}", worker.address))
            .header("content-type", kind)
            .body(body);
        let request = match signature {
            Some(signature) => request.header("x-twilio-signature", signature),
            None => request,
        };
        async move { request.send().await.unwrap().status().as_u16() }
    };
    let form_type = "application/x-www-form-urlencoded";
    assert_eq!(
        post(
            path.clone(),
            form.clone(),
            Some("RSOYDt4T1cUTdK1PDd93/VVr8B8="),
            form_type
        )
        .await,
        403
    );
    assert_eq!(post(path.clone(), form.clone(), None, form_type).await, 403);
    assert_eq!(
        post(path.clone(), "{}".to_owned(), None, "application/json").await,
        400
    );
    assert_eq!(
        post(path.clone(), "x".repeat(100_000), None, form_type).await,
        413
    );
    let unknown = format!("/twilio/status/{}", uuid::Uuid::new_v4().simple());
    let signature = Some("RSOYDt4T1cUTdK1PDd93/VVr8B8=");
    assert_eq!(
        post(unknown.clone(), form.clone(), signature, form_type).await,
        404
    );
    assert_eq!(
        post(unknown, form.clone(), None, form_type).await,
        403,
        "a request without a signature learns nothing"
    );
    let nonsense = "/twilio/status/nonsense".to_owned();
    assert_eq!(post(nonsense, form, None, form_type).await, 404);
    statuses.until_finals(1, Duration::from_secs(30)).await;
    assert_eq!(
        statuses.names("forged").last(),
        Some(&"no_answer"),
        "the forged outcome did not count"
    );
    system.stop().await;
}
