//! Twilio accounts: rate, pause, limits. They belong to operators, and count for every tenant that
//! shares the account.

use tokio_postgres::Row;
use voice_otp::account::AccountSid;

use crate::query::query;
use crate::{Error, Pool};

/// An account as operators see it.
#[derive(Debug, Clone)]
pub struct Account {
    /// Twilio's SID of the account.
    pub account_sid: String,
    /// The rate limit.
    pub calls_per_second: f64,
    /// Whether an operator has paused the account.
    pub paused: bool,
    /// The limit of calls in progress.
    pub max_calls: Option<i32>,
    /// The share of the slots ahead that one tenant may hold where several share the account.
    pub tenant_share: f64,
    /// How many tenants use the account.
    pub tenants: i64,
    /// How long a new request would wait for its slot, in milliseconds.
    pub backlog_ms: i64,
    /// Whether the account's circuit is open or half-open.
    pub circuit_open: bool,
}

/// Changes an account's rate, which must be above 0, and reschedules what waits. Makes the account
/// if it is new.
///
/// # Errors
/// [`Error`] when the database can't be asked.
pub async fn set_rate(
    pool: &Pool,
    account: &AccountSid,
    calls_per_second: f64,
) -> Result<(), Error> {
    query(
        pool,
        "change the account's rate",
        "select set_account_rate($1, $2)",
        &[&account.as_str(), &calls_per_second],
    )
    .await
    .map(drop)
}

/// Pauses an account, or resumes it and reschedules what waits. Returns false if there is no such
/// account.
///
/// # Errors
/// [`Error`] when the database can't be asked.
pub async fn set_paused(pool: &Pool, account: &AccountSid, paused: bool) -> Result<bool, Error> {
    let rows = query(
        pool,
        "pause or resume the account",
        "select set_account_paused($1, $2)",
        &[&account.as_str(), &paused],
    )
    .await?;
    Ok(rows.first().is_some_and(|row| row.get(0)))
}

/// Limits an account's calls in progress; `None`: no limit. Calls placed without a limit don't
/// count. Returns false if there is no such account.
///
/// # Errors
/// [`Error`] when the database can't be asked.
pub async fn set_max_calls(
    pool: &Pool,
    account: &AccountSid,
    limit: Option<i32>,
) -> Result<bool, Error> {
    let rows = query(
        pool,
        "limit the account's calls",
        "update accounts set max_calls = $2 where account_sid = $1 returning 1",
        &[&account.as_str(), &limit],
    )
    .await?;
    Ok(!rows.is_empty())
}

/// Changes the share of the slots ahead, above 0 and up to 1, that one of several tenants may hold.
/// Returns false if there is no such account.
///
/// # Errors
/// [`Error`] when the database can't be asked.
pub async fn set_tenant_share(
    pool: &Pool,
    account: &AccountSid,
    share: f64,
) -> Result<bool, Error> {
    let rows = query(
        pool,
        "change the tenants' share",
        "update accounts set tenant_share = $2 where account_sid = $1 returning 1",
        &[&account.as_str(), &share],
    )
    .await?;
    Ok(!rows.is_empty())
}

const LIST: &str = include_str!("../sql/statements/list_accounts.sql");

/// Lists accounts, in the order of their SIDs.
///
/// # Errors
/// [`Error`] when the database can't be asked.
pub async fn list(pool: &Pool) -> Result<Vec<Account>, Error> {
    let rows = query(pool, "list the accounts", LIST, &[]).await?;
    let account = |row: &Row| Account {
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
