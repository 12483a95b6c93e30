//! The URL from which a call requests its instructions.

use std::time::Duration;

use voice_otp::settings::policy::Voicemail;
use voice_otp_twilio::signature;

use super::voicemail::system_with;
use crate::harness::{AUTH_TOKEN, request};

const LIFE: Duration = Duration::from_mins(3);
const SOON: Duration = Duration::from_secs(40);

#[tokio::test]
async fn only_a_request_with_a_valid_signature_gets_instructions_with_the_code() {
    let (system, worker) = system_with(Voicemail::PressKey).await;
    let mut statuses = system.broker.statuses().await;
    // The call rings long enough for the test to request its instructions first.
    system
        .publish_json(&request("asked", "+12025550102", "493027", LIFE))
        .await;
    let placed = |seen: &[(String, voice_otp_schemas::status::StatusEvent)]| {
        seen.iter()
            .any(|(_, event)| event.data.status.as_str() == "placed")
    };
    statuses.until("it is placed", SOON, placed).await;
    let call = system.simulator.calls().pop().unwrap();
    let attempt = call
        .callback_path
        .unwrap()
        .rsplit('/')
        .next()
        .unwrap()
        .to_owned();
    let base = format!("http://{}/twilio/voice/{attempt}", worker.address);
    let first = format!("{base}?policy=press_key");
    let client = reqwest::Client::new();
    let form = |digits: &str| {
        let pairs = [
            ("CallSid", call.sid.as_str()),
            ("CallStatus", "in-progress"),
            ("Digits", digits),
        ];
        pairs
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec()
    };
    let request_instructions = async |url: &str, form: &[(String, String)], signature: &str| {
        let answer = client
            .post(url)
            .header("x-twilio-signature", signature)
            .form(form)
            .send()
            .await
            .unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    let key = format!("{base}?reading=1&wrong=0");
    let good = signature::sign(AUTH_TOKEN, &key, &form("1"));
    for (url, form, signature, status) in [
        (key.clone(), form("1"), "", 403),
        (key.clone(), form("2"), good.as_str(), 403),
        // The signature is valid for this step only.
        (
            format!("{base}?reading=2&wrong=0"),
            form("1"),
            good.as_str(),
            403,
        ),
        (first.clone(), form("1"), good.as_str(), 403),
        (
            format!("{base}?policy=speak"),
            form("1"),
            good.as_str(),
            403,
        ),
        (base.clone(), form("1"), good.as_str(), 404),
        (format!("{base}?reading=x"), form("1"), good.as_str(), 404),
        (
            format!(
                "http://{}/twilio/voice/{}",
                worker.address,
                uuid::Uuid::new_v4().simple()
            ),
            form("1"),
            good.as_str(),
            404,
        ),
        (
            format!("http://{}/twilio/voice/guess", worker.address),
            form("1"),
            good.as_str(),
            404,
        ),
    ] {
        let (got, body) = request_instructions(&url, &form, signature).await;
        assert_eq!((got, body.contains("four")), (status, false), "{url}");
    }
    let (status, body) = request_instructions(
        &first,
        &form(""),
        &signature::sign(AUTH_TOKEN, &first, &form("")),
    )
    .await;
    assert_eq!(status, 200);
    assert!(
        body.contains("press one") && !body.contains("four"),
        "{body}"
    );
    let (status, body) = request_instructions(&key, &form("1"), &good).await;
    assert_eq!((status, body.contains("four")), (200, true), "{body}");
    // Another call gets no code.
    let mut other = form("1");
    other[0].1 = format!("CA{}", "0".repeat(32));
    let (status, body) =
        request_instructions(&key, &other, &signature::sign(AUTH_TOKEN, &key, &other)).await;
    assert_eq!((status, body.contains("four")), (200, false), "{body}");
    statuses.until_finals(1, SOON).await;
    let (status, body) = request_instructions(&key, &form("1"), &good).await;
    assert_eq!(
        (status, body.contains("four"), body.contains("<Hangup/>")),
        (200, false, true),
        "the URL is invalid once the delivery is final"
    );
    assert!(!worker.log().contains("493027"));
    system.stop().await;
}
