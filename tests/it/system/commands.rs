//! The commands, as their users run them.

use std::time::Duration;

use crate::database::Database;
use crate::harness::{ACCOUNT, AUTH_TOKEN, FROM, Program, System, number, request};

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test]
async fn an_unmigrated_database_is_refused_with_the_command_that_helps() {
    let system = System::start(1.0).await;
    let bare = Database::unmigrated().await;
    let mut environment = system.environment();
    environment.retain(|(name, _)| *name != "VOICE_OTP_DATABASE_URL");
    environment.push((
        "VOICE_OTP_DATABASE_URL",
        secrecy::ExposeSecret::expose_secret(&bare.url).to_owned(),
    ));
    environment.push(("VOICE_OTP_LISTEN", "127.0.0.1:0".to_owned()));
    let refused = Program::run(&environment, &["worker"]).await;
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        text(&refused.stderr).contains("voice-otp migrate"),
        "{}",
        text(&refused.stderr)
    );
    // Twice, and from two places at once.
    let (one, two) = tokio::join!(
        Program::run(&environment, &["migrate"]),
        Program::run(&environment, &["migrate"])
    );
    assert!(
        one.status.success() && two.status.success(),
        "{} {}",
        text(&one.stderr),
        text(&two.stderr)
    );
    let again = Program::run(&environment, &["migrate"]).await;
    assert!(text(&again.stdout).contains("up to date"));
    bare.drop_schema().await;
    system.stop().await;
}

#[tokio::test]
async fn every_configuration_error_is_reported_at_once_without_its_value() {
    let environment = [
        ("VOICE_OTP_AMQP_URL", "http://user:hunter2@host".to_owned()),
        ("VOICE_OTP_KEYS", "k:hunter2".to_owned()),
        ("VOICE_OTP_LEAD", "soon".to_owned()),
        ("VOICE_OTP_PUBLIC_URL", "http://my_host.example".to_owned()),
        ("VOICE_OTP_PREFETCH", "0".to_owned()),
    ];
    let refused = Program::run(&environment, &["worker"]).await;
    assert_eq!(refused.status.code(), Some(2));
    let stderr = text(&refused.stderr);
    for name in [
        "AMQP_URL",
        "DATABASE_URL",
        "KEYS",
        "LEAD",
        "PREFETCH",
        "must be https",
        "underscore",
    ] {
        assert!(stderr.contains(name), "{name} in {stderr}");
    }
    assert!(!stderr.contains("hunter2"), "{stderr}");
}

#[tokio::test]
async fn help_lists_every_setting_with_its_unit_and_default() {
    let help = text(&Program::run(&[], &["worker", "--help"]).await.stdout);
    for name in [
        "AMQP_URL",
        "DATABASE_URL",
        "KEYS",
        "TWILIO_URL",
        "PUBLIC_URL",
        "LISTEN",
        "LEAD",
        "GRACE",
        "LOG",
        "LOG_FORMAT",
    ] {
        assert!(
            help.contains(&format!("VOICE_OTP_{name}")),
            "{name} in {help}"
        );
    }
    for default in ["[default: 30s]", "[default: 127.0.0.1:8080]"] {
        assert!(help.contains(default), "{default} in {help}");
    }
}

#[tokio::test]
async fn a_tenant_is_created_changed_shown_listed_and_deleted() {
    let system = System::start(1.0).await;
    let environment = system.environment();
    let run = |args: Vec<&'static str>, input: &'static str| {
        let environment = environment.clone();
        async move {
            let args: Vec<&str> = args;
            Program::run_with_input(&environment, &args, input).await
        }
    };
    let bare = run(vec!["tenant", "set", "new"], "").await;
    assert_eq!(bare.status.code(), Some(2));
    for flag in ["--account-sid", "--auth-token-file", "--from"] {
        assert!(text(&bare.stderr).contains(flag), "{}", text(&bare.stderr));
    }
    let wrong = run(
        vec![
            "tenant",
            "set",
            "new",
            "--account-sid",
            "AC1",
            "--auth-token-file",
            "-",
            "--from",
            "555",
            "--locale",
            "english",
        ],
        "s3cr3t-t0ken",
    )
    .await;
    assert_eq!(wrong.status.code(), Some(2));
    let stderr = text(&wrong.stderr);
    assert!(
        ["--account-sid", "--from", "--locale"]
            .iter()
            .all(|flag| stderr.contains(flag))
            && !stderr.contains("s3cr3t"),
        "{stderr}"
    );
    let made = run(
        vec![
            "tenant",
            "set",
            "new",
            "--account-sid",
            ACCOUNT,
            "--auth-token-file",
            "-",
            "--from",
            FROM,
            "--calls-per-second",
            "2.5",
            "--ring-timeout",
            "20s",
            "--allow-country",
            "US",
            "--allow-country",
            "CA",
        ],
        AUTH_TOKEN,
    );
    let made = made.await;
    assert!(made.status.success(), "{}", text(&made.stderr));
    assert!(
        run(
            vec!["tenant", "set", "new", "--locale", "es-ES", "--disable"],
            ""
        )
        .await
        .status
        .success()
    );
    let shown = run(vec!["tenant", "show", "new", "--json"], "").await;
    let shown: serde_json::Value = serde_json::from_slice(&shown.stdout).unwrap();
    let wanted = serde_json::json!({
        "enabled": false, "default_locale": "es-ES", "calls_per_second": 2.5,
        "ring_timeout_s": 20, "from": FROM,
        "allowed_countries": ["US", "CA"], "auth_token_set": true, "test_mode": false,
    });
    for (name, value) in wanted.as_object().unwrap() {
        assert_eq!(shown[name], *value, "{name}");
    }
    assert!(text(&run(vec!["tenant", "list"], "").await.stdout).contains("new"));
    assert!(
        run(vec!["tenant", "delete", "new"], "")
            .await
            .status
            .success()
    );
    let gone = run(vec!["tenant", "delete", "new"], "").await;
    assert_eq!(gone.status.code(), Some(1));
    system.stop().await;
}

#[tokio::test]
async fn publish_waits_for_the_final_status_and_exits_by_it() {
    let system = System::start(50.0).await;
    let _worker = system.worker().await;
    let environment = system.environment();
    let to = number(11);
    let good = Program::run_with_input(
        &environment,
        &[
            "publish",
            "--tenant",
            "acme",
            "--to",
            &to,
            "--code-file",
            "-",
            "--wait",
        ],
        "493027\n",
    )
    .await;
    assert!(
        good.status.success(),
        "{}{}",
        text(&good.stdout),
        text(&good.stderr)
    );
    assert!(
        text(&good.stdout).contains("delivered") && !text(&good.stdout).contains(&to),
        "{}",
        text(&good.stdout)
    );
    let busy = Program::run(
        &environment,
        &[
            "publish",
            "--tenant",
            "acme",
            "--to",
            "+12025550101",
            "--code",
            "493027",
            "--wait",
        ],
    )
    .await;
    assert_eq!(busy.status.code(), Some(1));
    assert!(text(&busy.stdout).contains("busy"));
    let bad = Program::run(
        &environment,
        &["publish", "--tenant", "a.b", "--to", "555", "--code", "1"],
    )
    .await;
    assert_eq!(bad.status.code(), Some(2));
    assert!(
        ["--tenant", "--to", "--code"]
            .iter()
            .all(|flag| text(&bad.stderr).contains(flag)),
        "{}",
        text(&bad.stderr)
    );
    system.stop().await;
}

#[tokio::test]
async fn a_file_of_events_is_published_and_each_bad_line_is_named() {
    let system = System::start(50.0).await;
    let mut statuses = system.broker.statuses().await;
    let _worker = system.worker().await;
    let life = Duration::from_mins(3);
    let mut lines: Vec<String> = (0..20)
        .map(|n| request(&format!("line-{n}"), &number(20 + n), "493027", life).to_string())
        .collect();
    lines.insert(3, "not json".to_owned());
    lines.insert(7, request("line-bad", "555", "493027", life).to_string());
    let published = Program::run_with_input(
        &system.environment(),
        &["publish", "--file", "-"],
        &lines.join("\n"),
    )
    .await;
    assert_eq!(published.status.code(), Some(1));
    assert!(
        text(&published.stdout).contains("20 published, 2 failed"),
        "{}",
        text(&published.stdout)
    );
    let stderr = text(&published.stderr);
    assert!(
        stderr.contains("line 4:")
            && stderr.contains("line 8: to must be")
            && !stderr.contains("493027"),
        "{stderr}"
    );
    statuses.until_finals(20, Duration::from_secs(30)).await;
    statuses.assert_sound();
    system.stop().await;
}

#[tokio::test]
async fn watch_shows_a_tenants_statuses_as_they_are_published() {
    let system = System::start(50.0).await;
    let mut statuses = system.broker.statuses().await;
    let _worker = system.worker().await;
    let mut watch = Program::start(
        &system.environment(),
        &["watch", "--tenant", "acme", "--json"],
    );
    let mut lines = tokio::io::BufReader::new(watch.stdout.take().unwrap());
    let mut seen = String::new();
    // Only its output shows that its queue is bound, so requests are published until it prints.
    let showing = async {
        for n in 0.. {
            system
                .publish_json(&request(
                    &format!("watched-{n}"),
                    &number(30 + n),
                    "493027",
                    Duration::from_mins(3),
                ))
                .await;
            let line = tokio::io::AsyncBufReadExt::read_line(&mut lines, &mut seen);
            if tokio::time::timeout(Duration::from_secs(2), line)
                .await
                .is_ok()
            {
                break;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), showing)
        .await
        .unwrap();
    let event: serde_json::Value = serde_json::from_str(&seen).unwrap();
    assert_eq!(event["data"]["tenant_id"], "acme");
    statuses.until_finals(1, Duration::from_secs(30)).await;
    watch.kill().await.unwrap();
    system.stop().await;
}

#[tokio::test]
async fn a_key_is_generated_and_the_health_check_exits_by_readiness() {
    let key = text(&Program::run(&[], &["keys", "new"]).await.stdout);
    assert!(voice_otp_store::Keyring::parse(&secrecy::SecretString::from(key.trim())).is_ok());
    assert_eq!(
        Program::run(&[], &["keys", "new", "--id", "no spaces"])
            .await
            .status
            .code(),
        Some(2)
    );
    let system = System::start(1.0).await;
    let worker = system.worker().await;
    let healthy = Program::run(
        &[("VOICE_OTP_LISTEN", worker.address.clone())],
        &["healthcheck"],
    )
    .await;
    assert!(healthy.status.success(), "{}", text(&healthy.stderr));
    drop(worker);
    let sick = Program::run(
        &[("VOICE_OTP_LISTEN", "127.0.0.1:1".to_owned())],
        &["healthcheck"],
    )
    .await;
    assert_eq!(sick.status.code(), Some(1));
    system.stop().await;
}
