//! The console's API: who may, versions, methods, test calls, and that no secret leaves. Its pages are walked in a browser.

use std::time::Duration;

use futures_util::StreamExt as _;
use reqwest::{Method, Response, StatusCode};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

use crate::harness::{ACCOUNT, AUTH_TOKEN, Console, FROM, Program, System, number, request};

const LIFE: Duration = Duration::from_mins(3);
const SOON: Duration = Duration::from_secs(40);

async fn token(system: &System, role: &str, tenant: Option<&str>) -> String {
    let mut args = vec!["token", "create", "--role", role, "--name", "test"];
    if let Some(tenant) = tenant {
        args.extend(["--tenant", tenant]);
    }
    let made = Program::run(&system.environment(), &args).await;
    assert!(
        made.status.success(),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );
    String::from_utf8(made.stdout).unwrap().trim().to_owned()
}

async fn ask(
    console: &Console,
    token: &str,
    method: Method,
    path: &str,
    body: Option<Value>,
) -> Response {
    let mut request = console.http.request(method, console.url(path));
    if !token.is_empty() {
        request = request.bearer_auth(token);
    }
    if let Some(body) = body {
        request = request.json(&body);
    }
    request.send().await.unwrap()
}

async fn get(console: &Console, token: &str, path: &str) -> (StatusCode, Value) {
    let answer = ask(console, token, Method::GET, path, None).await;
    (answer.status(), answer.json().await.unwrap())
}

fn provider() -> Value {
    json!({ "account_sid": ACCOUNT, "auth_token": AUTH_TOKEN, "from": FROM })
}

#[tokio::test]
async fn every_endpoint_knows_who_may() {
    let system = System::start(50.0).await;
    let console = Console::start(&system).await;
    let (operator, admin) = (
        token(&system, "operator", None).await,
        token(&system, "tenant-admin", Some("other")).await,
    );
    let expired = token(&system, "operator", None).await;
    let revoked = token(&system, "operator", None).await;
    let client = system.database.pool.get().await.unwrap();
    // By their order: the lists show no texts.
    let ids: Vec<uuid::Uuid> = client
        .query("select id from access_tokens order by created_at", &[])
        .await
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect();
    client
        .execute(
            "update access_tokens set expires_at = clock_timestamp() where id = $1",
            &[&ids[2]],
        )
        .await
        .unwrap();
    let gone = Program::run(
        &system.environment(),
        &["token", "revoke", &ids[3].to_string()],
    )
    .await;
    assert!(gone.status.success());

    let (status, document) = get(&console, "", "/api/v1/openapi.json").await;
    assert_eq!(
        (status, document["openapi"].as_str()),
        (StatusCode::OK, Some("3.1.0"))
    );
    let mut tried = 0;
    for (path, methods) in document["paths"].as_object().unwrap() {
        let named = path
            .replace("{tenant}", "acme")
            .replace("{delivery}", "nothing")
            .replace("{account}", ACCOUNT);
        for (method, described) in methods.as_object().unwrap() {
            let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
            assert!(
                described["responses"].get("401").is_some() || path.ends_with("/me"),
                "{method} {path} tells of 401"
            );
            for stranger in [
                "",
                "nonsense",
                &format!("vot_{}", "0".repeat(64)),
                &expired,
                &revoked,
            ] {
                let answer = ask(&console, stranger, method.clone(), &named, Some(json!({}))).await;
                assert_eq!(answer.status(), StatusCode::UNAUTHORIZED, "{method} {path}");
                assert!(answer.headers().contains_key("www-authenticate"));
                assert_eq!(
                    answer.headers()["content-type"],
                    "application/problem+json",
                    "{method} {path}"
                );
            }
            if path.ends_with("/me") {
                continue;
            }
            // Another tenant's administrator, with a body that could be taken.
            let body = match path.as_str() {
                "/api/v1/tenants/{tenant}/voice-provider" => provider(),
                "/api/v1/tenants/{tenant}/methods" => json!({ "voice_otp": { "enabled": false } }),
                "/api/v1/tenants/{tenant}/test-calls" => json!({ "to": number(1) }),
                _ => json!({}),
            };
            let answer = ask(&console, &admin, method.clone(), &named, Some(body)).await;
            assert_eq!(answer.status(), StatusCode::NOT_FOUND, "{method} {path}");
            let text = answer.text().await.unwrap();
            assert!(
                !text.contains("acme") && !text.contains(ACCOUNT),
                "{method} {path}: {text}"
            );
            tried += 1;
        }
    }
    assert!(tried >= 17, "{tried} operations");
    assert_eq!(
        get(&console, &operator, "/api/v1/tenants/acme/voice-provider")
            .await
            .0,
        StatusCode::OK,
        "nothing was changed"
    );
    assert_eq!(
        get(&console, &admin, "/api/v1/tenants/other/deliveries")
            .await
            .0,
        StatusCode::OK
    );
    let (_, methods) = get(&console, &operator, "/api/v1/tenants/acme/methods").await;
    assert_eq!(methods["voice_otp"]["enabled"], true);
    assert_eq!(system.simulator.calls().len(), 0);
    console.stop().await;
    system.stop().await;
}

#[tokio::test]
async fn a_provider_is_saved_by_version_and_its_secrets_never_come_back() {
    let system = System::start(50.0).await;
    let console = Console::start(&system).await;
    let admin = token(&system, "tenant-admin", Some("fresh")).await;
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
        json!({ "account_sid": "AC1", "auth_token": "s3cr3t s3cr3t", "from": "12", "voicemail": "laugh", "redial": { "luck": { "times": 1, "after_s": 9 } } }),
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
    // Two at once: one is saved, the other is told.
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
        "left out is left alone"
    );
    // The account is acme's, too.
    let (status, _, problem) = put(
        Some(("if-match", winner.1.clone())),
        json!({ "account_sid": ACCOUNT, "from": FROM, "calls_per_second": 5.0 }),
    )
    .await;
    assert_eq!(
        (status, problem["errors"][0]["field"].as_str()),
        (StatusCode::UNPROCESSABLE_ENTITY, Some("calls_per_second"))
    );

    // What an operator has stopped is not started by removing it.
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

#[tokio::test]
async fn voice_is_a_method_only_where_it_is_configured_and_ticked() {
    let system = System::start(50.0).await;
    let console = Console::start(&system).await;
    let _worker = system.worker().await;
    let mut statuses = system.broker.statuses().await;
    let operator = token(&system, "operator", None).await;
    let tick = |tenant: &'static str, enabled: bool| {
        let body = json!({ "voice_otp": { "enabled": enabled } });
        let path = format!("/api/v1/tenants/{tenant}/methods");
        let (console, operator) = (&console, &operator);
        async move {
            let answer = ask(console, operator, Method::PUT, &path, Some(body)).await;
            (answer.status(), answer.json::<Value>().await.unwrap())
        }
    };
    let (status, problem) = tick("nobody", true).await;
    assert_eq!(
        (status, problem["link"].as_str()),
        (StatusCode::CONFLICT, Some("/t/nobody/providers/voice"))
    );
    assert_eq!(tick("acme", false).await.0, StatusCode::OK);
    // The workers learn of it within a second.
    tokio::time::sleep(Duration::from_secs(1)).await;
    system
        .publish_json(&request("off", &number(1), "493027", LIFE))
        .await;
    statuses.finals(1, SOON).await;
    assert_eq!(
        (statuses.words("off"), statuses.reason("off").as_str()),
        (vec!["rejected"], "voice_disabled")
    );

    // A test call is placed all the same, and followed to its end.
    let answer = ask(
        &console,
        &operator,
        Method::POST,
        "/api/v1/tenants/acme/test-calls",
        Some(json!({ "to": number(2) })),
    )
    .await;
    assert_eq!(answer.status(), StatusCode::ACCEPTED);
    let call: Value = answer.json().await.unwrap();
    let stream = ask(
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
    tokio::time::timeout(SOON, reading)
        .await
        .expect("it is delivered");
    for step in ["accepted", "placed", "answered"] {
        assert!(text.contains(&format!("\"{step}\"")), "{step}: {text}");
    }
    let heard = system
        .simulator
        .calls()
        .into_iter()
        .find(|call| call.to == number(2))
        .unwrap();
    assert_eq!(heard.digits_heard, call["code"].as_str().unwrap());
    let (_, whole) = get(
        &console,
        &operator,
        &format!(
            "/api/v1/tenants/acme/deliveries/{}",
            call["delivery_id"].as_str().unwrap()
        ),
    )
    .await;
    assert_eq!(
        (whole["status"].as_str(), whole["test_call"].as_bool()),
        (Some("delivered"), Some(true))
    );
    assert!(whole["timeline"].as_array().unwrap().len() >= 4, "{whole}");

    assert_eq!(tick("acme", true).await.0, StatusCode::OK);
    tokio::time::sleep(Duration::from_secs(1)).await;
    system
        .publish_json(&request("on", &number(3), "493027", LIFE))
        .await;
    statuses.finals(3, SOON).await;
    assert_eq!(statuses.words("on").last(), Some(&"delivered"));

    // Found again, by status and number; counted without the test call.
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
        let answer = ask(
            &console,
            &operator,
            Method::POST,
            "/api/v1/tenants/acme/test-calls",
            Some(json!({ "to": number(10 + n) })),
        )
        .await;
        assert_eq!(answer.status(), StatusCode::ACCEPTED);
    }
    let answer = ask(
        &console,
        &operator,
        Method::POST,
        "/api/v1/tenants/acme/test-calls",
        Some(json!({ "to": number(20) })),
    )
    .await;
    assert_eq!(answer.status(), StatusCode::TOO_MANY_REQUESTS);
    let (_, checked) = {
        let answer = ask(
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

#[tokio::test]
async fn a_session_changes_nothing_that_its_pages_did_not_send() {
    let system = System::start(50.0).await;
    let console = Console::start(&system).await;
    let admin = token(&system, "tenant-admin", Some("acme")).await;
    let browser = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .unwrap();
    let sign_in = |token: String| {
        browser
            .post(console.url("/sign-in"))
            .form(&[("token", token), ("code", String::new())])
            .send()
    };
    assert_eq!(
        sign_in("vot_nobody".to_owned()).await.unwrap().status(),
        StatusCode::UNAUTHORIZED
    );
    let signed_in = sign_in(admin.clone()).await.unwrap();
    assert_eq!(signed_in.status(), StatusCode::SEE_OTHER);
    let cookie = signed_in.headers()["set-cookie"]
        .to_str()
        .unwrap()
        .to_owned();
    assert!(
        cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"),
        "{cookie}"
    );
    let session = cookie.split(';').next().unwrap().to_owned();
    let page = browser
        .get(console.url("/t/acme/methods"))
        .header("cookie", &session)
        .send()
        .await
        .unwrap();
    let policy = page.headers()["content-security-policy"]
        .to_str()
        .unwrap()
        .to_owned();
    assert!(
        policy.starts_with("default-src 'none'") && !policy.contains("unsafe"),
        "{policy}"
    );
    let page = page.text().await.unwrap();
    let csrf = page
        .split("name=\"csrf\" value=\"")
        .nth(1)
        .unwrap()
        .split('"')
        .next()
        .unwrap()
        .to_owned();
    let untick = |csrf: &str| {
        browser
            .post(console.url("/t/acme/methods"))
            .header("cookie", &session)
            .form(&[("csrf", csrf)])
            .send()
    };
    let by_another_site = browser
        .post(console.url("/sign-in"))
        .header("sec-fetch-site", "cross-site")
        .form(&[("token", admin.clone()), ("code", String::new())]);
    assert_eq!(
        by_another_site.send().await.unwrap().status(),
        StatusCode::FORBIDDEN,
        "nobody is signed in by somebody else"
    );
    for forged in ["", "0", &"0".repeat(64)] {
        assert_eq!(
            untick(forged).await.unwrap().status(),
            StatusCode::FORBIDDEN
        );
    }
    let by_script = browser
        .put(console.url("/api/v1/tenants/acme/methods"))
        .header("cookie", &session)
        .json(&json!({ "voice_otp": { "enabled": false } }));
    assert_eq!(
        by_script
            .try_clone()
            .unwrap()
            .send()
            .await
            .unwrap()
            .status(),
        StatusCode::FORBIDDEN
    );
    let (_, methods) = get(&console, &admin, "/api/v1/tenants/acme/methods").await;
    assert_eq!(methods["voice_otp"]["enabled"], true, "nothing was changed");
    assert_eq!(
        by_script
            .header("x-csrf-token", &csrf)
            .send()
            .await
            .unwrap()
            .status(),
        StatusCode::OK
    );
    assert_eq!(untick(&csrf).await.unwrap().status(), StatusCode::SEE_OTHER);
    // Pages of other tenants, and of operators, are not there.
    for path in [
        "/t/other/methods",
        "/operate/tenants",
        "/operate/accounts",
        "/nowhere",
    ] {
        let page = browser
            .get(console.url(path))
            .header("cookie", &session)
            .send()
            .await
            .unwrap();
        assert_eq!(page.status(), StatusCode::NOT_FOUND, "{path}");
    }
    // A link signs in once, and for a minute.
    let pool = &system.database.pool;
    let who = voice_otp_store::access::by_token(pool, &admin)
        .await
        .unwrap()
        .unwrap();
    let by_code = async |code: &str| {
        let form = [("token", ""), ("code", code)];
        browser
            .post(console.url("/sign-in"))
            .form(&form)
            .send()
            .await
            .unwrap()
            .status()
    };
    let code = voice_otp_store::access::sign_in_code(pool, who.token_id)
        .await
        .unwrap();
    assert_eq!(by_code(code.expose_secret()).await, StatusCode::SEE_OTHER);
    assert_eq!(
        by_code(code.expose_secret()).await,
        StatusCode::UNAUTHORIZED,
        "it has been used"
    );
    let code = voice_otp_store::access::sign_in_code(pool, who.token_id)
        .await
        .unwrap();
    let client = pool.get().await.unwrap();
    client
        .execute(
            "update sign_in_codes set expires_at = clock_timestamp()",
            &[],
        )
        .await
        .unwrap();
    assert_eq!(
        by_code(code.expose_secret()).await,
        StatusCode::UNAUTHORIZED,
        "its minute is over"
    );
    drop(client);
    let left = browser
        .post(console.url("/sign-out"))
        .header("cookie", &session)
        .form(&[("csrf", &csrf)])
        .send()
        .await
        .unwrap();
    assert_eq!(left.status(), StatusCode::SEE_OTHER);
    let page = browser
        .get(console.url("/t/acme/methods"))
        .header("cookie", &session)
        .send()
        .await
        .unwrap();
    assert_eq!(
        (page.status(), page.headers()["location"].to_str().unwrap()),
        (StatusCode::SEE_OTHER, "/sign-in")
    );
    console.stop().await;
    system.stop().await;
}

/// `./dev bench viewers` in small: many look on, and calls go as fast as before.
#[tokio::test]
async fn two_hundred_look_on_and_are_told_everything_or_how_much_they_missed() {
    let system = System::start(500.0).await;
    let console = Console::start(&system).await;
    let _worker = system.worker().await;
    let mut statuses = system.broker.statuses().await;
    let admin = token(&system, "tenant-admin", Some("acme")).await;
    let mut viewers = Vec::new();
    for _ in 0..200 {
        let stream = ask(
            &console,
            &admin,
            Method::GET,
            "/api/v1/tenants/acme/events",
            None,
        )
        .await;
        assert_eq!(stream.status(), StatusCode::OK);
        viewers.push(tokio::spawn(async move {
            let (mut stream, mut text, mut seen) = (stream.bytes_stream(), String::new(), 0_u64);
            while let Ok(Some(Ok(bytes))) =
                tokio::time::timeout(Duration::from_secs(6), stream.next()).await
            {
                text.push_str(&String::from_utf8_lossy(&bytes));
                while let Some((event, rest)) = text.split_once("\n\n") {
                    if let Some(data) = event.lines().find_map(|line| line.strip_prefix("data: ")) {
                        let told: Value = serde_json::from_str(data).unwrap();
                        seen += told["statuses"].as_array().unwrap().len() as u64
                            + told["missed"].as_u64().unwrap();
                    }
                    text = rest.to_owned();
                }
            }
            seen
        }));
    }
    let calls = 300;
    let bodies: Vec<String> = (0..calls)
        .map(|n| request(&format!("v{n}"), &number(100 + n), "493027", LIFE).to_string())
        .collect();
    system.broker.publish_all(&bodies).await;
    statuses.finals(calls, SOON).await;
    statuses.linger(Duration::from_millis(500)).await;
    let said = statuses.seen.len() as u64;
    for viewer in viewers {
        assert_eq!(
            viewer.await.unwrap(),
            said,
            "each was told of each status, or that it was missed"
        );
    }
    console.stop().await;
    system.stop().await;
}
