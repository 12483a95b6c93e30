//! What the checks of a database server find.

use std::time::Duration;

use secrecy::SecretString;
use voice_otp_store::DatabaseUrl;
use voice_otp_store::grants::Program as Role;
use voice_otp_store::server_checks::{Finding, Severity, check};

use crate::harness::Program;
use crate::harness::postgres::Postgres;

async fn findings(url: &str) -> Vec<Finding> {
    let url = DatabaseUrl::parse(&SecretString::from(url)).unwrap();
    check(&url, Role::Worker).await.unwrap()
}

fn assert_found(findings: &[Finding], name: &str, severity: Severity, text: &str) {
    let found = findings.iter().find(|finding| finding.name == name);
    let found = found.unwrap_or_else(|| panic!("{name} is not in {findings:?}"));
    assert!(
        found.severity == severity && found.text.contains(text),
        "{found:?}"
    );
}

#[tokio::test]
async fn a_server_that_forgets_is_found() {
    let server = Postgres::start(&[
        "fsync=off",
        "full_page_writes=off",
        "synchronous_commit=off",
    ]);
    let server = server.await;
    let url = server.url("postgres", "");
    let found = findings(&url).await;
    assert_found(
        &found,
        "durability",
        Severity::Error,
        "fsync and full_page_writes off",
    );
    assert_found(
        &found,
        "synchronous_commit",
        Severity::Error,
        "loses confirmed requests",
    );
    assert_found(&found, "replication", Severity::Ok, "a single node");
    assert_found(&found, "clock", Severity::Ok, "this machine's");
    assert_found(&found, "writes", Severity::Ok, "");
    assert_found(&found, "sessions", Severity::Ok, "");
    let environment = [("VOICE_OTP_DATABASE_URL", url)];
    let shown = Program::run(&environment, &["database", "check"]).await;
    let text = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert_eq!(shown.status.code(), Some(1), "{text}");
    assert!(
        text.lines()
            .any(|line| line.starts_with("durability           error ")),
        "{text}"
    );

    server
        .execute("alter system set default_transaction_read_only = on")
        .await;
    server.execute("select pg_reload_conf()").await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let found = findings(&server.url("postgres", "")).await;
    assert_found(
        &found,
        "writes",
        Severity::Error,
        "default_transaction_read_only",
    );
}

#[tokio::test]
async fn replication_that_loses_commits_is_found_and_the_primary_too() {
    let primary = Postgres::start(&[]).await;
    let mut standby = primary.standby().await;
    let url = primary.url("postgres", "");
    let found = findings(&url).await;
    assert_found(
        &found,
        "replication",
        Severity::Warning,
        "asynchronous, 1 connected",
    );

    let found = findings(&standby.url("postgres", "")).await;
    assert_found(&found, "writes", Severity::Error, "standby");
    // Of two servers the one that can be written to is found, whatever their order.
    let both = format!(
        "postgres://voice_otp:{}@127.0.0.1:{},127.0.0.1:{}/postgres",
        crate::harness::postgres::PASSWORD,
        standby.port,
        primary.port
    );
    assert_found(&findings(&both).await, "writes", Severity::Ok, "primary");

    primary
        .execute("alter system set synchronous_standby_names = '*'")
        .await;
    primary.execute("select pg_reload_conf()").await;
    let synchronous = async {
        loop {
            let found = findings(&url).await;
            let replication = found
                .iter()
                .find(|finding| finding.name == "replication")
                .unwrap();
            if replication.text.contains("synchronous: 1 of 1") {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), synchronous)
        .await
        .unwrap();
    standby.stop();
    let alone = async {
        loop {
            let found = findings(&url).await;
            let replication = found
                .iter()
                .find(|finding| finding.name == "replication")
                .unwrap();
            if replication.severity == Severity::Error {
                assert!(replication.text.contains("commits wait"), "{replication:?}");
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), alone)
        .await
        .unwrap();
}
