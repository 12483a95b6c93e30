//! Call instructions: requested with signatures of Twilio's own helper libraries, and read by these
//! libraries.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use voice_otp::settings::policy::Voicemail;

use super::{node, python, repository, run};
use crate::harness::{AUTH_TOKEN, System, request};

/// Runs a command with standard input, which must succeed, and returns its output.
async fn run_with_input(mut command: Command, input: &str) -> String {
    let mut child = command
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("the command starts");
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .await
        .unwrap();
    let output = tokio::time::timeout(Duration::from_mins(1), child.wait_with_output())
        .await
        .expect("the command ends before the timeout")
        .unwrap();
    assert!(output.status.success(), "{command:?} of {input}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// An element with its attributes and content, as JSON.
fn tree(node: roxmltree::Node<'_, '_>) -> Value {
    if node.is_text() {
        return json!(node.text().unwrap());
    }
    let attributes: serde_json::Map<String, Value> = node
        .attributes()
        .map(|attribute| (attribute.name().to_owned(), json!(attribute.value())))
        .collect();
    let children: Vec<Value> = node.children().map(tree).collect();
    json!({ "name": node.tag_name().name(), "attributes": attributes, "children": children })
}

#[tokio::test]
async fn twilios_libraries_sign_the_requests_and_know_every_element_of_the_instructions() {
    let system = System::start(50.0).await;
    system
        .tenant("acme", 50.0, |draft| {
            draft.voicemail = Voicemail::PressKey;
            draft.ring_timeout = Some(Duration::from_mins(10));
        })
        .await;
    let mut statuses = system.broker.statuses().await;
    let worker = system.worker().await;
    // This number rings for ten minutes, so only the test requests instructions.
    system
        .publish_json(&request(
            "instructed",
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
    let path = call.callback_path.unwrap().replace("/status/", "/voice/");
    let base = format!("http://{}{path}", worker.address);
    let client = reqwest::Client::new();
    let request_instructions = async |url: &str, params: &Value, signature: &str| {
        let form: Vec<(&String, &str)> = params
            .as_object()
            .unwrap()
            .iter()
            .map(|(name, value)| (name, value.as_str().unwrap()))
            .collect();
        let answer = client
            .post(url)
            .header("x-twilio-signature", signature)
            .form(&form)
            .send()
            .await
            .unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    let answered = json!({
        "CallSid": call.sid,
        "CallStatus": "in-progress",
        "AccountSid": call.account_sid,
        "CallerName": "",
    });
    let mut key = answered.clone();
    key["Digits"] = json!("1");
    for (url, params) in [
        (format!("{base}?policy=press_key"), &answered),
        (format!("{base}?reading=1&wrong=0"), &key),
        (format!("{base}?reading=3&wrong=0"), &key),
    ] {
        for mut signer in [
            python(&repository().join("tests/interop/sign.py")),
            node("sign.mjs"),
        ] {
            signer.args([AUTH_TOKEN, &url, &params.to_string()]);
            let signature = run(signer).await;
            let mut tampered = params.clone();
            tampered["CallerName"] = json!("x");
            assert_eq!(
                request_instructions(&url, &tampered, &signature).await.0,
                403
            );
            let (status, xml) = request_instructions(&url, params, &signature).await;
            assert_eq!(status, 200);
            let elements =
                run_with_input(python(&repository().join("tests/interop/twiml.py")), &xml).await;
            assert!(elements.parse::<usize>().unwrap() > 5, "{elements}");
            let document = roxmltree::Document::parse(&xml).unwrap();
            let rebuilt = run_with_input(
                node("twiml.mjs"),
                &tree(document.root_element()).to_string(),
            )
            .await;
            let rebuilt = roxmltree::Document::parse(&rebuilt).unwrap();
            assert_eq!(tree(rebuilt.root_element()), tree(document.root_element()));
        }
    }
    system.stop().await;
}
