//! Workers' lives, and what dead ones left.

use tokio_postgres::Row;
use voice_otp::delivery::{Delivery, WorkerEpoch};
use voice_otp::ports::{Beat, LedgerError};
use voice_otp_schemas::Timestamp;

use super::{PgLedger, row};

pub(super) async fn enlist(
    ledger: &PgLedger,
    name: &str,
) -> Result<(WorkerEpoch, Timestamp), LedgerError> {
    let sql = "insert into workers (name, lease_until) values ($1, clock_timestamp() + $2::double precision * interval '1 second') \
               returning epoch, clock_timestamp()";
    let rows = ledger
        .query(sql, &[&name, &ledger.limits.lease.as_secs_f64()])
        .await?;
    let row = rows.first().ok_or(LedgerError::Nonsense("enlist"))?;
    Ok((WorkerEpoch(row.get(0)), row.get(1)))
}

pub(super) async fn beat(ledger: &PgLedger, worker: WorkerEpoch) -> Result<Beat, LedgerError> {
    // A life that has ended is not prolonged: its deliveries may be others' already.
    let sql = "with renewed as (update workers set lease_until = clock_timestamp() + $2::double precision * interval '1 second' \
                 where epoch = $1 and lease_until > clock_timestamp() returning 1), \
               swept as (delete from workers where lease_until < clock_timestamp() - interval '1 day') \
               select clock_timestamp(), exists (select 1 from renewed)";
    let rows = ledger
        .query(sql, &[&worker.0, &ledger.limits.lease.as_secs_f64()])
        .await?;
    let row = rows.first().ok_or(LedgerError::Nonsense("beat"))?;
    Ok(Beat {
        now: row.get(0),
        alive: row.get(1),
    })
}

pub(super) async fn retire(ledger: &PgLedger, worker: WorkerEpoch) -> Result<(), LedgerError> {
    ledger
        .query(
            "update workers set lease_until = clock_timestamp() where epoch = $1",
            &[&worker.0],
        )
        .await
        .map(drop)
}

/// A row sealed by a key that isn't here is left to a worker that has it.
pub(super) async fn claim(
    ledger: &PgLedger,
    worker: WorkerEpoch,
    most: usize,
) -> Result<Vec<Delivery>, LedgerError> {
    // The time stands in a row of its own: a volatile function in a condition keeps an index from being used.
    let sql = "with clock as materialized (select clock_timestamp() as t), \
               alive as materialized (select epoch from workers, clock where lease_until > t), \
               due as (select d.at from clock cross join lateral (select d.ctid as at from deliveries d \
                 where d.state <> 'final' and d.wake_at <= t + $4::double precision * interval '1 second' \
                   and (d.state = 'waiting' or d.wake_at <= t) \
                   and (d.sealed_key is null or d.sealed_key = any ($2)) \
                   and (d.owner is null or d.owner not in (select epoch from alive) \
                        or (d.owner <> $1 and d.wake_at < t - interval '1 minute')) \
                 order by d.wake_at limit $3 for update skip locked) d), \
               untold as (select d.ctid as at from deliveries d where d.untold and d.state <> 'final' \
                 and (d.sealed_key is null or d.sealed_key = any ($2)) order by d.wake_at limit $3 for update skip locked) \
               update deliveries d set owner = $1, revision = d.revision + 1, untold = false \
                 from (select at from due union select at from untold) taken where d.ctid = taken.at returning d.*";
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    let mut rows: Vec<Row> = ledger
        .query(
            sql,
            &[
                &worker.0,
                &ledger.keys.ids(),
                &most,
                &ledger.limits.claim_ahead.as_secs_f64(),
            ],
        )
        .await?;
    let own = "select d.* from (select clock_timestamp() - $2::double precision * interval '1 second' as t offset 0) clock \
               cross join lateral (select * from deliveries where owner = $1 and state <> 'final' and wake_at < t \
                 order by wake_at limit $3) d";
    rows.extend(
        ledger
            .query(
                own,
                &[&worker.0, &ledger.limits.forgotten.as_secs_f64(), &most],
            )
            .await?,
    );
    rows.iter()
        .map(|row| row::delivery(row, &ledger.keys))
        .collect()
}
