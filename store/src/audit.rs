//! The audit log: who changed what, and when. Never a secret.

use serde_json::Value;
use tokio_postgres::Row;
use voice_otp_schemas::{TenantId, Timestamp};

use crate::access::Error;
use crate::pool::Pool;

/// A change.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its number; later ones are greater.
    pub id: i64,
    /// When.
    pub at: Timestamp,
    /// Who.
    pub actor: String,
    /// Whose, if it is one tenant's.
    pub tenant_id: Option<String>,
    /// What was done, a word.
    pub action: String,
    /// What exactly.
    pub detail: Value,
}

/// Who uses the command line, and so has the database anyway.
pub const COMMAND_LINE: &str = "command line";

/// Writes a change down.
///
/// # Errors
/// [`Error`] when the database can't be asked.
pub async fn write(
    pool: &Pool,
    actor: &str,
    tenant: Option<&TenantId>,
    action: &str,
    detail: &Value,
) -> Result<(), Error> {
    let client = pool.get().await.map_err(Error::Connect)?;
    let sql = "insert into audit_log (actor, tenant_id, action, detail) values ($1, $2, $3, $4)";
    let tenant = tenant.map(TenantId::as_str);
    client
        .execute(sql, &[&actor, &tenant, &action, detail])
        .await
        .map_err(|error| Error::Query("write the audit log", error))?;
    Ok(())
}

/// The latest changes of a tenant, or of all and everything else; those before a number, if one is given.
///
/// # Errors
/// [`Error`] when the database can't be asked.
pub async fn read(
    pool: &Pool,
    tenant: Option<&TenantId>,
    before: Option<i64>,
    most: i64,
) -> Result<Vec<Entry>, Error> {
    let client = pool.get().await.map_err(Error::Connect)?;
    let sql = "select id, at, actor, tenant_id, action, detail from audit_log \
               where ($1::text is null or tenant_id = $1) and ($2::bigint is null or id < $2) order by id desc limit $3";
    let tenant = tenant.map(TenantId::as_str);
    let rows = client
        .query(sql, &[&tenant, &before, &most])
        .await
        .map_err(|error| Error::Query("read the audit log", error))?;
    let entry = |row: &Row| Entry {
        id: row.get("id"),
        at: row.get("at"),
        actor: row.get("actor"),
        tenant_id: row.get("tenant_id"),
        action: row.get("action"),
        detail: row.get("detail"),
    };
    Ok(rows.iter().map(entry).collect())
}
