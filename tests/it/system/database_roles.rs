//! Database roles with the rights of `store/sql/grants.sql` and no others.

use std::time::Duration;

use secrecy::ExposeSecret as _;
use voice_otp_store::grants;

use crate::harness::{Program, System, Worker, number, request};

/// Roles of a worker and of a console in a system's schema.
struct Roles {
    schema: String,
}

impl Roles {
    /// Makes the roles, and grants what the file grants.
    async fn make(system: &System) -> Self {
        let client = system.database.pool.get().await.unwrap();
        let row = client.query_one("select current_schema()::text", &[]).await;
        let schema: String = row.unwrap().get(0);
        let roles = Self { schema };
        let mut sql = String::new();
        for role in [roles.worker(), roles.console()] {
            sql.push_str(&format!("create role {role}; "));
        }
        let file = include_str!("../../../store/sql/grants.sql")
            .replace(":\"schema\"", &roles.schema)
            .replace(":\"worker\"", &roles.worker())
            .replace(":\"console\"", &roles.console());
        client.batch_execute(&(sql + &file)).await.unwrap();
        roles
    }

    fn worker(&self) -> String {
        format!("{}_worker", self.schema)
    }

    fn console(&self) -> String {
        format!("{}_console", self.schema)
    }

    async fn drop(self, system: &System) {
        let client = system.database.pool.get().await.unwrap();
        for role in [self.worker(), self.console()] {
            let sql = format!("drop owned by {role}; drop role {role}");
            client.batch_execute(&sql).await.unwrap();
        }
    }
}

/// The environment of a program whose sessions have a role.
fn environment(system: &System, role: &str) -> Vec<(&'static str, String)> {
    let mut environment = system.environment();
    environment.retain(|(name, _)| *name != "VOICE_OTP_DATABASE_URL");
    let url = format!(
        "{}%20-c%20role%3D{role}",
        system.database.url.expose_secret()
    );
    environment.push(("VOICE_OTP_DATABASE_URL", url));
    environment
}

#[tokio::test]
async fn a_worker_delivers_and_archives_without_the_right_to_change_the_schema() {
    let system = System::start(50.0).await;
    let roles = Roles::make(&system).await;
    let mut statuses = system.broker.statuses().await;
    let as_worker = environment(&system, &roles.worker());
    let mut worker = Worker::start(as_worker.clone(), true, &[]).await;
    worker.ready().await;
    for n in 0..3 {
        let id = format!("restricted-{n}");
        let event = request(&id, &number(n), "493027", Duration::from_mins(3));
        system.publish_json(&event).await;
    }
    statuses.until_finals(3, Duration::from_secs(30)).await;
    statuses.assert_sound();
    assert!(worker.terminate().await.success());
    let log = worker.log();
    assert!(!log.contains("permission denied"), "{log}");

    let url = as_worker.last().unwrap().1.as_str().into();
    let pool = voice_otp_store::connect_worker(&url, 1).unwrap();
    let client = pool.get().await.unwrap();
    let owner = system.database.pool.get().await.unwrap();
    let partitions = "select count(*) from pg_inherits where inhparent = 'finished'::regclass";
    let count = async || -> i64 { owner.query_one(partitions, &[]).await.unwrap().get(0) };
    assert_eq!(count().await, 3, "migrate makes the next days' partitions");
    let archived: i64 = client
        .query_one("select archive_finished('0 s', 100)", &[])
        .await
        .unwrap()
        .get(0);
    assert_eq!(archived, 3);
    // Days to come are old as well, if nothing is kept.
    let drop_all = "select maintain_archive_partitions('1 day', '-10 days')";
    client.execute(drop_all, &[]).await.unwrap();
    assert_eq!(count().await, 0);
    let make = "select maintain_archive_partitions('1 day', '1 day')";
    client.execute(make, &[]).await.unwrap();
    assert_eq!(count().await, 3);
    for refused in [
        "create table mine (n int)",
        "drop table finished",
        "truncate deliveries",
    ] {
        let error = client.batch_execute(refused).await.unwrap_err();
        assert_eq!(error.code().unwrap().code(), "42501", "{refused}");
        let said = grants::explain(&error).unwrap();
        assert!(said.contains("grants.sql"), "{said}");
    }
    drop((client, owner));
    roles.drop(&system).await;
    system.stop().await;
}

#[tokio::test]
async fn a_temporary_table_of_the_caller_does_not_mislead_the_owners_function() {
    let system = System::start(50.0).await;
    let roles = Roles::make(&system).await;
    let as_worker = environment(&system, &roles.worker());
    let pool = voice_otp_store::connect(&as_worker.last().unwrap().1.as_str().into(), 1).unwrap();
    let client = pool.get().await.unwrap();
    // Were it read, the owner would execute the caller's function.
    let trap = "create function pg_temp.caught() returns timestamptz language plpgsql as \
                $$ begin raise exception 'as %', current_user; end $$; \
                create view pg_temp.deliveries as \
                  select 'final'::text as state, pg_temp.caught() as ended_at; \
                select maintain_archive_partitions('1 day', '1 day')";
    client.batch_execute(trap).await.unwrap();
    drop(client);
    drop(pool);
    roles.drop(&system).await;
    system.stop().await;
}

#[tokio::test]
async fn only_roles_that_were_granted_it_may_maintain_partitions() {
    let system = System::start(50.0).await;
    let roles = Roles::make(&system).await;
    let as_console = environment(&system, &roles.console());
    let pool = voice_otp_store::connect(&as_console.last().unwrap().1.as_str().into(), 1).unwrap();
    let client = pool.get().await.unwrap();
    let drop_all = "select maintain_archive_partitions('1 day', '-10 days')";
    let error = client.execute(drop_all, &[]).await.unwrap_err();
    assert_eq!(error.code().unwrap().code(), "42501");
    drop(client);
    roles.drop(&system).await;
    system.stop().await;
}

#[tokio::test]
async fn what_a_role_lacks_is_named() {
    let system = System::start(50.0).await;
    let roles = Roles::make(&system).await;
    let revoke = format!("revoke insert on outbox from {}", roles.worker());
    let owner = system.database.pool.get().await.unwrap();
    owner.batch_execute(&revoke).await.unwrap();
    drop(owner);
    let mut as_worker = environment(&system, &roles.worker());
    as_worker.push(("VOICE_OTP_LISTEN", "127.0.0.1:0".to_owned()));
    for (args, words) in [
        (&["worker"][..], "lacks insert on outbox"),
        (&["database", "check"], "lacks insert on outbox"),
        (&["migrate"], "the owner migrates"),
    ] {
        let refused = Program::run(&as_worker, args).await;
        let said = [refused.stdout, refused.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        assert_eq!(refused.status.code(), Some(1), "{args:?}: {said}");
        assert!(said.contains(words), "{args:?}: {said}");
    }
    roles.drop(&system).await;
    system.stop().await;
}

#[tokio::test]
async fn a_console_and_the_commands_work_with_the_consoles_role() {
    let system = System::start(50.0).await;
    let roles = Roles::make(&system).await;
    let mut as_console = environment(&system, &roles.console());
    as_console.push((
        "VOICE_OTP_AUTH_TOKEN",
        crate::harness::AUTH_TOKEN.to_owned(),
    ));
    let account = crate::harness::ACCOUNT;
    for args in [
        &["database", "check", "--for", "console"][..],
        &["account", "list"],
        &["account", "rate", account, "20"],
        &["account", "pause", account],
        &["account", "resume", account],
        &["account", "max-calls", account, "5"],
        &["account", "share", account, "0.4"],
        &["tenant", "list"],
        &["tenant", "show", "acme"],
        &["tenant", "pause", "acme"],
        &["tenant", "resume", "acme"],
        &["token", "create", "--role", "operator", "--name", "t"],
        &["token", "list"],
        &["tenant", "delete", "acme"],
    ] {
        let done = Program::run(&as_console, args).await;
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(done.status.success(), "{args:?}: {said}");
    }
    roles.drop(&system).await;
    system.stop().await;
}
