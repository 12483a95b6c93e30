//! Calls whose price is not known yet.

use tokio_postgres::Row;
use voice_otp::account::CallSid;
use voice_otp::ports::{LedgerError, UnpricedCall};
use voice_otp::price::Price;

use super::{PgLedger, row};

/// Deletes calls whose price Twilio has not reported for a day.
const DELETE_OLD: &str = "delete from unpriced_calls u \
     using (select clock_timestamp() as t offset 0) c where u.ended_at < c.t - interval '1 day' \
     returning 1";
const CLAIM: &str = include_str!("../../sql/statements/claim_unpriced_calls.sql");
const CLEAR: &str = include_str!("../../sql/statements/clear_unpriced_calls.sql");

pub(super) async fn claim_unpriced_calls(
    ledger: &PgLedger,
    limit: usize,
) -> Result<Vec<UnpricedCall>, LedgerError> {
    let deleted = ledger.query(DELETE_OLD, &[]).await?.len();
    if deleted > 0 {
        tracing::warn!(
            calls = deleted,
            "Twilio reported no price for a day; the calls are no longer queried"
        );
    }
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = ledger.query(CLAIM, &[&limit]).await?;
    rows.iter().map(read).collect()
}

pub(super) async fn clear_unpriced_calls(
    ledger: &PgLedger,
    priced: &[(CallSid, Price)],
) -> Result<(), LedgerError> {
    let sids: Vec<&str> = priced.iter().map(|(sid, _)| sid.as_str()).collect();
    let amounts: Vec<f64> = priced
        .iter()
        .map(|(sid, price)| amount(sid, price))
        .collect();
    let units: Vec<&str> = priced
        .iter()
        .map(|(_, price)| price.unit.as_str())
        .collect();
    ledger
        .query(CLEAR, &[&sids, &amounts, &units])
        .await
        .map(drop)
}

/// The price as a number. One that isn't a number has been published as Twilio wrote it, and counts
/// as 0 in the tenant's spend.
fn amount(sid: &CallSid, price: &Price) -> f64 {
    price.amount.parse().unwrap_or_else(|_| {
        tracing::warn!(call.sid = %sid.as_str(), "a call's price is not a number; counted as 0");
        0.0
    })
}

fn read(row: &Row) -> Result<UnpricedCall, LedgerError> {
    let key = row::key(row)?;
    Ok(UnpricedCall {
        call_sid: CallSid::parse(row.get("call_sid"))
            .map_err(|_| LedgerError::ProtocolViolation("call_sid"))?,
        attempt: row.get::<_, i32>("attempt").cast_unsigned(),
        ended_at: row.get("ended_at"),
        to_masked: row.get("to_masked"),
        context: row::context(row, &key),
        key,
    })
}
