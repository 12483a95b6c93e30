//! Worker registrations and their leases, and claiming the deliveries of expired ones.

use std::time::SystemTime;

use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use voice_otp::delivery::Delivery;
use voice_otp::ports::{Heartbeat, LedgerError, WorkerEpoch};
use voice_otp_schemas::Timestamp;

use super::{PgLedger, failed, row};
use crate::pool::{Planning, StatementError};

const REGISTER: &str = include_str!("../../sql/statements/register_worker.sql");
const HEARTBEAT: &str = include_str!("../../sql/statements/heartbeat.sql");
const REPAIR_IF_BEHIND: &str = include_str!("../../sql/statements/repair_if_behind.sql");
const CLAIM_DELIVERIES: &str = include_str!("../../sql/statements/claim_deliveries.sql");

/// How many full steps of parked deliveries one claim takes, so that they don't delay those of
/// other accounts, which are due after them.
const MAX_PARKING_STEPS: usize = 20;

pub(super) async fn register_worker(
    ledger: &PgLedger,
    name: &str,
) -> Result<(WorkerEpoch, Timestamp), LedgerError> {
    let lease = ledger.limits.lease.as_secs_f64();
    let rows = ask(ledger, REGISTER, &[&name, &lease]).await?;
    let row = rows.first().ok_or(LedgerError::ProtocolViolation(
        "a registration has no epoch",
    ))?;
    // No lease ends that late, unless the clock went back since, when perhaps no worker was alive.
    ledger.query(REPAIR_IF_BEHIND, &[&lease]).await?;
    Ok((WorkerEpoch(row.get(0)), row.get(1)))
}

pub(super) async fn heartbeat(
    ledger: &PgLedger,
    worker: WorkerEpoch,
) -> Result<Heartbeat, LedgerError> {
    let lease = ledger.limits.lease.as_secs_f64();
    let rows = ask(ledger, HEARTBEAT, &[&worker.0, &lease]).await?;
    let row = rows
        .first()
        .ok_or(LedgerError::ProtocolViolation("a heartbeat has no answer"))?;
    let now: Timestamp = row.get(0);
    #[expect(clippy::disallowed_methods, reason = "the two clocks are compared")]
    let here = Timestamp::from(SystemTime::now());
    ledger
        .health
        .set_clock_difference((here - now).abs().to_std().unwrap_or_default());
    Ok(Heartbeat {
        now,
        alive: row.get(1),
    })
}

pub(super) async fn release_worker(
    ledger: &PgLedger,
    worker: WorkerEpoch,
) -> Result<(), LedgerError> {
    let sql = "update workers set lease_until = clock_timestamp() where epoch = $1";
    ask(ledger, sql, &[&worker.0]).await.map(drop)
}

/// Runs a statement on the connection of the heartbeats. If that is silent and a new one works, the
/// other connections are as old and probably silent too: they are closed.
async fn ask(
    ledger: &PgLedger,
    sql: &str,
    params: &[&(dyn ToSql + Sync)],
) -> Result<Vec<Row>, LedgerError> {
    match ledger.heartbeats.query(Planning::Once, sql, params).await {
        Err(StatementError::TimedOut) => {
            let again = ledger.heartbeats.query(Planning::Once, sql, params).await;
            if again.is_ok() {
                tracing::warn!(
                    "a database connection was silent and a new one works: all others are replaced"
                );
                ledger.pool.close_all();
            }
            again
        }
        rows => rows,
    }
    .map_err(failed)
}

pub(super) async fn claim_due(
    ledger: &PgLedger,
    worker: WorkerEpoch,
    limit: usize,
) -> Result<Vec<Delivery>, LedgerError> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let ahead = ledger.limits.claim_ahead.as_secs_f64();
    let keys = ledger.keys.ids();
    let forgotten = ledger.limits.forgotten.as_secs_f64();
    let mut claimed = Vec::new();
    for _ in 0..MAX_PARKING_STEPS {
        let mut rows = ledger
            .query(
                CLAIM_DELIVERIES,
                &[&worker.0, &keys, &limit, &ahead, &forgotten],
            )
            .await?;
        let found = rows.len();
        rows.retain(|row| !row.get::<_, bool>("is_parked"));
        claimed.extend(row::deliveries(&rows, &ledger.keys)?);
        if rows.len() == found || i64::try_from(found).is_ok_and(|found| found < limit) {
            break;
        }
    }
    Ok(claimed)
}
