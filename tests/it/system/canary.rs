//! No code, number or secret leaks: a test with canary values reads every sink.

use std::time::Duration;

use base64::Engine as _;
use secrecy::ExposeSecret as _;
use serde_json::json;

use crate::harness::{AUTH_TOKEN, FROM, Program, System, request};

const LIFE: Duration = Duration::from_mins(3);
const CODE: &str = "Qz81Wk";
const NUMBERS: [&str; 4] = [
    "+12125557391",
    "+12025550114",
    "+12025550118",
    "+12025550101",
];

#[tokio::test]
async fn no_sink_holds_a_code_a_full_number_or_a_secret() {
    let system = System::start(50.0).await;
    let mut statuses = system.broker.statuses().await;
    let mut worker = system.worker().await;
    for (index, to) in NUMBERS.iter().enumerate() {
        system
            .publish_json(&request(&format!("canary-{index}"), to, CODE, LIFE))
            .await;
    }
    // Messages that fail must not leak either: unreadable, invalid, conflicting, rejected by
    // Twilio.
    let mut wrong = request("canary-wrong", NUMBERS[0], CODE, LIFE);
    wrong["data"]["extension"] = json!("abc");
    system.publish_json(&wrong).await;
    system
        .publish_json(&request("canary-0", NUMBERS[0], "Qz81WX", LIFE))
        .await;
    let nameless = request("canary-nameless", NUMBERS[0], CODE, LIFE)
        .to_string()
        .replace("\"acme\"", "\"a.b\"");
    system
        .broker
        .publish(b"application/cloudevents+json", nameless.as_bytes())
        .await;
    system
        .publish_json(&request("canary-waits", NUMBERS[0], CODE, LIFE))
        .await;
    statuses
        .until_finals(NUMBERS.len() + 2, Duration::from_mins(1))
        .await;
    let letters = system.broker.dead_letters(2).await;
    assert_eq!(
        system
            .simulator
            .calls()
            .iter()
            .filter(|call| call.digits_heard == CODE.to_uppercase())
            .count(),
        3,
        "the code was read"
    );
    // A waiting delivery still has its secrets, which must be sealed.
    system
        .tenant("slow", 0.01, |draft| {
            draft.account_sid = format!("AC{}", "9".repeat(32));
        })
        .await;
    let mut delayed = request("canary-delayed", NUMBERS[0], CODE, LIFE);
    delayed["data"]["tenant_id"] = json!("slow");
    system.publish_json(&delayed).await;
    statuses.collect_for(Duration::from_millis(500)).await;

    let mut sinks = vec![
        (
            "statuses".to_owned(),
            statuses
                .seen
                .iter()
                .map(|(text, _)| text.clone())
                .collect::<String>(),
        ),
        (
            "dead letters".to_owned(),
            serde_json::to_string(&letters).unwrap(),
        ),
    ];
    for args in [
        &["tenant", "show", "acme"][..],
        &["tenant", "show", "acme", "--json"],
        &["tenant", "list", "--json"],
    ] {
        let shown = Program::run(&system.environment(), args).await;
        // The From number is shown to users who may see the settings; no other canary is.
        let text = String::from_utf8(shown.stdout).unwrap().replace(FROM, "");
        assert!(shown.status.success());
        sinks.push((args.join(" "), text));
    }
    let client = system.database.pool.get().await.unwrap();
    for table in [
        "deliveries",
        "outbox",
        "past_attempts",
        "voice_settings",
        "accounts",
        "pacing",
        "workers",
    ] {
        let rows = client
            .query(&format!("select to_jsonb(t)::text from {table} t"), &[])
            .await
            .unwrap();
        let text: String = rows.iter().map(|row| row.get::<_, String>(0)).collect();
        sinks.push((format!("table {table}"), text));
    }
    assert!(worker.terminate().await.success());
    sinks.push(("log".to_owned(), worker.log()));

    let mut canaries: Vec<String> = vec![
        CODE.to_owned(),
        CODE.to_uppercase(),
        "Qz81WX".to_owned(),
        AUTH_TOKEN.to_owned(),
        FROM.to_owned(),
    ];
    canaries.extend(NUMBERS.iter().map(ToString::to_string));
    let key = system
        .keys_text
        .expose_secret()
        .split(':')
        .nth(1)
        .unwrap()
        .to_owned();
    canaries.push(key);
    let spellings = |canary: &str| {
        let digits = canary.trim_start_matches('+').to_owned();
        let hex: String = canary.bytes().map(|byte| format!("{byte:02x}")).collect();
        let base64 = base64::engine::general_purpose::STANDARD_NO_PAD.encode(canary);
        [
            digits.clone(),
            hex,
            base64,
            digits.chars().map(|c| format!("{c} ")).collect::<String>(),
        ]
    };
    for (sink, text) in &sinks {
        for canary in &canaries {
            for spelling in spellings(canary) {
                let place = text.find(&spelling);
                let around = place.map(|place| {
                    text[place.saturating_sub(200)..]
                        .chars()
                        .take(400)
                        .collect::<String>()
                });
                assert!(
                    place.is_none(),
                    "{sink} holds a canary ({canary}): …{}…",
                    around.unwrap_or_default()
                );
            }
        }
    }
    assert!(
        sinks.iter().all(|(sink, text)| !text.is_empty()
            || sink.contains("past_attempts")
            || sink.contains("outbox")),
        "each sink was read"
    );
    system.stop().await;
}
