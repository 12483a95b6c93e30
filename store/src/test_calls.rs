//! The limit of test calls per tenant, which keeps the console from being used to ring a telephone
//! repeatedly.

use std::time::Duration;

use deadpool_postgres::Client;
use voice_otp_schemas::{TenantId, Timestamp};

use crate::pool::StatementError;
use crate::{Error, Pool};

/// The limit of a tenant's test calls in a [`WINDOW`].
pub const MOST: usize = 5;
/// The time for which a test call counts.
pub const WINDOW: Duration = Duration::from_mins(10);

/// Counts one test call against the tenant's limit.
///
/// # Errors
/// [`Error::TooManyTestCalls`] names the time until the next one; nothing is counted then.
pub async fn take(pool: &Pool, tenant: &TenantId) -> Result<(), Error> {
    let failed = |error| Error::Query("count the test calls", error);
    let mut client = pool
        .get()
        .await
        .map_err(|error| failed(StatementError::Connect(error)))?;
    let taken = pool.in_time(count(&mut client, tenant)).await;
    pool.give_back(client, &taken);
    taken
        .map_err(failed)?
        .map_or(Ok(()), |wait| Err(Error::TooManyTestCalls(wait)))
}

/// Counts one test call; if that is one too many, returns the time until the next one instead.
async fn count(
    client: &mut Client,
    tenant: &TenantId,
) -> Result<Option<Duration>, tokio_postgres::Error> {
    let transaction = client.transaction().await?;
    let tenant = tenant.as_str();
    // Two transactions at once must not both count the last one.
    transaction
        .query(
            "select pg_advisory_xact_lock(hashtext('test_calls/' || $1))",
            &[&tenant],
        )
        .await?;
    let expire = "delete from test_calls where tenant_id = $1 \
                  and at < clock_timestamp() - $2::double precision * interval '1 second'";
    transaction
        .execute(expire, &[&tenant, &WINDOW.as_secs_f64()])
        .await?;
    let recent = "select at, clock_timestamp() from test_calls where tenant_id = $1 \
                  order by at desc limit $2";
    let recent = transaction
        .query(recent, &[&tenant, &i64::try_from(MOST).unwrap_or(i64::MAX)])
        .await?;
    if let (MOST, Some(oldest)) = (recent.len(), recent.last()) {
        let (at, now): (Timestamp, Timestamp) = (oldest.get(0), oldest.get(1));
        let seconds = (at + WINDOW - now).num_seconds().max(1).unsigned_abs();
        return Ok(Some(Duration::from_secs(seconds)));
    }
    transaction
        .execute("insert into test_calls (tenant_id) values ($1)", &[&tenant])
        .await?;
    transaction.commit().await?;
    Ok(None)
}
