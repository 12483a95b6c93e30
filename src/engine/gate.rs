//! The last gate before a POST: `governor`, per account and for the whole process.
//!
//! It has headroom above the account's pace: it catches bugs, it doesn't set the pace. The slots of the ledger do.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::ops::Add;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use governor::clock::{Clock, Reference};
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use tokio::time::Instant;

type Limiter = RateLimiter<NotKeyed, InMemoryState, TokioClock, NoOpMiddleware<TokioInstant>>;

/// The most calls a second that one process places, whatever the accounts allow.
const PROCESS_CALLS_PER_SECOND: u32 = 20_000;

/// More accounts than this at once, and the idle ones are forgotten.
const REMEMBERED_ACCOUNTS: usize = 10_000;

/// The gate. It only ever delays.
pub struct Gate {
    process: Limiter,
    accounts: Mutex<HashMap<String, (f64, Arc<Limiter>)>>,
}

impl Gate {
    /// An open gate.
    pub fn new() -> Self {
        Self {
            process: limiter(f64::from(PROCESS_CALLS_PER_SECOND)),
            accounts: Mutex::new(HashMap::new()),
        }
    }

    /// Waits until the gate lets a call of an account with this pace through. True if it had to wait, which means
    /// that something upstream doesn't keep the pace.
    pub async fn pass(&self, pace_key: &str, calls_per_second: f64) -> bool {
        let account = self.account(pace_key, calls_per_second);
        let mut waited = false;
        for limiter in [account.as_ref(), &self.process] {
            while let Err(refused) = limiter.check() {
                waited = true;
                tokio::time::sleep(refused.wait_time_from(TokioClock.now())).await;
            }
        }
        waited
    }

    fn account(&self, pace_key: &str, calls_per_second: f64) -> Arc<Limiter> {
        let mut accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((rate, limiter)) = accounts.get(pace_key)
            && (*rate - calls_per_second).abs() < f64::EPSILON
        {
            return Arc::clone(limiter);
        }
        if accounts.len() >= REMEMBERED_ACCOUNTS {
            accounts.retain(|_, (_, limiter)| Arc::strong_count(limiter) > 1);
        }
        let limiter = Arc::new(limiter(calls_per_second));
        accounts.insert(
            pace_key.to_owned(),
            (calls_per_second, Arc::clone(&limiter)),
        );
        limiter
    }
}

impl Default for Gate {
    fn default() -> Self {
        Self::new()
    }
}

/// Half as much again as the pace, and a burst of half a second's worth, at least three calls.
fn limiter(calls_per_second: f64) -> Limiter {
    let spacing =
        Duration::from_secs_f64(1.0 / (calls_per_second * 1.5)).max(Duration::from_nanos(1));
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "settings hold the pace to 0.001..=10000"
    )]
    let burst = NonZeroU32::new((calls_per_second / 2.0) as u32 + 3).unwrap_or(NonZeroU32::MIN);
    let quota = Quota::with_period(spacing)
        .unwrap_or_else(|| Quota::per_second(burst))
        .allow_burst(burst);
    RateLimiter::direct_with_clock(quota, TokioClock)
}

/// Tokio's clock for governor, so that a paused clock pauses the gate as well.
#[derive(Debug, Clone, Copy)]
struct TokioClock;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct TokioInstant(Instant);

impl Clock for TokioClock {
    type Instant = TokioInstant;

    fn now(&self) -> TokioInstant {
        TokioInstant(Instant::now())
    }
}

impl Reference for TokioInstant {
    fn duration_since(&self, earlier: Self) -> Nanos {
        self.0.saturating_duration_since(earlier.0).into()
    }

    fn saturating_sub(&self, duration: Nanos) -> Self {
        Self(self.0.checked_sub(duration.into()).unwrap_or(self.0))
    }
}

impl Add<Nanos> for TokioInstant {
    type Output = Self;

    fn add(self, duration: Nanos) -> Self {
        let duration: Duration = duration.into();
        Self(self.0 + duration)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_gate_lets_the_pace_through_and_holds_a_runaway() {
        let gate = Gate::new();
        for _ in 0..20 {
            assert!(!gate.pass("kept", 2.0).await);
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        let start = Instant::now();
        for _ in 0..40 {
            gate.pass("runaway", 2.0).await;
        }
        assert!(
            start.elapsed() > Duration::from_secs(11),
            "{:?}",
            start.elapsed()
        );
        assert!(
            !gate.pass("stranger", 2.0).await,
            "another account doesn't wait"
        );
    }
}
