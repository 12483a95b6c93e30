//! Starting the attempts of due deliveries.

use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use voice_otp::delivery::Slot;
use voice_otp::ports::{AttemptStart, LedgerError, StartOutcome, WorkerEpoch};
use voice_otp_schemas::PhoneNumber;

use super::{PgLedger, is_line_conflict, is_locked};
use crate::keys::Keyring;

const START_ATTEMPTS: &str = include_str!("../../sql/statements/start_attempts.sql");

/// The hash of a line (account, From and To): the numbers are stored nowhere in the clear.
pub(super) fn line(keys: &Keyring, account: &str, from: &PhoneNumber, to: &PhoneNumber) -> Vec<u8> {
    keys.hash(
        "line",
        &format!("{account}\0{}\0{}", from.expose(), to.expose()),
    )
    .1
}

/// The hashes that a line may have been stored under, by every key.
pub(super) fn lines(
    keys: &Keyring,
    account: &str,
    from: &PhoneNumber,
    to: &PhoneNumber,
) -> Vec<Vec<u8>> {
    keys.hashes(
        "line",
        &format!("{account}\0{}\0{}", from.expose(), to.expose()),
    )
}

pub(super) async fn start_attempts(
    ledger: &PgLedger,
    worker: WorkerEpoch,
    group: &[AttemptStart],
) -> Result<Vec<StartOutcome>, LedgerError> {
    match ask(ledger, worker, group).await {
        Err(error) if is_line_conflict(&error) => start_each(ledger, worker, group).await,
        answers => answers,
    }
}

/// Starts the attempts one by one, after another worker started one on one of the lines at this
/// moment: only that one must wait.
async fn start_each(
    ledger: &PgLedger,
    worker: WorkerEpoch,
    group: &[AttemptStart],
) -> Result<Vec<StartOutcome>, LedgerError> {
    if group.len() == 1 {
        return Ok(vec![StartOutcome::LineBusy]);
    }
    let mut answers = Vec::with_capacity(group.len());
    for start in group {
        match ask(ledger, worker, std::slice::from_ref(start)).await {
            Ok(answer) => answers.extend(answer),
            Err(error) if is_line_conflict(&error) => answers.push(StartOutcome::LineBusy),
            // The attempts that are started must be reported. The others look like a conflict, and
            // are looked at again.
            Err(_) if !answers.is_empty() => answers.push(StartOutcome::Conflict),
            Err(error) => return Err(error),
        }
    }
    Ok(answers)
}

async fn ask(
    ledger: &PgLedger,
    worker: WorkerEpoch,
    group: &[AttemptStart],
) -> Result<Vec<StartOutcome>, LedgerError> {
    match ask_once(ledger, worker, group, ledger.skips_locked()).await {
        // Another transaction holds an account's pacing row: that account's deliveries are skipped.
        Err(error) if is_locked(&error) => {
            ledger.skip_locked_for_a_while();
            ask_once(ledger, worker, group, true).await
        }
        answers => answers,
    }
}

async fn ask_once(
    ledger: &PgLedger,
    worker: WorkerEpoch,
    group: &[AttemptStart],
    skip: bool,
) -> Result<Vec<StartOutcome>, LedgerError> {
    let tenants: Vec<&str> = group
        .iter()
        .map(|start| start.delivery.key.tenant_id.as_str())
        .collect();
    let deliveries: Vec<&str> = group
        .iter()
        .map(|start| start.delivery.key.delivery_id.as_str())
        .collect();
    let revisions: Vec<i64> = group.iter().map(|start| start.delivery.revision).collect();
    let attempts: Vec<uuid::Uuid> = group.iter().map(|start| start.attempt_id.0).collect();
    let accounts: Vec<&str> = group
        .iter()
        .map(|start| start.account_sid.as_str())
        .collect();
    let lines: Vec<Vec<u8>> = group
        .iter()
        .zip(&accounts)
        .map(|(start, account)| match &start.delivery.secrets {
            Some(secrets) => line(&ledger.keys, account, &start.from, &secrets.to),
            // The number can't be read, so the line is this attempt's alone.
            None => start.attempt_id.0.as_bytes().to_vec(),
        })
        .collect();
    let pace_keys: Vec<&str> = group.iter().map(|start| start.pace_key.as_str()).collect();
    let limits = &ledger.limits;
    let (ahead, late, rescue) = (
        limits.begin_ahead.as_secs_f64(),
        limits.slot_late.as_secs_f64(),
        limits.rescue.as_secs_f64(),
    );
    let params: [&(dyn ToSql + Sync); 12] = [
        &worker.0,
        &skip,
        &ahead,
        &late,
        &rescue,
        &tenants,
        &deliveries,
        &revisions,
        &attempts,
        &lines,
        &pace_keys,
        &accounts,
    ];
    let rows = ledger.query(START_ATTEMPTS, &params).await?;
    if rows.len() != group.len() {
        return Err(LedgerError::ProtocolViolation("an attempt has no outcome"));
    }
    rows.iter().map(outcome).collect()
}

fn outcome(row: &Row) -> Result<StartOutcome, LedgerError> {
    let revision = row.get("revision");
    let slot = || match (row.get("slot_at"), row.get("slot_epoch")) {
        (Some(at), Some(epoch)) => Ok(Slot { at, epoch }),
        _ => Err(LedgerError::ProtocolViolation("a slot is missing")),
    };
    Ok(match row.get("verdict") {
        "started" => StartOutcome::Started {
            slot: slot()?,
            revision,
        },
        // Of `no_slot` nothing was reserved: the slot only tells how late it would be.
        "rescheduled" | "no_slot" => StartOutcome::Rescheduled {
            slot: slot()?,
            revision,
        },
        "line_busy" => StartOutcome::LineBusy,
        "user_busy" => StartOutcome::UserBusy,
        "superseded" => StartOutcome::Superseded,
        "at_concurrency_limit" => StartOutcome::AtConcurrencyLimit,
        "row_locked" => StartOutcome::RowLocked,
        "conflict" => StartOutcome::Conflict,
        _ => return Err(LedgerError::ProtocolViolation("an outcome is unknown")),
    })
}
