//! Sessions of browsers: cookies, CSRF tokens, sign-in links and signing out.

use reqwest::StatusCode;
use secrecy::ExposeSecret as _;
use serde_json::json;

use super::client::{create_token, get};
use crate::harness::{Console, System};

#[tokio::test]
async fn a_session_changes_nothing_that_its_pages_did_not_send() {
    let system = System::start(50.0).await;
    let console = Console::start(&system).await;
    let admin = create_token(&system, "tenant-admin", Some("acme")).await;
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
        sign_in("vot_unknown".to_owned()).await.unwrap().status(),
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
    let disable = |csrf: &str| {
        browser
            .post(console.url("/t/acme/methods"))
            .header("cookie", &session)
            .form(&[("csrf", csrf)])
            .send()
    };
    let cross_site = browser
        .post(console.url("/sign-in"))
        .header("sec-fetch-site", "cross-site")
        .form(&[("token", admin.clone()), ("code", String::new())]);
    assert_eq!(
        cross_site.send().await.unwrap().status(),
        StatusCode::FORBIDDEN,
        "another site can't sign a user in"
    );
    for forged in ["", "0", &"0".repeat(64)] {
        assert_eq!(
            disable(forged).await.unwrap().status(),
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
    assert_eq!(
        methods["voice_otp"]["enabled"], true,
        "the method is unchanged"
    );
    assert_eq!(
        by_script
            .header("x-csrf-token", &csrf)
            .send()
            .await
            .unwrap()
            .status(),
        StatusCode::OK
    );
    assert_eq!(
        disable(&csrf).await.unwrap().status(),
        StatusCode::SEE_OTHER
    );
    // Pages of other tenants and of operators are not found.
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
    // A sign-in link works once, and for a minute.
    let pool = &system.database.pool;
    let owner = voice_otp_store::access::by_token(pool, &admin)
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
    let code = voice_otp_store::access::sign_in_code(pool, owner.token_id)
        .await
        .unwrap();
    assert_eq!(by_code(code.expose_secret()).await, StatusCode::SEE_OTHER);
    assert_eq!(
        by_code(code.expose_secret()).await,
        StatusCode::UNAUTHORIZED,
        "the code has been used"
    );
    let code = voice_otp_store::access::sign_in_code(pool, owner.token_id)
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
        "the code has expired"
    );
    drop(client);
    let signed_out = browser
        .post(console.url("/sign-out"))
        .header("cookie", &session)
        .form(&[("csrf", &csrf)])
        .send()
        .await
        .unwrap();
    assert_eq!(signed_out.status(), StatusCode::SEE_OTHER);
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
