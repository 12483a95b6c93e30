//! What a call is told that asks, as Twilio's own helper libraries understand it, and asked for as they sign it.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use voice_otp::policy::Voicemail;

use super::{node, python, repository, run};
use crate::harness::{AUTH_TOKEN, System, request};

/// Runs something with standard input to its end, which must be a good one; gives what it printed.
async fn told(mut command: Command, input: &str) -> String {
    let mut child = command
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("it can be run");
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .await
        .unwrap();
    let output = tokio::time::timeout(Duration::from_mins(1), child.wait_with_output())
        .await
        .expect("it ends")
        .unwrap();
    assert!(output.status.success(), "{command:?} of {input}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// An element with all that is in it.
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
async fn twilios_libraries_sign_what_asks_and_know_every_element_of_the_answer() {
    let system = System::start(50.0).await;
    system
        .tenant("acme", 50.0, |draft| {
            draft.voicemail = Voicemail::PressKey;
            draft.ring_timeout = Some(Duration::from_mins(10));
        })
        .await;
    let mut statuses = system.broker.statuses().await;
    let worker = system.worker().await;
    // It rings and rings: what asks is we.
    system
        .publish_json(&request(
            "asked",
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
    let ask = async |url: &str, params: &Value, signature: &str| {
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
    let answered = json!({ "CallSid": call.sid, "CallStatus": "in-progress", "AccountSid": call.account_sid, "CallerName": "" });
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
            assert_eq!(ask(&url, &tampered, &signature).await.0, 403);
            let (status, xml) = ask(&url, params, &signature).await;
            assert_eq!(status, 200);
            let elements = told(python(&repository().join("tests/interop/twiml.py")), &xml).await;
            assert!(elements.parse::<usize>().unwrap() > 5, "{elements}");
            let document = roxmltree::Document::parse(&xml).unwrap();
            let rebuilt = told(
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
