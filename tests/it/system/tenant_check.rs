//! The commands `tenant check` and `tenant test-call`.

use secrecy::SecretString;
use voice_otp::settings::Draft;
use voice_otp_simulator::{Account, Fate};

use crate::harness::{ACCOUNT, AUTH_TOKEN, FROM, Program, System, number};

/// An account without faults.
fn healthy() -> Account {
    Account {
        numbers: vec![FROM.to_owned()],
        calls_per_second: 1e6,
        ..Account::new(ACCOUNT, AUTH_TOKEN)
    }
}

/// Runs `tenant check --json` with a public URL. Returns the exit code, and the code and verdict of
/// every finding.
async fn check(system: &System, public_url: &str) -> (i32, Vec<(String, String)>) {
    let mut environment = system.environment();
    environment.push(("VOICE_OTP_PUBLIC_URL", public_url.to_owned()));
    environment.push(("VOICE_OTP_ALLOW_HTTP", "true".to_owned()));
    let output = Program::run(&environment, &["tenant", "check", "acme", "--json"]).await;
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(!text.contains(AUTH_TOKEN), "no secret is shown");
    let findings: Vec<serde_json::Value> = serde_json::from_str(&text)
        .unwrap_or_else(|_| panic!("{text}{}", String::from_utf8_lossy(&output.stderr)));
    for finding in &findings {
        let has_remedy = finding["remedy"].is_string();
        assert!(
            has_remedy || finding["verdict"] != "fault",
            "a fault has a remedy: {finding}"
        );
    }
    let word = |finding: &serde_json::Value, name: &str| finding[name].as_str().unwrap().to_owned();
    (
        output.status.code().unwrap(),
        findings
            .iter()
            .map(|finding| (word(finding, "code"), word(finding, "verdict")))
            .collect(),
    )
}

fn faults(findings: &[(String, String)]) -> Vec<&str> {
    findings
        .iter()
        .filter(|(_, verdict)| verdict == "fault")
        .map(|(code, _)| code.as_str())
        .collect()
}

#[tokio::test]
async fn each_of_eight_faults_is_named_and_nothing_else() {
    let system = System::start(50.0).await;
    let worker = system.worker().await;
    let url = format!("http://{}", worker.address);
    let (code, findings) = check(&system, &url).await;
    assert_eq!((code, faults(&findings)), (0, vec![]), "{findings:?}");
    assert!(
        findings
            .iter()
            .any(|(code, verdict)| code == "callback_reaches_a_worker" && verdict == "ok"),
        "{findings:?}"
    );
    assert!(
        findings.iter().all(|(_, verdict)| verdict == "ok"),
        "{findings:?}"
    );

    // Faults of the account.
    let planted = [
        (
            Account {
                suspended: true,
                ..healthy()
            },
            "account_suspended",
        ),
        (
            Account {
                numbers: vec!["+12025550111".to_owned()],
                ..healthy()
            },
            "from_not_owned",
        ),
        (
            Account {
                numbers_without_voice: vec![FROM.to_owned()],
                ..healthy()
            },
            "from_without_voice",
        ),
        (
            Account {
                blocked_countries: vec!["US".to_owned()],
                ..healthy()
            },
            "country_blocked",
        ),
        (
            Account {
                balance: "-0.12".to_owned(),
                ..healthy()
            },
            "no_balance",
        ),
        (
            Account {
                region: "ie1".to_owned(),
                ..healthy()
            },
            "wrong_region",
        ),
    ];
    for (account, wanted) in planted {
        system.simulator.put_account(account);
        let (code, findings) = check(&system, &url).await;
        assert_eq!((code, faults(&findings)), (1, vec![wanted]), "{findings:?}");
    }
    system.simulator.put_account(healthy());

    // Faults of the settings, and of the callback URL.
    system
        .tenant("acme", 50.0, |draft: &mut Draft| {
            draft.auth_token = SecretString::from("not-the-token-at-all");
        })
        .await;
    let (code, findings) = check(&system, &url).await;
    assert_eq!(
        (code, faults(&findings)),
        (1, vec!["credentials_refused"]),
        "{findings:?}"
    );
    system.tenant("acme", 50.0, |_| {}).await;
    let unused = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let (code, findings) = check(&system, &format!("http://{unused}")).await;
    assert_eq!(
        (code, faults(&findings)),
        (1, vec!["callback_unreachable"]),
        "{findings:?}"
    );
    let (code, findings) = check(&system, &system.twilio_url).await;
    assert_eq!(
        (code, faults(&findings)),
        (1, vec!["callback_goes_elsewhere"]),
        "{findings:?}"
    );
    let (code, findings) = check(&system, &format!("{url}/")).await;
    assert_eq!(
        (code, faults(&findings)),
        (0, vec![]),
        "a slash at the end changes nothing: {findings:?}"
    );
    // The worker has another public URL, so the signature doesn't match.
    let other = url.replace("127.0.0.1", "localhost");
    let (code, findings) = check(&system, &other).await;
    assert_eq!(
        (code, faults(&findings)),
        (1, vec!["callback_refused"]),
        "{findings:?}"
    );
    system.stop().await;
}

#[tokio::test]
async fn lesser_problems_are_warnings_and_an_unknown_tenant_is_an_error() {
    let system = System::start(50.0).await;
    let worker = system.worker().await;
    let url = format!("http://{}", worker.address);
    let odd = Account {
        balance: "3.20".to_owned(),
        trial: true,
        risky_countries: vec!["US".to_owned()],
        ..healthy()
    };
    system.simulator.put_account(odd);
    let (code, findings) = check(&system, &url).await;
    let warned: Vec<_> = findings
        .iter()
        .filter(|(_, verdict)| verdict == "warning")
        .map(|(code, _)| code.as_str())
        .collect();
    assert_eq!(
        (code, warned),
        (
            0,
            vec!["trial_account", "high_risk_numbers_open", "little_balance"]
        ),
        "{findings:?}"
    );

    let output = Program::run(&system.environment(), &["tenant", "check", "acme"]).await;
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success() && text.contains("warning") && text.contains("no_public_url"),
        "{text}"
    );
    system
        .tenant("acme", 1.0, |draft| {
            draft.voicemail = voice_otp::settings::policy::Voicemail::PressKey;
        })
        .await;
    let output = Program::run(&system.environment(), &["tenant", "check", "acme"]).await;
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.code() == Some(1) && text.contains("voicemail_needs_public_url"),
        "{text}"
    );
    let output = Program::run(&system.environment(), &["tenant", "check", "unknown"]).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(
        String::from_utf8(output.stderr)
            .unwrap()
            .contains("there is no tenant unknown")
    );
    system.stop().await;
}

#[tokio::test]
async fn a_test_call_is_followed_to_its_end_and_is_marked_and_limited() {
    let system = System::start(50.0).await;
    let mut statuses = system.broker.statuses().await;
    let _worker = system.worker().await;
    let (good, busy) = (number(3), number(4));
    system.simulator.set_fate(&busy, Fate::Busy, None);
    let call = async |to: &str| {
        Program::run(
            &system.environment(),
            &["tenant", "test-call", "acme", "--to", to],
        )
        .await
    };
    let output = call(&good).await;
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let code = text.split("reads the code ").nth(1).unwrap()[..6].to_owned();
    assert!(
        text.contains("answered") && text.contains("delivered"),
        "{text}"
    );
    let heard = system
        .simulator
        .calls()
        .into_iter()
        .find(|call| call.to == good)
        .unwrap();
    assert_eq!(
        heard.digits_heard, code,
        "the code that is printed is the one that is read"
    );

    assert_eq!(call(&busy).await.status.code(), Some(1), "not delivered");
    assert_eq!(
        call("12345").await.status.code(),
        Some(2),
        "not a phone number"
    );
    for _ in 0..3 {
        assert!(call(&good).await.status.success());
    }
    let output = call(&good).await;
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(
        output.status.code() == Some(1) && text.contains("5 test calls in ten minutes"),
        "{text}"
    );
    statuses
        .until_finals(5, std::time::Duration::from_secs(20))
        .await;
    let marked = |event: &voice_otp_schemas::status::StatusEvent| {
        serde_json::to_value(event).unwrap()["data"]["context"]["test_call"] == "true"
    };
    assert!(
        statuses.seen.iter().all(|(_, event)| marked(event)),
        "every status is marked"
    );
    assert_eq!(system.simulator.calls().len(), 5);
    system.stop().await;
}
