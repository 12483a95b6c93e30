//! Beginning placements that are due.

use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use voice_otp::delivery::{Slot, WorkerEpoch};
use voice_otp::ports::{Begin, Begun, LedgerError};
use voice_otp_schemas::PhoneNumber;

use super::{PgLedger, is_line_conflict, is_locked};
use crate::keys::Keyring;

/// Names a line: the numbers themselves stand nowhere in the clear.
pub(super) fn line(keys: &Keyring, account: &str, from: &PhoneNumber, to: &PhoneNumber) -> Vec<u8> {
    keys.hash(
        "line",
        &format!("{account}\0{}\0{}", from.expose(), to.expose()),
    )
    .1
}

/// The names that a line may have, by every key.
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

pub(super) async fn begin(
    ledger: &PgLedger,
    worker: WorkerEpoch,
    group: &[Begin],
) -> Result<Vec<Begun>, LedgerError> {
    match ask(ledger, worker, group).await {
        Err(error) if is_line_conflict(&error) && group.len() == 1 => Ok(vec![Begun::LineBusy]),
        // Another worker began a placement on one of the lines at this moment. One by one, only that one waits.
        Err(error) if is_line_conflict(&error) => {
            let mut answers = Vec::with_capacity(group.len());
            for one in group {
                match ask(ledger, worker, std::slice::from_ref(one)).await {
                    Ok(answer) => answers.extend(answer),
                    Err(error) if is_line_conflict(&error) => answers.push(Begun::LineBusy),
                    // What has begun already must be told: the others look like a conflict, and come up again.
                    Err(_) if !answers.is_empty() => answers.push(Begun::Conflict),
                    Err(error) => return Err(error),
                }
            }
            Ok(answers)
        }
        answers => answers,
    }
}

async fn ask(
    ledger: &PgLedger,
    worker: WorkerEpoch,
    group: &[Begin],
) -> Result<Vec<Begun>, LedgerError> {
    match ask_once(ledger, worker, group, ledger.is_impatient()).await {
        // Somebody holds an account's pace: whom that concerns is left out.
        Err(error) if is_locked(&error) => {
            ledger.lose_patience();
            ask_once(ledger, worker, group, true).await
        }
        answers => answers,
    }
}

async fn ask_once(
    ledger: &PgLedger,
    worker: WorkerEpoch,
    group: &[Begin],
    skip: bool,
) -> Result<Vec<Begun>, LedgerError> {
    let tenants: Vec<&str> = group
        .iter()
        .map(|begin| begin.delivery.key.tenant_id.as_str())
        .collect();
    let deliveries: Vec<&str> = group
        .iter()
        .map(|begin| begin.delivery.key.delivery_id.as_str())
        .collect();
    let revisions: Vec<i64> = group.iter().map(|begin| begin.delivery.revision).collect();
    let attempts: Vec<uuid::Uuid> = group.iter().map(|begin| begin.attempt_id.0).collect();
    let accounts: Vec<&str> = group
        .iter()
        .map(|begin| begin.account_sid.as_str())
        .collect();
    let lines: Vec<Vec<u8>> = group
        .iter()
        .zip(&accounts)
        .map(|(begin, account)| match &begin.delivery.order {
            Some(order) => line(&ledger.keys, account, &begin.from, &order.to),
            None => begin.attempt_id.0.as_bytes().to_vec(),
        })
        .collect();
    let pace_keys: Vec<&str> = group.iter().map(|begin| begin.pace_key.as_str()).collect();
    let limits = &ledger.limits;
    let (ahead, late, rescue) = (
        limits.begin_ahead.as_secs_f64(),
        limits.slot_late.as_secs_f64(),
        limits.rescue.as_secs_f64(),
    );
    let sql = "select * from begin_attempts($1, $2, $3::double precision * interval '1 second', \
               $4::double precision * interval '1 second', $5::double precision * interval '1 second', $6, $7, $8, $9, $10, $11, $12)";
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
    let rows = ledger.query(sql, &params).await?;
    if rows.len() != group.len() {
        return Err(LedgerError::Nonsense("a begin has no answer"));
    }
    rows.iter().map(answer).collect()
}

fn answer(row: &Row) -> Result<Begun, LedgerError> {
    let revision = row.get("revision");
    let slot = || match (row.get("slot_at"), row.get("slot_epoch")) {
        (Some(at), Some(epoch)) => Ok(Slot { at, epoch }),
        _ => Err(LedgerError::Nonsense("a slot is missing")),
    };
    Ok(match row.get("verdict") {
        "go" => Begun::Go {
            slot: slot()?,
            revision,
        },
        // Nothing was reserved for one that is late, or lets others go first: its slot only says how late.
        "wait" | "late" => Begun::Wait {
            slot: slot()?,
            revision,
        },
        "line_busy" => Begun::LineBusy,
        "user_busy" => Begun::UserBusy,
        "superseded" => Begun::Superseded,
        "full" => Begun::Full,
        "busy" => Begun::Busy,
        "conflict" => Begun::Conflict,
        _ => return Err(LedgerError::Nonsense("an answer is unknown")),
    })
}
