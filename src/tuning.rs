//! The pipeline's durations and limits.

use std::time::Duration;

/// The pipeline's durations and limits. The defaults suit a worker on two cores; the flags of
/// `voice-otp worker` change the ones that operators need to change.
#[derive(Debug, Clone)]
pub struct Tuning {
    /// How long before `expires_at` the latest POST may be sent: the phone must ring and the code
    /// must be read once. `VOICE_OTP_LEAD`.
    pub lead: Duration,
    /// How many POSTs may be in flight. `VOICE_OTP_CONCURRENCY`.
    pub attempt_permits: usize,
    /// How many statements that start attempts may be in progress; meanwhile the next group
    /// gathers. Groups of one account wait for the lock on its rate limit, so more of them would
    /// only hold connections.
    pub start_permits: usize,
    /// How many queries to Twilio (polls and settling) may be in flight.
    pub query_permits: usize,
    /// How many attempts a delivery may use for one call.
    pub attempts: u32,
    /// How long to wait for the answer to a POST. `VOICE_OTP_POST_TIMEOUT`.
    pub post_timeout: Duration,
    /// The upper limit of the first retry delay; it doubles with each retry.
    pub first_retry_delay: Duration,
    /// The upper limit of every retry delay.
    pub longest_retry_delay: Duration,
    /// How far ahead a slot may be for its attempt to start with the admission itself.
    pub begin_ahead: Duration,
    /// A slot that is used later than this is void.
    pub slot_late: Duration,
    /// A delivery that is due later than this after its admission has no owner until
    /// [`claim_ahead`](Self::claim_ahead) before its slot: it needs no memory, and survives its
    /// worker.
    pub hold_ahead: Duration,
    /// How long before its slot a delivery is claimed: longer than the pause between two claims, or
    /// it would lose its slot.
    pub claim_ahead: Duration,
    /// When an unsettled attempt is first looked for at Twilio, and how often from then on.
    pub settle_interval: Duration,
    /// How long after the last moment at which the POST could have arrived the absence of a call is
    /// conclusive, unless it timed out. Twilio's call list is eventually consistent.
    /// `VOICE_OTP_SETTLE_AFTER`.
    pub absence_after: Duration,
    /// How far Twilio's clock may be behind the ledger's when calls are compared with an intent.
    pub provider_skew: Duration,
    /// When a call is first polled that sends callbacks.
    pub poll_after_with_callbacks: Duration,
    /// When a call is first polled that sends none.
    pub poll_after_without_callbacks: Duration,
    /// How long any call may be in Twilio's queue before it counts as held up.
    pub queue_grace: Duration,
    /// The longest pause between two polls of one call.
    pub longest_poll_interval: Duration,
    /// How long after the code's expiry a call whose outcome is unknown is given up.
    pub give_up: Duration,
    /// The pause between two heartbeats.
    pub heartbeat_interval: Duration,
    /// How long a heartbeat is valid.
    pub lease: Duration,
    /// The pause between two claims of due deliveries.
    pub claim_interval: Duration,
    /// How many deliveries one claim takes.
    pub claim_rows: usize,
    /// How many items one batch holds.
    pub max_batch: usize,
    /// The pause between two sweeps of the outbox.
    pub sweep_interval: Duration,
    /// How old an unpublished event of this worker must be for the sweeper to take it.
    pub sweep_age: Duration,
    /// The pause between two rounds of price queries.
    pub pricing_interval: Duration,
    /// The pause between two rounds of credential probes.
    pub credential_probe_interval: Duration,
    /// The mean pause between two rounds of archiving finished deliveries.
    pub archive_interval: Duration,
    /// How long after a call is given up its delivery counts as overdue.
    pub overdue_margin: Duration,
    /// The longest time to live of a code: how far ahead `expires_at` may be.
    pub longest_life: Duration,
    /// Twilio's `TimeLimit`, the longest that a call may last.
    pub call_limit: Duration,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            lead: Duration::from_secs(30),
            attempt_permits: 1000,
            start_permits: 3,
            query_permits: 32,
            attempts: 3,
            post_timeout: Duration::from_secs(15),
            first_retry_delay: Duration::from_millis(500),
            longest_retry_delay: Duration::from_secs(20),
            begin_ahead: Duration::from_millis(50),
            slot_late: Duration::from_millis(200),
            hold_ahead: Duration::from_secs(3),
            claim_ahead: Duration::from_millis(1500),
            settle_interval: Duration::from_secs(2),
            absence_after: Duration::from_secs(10),
            provider_skew: Duration::from_secs(5),
            poll_after_with_callbacks: Duration::from_secs(20),
            poll_after_without_callbacks: Duration::from_secs(3),
            queue_grace: Duration::from_secs(3),
            longest_poll_interval: Duration::from_secs(30),
            give_up: Duration::from_mins(5),
            heartbeat_interval: Duration::from_secs(1),
            lease: Duration::from_secs(5),
            claim_interval: Duration::from_millis(500),
            claim_rows: 200,
            max_batch: 400,
            sweep_interval: Duration::from_secs(1),
            sweep_age: Duration::from_secs(3),
            pricing_interval: Duration::from_secs(5),
            credential_probe_interval: Duration::from_secs(5),
            archive_interval: Duration::from_mins(1),
            overdue_margin: Duration::from_mins(1),
            longest_life: Duration::from_hours(1),
            call_limit: Duration::from_mins(3),
        }
    }
}
