//! What an engine counts, for the metrics.

use std::sync::atomic::AtomicU64;

/// Counters and gauges since the start of the engine.
#[derive(Debug, Default)]
pub struct Counts {
    /// Deliveries admitted by this process.
    pub admitted: AtomicU64,
    /// Calls accepted by Twilio.
    pub placed: AtomicU64,
    /// Final statuses written by this process.
    pub final_statuses: AtomicU64,
    /// Circuits opened for an account whose calls failed at Twilio.
    pub account_circuits: AtomicU64,
    /// Circuits opened for a tenant whose credentials Twilio rejected.
    pub credential_circuits: AtomicU64,
    /// Redials scheduled, after calls that reached no one.
    pub redials: AtomicU64,
    /// Prices of calls received from Twilio and published.
    pub call_prices: AtomicU64,
    /// Orphaned calls, which belonged to no delivery and were hung up.
    pub orphaned_calls: AtomicU64,
    /// Times that the ledger's clock was set by more than a second, as this process noticed.
    pub clock_steps: AtomicU64,
    /// Deliveries that are open long after their code's expiry, as last counted. Must be 0.
    pub overdue_deliveries: AtomicU64,
    /// Statuses that are not published again, since a queue refused them too often.
    pub statuses_refused: AtomicU64,
    /// Statuses that are not published again, since a queue didn't confirm them too often.
    pub statuses_unconfirmed: AtomicU64,
    /// Deliveries of which a second final status was published. Must be 0.
    pub duplicate_final_statuses: AtomicU64,
}
