//! Why the database can't be read or changed.

use std::time::Duration;

use voice_otp_schemas::TenantId;

use crate::keys::OpenError;
use crate::pool::StatementError;

/// Why the database can't be read or changed. The ledger has an error of its own,
/// [`LedgerError`](voice_otp::ports::LedgerError); so have [`migrate`](crate::migrate) and
/// [`pool`](crate::pool).
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A statement failed. The text is what it was to do, as a verb phrase.
    #[error("{0}")]
    Query(&'static str, #[source] StatementError),
    /// A query that may read many rows took longer than it may, and was cancelled. The text is what
    /// it was to do, as a verb phrase.
    #[error("{0}: cancelled after 5 s")]
    TooSlow(&'static str),
    /// A tenant's secret can't be opened with the keys of this process.
    #[error("open the secrets of tenant {0}")]
    Open(TenantId, #[source] OpenError),
    /// A column of a tenant's settings has a value that the settings can't have.
    #[error("the settings of tenant {0} are damaged: {1}")]
    Damaged(TenantId, &'static str),
    /// A column has a value that this program never writes.
    #[error("a row has an invalid value in {0}")]
    InvalidRow(&'static str),
    /// The tenant has had its test calls; the next one is possible after this time. Nothing was
    /// counted.
    #[error(
        "a tenant has {most} test calls in ten minutes; the next one may be made after {0:?}",
        most = crate::test_calls::MOST
    )]
    TooManyTestCalls(Duration),
}
