//! The safety limiter before each POST: `governor`, per account and for the whole process.
//!
//! It has headroom above the account's rate. The ledger's slots keep the rate; the limiter catches
//! bugs.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::ops::Add;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use governor::clock::{Clock, Reference};
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use tokio::time::Instant;

use super::sync::lock;

type Limiter = RateLimiter<NotKeyed, InMemoryState, TokioClock, NoOpMiddleware<TokioInstant>>;

/// How many calls per second one process places at most, whatever the accounts allow.
const PROCESS_CALLS_PER_SECOND: u32 = 20_000;

/// When there are more accounts than this, limiters that aren't in use are dropped.
const MAX_ACCOUNTS: usize = 10_000;

/// The safety limiter. It only delays calls.
pub struct Gate {
    process: Limiter,
    accounts: Mutex<HashMap<String, (f64, Arc<Limiter>)>>,
}

impl Gate {
    /// A limiter that has let nothing through yet.
    pub fn new() -> Self {
        Self {
            process: limiter(f64::from(PROCESS_CALLS_PER_SECOND)),
            accounts: Mutex::new(HashMap::new()),
        }
    }

    /// Waits until a call of an account with this rate may go. Returns true if it had to wait,
    /// which means that the slots exceed the rate.
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
        let mut accounts = lock(&self.accounts);
        if let Some((rate, limiter)) = accounts.get(pace_key)
            && (*rate - calls_per_second).abs() < f64::EPSILON
        {
            return Arc::clone(limiter);
        }
        if accounts.len() >= MAX_ACCOUNTS {
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

/// A limiter for 1.5 times the rate, with a burst of half a second's calls, at least three.
fn limiter(calls_per_second: f64) -> Limiter {
    let spacing =
        Duration::from_secs_f64(1.0 / (calls_per_second * 1.5)).max(Duration::from_nanos(1));
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "settings keep the rate within 0.001..=10000"
    )]
    let burst = NonZeroU32::new((calls_per_second / 2.0) as u32 + 3).unwrap_or(NonZeroU32::MIN);
    let quota = Quota::with_period(spacing)
        .unwrap_or_else(|| Quota::per_second(burst))
        .allow_burst(burst);
    RateLimiter::direct_with_clock(quota, TokioClock)
}

/// Tokio's clock for governor, so that a paused clock pauses the limiter too.
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
    async fn the_limiter_passes_the_rate_and_delays_a_runaway() {
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
