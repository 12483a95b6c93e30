//! Saving changes.

use voice_otp::delivery::Change;
use voice_otp::ports::{EarlierEvents, LedgerError, Saved, WorkerEpoch};
use voice_otp_schemas::DeliveryKey;

use self::columns::Columns;
use super::PgLedger;

mod columns;

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

fn answer(worker: WorkerEpoch, row: &tokio_postgres::Row) -> Saved {
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
    key: &DeliveryKey,
) -> Result<bool, LedgerError> {
    let sql = "update deliveries set verified_at = coalesce(verified_at, clock_timestamp()) \
               where tenant_id = $1 and delivery_id = $2 returning 1";
    let (tenant, delivery) = (key.tenant_id.as_str(), key.delivery_id.as_str());
    Ok(!ledger.query(sql, &[&tenant, &delivery]).await?.is_empty())
}
