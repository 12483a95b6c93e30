//! The interfaces through which the core reaches the outside.
//!
//! `store`, `twilio` and `worker` implement them for production, and the tests implement them in
//! memory. One contract suite per port runs against both implementations.

mod directory;
mod ledger;
mod sink;
mod telephony;

pub use directory::{Directory, DirectoryError};
pub use ledger::{
    Attempt, AttemptStart, EarlierEvents, Heartbeat, Ledger, LedgerError, Marked, Saved,
    StartOutcome, UnpricedCall, UserCancellation, Verdict, WorkerEpoch,
};
pub use sink::{SinkError, StatusSink};
pub use telephony::{CallRequest, Instructions, Telephony};

/// The set of ports that an engine runs on.
pub trait Ports: Send + Sync + 'static {
    /// Stores deliveries, rate limits, the outbox and worker registrations.
    type Ledger: Ledger;
    /// Stores the tenants' voice settings.
    type Directory: Directory;
    /// Places calls and answers questions about them.
    type Telephony: Telephony;
    /// Publishes status events.
    type Sink: StatusSink;
}
