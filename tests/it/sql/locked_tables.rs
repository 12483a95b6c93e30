//! Migrating while a backup or a report keeps tables locked: no one waits behind the migration.

use std::time::{Duration, Instant};

use voice_otp_store::migrate;

use crate::database::Database;

/// What the second migration changes, and a backup reads.
const TABLE: &str = "pacing";
/// How long a statement may wait for the migration. Its attempt to get the lock takes a second.
const BRIEFLY: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_migration_that_waits_for_a_locked_table_lets_others_use_it() {
    let database = Database::unmigrated().await;
    apply_the_first(&database).await;
    let backup = database.pool.get().await.unwrap();
    backup
        .batch_execute(&format!("begin; lock table {TABLE} in access share mode"))
        .await
        .unwrap();
    let pool = database.another_pool();
    let migrating = tokio_util::task::TaskTracker::new()
        .spawn(async move { migrate::apply(&pool).await.unwrap().migrations });
    let worker = database.pool.get().await.unwrap();
    let began = Instant::now();
    let mut longest = Duration::ZERO;
    while began.elapsed() < 3 * BRIEFLY {
        let asked = Instant::now();
        let sql = format!("select count(*) from {TABLE}");
        worker.query_one(&sql, &[]).await.unwrap();
        longest = longest.max(asked.elapsed());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    eprintln!("a statement waited at most {longest:?}");
    assert!(longest < BRIEFLY, "{longest:?}");
    assert!(!migrating.is_finished(), "the table is locked");
    backup.batch_execute("commit").await.unwrap();
    let applied = tokio::time::timeout(Duration::from_secs(30), migrating).await;
    assert!(applied.unwrap().unwrap() > 0);
    drop((worker, backup));
    database.drop_schema().await;
}

/// The database as the program with the first migration only has left it.
async fn apply_the_first(database: &Database) {
    let client = database.pool.get().await.unwrap();
    let first = include_str!("../../../store/migrations/0001_tables.sql");
    client.batch_execute(first).await.unwrap();
    client
        .batch_execute(
            "create table voice_otp_migrations (version integer primary key, name text not null, \
             checksum bytea not null, applied_at timestamptz not null default clock_timestamp())",
        )
        .await
        .unwrap();
    client
        .execute(
            "insert into voice_otp_migrations (version, name, checksum) \
             values (1, 'tables', sha256(convert_to($1, 'UTF8')))",
            &[&first],
        )
        .await
        .unwrap();
}
