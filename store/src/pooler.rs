//! Recognising a connection pooler that doesn't keep sessions.
//!
//! Prepared statements, session settings and `LISTEN` belong to a session. A pooler in transaction
//! or statement mode (PgBouncer's `pool_mode`, and others' like it) gives every transaction
//! whichever server connection is free, and they get lost.

use std::time::Duration;

use tokio::time::timeout;
use tokio_postgres::SimpleQueryMessage;
use tokio_postgres::error::SqlState;

use crate::connect::{self, ConnectError, Session};
use crate::url::DatabaseUrl;

/// Why a database can't be used, or why it isn't known whether it can.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A pooler changes the server connection between transactions.
    #[error(
        "the database URL leads to a connection pooler in {0} mode, in which prepared statements, \
         session settings and LISTEN get lost: connect to Postgres itself, or set the pooler's \
         pool_mode to session"
    )]
    Pooler(Mode),
    /// No connection to the database.
    #[error("connect to Postgres")]
    Connect(#[source] ConnectError),
    /// A statement failed.
    #[error("look for a connection pooler")]
    Ask(#[source] tokio_postgres::Error),
}

/// What a pooler keeps together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// A transaction.
    Transaction,
    /// One statement: transactions are refused.
    Statement,
}

impl std::fmt::Display for Mode {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Transaction => "transaction",
            Self::Statement => "statement",
        })
    }
}

/// How often the two clients compare their server processes.
const ROUNDS: usize = 3;

/// How long the second client waits for a server connection. A pool in session mode that has only
/// one never gives it one.
const SECOND_CLIENT: Duration = Duration::from_secs(2);

/// Checks that a session keeps its server connection.
///
/// Two clients compare their server processes while one of them holds a transaction. In a pooler
/// that keeps only transactions the second gets the connection that the first has just used, or,
/// if the pooler takes its connections in turn, the first gets another one when it asks twice.
///
/// # Errors
/// [`Error::Pooler`] when it doesn't; else what went wrong.
pub async fn check(url: &DatabaseUrl) -> Result<(), Error> {
    let first = url.open().await.map_err(Error::Connect)?;
    let own = ask(&first, PID).await?;
    let Ok(second) = timeout(SECOND_CLIENT, url.open()).await else {
        return Ok(());
    };
    let second = second.map_err(Error::Connect)?;
    let Ok(begun) = timeout(SECOND_CLIENT, ask(&second, BEGIN)).await else {
        return Ok(());
    };
    let other = begun?;
    // Each answer is judged at once: a pooler with a single connection has none left for the first
    // client while the second holds a transaction.
    let judge = |pid: String, expected: &str| {
        if pid == expected && own != other {
            Ok(())
        } else {
            Err(Error::Pooler(Mode::Transaction))
        }
    };
    judge(other.clone(), &other)?;
    for _ in 0..ROUNDS {
        for _ in 0..2 {
            judge(ask(&first, PID).await?, &own)?;
        }
        judge(ask(&second, COMMIT).await?, &other)?;
        for _ in 0..2 {
            judge(ask(&first, PID).await?, &own)?;
        }
        judge(ask(&second, BEGIN).await?, &other)?;
    }
    Ok(())
}

const PID: &str = "select pg_backend_pid()";
const COMMIT: &str = "commit; select pg_backend_pid()";
const BEGIN: &str = "begin; select pg_backend_pid()";

/// The only row's only column. One message of the simple protocol: a pooler may have lost prepared
/// statements.
async fn ask(session: &Session, sql: &str) -> Result<String, Error> {
    let messages = session.client.simple_query(sql).await.map_err(|error| {
        // PgBouncer's answer to `begin`.
        let refused = error
            .as_db_error()
            .is_some_and(|error| error.message().contains("statement pooling"));
        if refused {
            Error::Pooler(Mode::Statement)
        } else {
            Error::Ask(error)
        }
    })?;
    let value = messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    Ok(value.unwrap_or_default().to_owned())
}

/// What an error of a running program says about a pooler, if that may be its cause: the URL may
/// lead elsewhere since the start.
pub fn explain(error: &(dyn std::error::Error + 'static)) -> Option<&'static str> {
    let code = connect::database_error(error)?.code();
    let lost = [
        SqlState::INVALID_SQL_STATEMENT_NAME,
        SqlState::DUPLICATE_PSTATEMENT,
    ];
    lost.contains(code).then_some(
        "a connection pooler in transaction mode has changed the server connection: connect to \
         Postgres itself, or set the pooler's pool_mode to session",
    )
}
