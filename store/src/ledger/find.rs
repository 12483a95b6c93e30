//! Reading deliveries, by key, attempt, user and call.

use voice_otp::account::CallSid;
use voice_otp::delivery::{AttemptId, Delivery};
use voice_otp::ports::{Attempt, LedgerError};
use voice_otp_schemas::DeliveryKey;

use super::{PgLedger, row};

const FIND_DELIVERIES: &str = include_str!("../../sql/statements/find_deliveries.sql");
const FIND_ATTEMPT: &str = include_str!("../../sql/statements/find_attempt.sql");
const FIND_OLDER_REQUESTS: &str = include_str!("../../sql/statements/find_older_requests.sql");
const KNOWN_CALLS: &str = "select call_sid from deliveries where call_sid = any ($1) \
     union all select call_sid from past_attempts where call_sid = any ($1)";

pub(super) async fn find_all(
    ledger: &PgLedger,
    keys: &[DeliveryKey],
) -> Result<Vec<Delivery>, LedgerError> {
    let (tenants, ids) = columns(keys);
    let rows = ledger.query(FIND_DELIVERIES, &[&tenants, &ids]).await?;
    row::deliveries(&rows, &ledger.keys)
}

/// Keys as the arrays that statements take: tenant ids and delivery ids.
pub(super) fn columns(keys: &[DeliveryKey]) -> (Vec<&str>, Vec<&str>) {
    keys.iter()
        .map(|key| (key.tenant_id.as_str(), key.delivery_id.as_str()))
        .unzip()
}

pub(super) async fn find_attempt(
    ledger: &PgLedger,
    attempt: AttemptId,
) -> Result<Option<Attempt>, LedgerError> {
    let rows = ledger.query(FIND_ATTEMPT, &[&attempt.0]).await?;
    let found = |row| {
        Ok(Attempt {
            delivery: row::delivery(row, &ledger.keys)?,
            ended: row.get("attempt_ended"),
        })
    };
    rows.first().map(found).transpose()
}

pub(super) async fn find_older_requests(
    ledger: &PgLedger,
    key: &DeliveryKey,
) -> Result<Vec<Delivery>, LedgerError> {
    let (tenant, delivery) = (key.tenant_id.as_str(), key.delivery_id.as_str());
    let rows = ledger
        .query(FIND_OLDER_REQUESTS, &[&tenant, &delivery])
        .await?;
    row::deliveries(&rows, &ledger.keys)
}

pub(super) async fn known_calls(
    ledger: &PgLedger,
    sids: &[CallSid],
) -> Result<Vec<CallSid>, LedgerError> {
    let texts: Vec<&str> = sids.iter().map(CallSid::as_str).collect();
    let rows = ledger.query(KNOWN_CALLS, &[&texts]).await?;
    rows.iter()
        .map(|row| {
            CallSid::parse(row.get("call_sid"))
                .map_err(|_| LedgerError::ProtocolViolation("call_sid"))
        })
        .collect()
}
