//! What an error of Postgres means: for the statement, and for the connection.
//!
//! The codes are listed at <https://www.postgresql.org/docs/current/errcodes-appendix.html>.

use std::error::Error as _;

use tokio_postgres::Error;
use tokio_postgres::error::SqlState;

/// What a failed statement may be tried with again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Remedy {
    /// Without the row that caused it: the data is refused.
    WithoutRow,
    /// In smaller parts: one row may be locked, too much, or corrupt.
    InParts,
    /// The same statement: the database is away, busy, or about to be replaced.
    Later,
}

/// What to do about a failed statement. Data errors (classes 22 and 23) are caused by a row of the
/// batch, and a timeout may be. Anything else is repeated, since dropping a delivery would be worse
/// than waiting.
pub(crate) fn remedy(error: &Error) -> Remedy {
    match error.code().map(SqlState::code) {
        Some(code) if code.starts_with("22") || code.starts_with("23") => Remedy::WithoutRow,
        // A timeout, a locked row, an exceeded limit, a corrupt row or index.
        Some(code)
            if code == "57014"
                || code == "55P03"
                || code.starts_with("54")
                || code.starts_with("XX00") =>
        {
            Remedy::InParts
        }
        _ => Remedy::Later,
    }
}

/// Why a connection with this error must not be used again, if so.
pub(crate) fn spoils_connection(error: &Error) -> Option<&'static str> {
    if error.is_closed() {
        return Some("closed");
    }
    let Some(code) = error.code().map(SqlState::code) else {
        // Not from the server: the connection is broken, or its answer can't be read.
        return Some("broken");
    };
    Some(match code {
        // After a failover: a former primary, now a standby, that kept its connections.
        "25006" => "the server only reads",
        // The server ends, restarts or recovers.
        "57P01" | "57P02" | "57P03" | "57P05" => "the server is shutting down",
        // Prepared statements that no longer fit the schema, or that the server has forgotten.
        "0A000" | "26000" | "42883" | "42P01" | "42703" => "prepared statements are outdated",
        "25P02" | "25P03" => "a transaction was left open",
        code if code.starts_with("08") => "the server reports a broken connection",
        // The server's own trouble: memory, disk, a corrupt index.
        code if code.starts_with("53") || code.starts_with("58") || code.starts_with("XX") => {
            "the server is in trouble"
        }
        _ => return None,
    })
}

/// The error in words that show no row: the server's message without its details.
pub(crate) fn in_words(error: &Error) -> String {
    match error.as_db_error() {
        Some(error) => format!("{} ({})", error.message(), error.code().code()),
        None => error
            .source()
            .map_or_else(|| error.to_string(), |source| format!("{error}: {source}")),
    }
}
