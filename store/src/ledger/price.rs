//! Calls whose price isn't known yet.

use tokio_postgres::Row;
use voice_otp::account::CallSid;
use voice_otp::delivery::{Key, Price};
use voice_otp::ports::{LedgerError, Unpriced};
use voice_otp_schemas::{Context, DeliveryId, TenantId};

use super::PgLedger;

/// What nobody has told for a day.
const OLD: &str = "delete from unpriced_calls u using (select clock_timestamp() as t offset 0) c where u.ended_at < c.t - interval '1 day'";

/// What is due is put off, by longer each time, and given out.
const UNPRICED: &str = "with due as (select call_sid from (select clock_timestamp() as t offset 0) c cross join lateral ( \
        select call_sid from unpriced_calls where ask_at <= t order by ask_at limit $1 for update skip locked) d) \
    update unpriced_calls u set asked = u.asked + 1, \
        ask_at = clock_timestamp() + least(interval '1 hour', interval '30 seconds' * power(2, least(u.asked, 10))) \
      from due where u.call_sid = due.call_sid returning u.*";

pub(super) async fn unpriced(ledger: &PgLedger, most: usize) -> Result<Vec<Unpriced>, LedgerError> {
    let forgotten = ledger.execute(OLD, &[]).await?;
    if forgotten > 0 {
        tracing::warn!(
            calls = forgotten,
            "Twilio hasn't told for a day what calls cost; they are not asked for any more"
        );
    }
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    let rows = ledger.query(UNPRICED, &[&most]).await?;
    rows.iter().map(read).collect()
}

/// A price counts once, with the row that it takes away. Twilio writes what was paid as a negative number.
const PRICED: &str = "with gone as (delete from unpriced_calls where call_sid = any ($1) returning call_sid, tenant_id, ended_at) \
    insert into spend as s (tenant_id, hour, unit, amount, calls) \
      select g.tenant_id, date_trunc('hour', g.ended_at, 'UTC'), p.unit, sum(-p.amount), count(*) \
        from gone g join unnest($1::text[], $2::double precision[], $3::text[]) as p(call_sid, amount, unit) on p.call_sid = g.call_sid \
       group by 1, 2, 3 order by 1, 2, 3 \
    on conflict (tenant_id, hour, unit) do update set amount = s.amount + excluded.amount, calls = s.calls + excluded.calls";

pub(super) async fn priced(
    ledger: &PgLedger,
    told: &[(CallSid, Price)],
) -> Result<(), LedgerError> {
    let sids: Vec<&str> = told.iter().map(|(sid, _)| sid.as_str()).collect();
    let amounts: Vec<f64> = told
        .iter()
        .map(|(_, price)| price.amount.parse().unwrap_or(0.0))
        .collect();
    let units: Vec<&str> = told.iter().map(|(_, price)| price.unit.as_str()).collect();
    ledger
        .query(PRICED, &[&sids, &amounts, &units])
        .await
        .map(drop)
}

fn read(row: &Row) -> Result<Unpriced, LedgerError> {
    let context: serde_json::Value = row.get("context");
    Ok(Unpriced {
        call_sid: CallSid::parse(row.get("call_sid"))
            .map_err(|_| LedgerError::Nonsense("call_sid"))?,
        key: Key {
            tenant_id: TenantId::parse(row.get("tenant_id"))
                .map_err(|_| LedgerError::Nonsense("tenant_id"))?,
            delivery_id: DeliveryId::parse(row.get("delivery_id"))
                .map_err(|_| LedgerError::Nonsense("delivery_id"))?,
        },
        attempt: row.get::<_, i32>("attempt").cast_unsigned(),
        ended_at: row.get("ended_at"),
        to_masked: row.get("to_masked"),
        context: Context::from_json(&context).unwrap_or_default(),
    })
}
