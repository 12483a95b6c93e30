//! Enabling Voice OTP, test calls, searching deliveries, figures and checks.

use std::time::Duration;

use futures_util::StreamExt as _;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::client::{TIMEOUT, VALIDITY, create_token, get, send};
use crate::harness::{Console, System, number, request};

#[tokio::test]
async fn voice_is_a_method_only_where_it_is_configured_and_enabled() {
    let system = System::start(50.0).await;
    let console = Console::start(&system).await;
    let _worker = system.worker().await;
    let mut statuses = system.broker.statuses().await;
    let operator = create_token(&system, "operator", None).await;
    let set_enabled = |tenant: &'static str, enabled: bool| {
        let body = json!({ "voice_otp": { "enabled": enabled } });
        let path = format!("/api/v1/tenants/{tenant}/methods");
        let (console, operator) = (&console, &operator);
        async move {
            let answer = send(console, operator, Method::PUT, &path, Some(body)).await;
            (answer.status(), answer.json::<Value>().await.unwrap())
        }
    };
    let (status, problem) = set_enabled("unconfigured", true).await;
    assert_eq!(
        (status, problem["link"].as_str()),
        (
            StatusCode::CONFLICT,
            Some("/t/unconfigured/providers/voice")
        )
    );
    assert_eq!(set_enabled("acme", false).await.0, StatusCode::OK);
    // Workers read changed settings within a second.
    tokio::time::sleep(Duration::from_secs(1)).await;
    system
        .publish_json(&request("off", &number(1), "493027", VALIDITY))
        .await;
    statuses.until_finals(1, TIMEOUT).await;
    assert_eq!(
        (statuses.names("off"), statuses.reason("off").as_str()),
        (vec!["rejected"], "voice_disabled")
    );

    // A test call is placed nevertheless, and its statuses are streamed until it is finished.
    let answer = send(
        &console,
        &operator,
        Method::POST,
        "/api/v1/tenants/acme/test-calls",
        Some(json!({ "to": number(2) })),
    )
    .await;
    assert_eq!(answer.status(), StatusCode::ACCEPTED);
    let call: Value = answer.json().await.unwrap();
    let stream = send(
        &console,
        &operator,
        Method::GET,
        call["events"].as_str().unwrap(),
        None,
    )
    .await;
    let mut text = String::new();
    let mut stream = stream.bytes_stream();
    let reading = async {
        while !text.contains("\"delivered\"") {
            text.push_str(&String::from_utf8_lossy(
                &stream.next().await.unwrap().unwrap(),
            ));
        }
    };
    tokio::time::timeout(TIMEOUT, reading)
        .await
        .expect("it is delivered");
    for step in ["accepted", "placed", "answered"] {
        assert!(text.contains(&format!("\"{step}\"")), "{step}: {text}");
    }
    let call_at_twilio = system
        .simulator
        .calls()
        .into_iter()
        .find(|call| call.to == number(2))
        .unwrap();
    assert_eq!(call_at_twilio.digits_heard, call["code"].as_str().unwrap());
    let (_, details) = get(
        &console,
        &operator,
        &format!(
            "/api/v1/tenants/acme/deliveries/{}",
            call["delivery_id"].as_str().unwrap()
        ),
    )
    .await;
    assert_eq!(
        (details["status"].as_str(), details["test_call"].as_bool()),
        (Some("delivered"), Some(true))
    );
    assert!(
        details["timeline"].as_array().unwrap().len() >= 4,
        "{details}"
    );

    assert_eq!(set_enabled("acme", true).await.0, StatusCode::OK);
    tokio::time::sleep(Duration::from_secs(1)).await;
    system
        .publish_json(&request("on", &number(3), "493027", VALIDITY))
        .await;
    statuses.until_finals(3, TIMEOUT).await;
    assert_eq!(statuses.names("on").last(), Some(&"delivered"));

    // Deliveries are found by id, status and number; figures exclude the test call.
    for filter in [
        "id=on",
        "status=delivered&limit=1",
        &format!("to={}", number(3).replace('+', "%2B")),
    ] {
        let (_, page) = get(
            &console,
            &operator,
            &format!("/api/v1/tenants/acme/deliveries?{filter}"),
        )
        .await;
        assert_eq!(
            page["deliveries"][0]["delivery_id"], "on",
            "{filter}: {page}"
        );
        assert!(!page.to_string().contains(&number(3)));
        if filter.contains("limit") {
            let after = page["next"].as_str().unwrap().replace('+', "%2B");
            let (_, page) = get(
                &console,
                &operator,
                &format!("/api/v1/tenants/acme/deliveries?status=delivered&after={after}"),
            )
            .await;
            assert_eq!(page["deliveries"][0]["delivery_id"], call["delivery_id"]);
            assert_eq!(page["next"], Value::Null);
        }
    }
    let (_, figures) = get(&console, &operator, "/api/v1/tenants/acme/figures").await;
    assert_eq!(
        (
            figures["deliveries"].as_i64(),
            figures["delivered"].as_i64(),
            figures["by_country"]["US"]["deliveries"].as_i64()
        ),
        (Some(2), Some(1), Some(2)),
        "{figures}"
    );

    for n in 0..4 {
        let answer = send(
            &console,
            &operator,
            Method::POST,
            "/api/v1/tenants/acme/test-calls",
            Some(json!({ "to": number(10 + n) })),
        )
        .await;
        assert_eq!(answer.status(), StatusCode::ACCEPTED);
    }
    let answer = send(
        &console,
        &operator,
        Method::POST,
        "/api/v1/tenants/acme/test-calls",
        Some(json!({ "to": number(20) })),
    )
    .await;
    assert_eq!(answer.status(), StatusCode::TOO_MANY_REQUESTS);
    let (_, checked) = {
        let answer = send(
            &console,
            &operator,
            Method::POST,
            "/api/v1/tenants/acme/voice-provider/check",
            None,
        )
        .await;
        (answer.status(), answer.json::<Value>().await.unwrap())
    };
    assert_eq!(checked[0]["code"], "credentials_work", "{checked}");
    console.stop().await;
    system.stop().await;
}
