//! Running one statement on a pooled connection.

use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use crate::pool::Planning;
use crate::{Error, Pool};

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
