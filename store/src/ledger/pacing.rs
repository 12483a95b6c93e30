//! Throttling accounts, and their circuits.

use std::time::Duration;

use voice_otp::ports::LedgerError;

use super::PgLedger;

/// How long a circuit stays open at first; doubled for each opening in a row.
pub const CIRCUIT_FIRST: Duration = Duration::from_secs(5);
/// The longest that a circuit stays open.
pub const CIRCUIT_LONGEST: Duration = Duration::from_mins(1);

pub(super) async fn throttle_account(
    ledger: &PgLedger,
    pace_key: &str,
    wait: Duration,
) -> Result<(), LedgerError> {
    let sql = "select throttle_account($1, $2::double precision * interval '1 second')";
    ledger
        .query(sql, &[&pace_key, &wait.as_secs_f64()])
        .await
        .map(drop)
}

pub(super) async fn open_circuit(
    ledger: &PgLedger,
    pace_key: &str,
) -> Result<Option<Duration>, LedgerError> {
    let sql = "select open_circuit($1, $2::double precision * interval '1 second', \
                 $3::double precision * interval '1 second')";
    let (first, longest) = (CIRCUIT_FIRST.as_secs_f64(), CIRCUIT_LONGEST.as_secs_f64());
    let rows = ledger.query(sql, &[&pace_key, &first, &longest]).await?;
    let wait_ms = rows.first().and_then(|row| row.get::<_, Option<i64>>(0));
    Ok(wait_ms.map(|wait_ms| Duration::from_millis(wait_ms.unsigned_abs())))
}

pub(super) async fn close_circuit(ledger: &PgLedger, pace_key: &str) -> Result<(), LedgerError> {
    ledger
        .query("select close_circuit($1)", &[&pace_key])
        .await
        .map(drop)
}

pub(super) async fn repair_clock_step(
    ledger: &PgLedger,
    step: Duration,
) -> Result<(), LedgerError> {
    let sql = "select repair_clock_step($1::double precision * interval '1 second', \
                 $2::double precision * interval '1 second')";
    let (step, lease) = (step.as_secs_f64(), ledger.limits.lease.as_secs_f64());
    ledger.query(sql, &[&step, &lease]).await.map(drop)
}

pub(super) async fn recent_step_back(ledger: &PgLedger) -> Result<Duration, LedgerError> {
    // An hour on either side: it may have gone back again since.
    let sql = "select extract(epoch from clock_went_back)::double precision from database_state \
               where clock_repaired_at between clock_timestamp() - interval '1 hour' \
                                           and clock_timestamp() + interval '1 hour'";
    let rows = ledger.query(sql, &[]).await?;
    let seconds: f64 = rows.first().map_or(0.0, |row| row.get(0));
    Ok(Duration::try_from_secs_f64(seconds).unwrap_or_default())
}
