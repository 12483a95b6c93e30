//! Bringing a database to this program's schema: tables by migrations, functions by their files.
//!
//! Migrations (`store/migrations`) are numbered and only go forward; each is applied once, and must
//! not change afterwards. Functions (`store/sql/functions`) are applied as a whole, in one
//! transaction, whenever the checksum of any differs from the one that `voice_otp_functions` has.
//! Both happen under one advisory lock, so that two `migrate` at once are safe.
//!
//! Workers of the previous release may run while this happens, so:
//! - A change of a function's body must also suit them.
//! - A change of a function's arguments or result is a new function with a new name. The old one
//!   stays, with its file, for one release. `migrate` refuses two functions of one name.
//! - A function whose file is gone is dropped by the next `migrate`. By then no worker that calls
//!   it is left, because it was already unused one release earlier.
//! - A worker only starts on a database that has exactly its functions: [`check`] refuses any
//!   other. To go back to an older release, run that release's `migrate`, which restores its
//!   functions.

mod functions;

use std::time::Duration;

use deadpool_postgres::PoolError;
use sha2::{Digest as _, Sha256};
use tokio_postgres::error::SqlState;

use crate::pool::Pool;

struct Migration {
    version: i32,
    name: &'static str,
    sql: &'static str,
}

const MIGRATIONS: &[Migration] = &[
    Migration {
        version: 1,
        name: "tables",
        sql: include_str!("../migrations/0001_tables.sql"),
    },
    Migration {
        version: 2,
        name: "backlogs",
        sql: include_str!("../migrations/0002_backlogs.sql"),
    },
    Migration {
        version: 3,
        name: "failover",
        sql: include_str!("../migrations/0003_failover.sql"),
    },
    Migration {
        version: 4,
        name: "cancelled_users",
        sql: include_str!("../migrations/0004_cancelled_users.sql"),
    },
    Migration {
        version: 5,
        name: "delivery_counts",
        sql: include_str!("../migrations/0005_delivery_counts.sql"),
    },
];

/// The oldest supported major version of Postgres.
pub(crate) const OLDEST_SERVER: i32 = 13;

/// How long a check may take.
const CHECK_TIMEOUT: Duration = Duration::from_secs(12);

/// The key of the advisory lock on which concurrent `migrate` runs wait for each other. Any number
/// works, as long as it never changes.
const ADVISORY_LOCK: i64 = 0x766f_6963_656f_7470;

/// How long a migration waits for a lock, and everybody behind it, in milliseconds.
const LOCK_TIMEOUT_MS: u32 = 1_000;
/// The pause before a migration asks for a lock again.
const LOCK_PAUSE: Duration = Duration::from_millis(500);
/// How often a migration asks for a lock again: for two minutes or a little more.
const MAX_LOCK_TRIES: u32 = 80;

/// Why the database can't be migrated or used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No connection to the database.
    #[error("connect to Postgres")]
    Connect(#[source] PoolError),
    /// Postgres has not answered in time.
    #[error("no answer from Postgres in time")]
    TimedOut,
    /// A migration failed; it was rolled back.
    #[error("apply migration {0}")]
    Apply(i32, #[source] tokio_postgres::Error),
    /// Other transactions keep a table locked that a migration changes; it was rolled back.
    #[error(
        "migration {0} waits for a table that other transactions keep locked; pg_stat_activity \
         shows them: end them, or run this again later"
    )]
    Locked(i32, #[source] tokio_postgres::Error),
    /// A function could not be applied or dropped; none was changed.
    #[error("apply function {0}")]
    Function(String, #[source] tokio_postgres::Error),
    /// The archive's partitions can't be made.
    #[error("make the archive's partitions")]
    Partitions(#[source] tokio_postgres::Error),
    /// A function's signature was changed without a new name; none was changed.
    #[error("the database has another function named {0} with other arguments")]
    Overloaded(String),
    /// What was applied can't be read.
    #[error("read the applied migrations")]
    Read(#[source] tokio_postgres::Error),
    /// The database has the tables of a version from before the first release, whose migrations
    /// were numbered otherwise.
    #[error(
        "the database was made by a version of voice-otp from before the first release and can't \
         be migrated: create a new database"
    )]
    NeverReleased,
    /// A migration that was applied differs from the one that this program has.
    #[error(
        "migration {0} was applied with another text than this program's; the database belongs to \
         another build"
    )]
    Changed(i32),
    /// Migrations are missing.
    #[error("the database lacks {0} of this program's migrations; run: voice-otp migrate")]
    Missing(usize),
    /// The database has functions that aren't this program's.
    #[error(
        "the database's functions differ from this program's: {0}; run: voice-otp migrate (with \
         the newer program, if the database belongs to a newer one)"
    )]
    FunctionsDiffer(String),
    /// The server is too old.
    #[error("Postgres {0} is too old; 13 or newer is needed")]
    Server(i32),
}

/// What [`apply`] changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Applied {
    /// How many migrations were missing.
    pub migrations: usize,
    /// How many functions were missing, different, or no longer needed.
    pub functions: usize,
}

/// Applies the missing migrations and the changed functions. Running it twice, or in two places at
/// once, is safe.
///
/// # Errors
/// [`Error`]; each migration is applied as a whole or not at all, and so are the functions
/// together.
pub async fn apply(pool: &Pool) -> Result<Applied, Error> {
    let mut client = pool.get().await.map_err(Error::Connect)?;
    check_server(&client).await?;
    // Waiting for another migrate may take longer than a statement usually may.
    client
        .batch_execute("set statement_timeout = 0; set lock_timeout = 0")
        .await
        .map_err(Error::Read)?;
    client
        .execute("select pg_advisory_lock($1)", &[&ADVISORY_LOCK])
        .await
        .map_err(Error::Read)?;
    let result = apply_locked(&mut client).await;
    // The session keeps its settings and its lock, so it must not go back into the pool.
    drop(deadpool_postgres::Object::take(client));
    result
}

async fn apply_locked(client: &mut deadpool_postgres::Client) -> Result<Applied, Error> {
    let table = "create table if not exists voice_otp_migrations (
        version integer primary key, name text not null, checksum bytea not null,
        applied_at timestamptz not null default clock_timestamp())";
    client.batch_execute(table).await.map_err(Error::Read)?;
    let missing = missing(client).await?;
    for migration in &missing {
        apply_between_others(client, migration).await?;
        tracing::info!(
            version = migration.version,
            name = migration.name,
            "migration applied"
        );
    }
    let applied = Applied {
        migrations: missing.len(),
        functions: functions::apply(client).await?,
    };
    make_partitions(client).await?;
    Ok(applied)
}

/// Applies a migration beside running workers. Whoever wants a table waits behind the migration
/// that wants to lock it, so the migration waits for a second only and then tries again.
async fn apply_between_others(
    client: &mut deadpool_postgres::Client,
    migration: &Migration,
) -> Result<(), Error> {
    let mut tries = 0;
    loop {
        match apply_one(client, migration).await {
            Err(error) if is_locked(&error) && tries == MAX_LOCK_TRIES => {
                return Err(Error::Locked(migration.version, error));
            }
            Err(error) if is_locked(&error) => {
                if tries == 0 {
                    tracing::info!(
                        version = migration.version,
                        "a table is locked by another transaction; waiting for it"
                    );
                }
                tries += 1;
                tokio::time::sleep(LOCK_PAUSE).await;
            }
            applied => {
                return applied.map_err(|error| Error::Apply(migration.version, error));
            }
        }
    }
}

async fn apply_one(
    client: &mut deadpool_postgres::Client,
    migration: &Migration,
) -> Result<(), tokio_postgres::Error> {
    let transaction = client.transaction().await?;
    transaction
        .batch_execute(&format!("set local lock_timeout = '{LOCK_TIMEOUT_MS}ms'"))
        .await?;
    transaction.batch_execute(migration.sql).await?;
    let insert = "insert into voice_otp_migrations (version, name, checksum) values ($1, $2, $3)";
    let checksum = checksum(migration.sql);
    transaction
        .execute(insert, &[&migration.version, &migration.name, &checksum])
        .await?;
    transaction.commit().await
}

/// The lock didn't come in time, or two transactions waited for each other.
fn is_locked(error: &tokio_postgres::Error) -> bool {
    error.code().is_some_and(|code| {
        [
            SqlState::LOCK_NOT_AVAILABLE,
            SqlState::T_R_DEADLOCK_DETECTED,
        ]
        .contains(code)
    })
}

/// Makes the archive's partitions of the next days, so that a new database has some before a
/// worker runs. None is dropped: that is left to workers, which know for how long to keep them.
async fn make_partitions(client: &deadpool_postgres::Client) -> Result<(), Error> {
    let sql = "select maintain_archive_partitions(interval '1000 years', interval '1000 years')";
    match client.execute(sql, &[]).await {
        // A backup reads the archive. Workers make the partitions too.
        Err(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => Ok(()),
        made => made.map(drop).map_err(Error::Partitions),
    }
}

/// Checks that the database has this program's migrations and functions.
///
/// # Errors
/// [`Error::Missing`] and [`Error::FunctionsDiffer`] name the command to run.
pub async fn check(pool: &Pool) -> Result<(), Error> {
    let client = pool.get().await.map_err(Error::Connect)?;
    let checked = tokio::time::timeout(CHECK_TIMEOUT, check_with(&client)).await;
    if let Ok(Ok(())) = checked {
        return Ok(());
    }
    // Perhaps of a server that is shutting down: the next check has a new connection.
    drop(deadpool_postgres::Object::take(client));
    checked.unwrap_or(Err(Error::TimedOut))
}

async fn check_with(client: &deadpool_postgres::Client) -> Result<(), Error> {
    check_server(client).await?;
    if !table_exists(client, "voice_otp_migrations").await? {
        return Err(Error::Missing(MIGRATIONS.len()));
    }
    let missing = missing(client).await?.len();
    if missing > 0 {
        return Err(Error::Missing(missing));
    }
    functions::check(client).await
}

async fn table_exists(client: &deadpool_postgres::Client, name: &str) -> Result<bool, Error> {
    let sql = "select to_regclass($1) is not null";
    let row = client.query_one(sql, &[&name]).await.map_err(Error::Read)?;
    Ok(row.get(0))
}

async fn check_server(client: &deadpool_postgres::Client) -> Result<(), Error> {
    let row = client
        .query_one(
            "select current_setting('server_version_num')::int / 10000",
            &[],
        )
        .await
        .map_err(Error::Read)?;
    let version: i32 = row.get(0);
    if version < OLDEST_SERVER {
        Err(Error::Server(version))
    } else {
        Ok(())
    }
}

async fn missing(client: &deadpool_postgres::Client) -> Result<Vec<&'static Migration>, Error> {
    let sql = "select version, checksum from voice_otp_migrations";
    let rows = client.query(sql, &[]).await.map_err(Error::Read)?;
    let applied: Vec<(i32, Vec<u8>)> = rows
        .iter()
        .map(|row| (row.get("version"), row.get("checksum")))
        .collect();
    let mut missing = Vec::new();
    for migration in MIGRATIONS {
        match applied
            .iter()
            .find(|(version, _)| *version == migration.version)
        {
            None => missing.push(migration),
            // The first migration never changes once it is released.
            Some((1, applied)) if *applied != checksum(migration.sql) => {
                return Err(Error::NeverReleased);
            }
            Some((_, applied)) if *applied != checksum(migration.sql) => {
                return Err(Error::Changed(migration.version));
            }
            Some(_) => {}
        }
    }
    Ok(missing)
}

fn checksum(text: &str) -> Vec<u8> {
    Sha256::digest(text).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn migrations_are_numbered_without_gaps() {
        assert!(
            MIGRATIONS
                .iter()
                .zip(1..)
                .all(|(migration, version)| migration.version == version)
        );
    }
}
