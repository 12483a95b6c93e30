//! Twilio accounts: pace, pause, limits. They belong to the account, whatever tenants share it, and to operators.

use tokio_postgres::types::ToSql;
use voice_otp::account::AccountSid;

use crate::pool::Pool;
use crate::settings::Error;

/// An account as operators see it.
#[derive(Debug, Clone)]
pub struct Account {
    /// Twilio's SID.
    pub account_sid: String,
    /// The pace.
    pub calls_per_second: f64,
    /// Whether nothing is placed through it for now.
    pub paused: bool,
    /// The most calls in progress at once.
    pub max_calls: Option<i32>,
    /// The share of the slots ahead that one of several tenants may hold.
    pub tenant_share: f64,
    /// How many tenants use it.
    pub tenants: i64,
    /// How long a new request would wait for its slot, in milliseconds.
    pub backlog_ms: i64,
    /// Whether its circuit is open, or being tried out.
    pub circuit_open: bool,
}

/// Changes the rate, above 0; makes the account if it is new. What waits gets new slots.
///
/// # Errors
/// [`Error`] when the database can't be asked.
pub async fn set_rate(
    pool: &Pool,
    account: &AccountSid,
    calls_per_second: f64,
) -> Result<(), Error> {
    let sql = "select set_rate($1, $2)";
    query(
        pool,
        sql,
        &[&account.as_str(), &calls_per_second],
        "change the account's rate",
    )
    .await
    .map(drop)
}

/// Pauses an account, or resumes it: what waits gets new slots. False if there is no such account.
///
/// # Errors
/// [`Error`] when the database can't be asked.
pub async fn pause(pool: &Pool, account: &AccountSid, paused: bool) -> Result<bool, Error> {
    let sql = "select pause_account($1, $2)";
    let rows = query(
        pool,
        sql,
        &[&account.as_str(), &paused],
        "pause or resume the account",
    )
    .await?;
    Ok(rows.first().is_some_and(|row| row.get(0)))
}

/// Limits an account's calls in progress; none: no limit. Calls placed before don't count. False if there is no such account.
///
/// # Errors
/// [`Error`] when the database can't be asked.
pub async fn set_max_calls(
    pool: &Pool,
    account: &AccountSid,
    most: Option<i32>,
) -> Result<bool, Error> {
    let sql = "update accounts set max_calls = $2 where account_sid = $1 returning 1";
    Ok(!query(
        pool,
        sql,
        &[&account.as_str(), &most],
        "limit the account's calls",
    )
    .await?
    .is_empty())
}

/// Changes what share, above 0 and up to 1, of the slots ahead one of several tenants may hold. False if there is no such account.
///
/// # Errors
/// [`Error`] when the database can't be asked.
pub async fn set_tenant_share(
    pool: &Pool,
    account: &AccountSid,
    share: f64,
) -> Result<bool, Error> {
    let sql = "update accounts set tenant_share = $2 where account_sid = $1 returning 1";
    Ok(!query(
        pool,
        sql,
        &[&account.as_str(), &share],
        "change the tenants' share",
    )
    .await?
    .is_empty())
}

/// Lists accounts, in order.
///
/// # Errors
/// [`Error`] when the database can't be asked.
pub async fn list(pool: &Pool) -> Result<Vec<Account>, Error> {
    let sql = "select a.account_sid, a.calls_per_second, a.paused, a.max_calls, a.tenant_share, \
                 (select count(*) from voice_settings s where s.account_sid = a.account_sid) as tenants, \
                 coalesce(ceil(extract(epoch from greatest(p.tat, p.hold_until) - clock_timestamp()) * 1000), 0)::bigint as backlog_ms, \
                 coalesce(p.trial_us is not null, false) as circuit_open \
               from accounts a left join pacing p on p.pace_key = a.account_sid order by a.account_sid";
    let rows = query(pool, sql, &[], "list the accounts").await?;
    let account = |row: &tokio_postgres::Row| Account {
        account_sid: row.get("account_sid"),
        calls_per_second: row.get("calls_per_second"),
        paused: row.get("paused"),
        max_calls: row.get("max_calls"),
        tenant_share: row.get("tenant_share"),
        tenants: row.get("tenants"),
        backlog_ms: row.get::<_, i64>("backlog_ms").max(0),
        circuit_open: row.get("circuit_open"),
    };
    Ok(rows.iter().map(account).collect())
}

async fn query(
    pool: &Pool,
    sql: &str,
    params: &[&(dyn ToSql + Sync)],
    what: &'static str,
) -> Result<Vec<tokio_postgres::Row>, Error> {
    let client = pool.get().await.map_err(Error::Connect)?;
    client
        .query(sql, params)
        .await
        .map_err(|error| Error::Query(what, error))
}
