//! What became of deliveries: for those who look, not for the pipeline. Codes and numbers aren't read here.

use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use voice_otp_schemas::{DeliveryId, TenantId, Timestamp};

use crate::access::Error;
use crate::pool::Pool;

/// A delivery, as somebody looks at it.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Its id.
    pub delivery_id: String,
    /// `waiting`, `placing`, `unsettled`, `calling` or `final`.
    pub state: String,
    /// Its final status.
    pub ended: Option<String>,
    /// The number, masked.
    pub to_masked: Option<String>,
    /// Twilio's SID of its last call.
    pub call_sid: Option<String>,
    /// How many placements there were.
    pub attempt: i32,
    /// What its request carried to be echoed.
    pub context: serde_json::Value,
    /// The steps.
    pub requested_at: Option<Timestamp>,
    /// It was durable.
    pub admitted_at: Timestamp,
    /// Its code's end.
    pub expires_at: Timestamp,
    /// Twilio took the call.
    pub placed_at: Option<Timestamp>,
    /// It rang.
    pub ringing_at: Option<Timestamp>,
    /// Somebody answered.
    pub answered_at: Option<Timestamp>,
    /// The code was entered.
    pub verified_at: Option<Timestamp>,
    /// It was over.
    pub ended_at: Option<Timestamp>,
}

/// Which deliveries.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Admitted at or after this.
    pub since: Option<Timestamp>,
    /// Admitted before this.
    pub until: Option<Timestamp>,
    /// Of these final statuses; `in_progress` means that there is none yet. Empty: all.
    pub statuses: Vec<String>,
    /// To this masked number.
    pub to_masked: Option<String>,
    /// Whose id begins with this.
    pub id: Option<String>,
    /// After this one in the list: its admission and id.
    pub after: Option<(Timestamp, String)>,
}

/// How many ended in one way, in one hour, called with one beginning of a number.
#[derive(Debug, Clone)]
pub struct Tally {
    /// The hour's beginning.
    pub hour: Timestamp,
    /// The final status; `in_progress` where there is none yet.
    pub outcome: String,
    /// A number as masked.
    pub to_masked: Option<String>,
    /// How many.
    pub deliveries: i64,
    /// Of how many Twilio took a call.
    pub placed: i64,
    /// The sum of the times from the call's placement to its ringing, in milliseconds, and of how many.
    pub to_ring: (i64, i64),
}

const COLUMNS: &str = "delivery_id, to_masked, call_sid, attempt, context, requested_at, admitted_at, expires_at, placed_at, \
                       ringing_at, answered_at, verified_at, ended, ended_at";

/// Deliveries of a tenant, the newest first.
///
/// # Errors
/// [`Error`] when the database can't be asked, or needs longer than a few seconds for the question.
pub async fn list(
    pool: &Pool,
    tenant: &TenantId,
    filter: &Filter,
    most: i64,
) -> Result<Vec<Seen>, Error> {
    let sql = format!(
        "select * from ( \
           select state, {COLUMNS} from deliveries where tenant_id = $1 and identity_key <> '' \
           union all \
           select 'final' as state, {COLUMNS} from finished where tenant_id = $1 and ended_at >= coalesce($2::timestamptz, '-infinity') \
         ) d where ($2::timestamptz is null or admitted_at >= $2) and ($3::timestamptz is null or admitted_at < $3) \
           and (cardinality($4::text[]) = 0 or coalesce(ended, 'in_progress') = any ($4)) \
           and ($5::text is null or to_masked = $5) and ($6::text is null or starts_with(delivery_id, $6)) \
           and ($7::timestamptz is null or (admitted_at, delivery_id) < ($7, $8::text)) \
         order by admitted_at desc, delivery_id desc limit $9"
    );
    let (after_at, after_id) = filter.after.clone().unzip();
    let params: [&(dyn ToSql + Sync); 9] = [
        &tenant.as_str(),
        &filter.since,
        &filter.until,
        &filter.statuses,
        &filter.to_masked,
        &filter.id,
        &after_at,
        &after_id,
        &most,
    ];
    Ok(query(pool, &sql, &params, "list deliveries")
        .await?
        .iter()
        .map(seen)
        .collect())
}

/// One delivery of a tenant.
///
/// # Errors
/// [`Error`] when the database can't be asked.
pub async fn find(pool: &Pool, tenant: &TenantId, id: &DeliveryId) -> Result<Option<Seen>, Error> {
    let sql = format!(
        "select state, {COLUMNS} from deliveries where tenant_id = $1 and delivery_id = $2 and identity_key <> '' \
         union all select 'final' as state, {COLUMNS} from finished where tenant_id = $1 and delivery_id = $2 limit 1"
    );
    Ok(query(
        pool,
        &sql,
        &[&tenant.as_str(), &id.as_str()],
        "find a delivery",
    )
    .await?
    .first()
    .map(seen))
}

/// What became of a tenant's deliveries admitted since, by hour, outcome and number as masked.
///
/// # Errors
/// As of [`list`].
pub async fn tally(pool: &Pool, tenant: &TenantId, since: Timestamp) -> Result<Vec<Tally>, Error> {
    let columns = "to_masked, admitted_at, placed_at, ringing_at, ended, context";
    let sql = format!(
        "select date_trunc('hour', admitted_at, 'UTC') as hour, coalesce(ended, 'in_progress') as outcome, \
                left(to_masked, 5) || '*****' as to_masked, count(*) as deliveries, \
                count(placed_at) as placed, \
                coalesce(sum((extract(epoch from ringing_at - placed_at) * 1000)::bigint), 0)::bigint as ring_ms, \
                count(ringing_at - placed_at) as rang \
           from (select {columns} from deliveries where tenant_id = $1 and identity_key <> '' \
                 union all select {columns} from finished where tenant_id = $1 and ended_at >= $2) d \
          where admitted_at >= $2 and context ->> 'test_call' is distinct from 'true' group by 1, 2, 3 order by 1"
    );
    let tally = |row: &Row| Tally {
        hour: row.get("hour"),
        outcome: row.get("outcome"),
        to_masked: row.get("to_masked"),
        deliveries: row.get("deliveries"),
        placed: row.get("placed"),
        to_ring: (row.get("ring_ms"), row.get("rang")),
    };
    Ok(
        query(pool, &sql, &[&tenant.as_str(), &since], "count deliveries")
            .await?
            .iter()
            .map(tally)
            .collect(),
    )
}

/// What calls cost.
#[derive(Debug, Clone)]
pub struct Spend {
    /// The currency, ISO 4217.
    pub unit: String,
    /// How much.
    pub amount: f64,
    /// How many calls.
    pub calls: i64,
}

/// What a tenant's calls that ended since cost, as far as Twilio has told: it takes minutes to.
///
/// # Errors
/// [`Error`] when the database can't be asked.
pub async fn spend(pool: &Pool, tenant: &TenantId, since: Timestamp) -> Result<Vec<Spend>, Error> {
    let sql = "select unit, sum(amount) as amount, sum(calls)::bigint as calls from spend \
               where tenant_id = $1 and hour >= date_trunc('hour', $2::timestamptz, 'UTC') group by unit order by unit";
    let spend = |row: &Row| Spend {
        unit: row.get("unit"),
        amount: row.get("amount"),
        calls: row.get("calls"),
    };
    Ok(query(
        pool,
        sql,
        &[&tenant.as_str(), &since],
        "add up what calls cost",
    )
    .await?
    .iter()
    .map(spend)
    .collect())
}

/// A worker, as its lease shows it.
#[derive(Debug, Clone)]
pub struct Worker {
    /// Its number.
    pub epoch: i64,
    /// Its host and process.
    pub name: String,
    /// When it began.
    pub started_at: Timestamp,
    /// Whether its lease holds.
    pub alive: bool,
    /// How many deliveries it holds that aren't over.
    pub holds: i64,
}

/// The workers that are known, those that live first.
///
/// # Errors
/// [`Error`] when the database can't be asked.
pub async fn workers(pool: &Pool) -> Result<Vec<Worker>, Error> {
    let sql = "select w.epoch, w.name, w.started_at, w.lease_until > clock_timestamp() as alive, \
                 (select count(*) from deliveries d where d.owner = w.epoch and d.state <> 'final') as holds \
               from workers w order by alive desc, w.epoch desc limit 100";
    let worker = |row: &Row| Worker {
        epoch: row.get("epoch"),
        name: row.get("name"),
        started_at: row.get("started_at"),
        alive: row.get("alive"),
        holds: row.get("holds"),
    };
    Ok(query(pool, sql, &[], "list the workers")
        .await?
        .iter()
        .map(worker)
        .collect())
}

fn seen(row: &Row) -> Seen {
    Seen {
        delivery_id: row.get("delivery_id"),
        state: row.get("state"),
        ended: row.get("ended"),
        to_masked: row.get("to_masked"),
        call_sid: row.get("call_sid"),
        attempt: row.get("attempt"),
        context: row.get("context"),
        requested_at: row.get("requested_at"),
        admitted_at: row.get("admitted_at"),
        expires_at: row.get("expires_at"),
        placed_at: row.get("placed_at"),
        ringing_at: row.get("ringing_at"),
        answered_at: row.get("answered_at"),
        verified_at: row.get("verified_at"),
        ended_at: row.get("ended_at"),
    }
}

async fn query(
    pool: &Pool,
    sql: &str,
    params: &[&(dyn ToSql + Sync)],
    what: &'static str,
) -> Result<Vec<Row>, Error> {
    let client = pool.get().await.map_err(Error::Connect)?;
    client
        .query(sql, params)
        .await
        .map_err(|error| Error::Query(what, error))
}
