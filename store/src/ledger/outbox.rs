//! Status events that are not known to be published.

use std::collections::HashSet;

use tokio_postgres::Row;
use voice_otp::event::Event;
use voice_otp::ports::{LedgerError, WorkerEpoch};
use voice_otp_schemas::envelope::Trace;
use voice_otp_schemas::status::Status;
use voice_otp_schemas::{DeliveryKey, TenantId, Timestamp};

use super::{PgLedger, row};

const DELETE_PUBLISHED: &str = include_str!("../../sql/statements/delete_published.sql");
const CLAIM_UNPUBLISHED: &str = include_str!("../../sql/statements/claim_unpublished.sql");
const FIND_OWN_UNPUBLISHED: &str = include_str!("../../sql/statements/find_own_unpublished.sql");

pub(super) async fn delete_published(
    ledger: &PgLedger,
    events: &[(DeliveryKey, u32)],
) -> Result<(), LedgerError> {
    let tenants: Vec<&str> = events
        .iter()
        .map(|(key, _)| key.tenant_id.as_str())
        .collect();
    let deliveries: Vec<&str> = events
        .iter()
        .map(|(key, _)| key.delivery_id.as_str())
        .collect();
    let sequences: Vec<i32> = events
        .iter()
        .map(|(_, sequence)| sequence.cast_signed())
        .collect();
    ledger
        .query(DELETE_PUBLISHED, &[&tenants, &deliveries, &sequences])
        .await
        .map(drop)
}

pub(super) async fn claim_unpublished(
    ledger: &PgLedger,
    worker: WorkerEpoch,
    limit: usize,
) -> Result<Vec<Event>, LedgerError> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = ledger
        .query(CLAIM_UNPUBLISHED, &[&worker.0, &limit])
        .await?;
    rows.iter().map(event).collect()
}

pub(super) async fn find_own_unpublished(
    ledger: &PgLedger,
    worker: WorkerEpoch,
    (after, limit): (Timestamp, usize),
    without: &HashSet<TenantId>,
) -> Result<(Vec<Event>, Option<Timestamp>), LedgerError> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let without: Vec<&str> = without.iter().map(TenantId::as_str).collect();
    let forgotten = ledger.limits.forgotten.as_secs_f64();
    let rows = ledger
        .query(
            FIND_OWN_UNPUBLISHED,
            &[&worker.0, &forgotten, &after, &limit, &without],
        )
        .await?;
    let last = rows.iter().map(|row| row.get("created_at")).max();
    let events = rows.iter().map(event).collect::<Result<_, _>>()?;
    Ok((events, last))
}

fn event(row: &Row) -> Result<Event, LedgerError> {
    let status =
        Status::parse(row.get("status")).ok_or(LedgerError::ProtocolViolation("status"))?;
    Ok(Event {
        key: row::key(row)?,
        sequence: row.get::<_, i32>("sequence").cast_unsigned(),
        status: Some(status),
        routing_key: row.get("routing_key"),
        body: row.get("body"),
        trace: Trace {
            traceparent: row.get("traceparent"),
            tracestate: row.get("tracestate"),
        },
    })
}
