//! Deliveries and spend, for the console and the command line, not for the pipeline. Codes and
//! numbers are not read here.

use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use voice_otp_schemas::{DeliveryId, TenantId, Timestamp};

use crate::query::{query, query_slow};
use crate::{Error, Pool};

/// A delivery without its code and number.
#[derive(Debug, Clone)]
pub struct Seen {
    /// The delivery's id.
    pub delivery_id: String,
    /// `waiting`, `placing`, `unsettled`, `calling` or `final`.
    pub state: String,
    /// The final status, once it has one.
    pub final_status: Option<String>,
    /// The called number, masked.
    pub to_masked: Option<String>,
    /// Twilio's SID of the last call.
    pub call_sid: Option<String>,
    /// The number of attempts.
    pub attempt: i32,
    /// The request's context, which its statuses repeat.
    pub context: serde_json::Value,
    /// The request's own time.
    pub requested_at: Option<Timestamp>,
    /// When the request was stored.
    pub admitted_at: Timestamp,
    /// When the code expires.
    pub expires_at: Timestamp,
    /// When Twilio accepted the call.
    pub placed_at: Option<Timestamp>,
    /// When the call rang.
    pub ringing_at: Option<Timestamp>,
    /// When the call was answered.
    pub answered_at: Option<Timestamp>,
    /// When the code was entered.
    pub verified_at: Option<Timestamp>,
    /// When the delivery got its final status.
    pub ended_at: Option<Timestamp>,
}

/// Which deliveries to list. The conditions of all given fields must hold.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Admitted at or after this time.
    pub since: Option<Timestamp>,
    /// Admitted before this time.
    pub until: Option<Timestamp>,
    /// With one of these final statuses; `in_progress` means that there is none yet. Empty: any.
    pub statuses: Vec<String>,
    /// To this masked number.
    pub to_masked: Option<String>,
    /// With an id that begins with this.
    pub id: Option<String>,
    /// After this delivery in the list: its admission and id.
    pub after: Option<(Timestamp, String)>,
}

/// Deliveries of one hour with the same outcome and the same first digits of the number.
#[derive(Debug, Clone)]
pub struct Tally {
    /// The beginning of the hour in which they were admitted.
    pub hour: Timestamp,
    /// The final status; `in_progress` where there is none yet.
    pub outcome: String,
    /// The first digits of the number, the rest masked.
    pub to_masked: Option<String>,
    /// How many deliveries.
    pub deliveries: i64,
    /// How many of them were counted now, because they aren't archived.
    pub recent: i64,
    /// For how many of them Twilio accepted a call.
    pub placed: i64,
    /// The sum of the times from Twilio's acceptance to ringing, in milliseconds, and of how many
    /// calls.
    pub to_ring: (i64, i64),
}

const LIST: &str = include_str!("../sql/statements/list_deliveries.sql");
const FIND: &str = include_str!("../sql/statements/find_delivery.sql");
const TALLY: &str = include_str!("../sql/statements/tally_deliveries.sql");
/// The deliveries that [`tally`] counts of those that aren't archived yet.
pub const MAX_COUNTED: i64 = 100_000;
const SPEND: &str = include_str!("../sql/statements/sum_spend.sql");

/// Lists up to `limit` deliveries of a tenant, the newest first.
///
/// # Errors
/// [`Error::TooSlow`] after 5 s; another [`Error`] when the database can't be asked.
pub async fn list(
    pool: &Pool,
    tenant: &TenantId,
    filter: &Filter,
    limit: i64,
) -> Result<Vec<Seen>, Error> {
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
        &limit,
    ];
    let rows = query_slow(pool, "list deliveries", LIST, &params).await?;
    Ok(rows.iter().map(seen).collect())
}

/// Reads one delivery of a tenant.
///
/// # Errors
/// [`Error`] when the database can't be asked.
pub async fn find(pool: &Pool, tenant: &TenantId, id: &DeliveryId) -> Result<Option<Seen>, Error> {
    let rows = query(
        pool,
        "find a delivery",
        FIND,
        &[&tenant.as_str(), &id.as_str()],
    )
    .await?;
    Ok(rows.first().map(seen))
}

/// Counts a tenant's deliveries admitted since the hour of a time, by hour, outcome and first
/// digits. Test calls don't count. Archived deliveries were counted when they were archived; of the
/// others up to [`MAX_COUNTED`] are counted now.
///
/// # Errors
/// [`Error::TooSlow`] after 5 s; another [`Error`] when the database can't be asked.
pub async fn tally(pool: &Pool, tenant: &TenantId, since: Timestamp) -> Result<Vec<Tally>, Error> {
    let params: [&(dyn ToSql + Sync); 3] = [&tenant.as_str(), &since, &MAX_COUNTED];
    let rows = query_slow(pool, "count deliveries", TALLY, &params).await?;
    let tally = |row: &Row| Tally {
        hour: row.get("hour"),
        outcome: row.get("outcome"),
        to_masked: row.get("to_masked"),
        deliveries: row.get("deliveries"),
        recent: row.get("recent"),
        placed: row.get("placed"),
        to_ring: (row.get("ring_ms"), row.get("rang")),
    };
    Ok(rows.iter().map(tally).collect())
}

/// What calls cost, in one currency.
#[derive(Debug, Clone)]
pub struct Spend {
    /// The currency, ISO 4217.
    pub unit: String,
    /// The sum of the prices.
    pub amount: f64,
    /// How many calls.
    pub calls: i64,
}

/// Sums the prices of a tenant's calls that ended since a time, as far as Twilio has reported them:
/// that takes minutes after a call.
///
/// # Errors
/// [`Error`] when the database can't be asked.
pub async fn spend(pool: &Pool, tenant: &TenantId, since: Timestamp) -> Result<Vec<Spend>, Error> {
    let rows = query(pool, "sum the spend", SPEND, &[&tenant.as_str(), &since]).await?;
    let spend = |row: &Row| Spend {
        unit: row.get("unit"),
        amount: row.get("amount"),
        calls: row.get("calls"),
    };
    Ok(rows.iter().map(spend).collect())
}

fn seen(row: &Row) -> Seen {
    Seen {
        delivery_id: row.get("delivery_id"),
        state: row.get("state"),
        final_status: row.get("final_status"),
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
