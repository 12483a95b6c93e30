//! Connections that can't be used again: the next statement has a new one.

use voice_otp::account::AccountSid;
use voice_otp_schemas::TenantId;
use voice_otp_store::{Pool, connect_worker, settings};

use crate::database::{Database, keys};

/// What happens to a connection, as SQL that runs on it.
const FATES: [(&str, &str); 3] = [
    (
        "a primary that was demoted and kept its connections",
        "set default_transaction_read_only = on",
    ),
    (
        "a schema whose tables are elsewhere",
        "set search_path = pg_catalog",
    ),
    (
        "a server that shuts down",
        "select pg_terminate_backend(pg_backend_pid())",
    ),
];

#[tokio::test]
async fn a_connection_that_failed_for_good_is_not_used_again() {
    let database = Database::fresh().await;
    for (what, fate) in FATES {
        // One connection, so that the next statement has the same one unless it was closed.
        let pool = connect_worker(&database.url, 1).unwrap();
        write(&pool).await.unwrap();
        drop(
            settings::claim_rejected_credentials(&pool, 1)
                .await
                .unwrap(),
        );
        let before = session(&pool).await;
        let client = pool.get().await.unwrap();
        drop(client.batch_execute(fate).await);
        drop(client);
        // The first statement may fail; it must not be the start of a series.
        drop(read(&pool).await);
        drop(write(&pool).await);
        assert_ne!(session(&pool).await, before, "{what}: a new connection");
        write(&pool).await.unwrap();
        settings::claim_rejected_credentials(&pool, 1)
            .await
            .unwrap();
    }
    database.drop_schema().await;
}

/// A statement that is prepared once per connection.
async fn read(pool: &Pool) -> Result<(), voice_otp_store::Error> {
    let tenants = [TenantId::parse("acme").unwrap()];
    settings::load(pool, &keys(), &tenants).await.map(drop)
}

async fn write(pool: &Pool) -> Result<bool, voice_otp_store::Error> {
    let account = AccountSid::parse("ACaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa").unwrap();
    voice_otp_store::accounts::set_paused(pool, &account, true).await
}

async fn session(pool: &Pool) -> i32 {
    let client = pool.get().await.unwrap();
    let row = client.query_one("select pg_backend_pid()", &[]).await;
    row.unwrap().get(0)
}
