//! Migrations: forward only, embedded, one step a file.

use deadpool_postgres::PoolError;
use sha2::{Digest as _, Sha256};

use crate::pool::Pool;

struct Migration {
    version: i32,
    name: &'static str,
    sql: &'static str,
}

const MIGRATIONS: &[Migration] = &[
    Migration {
        version: 1,
        name: "settings",
        sql: include_str!("../migrations/0001_settings.sql"),
    },
    Migration {
        version: 2,
        name: "deliveries",
        sql: include_str!("../migrations/0002_deliveries.sql"),
    },
    Migration {
        version: 3,
        name: "admit",
        sql: include_str!("../migrations/0003_admit.sql"),
    },
    Migration {
        version: 4,
        name: "begin",
        sql: include_str!("../migrations/0004_begin.sql"),
    },
    Migration {
        version: 5,
        name: "publishers",
        sql: include_str!("../migrations/0005_publishers.sql"),
    },
    Migration {
        version: 6,
        name: "test_calls",
        sql: include_str!("../migrations/0006_test_calls.sql"),
    },
    Migration {
        version: 7,
        name: "users_and_retention",
        sql: include_str!("../migrations/0007_users_and_retention.sql"),
    },
    Migration {
        version: 8,
        name: "pace",
        sql: include_str!("../migrations/0008_pace.sql"),
    },
    Migration {
        version: 9,
        name: "admit",
        sql: include_str!("../migrations/0009_admit.sql"),
    },
    Migration {
        version: 10,
        name: "begin",
        sql: include_str!("../migrations/0010_begin.sql"),
    },
    Migration {
        version: 11,
        name: "hearing",
        sql: include_str!("../migrations/0011_hearing.sql"),
    },
    Migration {
        version: 12,
        name: "trials",
        sql: include_str!("../migrations/0012_trials.sql"),
    },
    Migration {
        version: 13,
        name: "console",
        sql: include_str!("../migrations/0013_console.sql"),
    },
    Migration {
        version: 14,
        name: "begin by key",
        sql: include_str!("../migrations/0014_begin_by_key.sql"),
    },
];

/// The oldest Postgres that is known to do.
const OLDEST_SERVER: i32 = 13;

/// Two `migrate` at once wait for each other on this lock. Any number does, as long as it stays.
const ADVISORY_LOCK: i64 = 0x766f_6963_656f_7470;

/// Why the database isn't ready.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It can't be reached.
    #[error("connect to Postgres")]
    Connect(#[source] PoolError),
    /// A step failed; it was rolled back.
    #[error("apply migration {0}")]
    Apply(i32, #[source] tokio_postgres::Error),
    /// The list of what was applied can't be read.
    #[error("read the applied migrations")]
    Read(#[source] tokio_postgres::Error),
    /// A step that was applied is not the one that this program has.
    #[error(
        "migration {0} was applied from another text than this program's; the database belongs to another build"
    )]
    Changed(i32),
    /// Steps are missing.
    #[error("the database lacks {0} of this program's migrations; run: voice-otp migrate")]
    Missing(usize),
    /// The server is too old.
    #[error("Postgres {0} is too old; 13 or newer is needed")]
    Server(i32),
}

/// Applies what is missing; says how many steps that were. Safe twice, and from two places at once.
///
/// # Errors
/// [`Error`]; every step is applied whole or not at all.
pub async fn apply(pool: &Pool) -> Result<usize, Error> {
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

async fn apply_locked(client: &mut deadpool_postgres::Client) -> Result<usize, Error> {
    let table = "create table if not exists voice_otp_migrations (
        version integer primary key, name text not null, checksum bytea not null,
        applied_at timestamptz not null default clock_timestamp())";
    client.batch_execute(table).await.map_err(Error::Read)?;
    let missing = missing(client).await?;
    for migration in &missing {
        let step = |error| Error::Apply(migration.version, error);
        let transaction = client.transaction().await.map_err(step)?;
        transaction
            .batch_execute(migration.sql)
            .await
            .map_err(step)?;
        let insert =
            "insert into voice_otp_migrations (version, name, checksum) values ($1, $2, $3)";
        let checksum = checksum(migration);
        transaction
            .execute(insert, &[&migration.version, &migration.name, &checksum])
            .await
            .map_err(step)?;
        transaction.commit().await.map_err(step)?;
        tracing::info!(
            version = migration.version,
            name = migration.name,
            "migration applied"
        );
    }
    Ok(missing.len())
}

/// Checks that every step has been applied.
///
/// # Errors
/// [`Error::Missing`] names the command to run.
pub async fn check(pool: &Pool) -> Result<(), Error> {
    let client = pool.get().await.map_err(Error::Connect)?;
    check_server(&client).await?;
    let known = client
        .query_one(
            "select to_regclass('voice_otp_migrations') is not null",
            &[],
        )
        .await
        .map_err(Error::Read)?;
    let missing = if known.get::<_, bool>(0) {
        missing(&client).await?.len()
    } else {
        MIGRATIONS.len()
    };
    if missing > 0 {
        Err(Error::Missing(missing))
    } else {
        Ok(())
    }
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
    let rows = client
        .query("select version, checksum from voice_otp_migrations", &[])
        .await
        .map_err(Error::Read)?;
    let applied: Vec<(i32, Vec<u8>)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    let mut missing = Vec::new();
    for migration in MIGRATIONS {
        match applied
            .iter()
            .find(|(version, _)| *version == migration.version)
        {
            None => missing.push(migration),
            Some((_, applied)) if *applied != checksum(migration) => {
                return Err(Error::Changed(migration.version));
            }
            Some(_) => {}
        }
    }
    Ok(missing)
}

fn checksum(migration: &Migration) -> Vec<u8> {
    Sha256::digest(migration.sql).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_steps_are_numbered_without_gaps() {
        assert!(
            MIGRATIONS
                .iter()
                .zip(1..)
                .all(|(migration, version)| migration.version == version)
        );
    }
}
