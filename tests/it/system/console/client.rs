//! A client of the console's API.

use std::time::Duration;

use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};

use crate::harness::{ACCOUNT, AUTH_TOKEN, Console, FROM, Program, System};

/// How long a code is valid.
pub(super) const VALIDITY: Duration = Duration::from_mins(3);
/// How long a test waits for what must happen.
pub(super) const TIMEOUT: Duration = Duration::from_secs(40);

/// Creates a token with the command line.
pub(super) async fn create_token(system: &System, role: &str, tenant: Option<&str>) -> String {
    let mut args = vec!["token", "create", "--role", role, "--name", "test"];
    if let Some(tenant) = tenant {
        args.extend(["--tenant", tenant]);
    }
    let created = Program::run(&system.environment(), &args).await;
    assert!(
        created.status.success(),
        "{}",
        String::from_utf8_lossy(&created.stderr)
    );
    String::from_utf8(created.stdout).unwrap().trim().to_owned()
}

/// Sends a request with a token, if there is one, and with a JSON body, if there is one.
pub(super) async fn send(
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

pub(super) async fn get(console: &Console, token: &str, path: &str) -> (StatusCode, Value) {
    let response = send(console, token, Method::GET, path, None).await;
    (response.status(), response.json().await.unwrap())
}

/// The smallest voice provider that can be saved.
pub(super) fn provider() -> Value {
    json!({ "account_sid": ACCOUNT, "auth_token": AUTH_TOKEN, "from": FROM })
}
