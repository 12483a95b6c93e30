//! PgBouncer: session pooling works, other modes are refused.

use std::time::{Duration, Instant};

use secrecy::{ExposeSecret as _, SecretString};
use uuid::Uuid;
use voice_otp_store::{DatabaseUrl, pooler};

use crate::harness::pgbouncer::PgBouncer;
use crate::harness::{Program, System, number, request};

/// The tests' server.
fn server() -> String {
    std::env::var("VOICE_OTP_DATABASE_URL").expect("`./dev test` sets it")
}

fn through(pooler: &PgBouncer, system: &System) -> Vec<(&'static str, String)> {
    let mut environment = system.environment();
    environment.retain(|(name, _)| *name != "VOICE_OTP_DATABASE_URL");
    environment.push(("VOICE_OTP_DATABASE_URL", pooler.url()));
    environment
}

#[tokio::test]
async fn a_request_passes_through_session_pooling() {
    let system = System::start(50.0).await;
    // PgBouncer takes no search path from its clients, so this role has the schema as its own.
    let role = format!("t_{}", Uuid::new_v4().simple());
    let client = system.database.pool.get().await.unwrap();
    let make = format!(
        "create role {role} login superuser password 'p'; \
         do $$ begin execute format('alter role {role} set search_path = %I', current_schema()); \
         end $$"
    );
    client.batch_execute(&make).await.unwrap();
    let (_, address) = server()
        .split_once('@')
        .map(|(a, b)| (a.to_owned(), b.to_owned()))
        .unwrap();
    let pooler = PgBouncer::start("session", 20, &format!("postgres://{role}:p@{address}")).await;
    let mut statuses = system.broker.statuses().await;
    let environment = through(&pooler, &system);
    let migrated = Program::run(&environment, &["migrate"]).await;
    assert!(migrated.status.success(), "{migrated:?}");
    let mut worker = crate::harness::Worker::start(environment.clone(), true, &[]).await;
    worker.ready().await;
    system
        .publish_json(&request(
            "pooled",
            &number(1),
            "493027",
            Duration::from_mins(3),
        ))
        .await;
    statuses.until_finals(1, Duration::from_secs(30)).await;
    statuses.assert_sound();
    assert_eq!(statuses.names("pooled").last(), Some(&"delivered"));
    // The settings that are notified arrive too.
    let paused = Program::run(&environment, &["tenant", "pause", "acme"]).await;
    assert!(paused.status.success(), "{paused:?}");
    assert!(worker.terminate().await.success());
    drop(pooler);
    client
        .batch_execute(&format!("drop role {role}"))
        .await
        .unwrap();
    drop(client);
    system.stop().await;
}

#[tokio::test]
async fn transaction_and_statement_pooling_are_refused_with_what_to_do() {
    let system = System::start(50.0).await;
    for (mode, size) in [("transaction", 1), ("transaction", 5), ("statement", 5)] {
        let pooler = PgBouncer::start(mode, size, &server()).await;
        let mut environment = through(&pooler, &system);
        environment.push(("VOICE_OTP_LISTEN", "127.0.0.1:0".to_owned()));
        environment.push(("VOICE_OTP_CONSOLE_LISTEN", "127.0.0.1:0".to_owned()));
        for command in ["worker", "console", "migrate"] {
            let refused = Program::run(&environment, &[command]).await;
            let said = String::from_utf8_lossy(&refused.stderr).into_owned();
            assert_eq!(refused.status.code(), Some(1), "{mode} {command}: {said}");
            assert!(
                said.contains(&format!("pooler in {mode} mode"))
                    && said.contains("connect to Postgres itself")
                    && said.contains("pool_mode to session"),
                "{mode} {command}: {said}"
            );
        }
        let checked = Program::run(&environment, &["database", "check"]).await;
        let said = String::from_utf8_lossy(&checked.stdout).into_owned();
        assert_eq!(checked.status.code(), Some(1), "{said}");
        assert!(said.contains(&format!("pooler in {mode} mode")), "{said}");
    }
    system.stop().await;
}

#[tokio::test]
async fn a_pooler_is_recognised_while_others_use_it_and_no_session_is_mistaken_for_one() {
    let url = |url: &str| DatabaseUrl::parse(&SecretString::from(url)).unwrap();
    let direct = url(&server());
    let started = Instant::now();
    for _ in 0..5 {
        pooler::check(&direct).await.unwrap();
    }
    eprintln!("a check takes {:?}", started.elapsed() / 5);
    let pooler = PgBouncer::start("transaction", 3, &server()).await;
    let noise = voice_otp_store::DatabaseUrl::parse(&SecretString::from(pooler.url())).unwrap();
    let busy = tokio_util::sync::CancellationToken::new();
    let tasks = tokio_util::task::TaskTracker::new();
    let stop = busy.clone();
    tasks.spawn(async move {
        let (client, connection) = noise.connect().await.unwrap();
        let io = tokio_util::task::AbortOnDropHandle::new(
            tokio_util::task::TaskTracker::new().spawn(connection),
        );
        while !stop.is_cancelled() {
            client.batch_execute("select 1").await.unwrap();
        }
        drop(io);
    });
    for _ in 0..10 {
        let found = pooler::check(&url(&pooler.url())).await;
        assert!(
            matches!(found, Err(pooler::Error::Pooler(pooler::Mode::Transaction))),
            "{found:?}"
        );
    }
    busy.cancel();
    tasks.close();
    tasks.wait().await;
}

#[tokio::test]
async fn a_lost_prepared_statement_is_explained_by_a_pooler() {
    let system = System::start(50.0).await;
    let pool = voice_otp_store::connect(&system.database.url, 1).unwrap();
    let client = pool.get().await.unwrap();
    let statement = client.prepare("select 1").await.unwrap();
    client.batch_execute("deallocate all").await.unwrap();
    let error = client.query(&statement, &[]).await.unwrap_err();
    let said = pooler::explain(&error).unwrap();
    assert!(said.contains("transaction mode"), "{said}");
    assert!(!said.contains(system.database.url.expose_secret()));
    drop(client);
    system.stop().await;
}
