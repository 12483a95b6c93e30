//! How long and how many: the numbers that the pipeline runs by.

use std::time::Duration;

/// The pipeline's numbers. The defaults are for a worker on two cores; the worker's flags change the ones that an
/// operator has reason to.
#[derive(Debug, Clone)]
pub struct Tuning {
    /// How long before `expires_at` the latest POST may go: ringing and one reading must still fit. `VOICE_OTP_LEAD`.
    pub lead: Duration,
    /// The most POSTs in flight at once.
    pub placing_permits: usize,
    /// The most groups of placements being begun at once: while they are under way the next gathers. Groups of one account
    /// wait for each other's lock on its pace, so many would only hold connections.
    pub beginning_permits: usize,
    /// The most look-ups (polls and settlings) in flight at once.
    pub looking_permits: usize,
    /// How many placements a delivery may spend.
    pub attempts: u32,
    /// The longest an answer to a POST is waited for.
    pub post_timeout: Duration,
    /// The first pause before a placement is tried again; doubled each time, then jittered.
    pub retry_first: Duration,
    /// The longest such pause.
    pub retry_longest: Duration,
    /// How far ahead a slot may be for its placement to begin with the admission itself.
    pub begin_ahead: Duration,
    /// A slot used later than this is void.
    pub slot_late: Duration,
    /// What is due later than this from its admission is nobody's until [`claim_ahead`](Self::claim_ahead) before: it costs no
    /// memory, and doesn't die with a worker.
    pub hold_ahead: Duration,
    /// How long before its time what waits is claimed: longer than a claim is apart from the next, or it loses its slot.
    pub claim_ahead: Duration,
    /// When an unsettled placement is looked for at Twilio first, and then again.
    pub settle_look: Duration,
    /// How long after the last moment the POST could have arrived an absence at Twilio counts. Twilio's call list is
    /// eventually consistent.
    pub settle_absent: Duration,
    /// How far Twilio's clock may be behind ours when calls are compared with an intent.
    pub provider_skew: Duration,
    /// When a call is first polled that sends callbacks.
    pub quiet_with_callbacks: Duration,
    /// When a call is first polled that sends none.
    pub quiet_without_callbacks: Duration,
    /// How long any call may be in Twilio's queue before that means anything.
    pub queue_moment: Duration,
    /// The longest pause between two polls of one call.
    pub quiet_longest: Duration,
    /// How long after the code's end a call without an ending is given up as unknown.
    pub give_up: Duration,
    /// How often the worker's life is renewed.
    pub beat: Duration,
    /// How long a renewal is good for.
    pub lease: Duration,
    /// How often due rows of nobody are looked for.
    pub claim: Duration,
    /// The most rows claimed at once.
    pub claim_rows: usize,
    /// The most requests in one admission.
    pub group: usize,
    /// How often status events that a crash left behind are looked for.
    pub sweep: Duration,
    /// How old an unpublished event of our own must be to be taken for forgotten.
    pub sweep_age: Duration,
    /// How often it is looked which calls have no price yet.
    pub price: Duration,
    /// How often it is looked whether Twilio should be asked for refused credentials again.
    pub ask_again: Duration,
    /// How often what has been over for long is put away.
    pub tidy: Duration,
    /// How long after a call is given up its delivery counts as missing its final status, if it has none.
    pub final_margin: Duration,
    /// The longest life of a code: `expires_at` may be this far ahead.
    pub longest_life: Duration,
    /// Twilio's `TimeLimit`: the longest a call may last, so that nobody pays for an hour of hold music.
    pub call_limit: Duration,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            lead: Duration::from_secs(30),
            placing_permits: 1000,
            beginning_permits: 3,
            looking_permits: 32,
            attempts: 3,
            post_timeout: Duration::from_secs(15),
            retry_first: Duration::from_millis(500),
            retry_longest: Duration::from_secs(20),
            begin_ahead: Duration::from_millis(50),
            slot_late: Duration::from_millis(200),
            hold_ahead: Duration::from_secs(3),
            claim_ahead: Duration::from_millis(1500),
            settle_look: Duration::from_secs(2),
            settle_absent: Duration::from_secs(10),
            provider_skew: Duration::from_secs(5),
            quiet_with_callbacks: Duration::from_secs(20),
            quiet_without_callbacks: Duration::from_secs(3),
            queue_moment: Duration::from_secs(3),
            quiet_longest: Duration::from_secs(30),
            give_up: Duration::from_mins(5),
            beat: Duration::from_secs(1),
            lease: Duration::from_secs(5),
            claim: Duration::from_millis(500),
            claim_rows: 200,
            group: 400,
            sweep: Duration::from_secs(1),
            sweep_age: Duration::from_secs(3),
            price: Duration::from_secs(5),
            ask_again: Duration::from_secs(5),
            tidy: Duration::from_mins(1),
            final_margin: Duration::from_mins(1),
            longest_life: Duration::from_hours(1),
            call_limit: Duration::from_mins(3),
        }
    }
}
