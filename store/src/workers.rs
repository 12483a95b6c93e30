//! The workers, as their leases show them.

use voice_otp_schemas::Timestamp;

use crate::query::query;
use crate::{Error, Pool};

/// One registration of a worker.
#[derive(Debug, Clone)]
pub struct Worker {
    /// The registration's epoch.
    pub epoch: i64,
    /// The worker's host and process id.
    pub name: String,
    /// When the worker registered.
    pub started_at: Timestamp,
    /// Whether its lease is valid.
    pub alive: bool,
    /// How many open deliveries it owns.
    pub deliveries: i64,
}

const LIST: &str = include_str!("../sql/statements/list_workers.sql");

/// Lists the latest 100 registrations, those with a valid lease first.
///
/// # Errors
/// [`Error`] when the database can't be asked.
pub async fn list(pool: &Pool) -> Result<Vec<Worker>, Error> {
    let rows = query(pool, "list the workers", LIST, &[]).await?;
    let worker = |row: &tokio_postgres::Row| Worker {
        epoch: row.get("epoch"),
        name: row.get("name"),
        started_at: row.get("started_at"),
        alive: row.get("alive"),
        deliveries: row.get("deliveries"),
    };
    Ok(rows.iter().map(worker).collect())
}
