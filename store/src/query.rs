//! Running one statement on a pooled connection.

use deadpool_postgres::{Client, Object};
use tokio_postgres::Row;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;

use crate::pool::{Planning, StatementError};
use crate::{Error, Pool};

/// The settings of a query that may read many rows: it gives up in time, takes one process of the
/// server, and ends when its client is gone. Postgres 13 has no such setting, and ends it in time.
const SLOW_QUERY: &str = "begin read only; \
    set local statement_timeout = '5s'; \
    set local max_parallel_workers_per_gather = 0; \
    select set_config(name, '500ms', true) from pg_settings \
     where name = 'client_connection_check_interval'";

/// Runs a statement and returns its rows. `what` completes the error's text: a verb phrase. The
/// statement is planned for these parameters.
pub(crate) async fn query(
    pool: &Pool,
    what: &'static str,
    sql: &str,
    params: &[&(dyn ToSql + Sync)],
) -> Result<Vec<Row>, Error> {
    pool.query(Planning::EachTime, sql, params)
        .await
        .map_err(|error| Error::Query(what, error))
}

/// Like [`query`], but prepares the statement once per connection: for statements that run often
/// and find their rows by key.
pub(crate) async fn query_prepared(
    pool: &Pool,
    what: &'static str,
    sql: &str,
    params: &[&(dyn ToSql + Sync)],
) -> Result<Vec<Row>, Error> {
    pool.query(Planning::Once, sql, params)
        .await
        .map_err(|error| Error::Query(what, error))
}

/// Like [`query`], for a statement that may read many rows. It ends after 5 s, or when the future
/// is dropped.
pub(crate) async fn query_slow(
    pool: &Pool,
    what: &'static str,
    sql: &str,
    params: &[&(dyn ToSql + Sync)],
) -> Result<Vec<Row>, Error> {
    let failed = |error| Error::Query(what, error);
    let client = pool.get().await;
    let client = client.map_err(|error| failed(StatementError::Connect(error)))?;
    // Until the transaction has ended, the connection is of no use to others.
    let client = ClosedOnDrop(Some(client));
    let rows = pool
        .in_time(async {
            let client = client.as_ref();
            client.batch_execute(SLOW_QUERY).await?;
            let rows = client.query(sql, params).await?;
            client.batch_execute("commit").await?;
            Ok(rows)
        })
        .await;
    match rows {
        Ok(rows) => {
            client.give_back();
            Ok(rows)
        }
        Err(StatementError::Failed(error)) if error.code() == Some(&SqlState::QUERY_CANCELED) => {
            Err(Error::TooSlow(what))
        }
        Err(error) => Err(failed(error)),
    }
}

/// A connection that is closed when it is dropped. The server notices that, and ends its query.
struct ClosedOnDrop(Option<Client>);

impl ClosedOnDrop {
    #[expect(clippy::expect_used, reason = "only drop() and give_back() take it")]
    fn as_ref(&self) -> &Client {
        self.0.as_ref().expect("the connection is there")
    }

    /// Puts the connection back into the pool.
    fn give_back(mut self) {
        drop(self.0.take());
    }
}

impl Drop for ClosedOnDrop {
    fn drop(&mut self) {
        drop(self.0.take().map(Object::take));
    }
}

/// Runs a statement and returns how many rows it changed.
pub(crate) async fn execute(
    pool: &Pool,
    what: &'static str,
    sql: &str,
    params: &[&(dyn ToSql + Sync)],
) -> Result<u64, Error> {
    pool.execute(sql, params)
        .await
        .map_err(|error| Error::Query(what, error))
}
