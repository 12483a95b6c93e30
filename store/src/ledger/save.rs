//! Saving changes.

use tokio_postgres::Row;
use voice_otp::delivery::Change;
use voice_otp::ports::{EarlierEvents, LedgerError, Marked, Saved, WorkerEpoch};
use voice_otp_schemas::DeliveryKey;

use self::columns::Columns;
use super::{PgLedger, find};

mod columns;

const MARK_VERIFIED: &str = include_str!("../../sql/statements/mark_verified.sql");
const SAVE_CHANGES: &str = include_str!("../../sql/statements/save_changes.sql");

pub(super) async fn save(
    ledger: &PgLedger,
    worker: WorkerEpoch,
    group: &[Change],
) -> Result<Vec<Saved>, LedgerError> {
    let columns = Columns::of(group);
    let rows = ledger.query(SAVE_CHANGES, &columns.params(&worker)).await?;
    if rows.len() != group.len() {
        return Err(LedgerError::ProtocolViolation("a change has no answer"));
    }
    Ok(rows.iter().map(|row| answer(worker, row)).collect())
}

fn answer(worker: WorkerEpoch, row: &Row) -> Saved {
    if row.get("saved") {
        Saved::Saved {
            earlier_events: match row.get::<_, Option<i64>>("earlier_events_owner") {
                None => EarlierEvents::Published,
                Some(owner) if owner == worker.0 => EarlierEvents::OwnedHere,
                Some(_) => EarlierEvents::OwnedElsewhere,
            },
        }
    } else if row.get("row_locked") {
        Saved::RowLocked
    } else {
        Saved::Conflict
    }
}

pub(super) async fn mark_verified(
    ledger: &PgLedger,
    keys: &[DeliveryKey],
) -> Result<Vec<Marked>, LedgerError> {
    let (tenants, ids) = find::columns(keys);
    let rows = ledger.query(MARK_VERIFIED, &[&tenants, &ids]).await?;
    let marked = |row: &Row| {
        if row.get("recorded") {
            Marked::Recorded {
                awaits_redial: row.get("awaits_redial"),
            }
        } else if row.get("row_locked") {
            Marked::RowLocked
        } else {
            Marked::Unknown
        }
    };
    Ok(rows.iter().map(marked).collect())
}
