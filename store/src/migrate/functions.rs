//! Applying the SQL functions, and telling whether a database has them.

use std::collections::BTreeMap;

use deadpool_postgres::Client;

use super::{Error, checksum, table_exists};

/// Names a function and embeds its file.
macro_rules! functions {
    ($($name:literal),+ $(,)?) => {
        &[$(($name, include_str!(concat!("../../sql/functions/", $name, ".sql")))),+]
    };
}

/// All functions, with the text of their files. A function stands after those that it calls.
const FUNCTIONS: &[(&str, &str)] = functions![
    "note_timeline",
    "notify_settings_changed",
    "notify_account_changed",
    "pace_interval",
    "batch_size_hint",
    "ensure_pacing",
    "lock_pacing",
    "reschedule_account",
    "void_slots",
    "repair_clock_step",
    "set_account_rate",
    "set_account_paused",
    "set_tenant_paused",
    "throttle_account",
    "open_circuit",
    "close_circuit",
    "claim_deliveries",
    "admit",
    "start_attempts",
    "maintain_archive_partitions",
    "archive_finished",
];

/// Applies all functions if any differs, and drops those that were applied by another version and
/// have no file here. Returns how many it changed.
pub(super) async fn apply(client: &mut Client) -> Result<usize, Error> {
    let table = "create table if not exists voice_otp_functions (
        name text primary key, checksum bytea not null,
        applied_at timestamptz not null default clock_timestamp())";
    client.batch_execute(table).await.map_err(Error::Read)?;
    let different = different(client).await?;
    if different.is_empty() {
        return Ok(0);
    }
    let transaction = client.transaction().await.map_err(Error::Read)?;
    for (name, text) in FUNCTIONS {
        let step = |error| Error::Function((*name).to_owned(), error);
        transaction.batch_execute(text).await.map_err(step)?;
        let record = "insert into voice_otp_functions (name, checksum) values ($1, $2) \
                      on conflict (name) do update set \
                        checksum = excluded.checksum, applied_at = excluded.applied_at \
                      where voice_otp_functions.checksum <> excluded.checksum";
        transaction
            .execute(record, &[name, &checksum(text)])
            .await
            .map_err(step)?;
        let same_name = "select count(*) from pg_proc p \
                         join pg_namespace n on n.oid = p.pronamespace \
                         where p.proname = $1 and n.nspname = current_schema()";
        let row = transaction.query_one(same_name, &[name]).await;
        if row.map_err(step)?.get::<_, i64>(0) != 1 {
            return Err(Error::Overloaded((*name).to_owned()));
        }
    }
    for name in different.iter().filter(|name| text_of(name).is_none()) {
        let step = |error| Error::Function(name.clone(), error);
        // Without `cascade`: what still uses it, a trigger perhaps, makes this fail.
        let drop = format!("drop function if exists \"{}\"", name.replace('"', "\"\""));
        transaction.batch_execute(&drop).await.map_err(step)?;
        let forget = "delete from voice_otp_functions where name = $1";
        transaction.execute(forget, &[name]).await.map_err(step)?;
    }
    transaction.commit().await.map_err(Error::Read)?;
    tracing::info!(functions = different.join(", "), "functions applied");
    Ok(different.len())
}

/// Checks that the database has exactly this program's functions.
pub(super) async fn check(client: &Client) -> Result<(), Error> {
    if !table_exists(client, "voice_otp_functions").await? {
        return Err(Error::FunctionsDiffer("there are none".to_owned()));
    }
    let different = different(client).await?;
    if different.is_empty() {
        Ok(())
    } else {
        Err(Error::FunctionsDiffer(different.join(", ")))
    }
}

/// The functions that the database lacks, has with another text, or has too many.
async fn different(client: &Client) -> Result<Vec<String>, Error> {
    let sql = "select name, checksum from voice_otp_functions";
    let rows = client.query(sql, &[]).await.map_err(Error::Read)?;
    let applied: BTreeMap<String, Vec<u8>> = rows
        .iter()
        .map(|row| (row.get("name"), row.get("checksum")))
        .collect();
    let changed = FUNCTIONS
        .iter()
        .filter(|(name, text)| applied.get(*name) != Some(&checksum(text)))
        .map(|(name, _)| (*name).to_owned());
    let gone = applied.keys().filter(|name| text_of(name).is_none());
    Ok(changed.chain(gone.cloned()).collect())
}

fn text_of(name: &str) -> Option<&'static str> {
    FUNCTIONS
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, text)| *text)
}
