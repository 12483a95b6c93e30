//! `voice-otp account`: what belongs to a Twilio account, whichever tenants share it.

use anyhow::{Context as _, anyhow};
use serde_json::json;
use voice_otp::account::AccountSid;
use voice_otp_schemas::Refused;
use voice_otp_store::pool::Pool;
use voice_otp_store::{accounts, audit};

use super::tenant::open;
use crate::cli::{Account, Database};
use crate::config::Checks;
use crate::telemetry::say;
use crate::verb::Failed;

pub(crate) async fn run(verb: Account) -> Result<(), Failed> {
    match verb {
        Account::List { json, database } => list(json, &database).await,
        Account::Pause { sid, database } => pause(&sid, true, &database).await,
        Account::Resume { sid, database } => pause(&sid, false, &database).await,
        Account::Rate {
            sid,
            calls_per_second,
            database,
        } => rate(&sid, calls_per_second, &database).await,
        Account::MaxCalls {
            sid,
            most,
            database,
        } => max_calls(&sid, &most, &database).await,
        Account::Share {
            sid,
            share,
            database,
        } => tenant_share(&sid, share, &database).await,
    }
}

/// Checks the account's SID and what else was given, and opens the database.
async fn account(
    sid: &str,
    database: &Database,
    mut checks: Checks,
) -> Result<(AccountSid, Pool), Failed> {
    let sid = AccountSid::parse(sid)
        .map_err(|Refused(why)| checks.wrong(format!("the account's SID: {why}")))
        .ok();
    let url = checks.database(database);
    let (sid, url) = checks.done(sid.zip(url))?;
    Ok((sid, open(Checks::default(), Some(url)).await?))
}

/// Writes down what was changed.
async fn note(
    pool: &Pool,
    sid: &AccountSid,
    action: &str,
    detail: serde_json::Value,
) -> Result<(), Failed> {
    let mut detail = detail;
    if let Some(detail) = detail.as_object_mut() {
        detail.insert("account_sid".to_owned(), sid.as_str().into());
    }
    Ok(
        audit::write(pool, audit::COMMAND_LINE, None, action, &detail)
            .await
            .context("write the audit log")?,
    )
}

fn missing(sid: &AccountSid) -> Failed {
    Failed::Error(anyhow!(
        "there is no account {sid}: no tenant has used it; voice-otp account list shows all"
    ))
}

async fn pause(sid: &str, paused: bool, database: &Database) -> Result<(), Failed> {
    let (sid, pool) = account(sid, database, Checks::default()).await?;
    if !accounts::pause(&pool, &sid, paused)
        .await
        .context("change the account")?
    {
        return Err(missing(&sid));
    }
    note(
        &pool,
        &sid,
        if paused {
            "account.paused"
        } else {
            "account.resumed"
        },
        json!({}),
    )
    .await?;
    say(&format!(
        "{} {sid}",
        if paused { "paused" } else { "resumed" }
    ))?;
    Ok(())
}

async fn rate(sid: &str, calls_per_second: f64, database: &Database) -> Result<(), Failed> {
    let mut checks = Checks::default();
    // Rate 0 is a pause, never divided by.
    if calls_per_second != 0.0
        && !(calls_per_second.is_finite() && (0.001..=10_000.0).contains(&calls_per_second))
    {
        checks.wrong("the rate: 0.001 to 10000 calls a second, or 0, which pauses the account");
    }
    let (sid, pool) = account(sid, database, checks).await?;
    let known = accounts::list(&pool)
        .await
        .context("read the accounts")?
        .into_iter()
        .find(|known| known.account_sid == sid.as_str());
    let Some(known) = known else {
        return Err(missing(&sid));
    };
    if calls_per_second == 0.0 {
        accounts::pause(&pool, &sid, true)
            .await
            .context("pause the account")?;
        note(&pool, &sid, "account.paused", json!({})).await?;
        say(&format!(
            "paused {sid}; its rate stays {} calls/s for when it is resumed",
            known.calls_per_second
        ))?;
        return Ok(());
    }
    accounts::set_rate(&pool, &sid, calls_per_second)
        .await
        .context("change the rate")?;
    note(
        &pool,
        &sid,
        "account.pace",
        json!({ "from": known.calls_per_second, "to": calls_per_second }),
    )
    .await?;
    say(&format!("{sid}: {calls_per_second} calls/s"))?;
    if known.paused {
        say(&format!(
            "it is still paused: voice-otp account resume {sid}"
        ))?;
    }
    Ok(())
}

async fn max_calls(sid: &str, most: &str, database: &Database) -> Result<(), Failed> {
    let mut checks = Checks::default();
    let most = match most {
        "none" => None,
        text => {
            let number = text.parse().ok().filter(|number| *number > 0);
            if number.is_none() {
                checks.wrong("the most calls in progress: a number from 1 on, or none");
            }
            number
        }
    };
    let (sid, pool) = account(sid, database, checks).await?;
    if !accounts::set_max_calls(&pool, &sid, most)
        .await
        .context("change the account")?
    {
        return Err(missing(&sid));
    }
    note(&pool, &sid, "account.max_calls", json!({ "to": most })).await?;
    let limit = most.map_or_else(
        || "no limit of calls in progress".to_owned(),
        |most| format!("at most {most} calls in progress"),
    );
    say(&format!("{sid}: {limit}"))?;
    Ok(())
}

async fn tenant_share(sid: &str, share: f64, database: &Database) -> Result<(), Failed> {
    let mut checks = Checks::default();
    if !(share > 0.0 && share <= 1.0) {
        checks.wrong("the share: above 0, and up to 1");
    }
    let (sid, pool) = account(sid, database, checks).await?;
    if !accounts::set_tenant_share(&pool, &sid, share)
        .await
        .context("change the account")?
    {
        return Err(missing(&sid));
    }
    note(&pool, &sid, "account.share", json!({ "to": share })).await?;
    say(&format!(
        "{sid}: one of several tenants may hold {share} of the slots ahead"
    ))?;
    Ok(())
}

async fn list(as_json: bool, database: &Database) -> Result<(), Failed> {
    let mut checks = Checks::default();
    let url = checks.database(database);
    let pool = open(checks, url).await?;
    let all = accounts::list(&pool).await.context("list the accounts")?;
    if as_json {
        let all: Vec<_> = all
            .iter()
            .map(|account| {
                json!({
                    "account_sid": account.account_sid,
                    "calls_per_second": account.calls_per_second,
                    "paused": account.paused,
                    "max_calls": account.max_calls,
                    "tenant_share": account.tenant_share,
                    "tenants": account.tenants,
                    "backlog_ms": account.backlog_ms,
                    "circuit_open": account.circuit_open,
                })
            })
            .collect();
        say(&serde_json::to_string_pretty(&all).context("write JSON")?)?;
        return Ok(());
    }
    for account in all {
        let mut state = Vec::new();
        if account.paused {
            state.push("paused".to_owned());
        }
        if account.circuit_open {
            state.push("circuit open".to_owned());
        }
        if let Some(most) = account.max_calls {
            state.push(format!("at most {most} calls"));
        }
        say(&format!(
            "{:<36} {:>8} calls/s  {:>4} tenants  backlog {:>7} ms  {}",
            account.account_sid,
            account.calls_per_second,
            account.tenants,
            account.backlog_ms,
            state.join(", ")
        ))?;
    }
    Ok(())
}
