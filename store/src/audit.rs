//! The audit log: every change of settings, accounts and tokens, with its actor. Never a secret.

use serde_json::Value;
use tokio_postgres::Row;
use voice_otp_schemas::{TenantId, Timestamp};

use crate::query::{execute, query};
use crate::{Error, Pool};

/// One change.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The entry's number; later entries have greater ones.
    pub id: i64,
    /// When the change was made.
    pub at: Timestamp,
    /// Who made it: a token's name and id, or [`COMMAND_LINE`].
    pub actor: String,
    /// The tenant that the change concerns, if it concerns one.
    pub tenant_id: Option<String>,
    /// What was done, as one word.
    pub action: String,
    /// The changed values, without secrets.
    pub detail: Value,
}

/// The actor of changes made on the command line, whose user has access to the database anyway.
pub const COMMAND_LINE: &str = "command line";

/// Adds an entry.
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
    let sql = "insert into audit_log (actor, tenant_id, action, detail) values ($1, $2, $3, $4)";
    let tenant = tenant.map(TenantId::as_str);
    execute(
        pool,
        "write the audit log",
        sql,
        &[&actor, &tenant, &action, detail],
    )
    .await
    .map(drop)
}

const READ: &str = include_str!("../sql/statements/read_audit_log.sql");

/// Reads up to `limit` entries, the latest first: those of a tenant, or all; those before an id, if
/// one is given.
///
/// # Errors
/// [`Error`] when the database can't be asked.
pub async fn read(
    pool: &Pool,
    tenant: Option<&TenantId>,
    before: Option<i64>,
    limit: i64,
) -> Result<Vec<Entry>, Error> {
    let tenant = tenant.map(TenantId::as_str);
    let rows = query(
        pool,
        "read the audit log",
        READ,
        &[&tenant, &before, &limit],
    )
    .await?;
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
