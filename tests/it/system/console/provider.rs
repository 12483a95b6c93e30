//! Saving and removing a voice provider: versions, validation, and secrets.

use reqwest::StatusCode;
use serde_json::{Value, json};

use super::client::{create_token, get, provider};
use crate::harness::{ACCOUNT, AUTH_TOKEN, Console, FROM, Program, System};

#[tokio::test]
async fn a_provider_is_saved_by_version_and_its_secrets_never_come_back() {
    let system = System::start(50.0).await;
    let console = Console::start(&system).await;
    let admin = create_token(&system, "tenant-admin", Some("fresh")).await;
    let path = "/api/v1/tenants/fresh/voice-provider";
    let put = |header: Option<(&'static str, String)>, body: Value| {
        let mut request = console
            .http
            .put(console.url(path))
            .bearer_auth(&admin)
            .json(&body);
        if let Some((name, value)) = header {
            request = request.header(name, value);
        }
        async move {
            let answer = request.send().await.unwrap();
            let tag = answer
                .headers()
                .get("etag")
                .map(|tag| tag.to_str().unwrap().to_owned());
            (
                answer.status(),
                tag.unwrap_or_default(),
                answer.json::<Value>().await.unwrap(),
            )
        }
    };
    assert_eq!(get(&console, &admin, path).await.0, StatusCode::NOT_FOUND);
    assert_eq!(
        put(None, provider()).await.0,
        StatusCode::PRECONDITION_REQUIRED
    );
    let (status, _, problem) = put(
        Some(("if-none-match", "*".to_owned())),
        json!({
            "account_sid": "AC1",
            "auth_token": "s3cr3t s3cr3t",
            "from": "12",
            "voicemail": "laugh",
            "redial": { "luck": { "times": 1, "after_s": 9 } },
        }),
    )
    .await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    let fields: Vec<&str> = problem["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|error| error["field"].as_str().unwrap())
        .collect();
    assert_eq!(
        fields,
        ["voicemail", "redial", "account_sid", "auth_token", "from"]
    );
    assert!(!problem.to_string().contains("s3cr3t"));
    let (status, _, problem) = put(
        Some(("if-none-match", "*".to_owned())),
        json!({ "account_sid": AUTH_TOKEN, "from": {} }),
    )
    .await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(!problem.to_string().contains(AUTH_TOKEN));

    let (status, first, saved) = put(Some(("if-none-match", "*".to_owned())), provider()).await;
    assert_eq!(
        (
            status,
            saved["auth_token"]["set"].as_bool(),
            saved["offered"].as_bool()
        ),
        (StatusCode::CREATED, Some(true), Some(false))
    );
    assert_eq!(
        put(Some(("if-none-match", "*".to_owned())), provider())
            .await
            .0,
        StatusCode::PRECONDITION_FAILED
    );
    // Of two concurrent changes one is saved; the other fails with a conflict.
    let change =
        |seconds: u32| json!({ "account_sid": ACCOUNT, "from": FROM, "ring_timeout_s": seconds });
    let both = tokio::join!(
        put(Some(("if-match", first.clone())), change(20)),
        put(Some(("if-match", first.clone())), change(40))
    );
    let mut statuses = [both.0.0, both.1.0];
    statuses.sort_unstable();
    assert_eq!(statuses, [StatusCode::OK, StatusCode::PRECONDITION_FAILED]);
    let winner = if both.0.0 == StatusCode::OK {
        both.0
    } else {
        both.1
    };
    let (_, shown) = get(&console, &admin, path).await;
    assert_eq!(shown["ring_timeout_s"], winner.2["ring_timeout_s"]);
    assert_eq!(
        shown["auth_token"]["since"], saved["auth_token"]["since"],
        "an omitted secret is unchanged"
    );
    // Tenant acme uses the account, too.
    let (status, _, problem) = put(
        Some(("if-match", winner.1.clone())),
        json!({ "account_sid": ACCOUNT, "from": FROM, "calls_per_second": 5.0 }),
    )
    .await;
    assert_eq!(
        (status, problem["errors"][0]["field"].as_str()),
        (StatusCode::UNPROCESSABLE_ENTITY, Some("calls_per_second"))
    );

    // Removing the provider must not undo an operator's stop.
    let stopped = Program::run(
        &system.environment(),
        &["tenant", "set", "fresh", "--disable"],
    )
    .await;
    assert!(stopped.status.success());
    let (_, shown_now) = get(&console, &admin, path).await;
    let tag = format!("\"{}\"", shown_now["version"]);
    let removal = console
        .http
        .delete(console.url(path))
        .bearer_auth(&admin)
        .header("if-match", tag)
        .send()
        .await
        .unwrap();
    assert_eq!(removal.status(), StatusCode::FORBIDDEN);
    let started = Program::run(
        &system.environment(),
        &["tenant", "set", "fresh", "--enable"],
    )
    .await;
    assert!(started.status.success());
    let (_, shown_now) = get(&console, &admin, path).await;
    let now = format!("\"{}\"", shown_now["version"]);

    let (_, audit) = get(&console, &admin, "/api/v1/tenants/fresh/audit").await;
    let actions: Vec<&str> = audit
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["action"].as_str().unwrap())
        .collect();
    let changed = "voice_provider.changed";
    assert_eq!(
        actions,
        [
            changed,
            changed,
            changed,
            "voice_provider.created",
            "token.created"
        ]
    );
    let removal = console
        .http
        .delete(console.url(path))
        .bearer_auth(&admin)
        .header("if-match", first)
        .send()
        .await
        .unwrap();
    assert_eq!(removal.status(), StatusCode::PRECONDITION_FAILED);
    let removal = console
        .http
        .delete(console.url(path))
        .bearer_auth(&admin)
        .header("if-match", now)
        .send()
        .await
        .unwrap();
    assert_eq!(removal.status(), StatusCode::NO_CONTENT);
    for sink in [
        saved.to_string(),
        shown.to_string(),
        audit.to_string(),
        console.log(),
    ] {
        assert!(
            !sink.contains(AUTH_TOKEN) && !sink.contains(&admin),
            "{sink}"
        );
    }
    console.stop().await;
    system.stop().await;
}
