//! Signatures made and verified by Twilio's own helper libraries.

use std::time::Duration;

use serde_json::{Value, json};
use voice_otp_twilio::signature;

use super::{node, python, repository, run};
use crate::harness::{AUTH_TOKEN, System, request};

/// Signs with both libraries.
async fn sign(token: &str, url: &str, params: &Value) -> [String; 2] {
    let text = params.to_string();
    let (mut in_python, mut in_node) = (
        python(&repository().join("tests/interop/sign.py")),
        node("sign.mjs"),
    );
    in_python.args([token, url, &text]);
    in_node.args([token, url, &text]);
    [run(in_python).await, run(in_node).await]
}

#[tokio::test]
async fn signatures_of_twilios_libraries_are_accepted_and_tampered_requests_rejected() {
    let system = System::start(50.0).await;
    // Signing starts other programs, which takes a while.
    system
        .tenant("acme", 50.0, |draft| {
            draft.ring_timeout = Some(Duration::from_mins(10))
        })
        .await;
    let mut statuses = system.broker.statuses().await;
    let worker = system.worker().await;
    // This number rings for ten minutes, so the test's callbacks are the only ones after `ringing`.
    system
        .publish_json(&request(
            "signed",
            "+12025550102",
            "493027",
            Duration::from_mins(3),
        ))
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
    let url = format!("http://{}{path}", worker.address);
    let params = json!({
        "AccountSid": call.account_sid, "CallSid": call.sid, "CallStatus": "in-progress",
        "SequenceNumber": "2", "From": call.from, "To": call.to, "Direction": "outbound-api",
        "ApiVersion": "2010-04-01", "CallbackSource": "call-progress-events",
        "Timestamp": "Wed, 25 Nov 2026 12:00:00 +0000",
        // Values that a naive signer gets wrong: empty, with spaces and pluses, in other alphabets.
        "ToState": "", "ToCity": "SAN JOSE + DEL MONTE", "CallerName": "Zoë 北京 & Söhne=",
    });
    // No keep-alive, so that no request depends on the one before it.
    let client = reqwest::Client::builder()
        .pool_max_idle_per_host(0)
        .build()
        .unwrap();
    let post = async |params: &Value, signature: &str| {
        let form: Vec<(&String, &str)> = params
            .as_object()
            .unwrap()
            .iter()
            .map(|(name, value)| (name, value.as_str().unwrap()))
            .collect();
        client
            .post(&url)
            .header("x-twilio-signature", signature)
            .form(&form)
            .send()
            .await
            .unwrap()
            .status()
            .as_u16()
    };
    let signatures = sign(AUTH_TOKEN, &url, &params).await;
    assert_eq!(signatures[0], signatures[1], "Twilio's libraries agree");
    for (name, value) in [
        ("CallStatus", "completed"),
        ("CallSid", "CA00000000000000000000000000000000"),
        ("ToState", "x"),
    ] {
        let mut tampered = params.clone();
        tampered[name] = json!(value);
        assert_eq!(post(&tampered, &signatures[0]).await, 403, "{name}");
    }
    for wrong in sign("another-token", &url, &params).await {
        assert_eq!(post(&params, &wrong).await, 403);
    }
    for elsewhere in sign(AUTH_TOKEN, &format!("{url}x"), &params).await {
        assert_eq!(post(&params, &elsewhere).await, 403);
    }
    assert!(
        !statuses.names("signed").contains(&"answered"),
        "no rejected callback takes effect"
    );
    for signature in &signatures {
        assert_eq!(post(&params, signature).await, 204);
    }
    let answered = |seen: &[(String, voice_otp_schemas::status::StatusEvent)]| {
        seen.iter()
            .any(|(_, event)| event.data.status.as_str() == "answered")
    };
    statuses
        .until(
            "the callback takes effect",
            Duration::from_secs(5),
            answered,
        )
        .await;
    system.stop().await;
}

#[tokio::test]
async fn twilios_libraries_accept_the_workers_signatures() {
    let url = "https://otp.example.com/twilio/status/5f37bafb85164428a12da54345fb754d";
    let params = json!({
        "CallSid": "CA1", "CallStatus": "completed", "ToCity": "Zürich + 北京", "Empty": "",
    });
    let pairs: Vec<(String, String)> = params
        .as_object()
        .unwrap()
        .iter()
        .map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned()))
        .collect();
    let signed = signature::sign(AUTH_TOKEN, url, &pairs);
    for (mut command, right) in [
        (python(&repository().join("tests/interop/sign.py")), "true"),
        (node("sign.mjs"), "true"),
    ] {
        command.args([AUTH_TOKEN, url, &params.to_string(), &signed]);
        assert_eq!(run(command).await, right);
    }
}
