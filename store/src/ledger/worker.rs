//! Worker registrations and their leases, and claiming the deliveries of expired ones.

use voice_otp::delivery::Delivery;
use voice_otp::ports::{Heartbeat, LedgerError, WorkerEpoch};
use voice_otp_schemas::Timestamp;

use super::{PgLedger, row};

const REGISTER: &str = include_str!("../../sql/statements/register_worker.sql");
const HEARTBEAT: &str = include_str!("../../sql/statements/heartbeat.sql");
const CLAIM_DUE: &str = include_str!("../../sql/statements/claim_due.sql");
const FIND_OWN_OVERDUE: &str = include_str!("../../sql/statements/find_own_overdue.sql");

pub(super) async fn register_worker(
    ledger: &PgLedger,
    name: &str,
) -> Result<(WorkerEpoch, Timestamp), LedgerError> {
    let lease = ledger.limits.lease.as_secs_f64();
    let rows = ledger.query(REGISTER, &[&name, &lease]).await?;
    let row = rows.first().ok_or(LedgerError::ProtocolViolation(
        "a registration has no epoch",
    ))?;
    Ok((WorkerEpoch(row.get(0)), row.get(1)))
}

pub(super) async fn heartbeat(
    ledger: &PgLedger,
    worker: WorkerEpoch,
) -> Result<Heartbeat, LedgerError> {
    let lease = ledger.limits.lease.as_secs_f64();
    let rows = ledger.query(HEARTBEAT, &[&worker.0, &lease]).await?;
    let row = rows
        .first()
        .ok_or(LedgerError::ProtocolViolation("a heartbeat has no answer"))?;
    Ok(Heartbeat {
        now: row.get(0),
        alive: row.get(1),
    })
}

pub(super) async fn release_worker(
    ledger: &PgLedger,
    worker: WorkerEpoch,
) -> Result<(), LedgerError> {
    let sql = "update workers set lease_until = clock_timestamp() where epoch = $1";
    ledger.query(sql, &[&worker.0]).await.map(drop)
}

pub(super) async fn claim_due(
    ledger: &PgLedger,
    worker: WorkerEpoch,
    limit: usize,
) -> Result<Vec<Delivery>, LedgerError> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let ahead = ledger.limits.claim_ahead.as_secs_f64();
    let keys = ledger.keys.ids();
    let mut rows = ledger
        .query(CLAIM_DUE, &[&worker.0, &keys, &limit, &ahead])
        .await?;
    let forgotten = ledger.limits.forgotten.as_secs_f64();
    rows.extend(
        ledger
            .query(FIND_OWN_OVERDUE, &[&worker.0, &forgotten, &limit])
            .await?,
    );
    row::deliveries(&rows, &ledger.keys)
}
