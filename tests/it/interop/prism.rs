//! A mock server made from Twilio's own `OpenAPI` description. It refuses every request that the
//! description doesn't allow.

use std::process::Stdio;
use std::time::Duration;

use tokio::process::{Child, Command};
use uuid::Uuid;
use voice_otp::account::CallSid;
use voice_otp::delivery::AttemptId;
use voice_otp::ports::{CallRequest, Instructions, Telephony as _};
use voice_otp::settings::policy::Voicemail;
use voice_otp::settings::{Draft, VoiceSettings};
use voice_otp::speech::{Speaker, SpeechStyle};
use voice_otp_schemas::{OtpCode, PhoneNumber, TenantId};
use voice_otp_twilio::client::{Client, Settings};

use super::folder;
use crate::harness::{ACCOUNT, AUTH_TOKEN, FROM, System, number, request};

/// The mock server Prism with a description.
struct Prism {
    url: String,
    _child: Child,
}

impl Prism {
    async fn of(description: &str) -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let mut command = Command::new("node");
        command.arg(folder().join("node_modules/.bin/prism"));
        // Dynamic: every call gets its own SID. Errors: invalid requests are refused.
        command.args([
            "mock",
            "--dynamic",
            "--errors",
            "--host",
            "127.0.0.1",
            "--port",
            &port.to_string(),
        ]);
        command
            .arg(folder().join(description))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        let child = command.spawn().unwrap();
        let url = format!("http://127.0.0.1:{port}");
        let client = reqwest::Client::new();
        let answers = async {
            while client.get(&url).send().await.is_err() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::time::timeout(Duration::from_mins(1), answers)
            .await
            .expect("Prism starts");
        Self { url, _child: child }
    }

    fn client(&self) -> Client {
        drop(rustls::crypto::ring::default_provider().install_default());
        let (base_url, public_url) = (
            self.url.parse().ok(),
            "https://otp.example.com".parse().ok(),
        );
        let timeout = Duration::from_secs(20);
        Client::new(Settings {
            base_url,
            public_url,
            connect_timeout: timeout,
            timeout,
        })
        .unwrap()
    }
}

fn tenant() -> VoiceSettings {
    let draft = Draft {
        account_sid: ACCOUNT.to_owned(),
        auth_token: AUTH_TOKEN.into(),
        from: FROM.to_owned(),
        enabled: true,
        ..Draft::default()
    };
    draft.check(TenantId::parse("acme").unwrap()).unwrap()
}

#[tokio::test]
async fn twilios_description_accepts_every_request() {
    let (prism, tenant) = (Prism::of("api.json").await, tenant());
    let (client, to) = (prism.client(), PhoneNumber::parse(&number(1)).unwrap());
    let style = SpeechStyle::default();
    let script = Speaker::new(None, None, to.country(), &style)
        .message(&OtpCode::parse("A1B2").unwrap(), Duration::ZERO);
    let inline = CallRequest {
        to: &to,
        instructions: Instructions::Inline(&script),
        ring_timeout: Duration::from_secs(30),
        limit: Duration::from_mins(3),
        extension: Some("wW12#"),
        attempt_id: AttemptId(Uuid::new_v4()),
    };
    let call = client.place(&tenant, &inline).await.expect("placing");
    let again = client.place(&tenant, &inline).await.expect("placing");
    assert_ne!(call.sid, again.sid, "the mock gives every call its own SID");
    client.fetch(&tenant, &call.sid).await.expect("fetching");
    for policy in Voicemail::ALL {
        let on_request = CallRequest {
            instructions: Instructions::OnRequest(policy),
            extension: None,
            ..inline
        };
        client
            .place(&tenant, &on_request)
            .await
            .expect("placing a call that requests its instructions");
    }
    let since = chrono::DateTime::UNIX_EPOCH;
    client
        .fetch_all(&tenant, &[call.sid.clone(), again.sid], since)
        .await
        .expect("listing from a number");
    client.list(&tenant, &to).await.expect("listing");
    client
        .hang_up(&tenant, &call.sid, false)
        .await
        .expect("cancelling");
    client
        .hang_up(&tenant, &call.sid, true)
        .await
        .expect("hanging up");
    client
        .account(&tenant, &tenant.credentials.auth_token, None)
        .await
        .expect("reading the account");
    client.balance(&tenant).await.expect("reading the balance");
    client
        .verify_call_access(&tenant)
        .await
        .expect("listing one call");
    client
        .ownership(&tenant, &tenant.from)
        .await
        .expect("looking for a number");

    // The mock refuses an invalid request, so accepting the others means something.
    let sid = CallSid::parse(&format!("CA{}", "0".repeat(32))).unwrap();
    let wrong = reqwest::Client::new()
        .post(format!(
            "{}/2010-04-01/Accounts/{ACCOUNT}/Calls/{sid}.json",
            prism.url
        ))
        .basic_auth(ACCOUNT, Some("x"))
        .form(&[("Status", "hung-up")]);
    assert_eq!(wrong.send().await.unwrap().status().as_u16(), 422);
}

#[tokio::test]
async fn twilios_description_has_the_geographic_permissions_as_the_client_reads_them() {
    let (prism, tenant) = (Prism::of("voice.json").await, tenant());
    let country = tenant.from.country().unwrap();
    prism
        .client()
        .dialing_permission(&tenant, country)
        .await
        .expect("reading a country's permission");
}

#[tokio::test]
async fn a_worker_places_calls_that_the_description_accepts() {
    let prism = Prism::of("api.json").await;
    let system = System::start(50.0).await;
    let mut statuses = system.broker.statuses().await;
    let _worker = system
        .worker_with(&[("VOICE_OTP_TWILIO_URL", prism.url.clone())])
        .await;
    for n in 0..5 {
        system
            .publish_json(&request(
                &format!("prism-{n}"),
                &number(n),
                "493027",
                Duration::from_mins(3),
            ))
            .await;
    }
    statuses
        .until_count("placed", 5, Duration::from_mins(1))
        .await;
    system.stop().await;
}
