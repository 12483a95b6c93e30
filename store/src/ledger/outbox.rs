//! Status events that are not known to be published.

use tokio_postgres::Row;
use voice_otp::delivery::{Key, WorkerEpoch};
use voice_otp::event::Event;
use voice_otp::ports::LedgerError;
use voice_otp_schemas::envelope::Trace;
use voice_otp_schemas::status::Status;
use voice_otp_schemas::{DeliveryId, TenantId};

use super::PgLedger;

pub(super) async fn published(ledger: &PgLedger, events: &[(Key, u32)]) -> Result<(), LedgerError> {
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
    // Not waited for until it is on the disk: what a crash of the database brings back is published again, the same event.
    let sql = "with hurry as materialized (select set_config('synchronous_commit', 'off', true)) \
               delete from outbox o using hurry, unnest($1::text[], $2::text[], $3::int[]) as x(tenant_id, delivery_id, sequence) \
               cross join lateral (select l.ctid as at from outbox l where l.tenant_id = x.tenant_id \
                 and l.delivery_id = x.delivery_id and l.sequence = x.sequence limit 1) l \
               where o.ctid = l.at";
    ledger
        .query(sql, &[&tenants, &deliveries, &sequences])
        .await
        .map(drop)
}

/// Takes a delivery's events by its first: whoever holds the first row has them all, so two sweepers never share one.
pub(super) async fn unpublished(
    ledger: &PgLedger,
    worker: WorkerEpoch,
    most: usize,
) -> Result<Vec<Event>, LedgerError> {
    let sql = "with alive as materialized (select epoch from workers where lease_until > clock_timestamp() and epoch <> $1), \
               left_behind as (select o.tenant_id, o.delivery_id from outbox o \
                 where o.owner not in (select epoch from alive) \
                   and (o.owner <> $1 or o.created_at < clock_timestamp() - $2::double precision * interval '1 second') \
                   and not exists (select 1 from outbox l \
                     where l.tenant_id = o.tenant_id and l.delivery_id = o.delivery_id and l.sequence < o.sequence) \
                 order by o.created_at limit $3 for update skip locked), \
               mine as (update outbox o set owner = $1 from left_behind l \
                 where o.tenant_id = l.tenant_id and o.delivery_id = l.delivery_id returning o.*) \
               select * from mine order by tenant_id, delivery_id, sequence";
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    let rows = ledger
        .query(
            sql,
            &[&worker.0, &ledger.limits.forgotten.as_secs_f64(), &most],
        )
        .await?;
    rows.iter().map(event).collect()
}

fn event(row: &Row) -> Result<Event, LedgerError> {
    Ok(Event {
        key: Key {
            tenant_id: TenantId::parse(row.get("tenant_id"))
                .map_err(|_| LedgerError::Nonsense("tenant_id"))?,
            delivery_id: DeliveryId::parse(row.get("delivery_id"))
                .map_err(|_| LedgerError::Nonsense("delivery_id"))?,
        },
        sequence: row.get::<_, i32>("sequence").cast_unsigned(),
        status: Some(Status::from_word(row.get("status")).ok_or(LedgerError::Nonsense("status"))?),
        routing_key: row.get("routing_key"),
        body: row.get("body"),
        trace: Trace {
            traceparent: row.get("traceparent"),
            tracestate: row.get("tracestate"),
        },
    })
}
