//! Test calls are few: so that nobody can ring a telephone again and again with them.

use std::time::Duration;

use deadpool_postgres::PoolError;
use voice_otp_schemas::{TenantId, Timestamp};

use crate::pool::Pool;

/// The most test calls of a tenant in a [`WINDOW`].
pub const MOST: usize = 5;
/// The time in which they count.
pub const WINDOW: Duration = Duration::from_mins(10);

/// Why there can't be a test call.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database can't be reached.
    #[error("connect to Postgres")]
    Connect(#[source] PoolError),
    /// A statement failed.
    #[error("count the test calls")]
    Query(#[source] tokio_postgres::Error),
    /// There were enough.
    #[error("a tenant has {MOST} test calls in ten minutes; the next one may be made after {0:?}")]
    TooMany(Duration),
}

/// Takes one of the tenant's test calls.
///
/// # Errors
/// [`Error::TooMany`] says how long the next one takes; nothing is counted then.
pub async fn take(pool: &Pool, tenant: &TenantId) -> Result<(), Error> {
    let mut client = pool.get().await.map_err(Error::Connect)?;
    let transaction = client.transaction().await.map_err(Error::Query)?;
    let tenant = tenant.as_str();
    // Two at once must not both be the last.
    transaction
        .query(
            "select pg_advisory_xact_lock(hashtext('test_calls/' || $1))",
            &[&tenant],
        )
        .await
        .map_err(Error::Query)?;
    let since = "clock_timestamp() - $2::double precision * interval '1 second'";
    let forget = format!("delete from test_calls where tenant_id = $1 and at < {since}");
    transaction
        .execute(&forget, &[&tenant, &WINDOW.as_secs_f64()])
        .await
        .map_err(Error::Query)?;
    let recent = "select at, clock_timestamp() from test_calls where tenant_id = $1 order by at desc limit $2";
    let recent = transaction
        .query(recent, &[&tenant, &i64::try_from(MOST).unwrap_or(i64::MAX)])
        .await
        .map_err(Error::Query)?;
    if let (MOST, Some(oldest)) = (recent.len(), recent.last()) {
        let (at, now): (Timestamp, Timestamp) = (oldest.get(0), oldest.get(1));
        let seconds = (at + WINDOW - now).num_seconds().max(1).unsigned_abs();
        return Err(Error::TooMany(Duration::from_secs(seconds)));
    }
    transaction
        .execute("insert into test_calls (tenant_id) values ($1)", &[&tenant])
        .await
        .map_err(Error::Query)?;
    transaction.commit().await.map_err(Error::Query)
}
