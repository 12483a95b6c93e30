//! `voice-otp account`: what belongs to a Twilio account, whichever tenants share it.

use anyhow::{Context as _, anyhow};
use serde_json::{Value, json};
use voice_otp::account::AccountSid;
use voice_otp_store::accounts;
use voice_otp_store::pool::Pool;

use super::CommandError;
use super::database::{open, open_only, write_audit};
use crate::args::{Account, Database};
use crate::config::ArgumentChecker;
use crate::output::{print_json, print_line};

pub(super) async fn run(command: Account) -> Result<(), CommandError> {
    match command {
        Account::List { json, database } => list(json, &database).await,
        Account::Pause { sid, database } => set_paused(&sid, true, &database).await,
        Account::Resume { sid, database } => set_paused(&sid, false, &database).await,
        Account::Rate {
            sid,
            calls_per_second,
            database,
        } => set_rate(&sid, calls_per_second, &database).await,
        Account::MaxCalls {
            sid,
            max_calls,
            database,
        } => set_max_calls(&sid, &max_calls, &database).await,
        Account::Share {
            sid,
            share,
            database,
        } => set_tenant_share(&sid, share, &database).await,
    }
}

/// Checks the account's SID, after the other arguments, and opens the database.
async fn open_account(
    sid: &str,
    database: &Database,
    mut checker: ArgumentChecker,
) -> Result<(AccountSid, Pool), CommandError> {
    let sid = checker.parse("the account's SID", sid, AccountSid::parse);
    let url = checker.database(database);
    let (sid, url) = checker.finish(|| Some((sid?, url?)))?;
    Ok((sid, open(&url).await?))
}

/// Adds a change of an account to the audit log.
async fn audit(
    pool: &Pool,
    sid: &AccountSid,
    action: &str,
    changes: &[(&str, Value)],
) -> anyhow::Result<()> {
    let sid = [("account_sid", sid.as_str().into())];
    let detail = sid.iter().chain(changes);
    let detail = detail
        .map(|(name, value)| ((*name).to_owned(), value.clone()))
        .collect();
    write_audit(pool, None, action, &Value::Object(detail)).await
}

fn no_account(sid: &AccountSid) -> CommandError {
    CommandError::Failed(anyhow!(
        "there is no account {sid}: no tenant has used it; voice-otp account list shows all"
    ))
}

async fn set_paused(sid: &str, paused: bool, database: &Database) -> Result<(), CommandError> {
    let (sid, pool) = open_account(sid, database, ArgumentChecker::default()).await?;
    if !accounts::set_paused(&pool, &sid, paused)
        .await
        .context("change the account")?
    {
        return Err(no_account(&sid));
    }
    let (action, done) = if paused {
        ("account.paused", "paused")
    } else {
        ("account.resumed", "resumed")
    };
    audit(&pool, &sid, action, &[]).await?;
    print_line(&format!("{done} {sid}"))?;
    Ok(())
}

async fn set_rate(
    sid: &str,
    calls_per_second: f64,
    database: &Database,
) -> Result<(), CommandError> {
    let mut checker = ArgumentChecker::default();
    // A rate of 0 would be divided by; it pauses the account instead.
    if calls_per_second != 0.0
        && !(calls_per_second.is_finite() && (0.001..=10_000.0).contains(&calls_per_second))
    {
        checker.reject("the rate: 0.001 to 10000 calls a second, or 0, which pauses the account");
    }
    let (sid, pool) = open_account(sid, database, checker).await?;
    let all = accounts::list(&pool).await.context("read the accounts")?;
    let Some(account) = all
        .into_iter()
        .find(|account| account.account_sid == sid.as_str())
    else {
        return Err(no_account(&sid));
    };
    if calls_per_second == 0.0 {
        accounts::set_paused(&pool, &sid, true)
            .await
            .context("pause the account")?;
        audit(&pool, &sid, "account.paused", &[]).await?;
        print_line(&format!(
            "paused {sid}; its rate stays {} calls/s for when it is resumed",
            account.calls_per_second
        ))?;
        return Ok(());
    }
    accounts::set_rate(&pool, &sid, calls_per_second)
        .await
        .context("change the rate")?;
    let changes = [
        ("from", account.calls_per_second.into()),
        ("to", calls_per_second.into()),
    ];
    audit(&pool, &sid, "account.pace", &changes).await?;
    print_line(&format!("{sid}: {calls_per_second} calls/s"))?;
    if account.paused {
        print_line(&format!(
            "it is still paused: voice-otp account resume {sid}"
        ))?;
    }
    Ok(())
}

async fn set_max_calls(
    sid: &str,
    max_calls: &str,
    database: &Database,
) -> Result<(), CommandError> {
    let mut checker = ArgumentChecker::default();
    let max_calls = match max_calls {
        "none" => None,
        text => {
            let number = text.parse().ok().filter(|number| *number > 0);
            if number.is_none() {
                checker.reject("the maximum of calls in progress: a number from 1 on, or none");
            }
            number
        }
    };
    let (sid, pool) = open_account(sid, database, checker).await?;
    if !accounts::set_max_calls(&pool, &sid, max_calls)
        .await
        .context("change the account")?
    {
        return Err(no_account(&sid));
    }
    audit(
        &pool,
        &sid,
        "account.max_calls",
        &[("to", json!(max_calls))],
    )
    .await?;
    let limit = max_calls.map_or_else(
        || "no limit of calls in progress".to_owned(),
        |max| format!("at most {max} calls in progress"),
    );
    print_line(&format!("{sid}: {limit}"))?;
    Ok(())
}

async fn set_tenant_share(sid: &str, share: f64, database: &Database) -> Result<(), CommandError> {
    let mut checker = ArgumentChecker::default();
    if !(share > 0.0 && share <= 1.0) {
        checker.reject("the share: above 0, and up to 1");
    }
    let (sid, pool) = open_account(sid, database, checker).await?;
    if !accounts::set_tenant_share(&pool, &sid, share)
        .await
        .context("change the account")?
    {
        return Err(no_account(&sid));
    }
    audit(&pool, &sid, "account.share", &[("to", share.into())]).await?;
    print_line(&format!(
        "{sid}: one of several tenants may occupy {share} of the next slots"
    ))?;
    Ok(())
}

async fn list(as_json: bool, database: &Database) -> Result<(), CommandError> {
    let pool = open_only(database).await?;
    let accounts = accounts::list(&pool).await.context("list the accounts")?;
    if as_json {
        let shown = |account: &accounts::Account| {
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
        };
        print_json(&accounts.iter().map(shown).collect::<Vec<_>>())?;
        return Ok(());
    }
    for account in accounts {
        let mut state = Vec::new();
        if account.paused {
            state.push("paused".to_owned());
        }
        if account.circuit_open {
            state.push("circuit open".to_owned());
        }
        if let Some(max) = account.max_calls {
            state.push(format!("at most {max} calls"));
        }
        print_line(&format!(
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
