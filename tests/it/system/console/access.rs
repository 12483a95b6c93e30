//! Authorization of every operation in the OpenAPI document.

use reqwest::{Method, StatusCode};
use serde_json::json;

use super::client::{create_token, get, provider, send};
use crate::harness::{ACCOUNT, Console, Program, System, number};

#[tokio::test]
async fn every_endpoint_checks_authorization() {
    let system = System::start(50.0).await;
    let console = Console::start(&system).await;
    let (operator, admin) = (
        create_token(&system, "operator", None).await,
        create_token(&system, "tenant-admin", Some("other")).await,
    );
    let expired = create_token(&system, "operator", None).await;
    let revoked = create_token(&system, "operator", None).await;
    let client = system.database.pool.get().await.unwrap();
    // The token list shows no token texts, so the order of creation identifies them.
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
    let revocation = Program::run(
        &system.environment(),
        &["token", "revoke", &ids[3].to_string()],
    )
    .await;
    assert!(revocation.status.success());

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
                "{method} {path} describes 401"
            );
            for invalid in [
                "",
                "nonsense",
                &format!("vot_{}", "0".repeat(64)),
                &expired,
                &revoked,
            ] {
                let answer = send(&console, invalid, method.clone(), &named, Some(json!({}))).await;
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
            // The administrator of another tenant, with a valid body.
            let body = match path.as_str() {
                "/api/v1/tenants/{tenant}/voice-provider" => provider(),
                "/api/v1/tenants/{tenant}/methods" => json!({ "voice_otp": { "enabled": false } }),
                "/api/v1/tenants/{tenant}/test-calls" => json!({ "to": number(1) }),
                _ => json!({}),
            };
            let answer = send(&console, &admin, method.clone(), &named, Some(body)).await;
            assert_eq!(answer.status(), StatusCode::NOT_FOUND, "{method} {path}");
            let text = answer.text().await.unwrap();
            assert!(
                !text.contains("acme") && !text.contains(ACCOUNT),
                "{method} {path}: {text}"
            );
            tried += 1;
        }
    }
    assert!(tried >= 17, "only {tried} operations were tried");
    assert_eq!(
        get(&console, &operator, "/api/v1/tenants/acme/voice-provider")
            .await
            .0,
        StatusCode::OK,
        "the provider is unchanged"
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
