//! Tests of the simulator over a loopback connection.

use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use reqwest::{Client, Method};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use voice_otp_twilio::signature;

use crate::http_clients::install_tls_provider;
use crate::{Account, ApiKey, CallReport, Settings, Simulator};

mod calls;
mod refusals;
mod scripts;

const SID: &str = "AC00000000000000000000000000000001";
const TOKEN: &str = "an auth token";
const FROM: &str = "+14155550100";
const TO: &str = "+14155550199";
const TWIML: &str = "<Response><Say>Your code is: 4 9 2 1. Again: 4 9 2 1</Say></Response>";
const CALLS: &str = "/2010-04-01/Accounts/AC00000000000000000000000000000001/Calls.json";

/// A served simulator, and a server for its callbacks.
struct Rig {
    simulator: Simulator,
    client: Client,
    base: String,
    /// A URL of the server for callbacks.
    callback_url: String,
    callbacks: UnboundedReceiver<Callback>,
    _stop: DropGuard,
}

/// A callback as it arrived.
#[derive(Debug)]
struct Callback {
    path: String,
    signature: String,
    fields: Vec<(String, String)>,
}

/// An HTTP answer.
#[derive(Debug)]
struct Answer {
    status: u16,
    headers: HeaderMap,
    /// Null if it isn't JSON.
    body: Value,
}

impl Rig {
    /// Starts a simulator at this speed, with an account that dials this many calls per second.
    async fn at(speed: f64, calls_per_second: f64) -> Self {
        install_tls_provider();
        let mut account = Account::new(SID, TOKEN);
        account.api_keys.push(ApiKey {
            sid: "SK1".to_owned(),
            secret: "a secret".to_owned(),
        });
        account.numbers.push(FROM.to_owned());
        account.calls_per_second = calls_per_second;
        let simulator = Simulator::new(Settings {
            accounts: vec![account],
            seed: 7,
            speed,
        });

        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        tasks.spawn(simulator.clone().serve(listener, stop.clone()));

        let (sender, callbacks) = unbounded_channel();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let callback_url = format!("http://{}/calls/attempt-1", listener.local_addr().unwrap());
        let party = Router::new().fallback(receive_callback).with_state(sender);
        tasks.spawn(async move { axum::serve(listener, party).await });

        let client = Client::builder().no_proxy().build().unwrap();
        Self {
            simulator,
            client,
            base,
            callback_url,
            callbacks,
            _stop: stop.drop_guard(),
        }
    }

    async fn request(
        &self,
        method: Method,
        path: &str,
        body: &str,
        kind: &str,
    ) -> reqwest::Result<Answer> {
        let request = self
            .client
            .request(method, format!("{}{path}", self.base))
            .basic_auth(SID, Some(TOKEN));
        let request = request.header("content-type", kind).body(body.to_owned());
        let answer = request.timeout(Duration::from_secs(10)).send().await?;
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        let body = serde_json::from_str(&answer.text().await?).unwrap_or(Value::Null);
        Ok(Answer {
            status,
            headers,
            body,
        })
    }

    async fn get(&self, path: &str) -> Answer {
        self.request(Method::GET, path, "", "text/plain")
            .await
            .unwrap()
    }

    async fn control(&self, method: Method, path: &str, json: &str) -> Answer {
        self.request(method, path, json, "application/json")
            .await
            .unwrap()
    }

    async fn post(&self, path: &str, pairs: &[(&str, &str)]) -> reqwest::Result<Answer> {
        let body = form_urlencoded::Serializer::new(String::new())
            .extend_pairs(pairs)
            .finish();
        self.request(
            Method::POST,
            path,
            &body,
            "application/x-www-form-urlencoded",
        )
        .await
    }

    /// Sends a create request with some more parameters.
    async fn create(&self, to: &str, more: &[(&str, &str)]) -> reqwest::Result<Answer> {
        let mut pairs = vec![("To", to), ("From", FROM), ("Twiml", TWIML)];
        pairs.extend_from_slice(more);
        self.post(CALLS, &pairs).await
    }

    /// Creates a call that sends callbacks for all its progress, and returns its SID.
    async fn call(&self, to: &str, more: &[(&str, &str)]) -> String {
        let mut pairs = vec![("StatusCallback", self.callback_url.as_str())];
        for event in ["initiated", "ringing", "answered", "completed"] {
            pairs.push(("StatusCallbackEvent", event));
        }
        pairs.extend_from_slice(more);
        let answer = self.create(to, &pairs).await.unwrap();
        assert_eq!(answer.status, 201, "{answer:?}");
        answer.text("sid")
    }

    /// Waits for the next callback, and checks its signature.
    async fn next_callback(&mut self) -> Callback {
        let callback = tokio::time::timeout(Duration::from_secs(10), self.callbacks.recv()).await;
        let callback = callback
            .expect("a callback before the timeout")
            .expect("an open channel");
        let url = self
            .callback_url
            .split("/calls/")
            .next()
            .unwrap()
            .to_owned()
            + &callback.path;
        assert!(
            signature::verify(&[TOKEN], &url, &callback.fields, &callback.signature),
            "{callback:?}"
        );
        callback
    }

    /// Waits for the callback that reports the end of a call.
    async fn final_callback(&mut self) -> Callback {
        loop {
            let callback = self.next_callback().await;
            if !["initiated", "ringing", "in-progress"].contains(&callback.field("CallStatus")) {
                return callback;
            }
        }
    }

    fn report(&self, sid: &str) -> CallReport {
        self.simulator
            .calls()
            .into_iter()
            .find(|report| report.sid == sid)
            .unwrap()
    }
}

impl Callback {
    /// The value of a field; empty if it is missing.
    fn field(&self, name: &str) -> &str {
        self.fields
            .iter()
            .find(|(known, _)| known == name)
            .map_or("", |(_, value)| value)
    }
}

impl Answer {
    fn text(&self, field: &str) -> String {
        self.body[field].as_str().unwrap_or_default().to_owned()
    }
}

async fn receive_callback(
    State(sender): State<UnboundedSender<Callback>>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> StatusCode {
    let signature = headers["x-twilio-signature"].to_str().unwrap().to_owned();
    let fields = form_urlencoded::parse(&body).into_owned().collect();
    let received = sender
        .send(Callback {
            path: uri.to_string(),
            signature,
            fields,
        })
        .is_ok();
    if received {
        StatusCode::NO_CONTENT
    } else {
        StatusCode::GONE
    }
}
