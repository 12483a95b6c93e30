//! Twilio accounts: their rate limits, and pausing them.

use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;
use voice_otp::account::AccountSid;
use voice_otp::settings::Setting;
use voice_otp_store::accounts;

use super::audit;
use crate::access::Principal;
use crate::problem::{FieldError, Problem};
use crate::state::Console;

/// A Twilio account.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[expect(clippy::struct_field_names, reason = "Twilio's name for it")]
pub(crate) struct Account {
    /// Account SID at Twilio.
    pub(crate) account_sid: String,
    /// Rate limit in calls per second, for all workers and tenants together.
    pub(crate) calls_per_second: f64,
    /// Whether an operator has paused the account: no calls are placed through it.
    pub(crate) paused: bool,
    /// Maximum number of calls in progress; null if there is no limit.
    pub(crate) max_calls: Option<i32>,
    /// Share of the reserved slots that one tenant may use while others need some, from 0 to 1.
    pub(crate) tenant_share: f64,
    /// Number of tenants that use the account.
    pub(crate) tenants: i64,
    /// Queueing delay of a new request, in milliseconds.
    pub(crate) backlog_ms: i64,
    /// Whether the account's circuit breaker is open or half-open.
    pub(crate) circuit_open: bool,
}

impl From<accounts::Account> for Account {
    fn from(account: accounts::Account) -> Self {
        Self {
            account_sid: account.account_sid,
            calls_per_second: account.calls_per_second,
            paused: account.paused,
            max_calls: account.max_calls,
            tenant_share: account.tenant_share,
            tenants: account.tenants,
            backlog_ms: account.backlog_ms,
            circuit_open: account.circuit_open,
        }
    }
}

/// A change to an account. Omitted members are left unchanged.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AccountChange {
    /// Rate limit in calls per second: 0.001 to 10,000.
    pub(crate) calls_per_second: Option<f64>,
    /// Whether to pause the account, or to resume it.
    pub(crate) paused: Option<bool>,
}

/// Every account, ordered by SID.
pub(crate) async fn list(console: &Console) -> Result<Vec<Account>, Problem> {
    Ok(accounts::list(&console.pool)
        .await?
        .into_iter()
        .map(Account::from)
        .collect())
}

/// Changes an account's rate limit, pauses it or resumes it. Deliveries that wait get new slots.
pub(crate) async fn change(
    console: &Console,
    principal: &Principal,
    account: &str,
    change: &AccountChange,
) -> Result<Account, Problem> {
    let sid = AccountSid::parse(account).map_err(|_| Problem::not_found())?;
    let before = find(console, &sid).await?;
    if let Some(rate) = change.calls_per_second {
        if !(rate.is_finite() && (0.001..=10_000.0).contains(&rate)) {
            let message = "must be 0.001 to 10000 calls per second; pause the account to stop it";
            let error = FieldError::of_setting(Setting::CallsPerSecond, message);
            return Err(Problem::invalid(vec![error]));
        }
        accounts::set_rate(&console.pool, &sid, rate).await?;
        let detail = json!({
            "account_sid": sid.as_str(),
            "from": before.calls_per_second,
            "to": rate,
        });
        audit::record(console, principal, None, "account.pace", detail).await?;
    }
    if let Some(paused) = change.paused {
        accounts::set_paused(&console.pool, &sid, paused).await?;
        let action = if paused {
            "account.paused"
        } else {
            "account.resumed"
        };
        let detail = json!({ "account_sid": sid.as_str() });
        audit::record(console, principal, None, action, detail).await?;
    }
    find(console, &sid).await
}

async fn find(console: &Console, sid: &AccountSid) -> Result<Account, Problem> {
    let accounts = list(console).await?;
    accounts
        .into_iter()
        .find(|account| account.account_sid == sid.as_str())
        .ok_or_else(Problem::not_found)
}
