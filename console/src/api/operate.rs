//! For operators: accounts, workers, dead letters, and every change.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;
use voice_otp::account::AccountSid;
use voice_otp_publisher::{link, topology};
use voice_otp_schemas::request::rfc3339;
use voice_otp_store::{accounts, audit as log, history};

use super::tenants::{AuditEntry, AuditQuery};
use super::{Body, Names, Params};
use crate::console::Console;
use crate::console::access::Caller;
use crate::console::problem::{FieldError, Problem};

/// A Twilio account.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[expect(clippy::struct_field_names, reason = "as everywhere on the wire")]
pub(crate) struct Account {
    /// Twilio's SID.
    pub(crate) account_sid: String,
    /// Its pace.
    pub(crate) calls_per_second: f64,
    /// Whether nothing is placed through it.
    pub(crate) paused: bool,
    /// The most calls in progress at once.
    pub(crate) max_calls: Option<i32>,
    /// The share of the slots ahead that one of several tenants may hold.
    pub(crate) tenant_share: f64,
    /// How many tenants use it.
    pub(crate) tenants: i64,
    /// How long a new request would wait for its slot, in milliseconds.
    pub(crate) backlog_ms: i64,
    /// Whether its circuit is open, or being tried out.
    pub(crate) circuit_open: bool,
}

/// What is to be changed of an account; what is left out stays.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AccountChange {
    /// 0.001 to 10,000.
    pub(crate) calls_per_second: Option<f64>,
    /// Whether nothing is placed through it for now.
    pub(crate) paused: Option<bool>,
}

/// The accounts. For operators.
#[utoipa::path(get, path = "/api/v1/accounts", responses((status = 200, body = [Account]), (status = 401, body = Problem), (status = 404, body = Problem)))]
pub(super) async fn accounts(
    State(console): State<Arc<Console>>,
    caller: Caller,
) -> Result<Json<Vec<Account>>, Problem> {
    caller.operator()?;
    Ok(Json(list_accounts(&console).await?))
}

pub(crate) async fn list_accounts(console: &Console) -> Result<Vec<Account>, Problem> {
    let account = |account: accounts::Account| {
        let accounts::Account {
            account_sid,
            calls_per_second,
            paused,
            max_calls,
            tenant_share,
            tenants,
            backlog_ms,
            circuit_open,
        } = account;
        Account {
            account_sid,
            calls_per_second,
            paused,
            max_calls,
            tenant_share,
            tenants,
            backlog_ms,
            circuit_open,
        }
    };
    Ok(accounts::list(&console.pool)
        .await?
        .into_iter()
        .map(account)
        .collect())
}

/// Changes an account's pace, pauses or resumes it: what waits gets new slots at once. For operators.
#[utoipa::path(patch, path = "/api/v1/accounts/{account}", request_body = AccountChange, params(("account" = String, Path)),
    responses((status = 200, body = Account), (status = 400, body = Problem), (status = 401, body = Problem),
        (status = 403, body = Problem), (status = 404, body = Problem), (status = 422, body = Problem)))]
pub(super) async fn change_account(
    State(console): State<Arc<Console>>,
    Names(account): Names<String>,
    caller: Caller,
    Body(change): Body<AccountChange>,
) -> Result<Json<Account>, Problem> {
    caller.operator()?;
    Ok(Json(
        save_account(&console, &caller, &account, &change).await?,
    ))
}

pub(crate) async fn save_account(
    console: &Console,
    caller: &Caller,
    account: &str,
    change: &AccountChange,
) -> Result<Account, Problem> {
    let sid = AccountSid::parse(account).map_err(|_| Problem::not_found())?;
    let find = || async {
        let all = list_accounts(console).await?;
        all.into_iter()
            .find(|account| account.account_sid == sid.as_str())
            .ok_or_else(Problem::not_found)
    };
    let before = find().await?;
    if let Some(pace) = change.calls_per_second {
        if !(pace.is_finite() && (0.001..=10_000.0).contains(&pace)) {
            let message = "0.001 to 10000 calls a second; pause the account to stop it".to_owned();
            return Err(Problem::invalid(vec![FieldError {
                field: "calls_per_second".to_owned(),
                message,
            }]));
        }
        accounts::set_rate(&console.pool, &sid, pace).await?;
        let detail =
            json!({ "account_sid": sid.as_str(), "from": before.calls_per_second, "to": pace });
        caller.note(console, None, "account.pace", detail).await?;
    }
    if let Some(paused) = change.paused {
        accounts::pause(&console.pool, &sid, paused).await?;
        let action = if paused {
            "account.paused"
        } else {
            "account.resumed"
        };
        caller
            .note(
                console,
                None,
                action,
                json!({ "account_sid": sid.as_str() }),
            )
            .await?;
    }
    find().await
}

/// A worker.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct Worker {
    /// Its host and process.
    pub(crate) name: String,
    /// When it began, RFC 3339.
    pub(crate) started_at: String,
    /// Whether its lease holds.
    pub(crate) alive: bool,
    /// How many deliveries it holds that aren't over.
    pub(crate) holds: i64,
}

/// What runs.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct System {
    /// The workers that are known, those that live first.
    pub(crate) workers: Vec<Worker>,
    /// Messages that nobody could be answered about; none where the broker doesn't tell.
    pub(crate) dead_letters: Option<u32>,
}

/// Workers and dead letters. For operators.
#[utoipa::path(get, path = "/api/v1/system", responses((status = 200, body = System), (status = 401, body = Problem), (status = 404, body = Problem)))]
pub(super) async fn system(
    State(console): State<Arc<Console>>,
    caller: Caller,
) -> Result<Json<System>, Problem> {
    caller.operator()?;
    Ok(Json(look(&console).await?))
}

pub(crate) async fn look(console: &Console) -> Result<System, Problem> {
    let worker = |worker: history::Worker| Worker {
        name: worker.name,
        started_at: rfc3339(worker.started_at),
        alive: worker.alive,
        holds: worker.holds,
    };
    let workers = history::workers(&console.pool)
        .await?
        .into_iter()
        .map(worker)
        .collect();
    Ok(System {
        workers,
        dead_letters: dead_letters(console).await.ok(),
    })
}

/// How many dead letters wait for somebody to look at them.
async fn dead_letters(console: &Console) -> anyhow::Result<u32> {
    let link = link::connect(&console.amqp_url, "voice-otp console").await?;
    let channel = link.connection.create_channel().await?;
    let passive = QueueDeclareOptions {
        passive: true,
        durable: true,
        exclusive: false,
        auto_delete: false,
        nowait: false,
    };
    let queue = channel
        .queue_declare(topology::DEAD.into(), passive, FieldTable::default())
        .await?;
    let count = queue.message_count();
    link.close().await;
    Ok(count)
}

/// Every change, the latest first. For operators.
#[utoipa::path(get, path = "/api/v1/audit", params(AuditQuery),
    responses((status = 200, body = [AuditEntry]), (status = 400, body = Problem), (status = 401, body = Problem), (status = 404, body = Problem)))]
pub(super) async fn audit(
    State(console): State<Arc<Console>>,
    caller: Caller,
    Params(query): Params<AuditQuery>,
) -> Result<Json<Vec<AuditEntry>>, Problem> {
    caller.operator()?;
    let entries = log::read(&console.pool, None, query.before, query.most()).await?;
    Ok(Json(entries.into_iter().map(AuditEntry::from).collect()))
}
