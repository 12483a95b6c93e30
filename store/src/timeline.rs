//! Noticing that the database has become another: after a failover or a restoration.

use deadpool_postgres::ClientWrapper;
use tokio_postgres::error::SqlState;
use voice_otp_schemas::Timestamp;

/// Records the timeline of the server, and returns since when commits from before may be lost;
/// `None` if they aren't. A server that only reads, and a database without the function, don't say.
pub(crate) async fn look(
    client: &ClientWrapper,
) -> Result<Option<Timestamp>, tokio_postgres::Error> {
    match client.query_one("select note_timeline()", &[]).await {
        Ok(row) => Ok(row.get(0)),
        Err(error)
            if matches!(
                error.code(),
                Some(&SqlState::UNDEFINED_FUNCTION | &SqlState::READ_ONLY_SQL_TRANSACTION)
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
