//! Injects the faults of one worker: every await on a port passes here, before and after its
//! effect.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::sync::watch;
use voice_otp::ports::LedgerError;

/// Injects the faults of one worker. Clones share the same state.
#[derive(Clone)]
pub(super) struct FaultInjector {
    inner: Arc<Mutex<Inner>>,
    crashed: watch::Sender<bool>,
}

/// The odds of each fault, in thousandths of the awaits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Odds {
    /// The worker crashes, before or after the effect.
    pub(super) crash: u32,
    /// The operation is applied, and its answer is lost.
    pub(super) lost_answer: u32,
    /// The operation fails before its effect.
    pub(super) unreachable: u32,
    /// The worker stalls, for up to twice its lease.
    pub(super) stall: u32,
}

impl Odds {
    /// No faults.
    pub(super) const NONE: Self = Self {
        crash: 0,
        lost_answer: 0,
        unreachable: 0,
        stall: 0,
    };
}

struct Inner {
    rng: StdRng,
    odds: Odds,
    /// The await at which the worker crashes, and whether it does so after the effect.
    crash_at: Option<(u64, bool)>,
    /// The number of awaits so far.
    awaits: u64,
    /// The number of injected faults.
    faults: u64,
    stalled_until: Option<tokio::time::Instant>,
    lease: Duration,
}

impl FaultInjector {
    pub(super) fn new(
        seed: u64,
        odds: Odds,
        crash_at: Option<(u64, bool)>,
        lease: Duration,
    ) -> Self {
        let rng = StdRng::seed_from_u64(seed);
        let inner = Inner {
            rng,
            odds,
            crash_at,
            awaits: 0,
            faults: 0,
            stalled_until: None,
            lease,
        };
        Self {
            inner: Arc::new(Mutex::new(inner)),
            crashed: watch::Sender::new(false),
        }
    }

    pub(super) fn is_crashed(&self) -> bool {
        *self.crashed.borrow()
    }

    /// Returns once the worker has crashed.
    pub(super) async fn crashed(&self) {
        // The wait can't fail, since `self` holds the sender.
        drop(self.crashed.subscribe().wait_for(|crashed| *crashed).await);
    }

    pub(super) fn crash(&self) {
        self.crashed.send_replace(true);
    }

    /// The number of injected faults.
    pub(super) fn count(&self) -> u64 {
        self.inner.lock().unwrap().faults
    }

    /// Injects no more faults.
    pub(super) fn stop_faults(&self) {
        self.inner.lock().unwrap().odds = Odds::NONE;
    }

    /// Call before an effect. Returns the number of the await. `may_wait` is false where the effect
    /// must follow a check without delay.
    pub(super) async fn before(&self, may_wait: bool) -> Result<u64, LedgerError> {
        let (nth, crash, unreachable, pause) = {
            let mut inner = self.inner.lock().unwrap();
            let nth = inner.awaits;
            inner.awaits += 1;
            let crash = inner.crash_at == Some((nth, false)) || inner.happens(|odds| odds.crash);
            let unreachable = inner.happens(|odds| odds.unreachable);
            if inner.happens(|odds| odds.stall) {
                let longest = inner.lease * 2;
                let stall = longest.mul_f64(inner.rng.random());
                inner.stalled_until = Some(tokio::time::Instant::now() + stall);
            }
            (
                nth,
                crash,
                unreachable,
                Duration::from_micros(inner.rng.random_range(100..3_000)),
            )
        };
        if crash {
            self.crash();
        }
        self.halt_if_crashed().await;
        if may_wait {
            self.wait_while_stalled().await;
            tokio::time::sleep(pause).await;
            self.halt_if_crashed().await;
        }
        if unreachable {
            Err(LedgerError::Unavailable("unreachable".into()))
        } else {
            Ok(nth)
        }
    }

    /// Call after the effect of the `nth` await, before its answer.
    pub(super) async fn after(&self, nth: u64) -> Result<(), LedgerError> {
        let (crash, lost) = {
            let mut inner = self.inner.lock().unwrap();
            (
                inner.crash_at == Some((nth, true)) || inner.happens(|odds| odds.crash),
                inner.happens(|odds| odds.lost_answer),
            )
        };
        if crash {
            self.crash();
        }
        self.halt_if_crashed().await;
        self.wait_while_stalled().await;
        self.halt_if_crashed().await;
        if lost {
            Err(LedgerError::Unavailable("the answer was lost".into()))
        } else {
            Ok(())
        }
    }

    /// Never returns if the worker has crashed, so that its tasks do nothing more.
    async fn halt_if_crashed(&self) {
        if self.is_crashed() {
            std::future::pending::<()>().await;
        }
    }

    async fn wait_while_stalled(&self) {
        let until = self.inner.lock().unwrap().stalled_until;
        if let Some(until) = until {
            tokio::time::sleep_until(until).await;
        }
    }
}

impl Inner {
    fn happens(&mut self, odds: impl Fn(&Odds) -> u32) -> bool {
        let odds = odds(&self.odds);
        let happens = odds > 0 && self.rng.random_range(0..1_000) < odds;
        self.faults += u64::from(happens);
        happens
    }
}
