//! Archiving finished deliveries, and counting those that should have finished.

use std::time::Duration;

use voice_otp::ports::{LedgerError, WorkerEpoch};

use super::{PgLedger, is_locked};

/// The limit of deliveries that one statement archives.
const ARCHIVE_BATCH: i32 = 1_000;

pub(super) async fn archive_finished(ledger: &PgLedger) -> Result<u64, LedgerError> {
    let (recent, retention) = (
        ledger.limits.recent.as_secs_f64(),
        ledger.limits.retention.as_secs_f64(),
    );
    let maintain = "select maintain_archive_partitions($1::double precision * interval '1 second', \
                      $2::double precision * interval '1 second')";
    match ledger.query(maintain, &[&recent, &retention]).await {
        // A long transaction, a backup perhaps, reads the archive. The next call tries again.
        Err(error) if is_locked(&error) => {}
        partitions => drop(partitions?),
    }
    let archive = "select archive_finished($1::double precision * interval '1 second', $2)";
    let rows = ledger.query(archive, &[&recent, &ARCHIVE_BATCH]).await?;
    count(&rows)
}

pub(super) async fn count_overdue(
    ledger: &PgLedger,
    worker: WorkerEpoch,
    overdue: Duration,
) -> Result<u64, LedgerError> {
    let sql = "select case when $1 = (select min(epoch) from workers \
                                       where lease_until > clock_timestamp()) \
                      then (select count(*) from deliveries where state <> 'final' \
                               and expires_at < clock_timestamp() \
                                   - $2::double precision * interval '1 second') \
                      else 0 end";
    count(
        &ledger
            .query(sql, &[&worker.0, &overdue.as_secs_f64()])
            .await?,
    )
}

fn count(rows: &[tokio_postgres::Row]) -> Result<u64, LedgerError> {
    let row = rows
        .first()
        .ok_or(LedgerError::ProtocolViolation("a count is missing"))?;
    Ok(row.get::<_, i64>(0).unsigned_abs())
}
