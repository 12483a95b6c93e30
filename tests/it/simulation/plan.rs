//! The plan of a run, which its seed determines.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use voice_otp::Tuning;
use voice_otp::settings::Draft;
use voice_otp::settings::policy::{RedialOutcome, RedialRule, Voicemail};
use voice_otp_store::ledger::Limits;

use super::bug::Bug;
use super::fault_injector::Odds;
use crate::memory::BrokenQueue;
use crate::memory::sample::draft;

/// The plan of a run.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) seed: u64,
    pub(super) workers: usize,
    pub(super) odds: Odds,
    /// How many calls of the first account may be in progress, if that is limited.
    pub(super) max_calls: Option<i32>,
    /// How many calls of one account Twilio makes in a second, if that is limited.
    pub(super) provider_capacity: Option<f64>,
    /// Whether Twilio reaches the workers, so that the second account's calls ask for a key.
    pub(super) callbacks: bool,
    /// Whether the ledger's clock steps.
    pub(super) clock_steps: bool,
    /// The tenant that has a queue which doesn't take its statuses, and what the queue does.
    pub(super) broken_queue: Option<(&'static str, BrokenQueue)>,
    /// Whether that queue is the only fault.
    pub(super) only_broken_queue: bool,
    /// The await at which the first worker crashes, and whether it does so after the effect.
    pub(super) crash_at: Option<(u64, bool)>,
    pub(super) bug: Option<Bug>,
}

/// What happened in one or more runs.
#[derive(Debug, Default, Clone)]
pub(super) struct Stats {
    pub(super) requests: u64,
    pub(super) posts: u64,
    pub(super) calls: u64,
    pub(super) crashes: u64,
    pub(super) faults: u64,
    pub(super) redeliveries: u64,
    pub(super) callbacks: u64,
    pub(super) statuses: u64,
    pub(super) clock_steps: u64,
    pub(super) keys_pressed: u64,
    pub(super) verified: u64,
}

/// Tenant, account, and the account's calls per second.
pub(super) const TENANTS: [(&str, u32, f64); 3] =
    [("acme", 1, 4.0), ("bell", 1, 4.0), ("coop", 2, 2.0)];
/// The account that is idle but for the probe of its pacing, with its tenant.
pub(super) const IDLE: (&str, u32, f64) = ("idle", 3, 2.0);
/// The latest-start margin: no call is placed later than this before its code expires.
pub(super) const LEAD: Duration = Duration::from_secs(4);
/// How long a caller waits for the database, the broker or Twilio: a tenth of what the store waits.
pub(super) const CALL_TIMEOUT: Duration = Duration::from_millis(1_500);
/// How long a silent listener is trusted: a tenth of what the store trusts it.
pub(super) const LISTENER_SILENCE: Duration = Duration::from_millis(1_500);
/// The ledger's clock steps in the runs below this seed, and with
/// `VOICE_OTP_SIMULATE_CLOCK_STEPS=1` in all. Of 10,000 of these, some two still call twice: see
/// docs/limits.md.
const STEPPING_SEEDS: u64 = 1_000;
/// How long requests are published and faults are injected.
pub(super) const FAULTY_PHASE: Duration = Duration::from_secs(10);
/// How long after the faults every delivery must be final.
pub(super) const COMPLETION_TIMEOUT: Duration = Duration::from_mins(3);
/// How long the run continues, so that a second final status or a late call would appear.
pub(super) const QUIET_PHASE: Duration = Duration::from_secs(15);

/// How long after a queue is mended the last status that it refused is published again.
pub(super) const LONGEST_PARKED: Duration = Duration::from_mins(2);

/// No worker crashes where Twilio makes fewer calls in a second than this: it may make the call of
/// a dead worker's POST so late that another worker places it again, see docs/limits.md.
const TAKEN_OVER_IN_TIME: f64 = 0.6;

impl Plan {
    pub(super) fn of_seed(seed: u64, bug: Option<Bug>) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        // In some runs only one kind of fault occurs, so that its effects show alone.
        let mut odds = |limit: u32| {
            if rng.random_bool(0.7) {
                rng.random_range(0..=limit)
            } else {
                0
            }
        };
        let mut odds = Odds {
            crash: odds(12),
            lost_answer: odds(40),
            unreachable: odds(40),
            stall: odds(6),
            silent: odds(15),
            slow: odds(60),
            locked: odds(60),
            refused: odds(100),
            redirect: odds(80),
            listener: odds(400),
        };
        // Drawn apart, so that the rest of a seed's plan doesn't depend on it.
        let mut queues = StdRng::seed_from_u64(seed ^ 0x9e37);
        let broken_queue = queues.random_bool(0.3).then(|| {
            let broken = if queues.random_bool(0.6) {
                BrokenQueue::Refuses
            } else {
                BrokenQueue::IsSilent
            };
            (TENANTS[queues.random_range(0..TENANTS.len())].0, broken)
        });
        let only_broken_queue = broken_queue.is_some() && queues.random_bool(0.3);
        // Twilio is slow in some runs. Its capacity is a fraction of the demand.
        let mut provider = StdRng::seed_from_u64(seed ^ 0x51f1);
        let provider_capacity = provider
            .random_bool(0.25)
            .then(|| provider.random_range(0.2..2.0));
        if provider_capacity.is_some_and(|capacity| capacity < TAKEN_OVER_IN_TIME) {
            odds.crash = 0;
        }
        let workers = rng.random_range(1..4);
        if only_broken_queue {
            return Self {
                broken_queue,
                only_broken_queue,
                workers: 1,
                crash_at: None,
                bug,
                ..Self::crashing_at(seed, 0, false)
            };
        }
        Self {
            seed,
            workers,
            odds,
            broken_queue,
            only_broken_queue,
            provider_capacity,
            max_calls: rng.random_bool(0.4).then(|| rng.random_range(1..3)),
            callbacks: rng.random_bool(0.5),
            clock_steps: clock_steps(seed) && rng.random_bool(0.7),
            crash_at: None,
            bug,
        }
    }

    /// A plan whose only fault is one crash of the first of two workers.
    pub(super) fn crashing_at(seed: u64, nth: u64, after: bool) -> Self {
        Self {
            seed,
            workers: 2,
            odds: Odds::default(),
            max_calls: seed.is_multiple_of(2).then_some(2),
            provider_capacity: None,
            callbacks: seed.is_multiple_of(2),
            clock_steps: false,
            broken_queue: None,
            only_broken_queue: false,
            crash_at: Some((nth, after)),
            bug: None,
        }
    }
}

impl Stats {
    pub(super) fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.posts += other.posts;
        self.calls += other.calls;
        self.crashes += other.crashes;
        self.faults += other.faults;
        self.redeliveries += other.redeliveries;
        self.callbacks += other.callbacks;
        self.statuses += other.statuses;
        self.clock_steps += other.clock_steps;
        self.keys_pressed += other.keys_pressed;
        self.verified += other.verified;
    }
}

fn clock_steps(seed: u64) -> bool {
    seed < STEPPING_SEEDS || std::env::var_os("VOICE_OTP_SIMULATE_CLOCK_STEPS").is_some()
}

/// Durations about a tenth of the defaults, so that a run is short.
pub(super) fn tuning() -> Tuning {
    Tuning {
        lead: LEAD,
        post_timeout: Duration::from_secs(1),
        first_retry_delay: Duration::from_millis(100),
        longest_retry_delay: Duration::from_secs(2),
        settle_interval: Duration::from_millis(400),
        absence_after: Duration::from_secs(2),
        poll_after_with_callbacks: Duration::from_secs(3),
        poll_after_without_callbacks: Duration::from_secs(1),
        queue_grace: Duration::from_secs(1),
        longest_poll_interval: Duration::from_secs(3),
        give_up: Duration::from_secs(20),
        heartbeat_interval: Duration::from_millis(500),
        lease: Duration::from_secs(2),
        claim_interval: Duration::from_millis(500),
        sweep_interval: Duration::from_secs(1),
        sweep_age: Duration::from_secs(1),
        ..Tuning::default()
    }
}

pub(super) fn limits(tuning: &Tuning) -> Limits {
    Limits {
        lease: tuning.lease,
        begin_ahead: tuning.begin_ahead,
        slot_late: tuning.slot_late,
        hold_ahead: tuning.hold_ahead,
        claim_ahead: tuning.claim_ahead,
        rescue: tuning.post_timeout * 2 + tuning.lease,
        forgotten: tuning.sweep_age,
        recent: tuning.longest_life * 2,
        retention: Duration::from_hours(7 * 24),
    }
}

/// A tenant's settings. Those of every other account have redials, and, where Twilio reaches the
/// workers, read the code only after a key was pressed.
pub(super) fn tenant_settings(account: u32, rate: f64, callbacks: bool) -> Draft {
    let mut draft = draft(account, rate);
    if account.is_multiple_of(2) {
        let mut redial = |outcome, times| {
            draft.redial.set(outcome, RedialRule { times, after_s: 5 });
        };
        redial(RedialOutcome::Busy, 1);
        redial(RedialOutcome::NoAnswer, 2);
        if callbacks {
            draft.voicemail = Voicemail::PressKey;
        }
    }
    draft
}
