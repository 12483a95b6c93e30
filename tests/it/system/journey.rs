//! From a published code to what the callee hears.

use std::time::Duration;

use serde_json::{Value, json};
use voice_otp_schemas::json_schema::documents;

use crate::harness::{System, Worker, number, request};

const LIFE: Duration = Duration::from_mins(3);
const SOON: Duration = Duration::from_secs(30);

#[tokio::test]
async fn the_metrics_count_what_happened_and_what_must_not_happen() {
    let system = System::start(50.0).await;
    let mut statuses = system.broker.statuses().await;
    let worker = system.worker().await;
    for n in 0..3 {
        system
            .publish_json(&request(
                &format!("counted-{n}"),
                &number(n),
                "493027",
                Duration::from_mins(3),
            ))
            .await;
    }
    statuses.until_finals(3, Duration::from_secs(30)).await;
    let text = reqwest::get(format!("http://{}/metrics", worker.address))
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    for line in [
        "voice_otp_deliveries_admitted_total 3",
        "voice_otp_calls_placed_total 3",
        "voice_otp_final_statuses_total 3",
        "voice_otp_orphaned_calls_total 0",
        "voice_otp_overdue_deliveries 0",
        "voice_otp_duplicate_final_statuses_total 0",
    ] {
        assert!(
            text.lines().any(|found| found == line),
            "{line} is not in:\n{text}"
        );
    }
    system.stop().await;
}

#[tokio::test]
async fn a_published_code_is_read_out_and_every_step_is_published() {
    let system = System::start(50.0).await;
    let mut statuses = system.broker.statuses().await;
    let mut worker = system.worker().await;
    let to = number(1);
    let mut event = request("login-1", &to, "493027", LIFE);
    event["data"]["context"] = json!({ "flow": "login" });
    system.publish_json(&event).await;
    statuses.until_finals(1, SOON).await;
    statuses.collect_for(Duration::from_millis(200)).await;

    assert_eq!(
        statuses.names("login-1"),
        ["accepted", "placed", "ringing", "answered", "delivered"]
    );
    statuses.assert_sound();
    let call = system
        .simulator
        .calls()
        .into_iter()
        .find(|call| call.to == to)
        .unwrap();
    assert_eq!(
        (call.digits_heard.as_str(), call.readings_heard),
        ("493027", 3)
    );
    let last = &statuses.of("login-1").last().unwrap().data;
    assert_eq!(last.call_sid.as_deref(), Some(call.sid.as_str()));
    assert_eq!(
        last.context.entries().get("flow").map(String::as_str),
        Some("login")
    );
    let timings = last.timings;
    assert!(
        timings.admitted_ms <= timings.placed_ms && timings.answered_ms <= timings.ended_ms,
        "{timings:?}"
    );
    let document = documents()
        .into_iter()
        .find(|document| document.file.contains("status"))
        .unwrap();
    let schema = jsonschema::draft202012::new(&document.schema).unwrap();
    for (text, _) in &statuses.seen {
        let status: Value = serde_json::from_str(text).unwrap();
        assert!(schema.is_valid(&status), "{text}");
    }
    assert!(worker.terminate().await.success());
    system.stop().await;
}

#[tokio::test]
async fn every_fate_of_a_call_has_its_final_status() {
    let system = System::start(50.0).await;
    let mut statuses = system.broker.statuses().await;
    let _worker = system.worker().await;
    let fates = [
        ("01", "busy", "busy"),
        ("02", "no_answer", "no_answer"),
        ("03", "failed", "carrier_failed"),
        ("04", "delivered", ""),
        ("05", "hung_up", "hung_up"),
        ("11", "delivered", ""),
        ("12", "delivered", ""),
        ("13", "delivered", ""),
        ("14", "delivered", ""),
        ("15", "delivered", ""),
        ("17", "delivered", ""),
        ("18", "failed", "provider_trouble"),
        ("19", "delivered", ""),
    ];
    for (digits, ..) in fates {
        system
            .publish_json(&request(
                &format!("fate-{digits}"),
                &format!("+120255501{digits}"),
                "493027",
                LIFE,
            ))
            .await;
    }
    statuses
        .until_finals(fates.len(), Duration::from_mins(1))
        .await;
    statuses.collect_for(Duration::from_secs(1)).await;
    statuses.assert_sound();
    for (digits, status, reason) in fates {
        let id = format!("fate-{digits}");
        assert_eq!(
            (
                statuses.names(&id).last().copied(),
                statuses.reason(&id).as_str()
            ),
            (Some(status), reason),
            "{id}"
        );
        assert!(
            system.calls_to(&format!("+120255501{digits}")) <= 1,
            "{id} rang twice"
        );
    }
    assert_eq!(
        statuses.of("fate-11").last().unwrap().data.attempt,
        1,
        "an attempt answered with 429 doesn't count"
    );
    assert_eq!(
        statuses.of("fate-13").last().unwrap().data.attempt,
        2,
        "a failed attempt counts"
    );
    system.stop().await;
}

#[tokio::test]
async fn without_a_public_url_polling_finds_every_outcome() {
    let system = System::start(50.0).await;
    let mut statuses = system.broker.statuses().await;
    let worker = Worker::start(system.environment(), false, &[]).await;
    worker.ready().await;
    for (id, to) in [
        ("polled", number(1)),
        ("polled-busy", "+12025550101".to_owned()),
    ] {
        system.publish_json(&request(id, &to, "493027", LIFE)).await;
    }
    statuses.until_finals(2, Duration::from_mins(1)).await;
    statuses.assert_sound();
    assert_eq!(statuses.names("polled").last(), Some(&"delivered"));
    assert_eq!(statuses.names("polled-busy").last(), Some(&"busy"));
    system.stop().await;
}

#[tokio::test]
async fn binary_mode_spanish_an_extension_and_a_trace_are_understood() {
    let system = System::start(50.0).await;
    system
        .tenant("acme", 50.0, |draft| {
            draft.allowed_countries = vec!["US".to_owned(), "ES".to_owned()];
        })
        .await;
    let mut statuses = system.broker.statuses().await;
    let _worker = system.worker().await;
    let mut event = request("es-1", "+34911234567", "A1B2", LIFE);
    event["data"]["locale"] = json!("es-MX");
    event["data"]["extension"] = json!("w12#");
    let mut headers = lapin::types::FieldTable::default();
    let mut put = |name: &str, value: &str| {
        headers.insert(
            name.into(),
            lapin::types::AMQPValue::LongString(value.into()),
        );
    };
    for name in ["specversion", "id", "source", "type", "time"] {
        put(
            &format!("cloudEvents_{name}"),
            event[name].as_str().unwrap(),
        );
    }
    put(
        "traceparent",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    );
    let properties = lapin::BasicProperties::default()
        .with_content_type("application/json".into())
        .with_headers(headers);
    system
        .broker
        .publish_with(properties, event["data"].to_string().as_bytes())
        .await;
    statuses.until_finals(1, SOON).await;
    assert_eq!(statuses.names("es-1").last(), Some(&"delivered"));
    let call = system
        .simulator
        .calls()
        .into_iter()
        .find(|call| call.to == "+34911234567")
        .unwrap();
    assert!(
        call.transcript.contains("Su código") && call.digits_heard == "A1B2",
        "{}",
        call.transcript
    );
    system.stop().await;
}

#[tokio::test]
async fn waiting_and_ringing_calls_are_cancelled_and_an_answered_call_continues() {
    let system = System::start(0.5).await;
    let mut statuses = system.broker.statuses().await;
    let _worker = system.worker().await;
    // It rings for 30 s of simulated time, which is 1.5 s of real time.
    system
        .publish_json(&request("rings", "+12025550102", "493027", LIFE))
        .await;
    system
        .publish_json(&request("waits", &number(2), "493027", LIFE))
        .await;
    let seen = |id: &'static str, word: &'static str| {
        move |seen: &[(String, voice_otp_schemas::status::StatusEvent)]| {
            seen.iter()
                .any(|(_, event)| event.subject == id && event.data.status.as_str() == word)
        }
    };
    statuses
        .until("it rings", SOON, seen("rings", "ringing"))
        .await;
    for id in ["rings", "waits"] {
        let cancel = json!({
            "specversion": "1.0", "id": format!("cancel-{id}"), "source": "/test",
            "type": "dev.voiceotp.delivery.cancelled.v1",
            "data": { "tenant_id": "acme", "delivery_id": id },
        });
        system.publish_json(&cancel).await;
    }
    statuses.until_finals(2, SOON).await;
    assert_eq!(statuses.names("rings").last(), Some(&"cancelled"));
    assert_eq!(statuses.names("waits"), ["accepted", "cancelled"]);
    assert_eq!(system.calls_to(&number(2)), 0);

    system
        .publish_json(&request("answered", &number(3), "493027", LIFE))
        .await;
    statuses
        .until("it is answered", SOON, seen("answered", "answered"))
        .await;
    let cancel = json!({
        "specversion": "1.0", "id": "cancel-answered", "source": "/test",
        "type": "dev.voiceotp.delivery.cancelled.v1",
        "data": { "tenant_id": "acme", "delivery_id": "answered" },
    });
    system.publish_json(&cancel).await;
    statuses.until_finals(3, SOON).await;
    assert_eq!(statuses.names("answered").last(), Some(&"delivered"));
    statuses.collect_for(Duration::from_millis(300)).await;
    statuses.assert_sound();
    system.stop().await;
}
