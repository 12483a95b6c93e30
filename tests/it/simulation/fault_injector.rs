//! Injects the faults of one worker: every await on a port passes here, before and after its
//! effect.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::sync::watch;

use super::plan::CALL_TIMEOUT;

/// Injects the faults of one worker. Clones share the same state.
#[derive(Clone)]
pub(super) struct FaultInjector {
    inner: Arc<Mutex<Inner>>,
    crashed: watch::Sender<bool>,
}

/// The odds of each fault, in thousandths of the awaits.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Odds {
    /// The worker crashes, before or after the effect.
    pub(super) crash: u32,
    /// The operation is applied, and its answer is lost.
    pub(super) lost_answer: u32,
    /// The operation fails before its effect.
    pub(super) unreachable: u32,
    /// The worker stalls, for up to twice its lease.
    pub(super) stall: u32,
    /// No answer comes before the caller's timeout. The operation is applied before it, after it or
    /// never.
    pub(super) silent: u32,
    /// The operation is applied, and answered, up to half of the caller's timeout later than usual,
    /// so that others overtake it.
    pub(super) slow: u32,
    /// A row is locked by another transaction, in thousandths of the rows.
    pub(super) locked: u32,
    /// The broker refuses one of several statuses, in thousandths of the statuses.
    pub(super) refused: u32,
    /// A POST is answered by a redirect after it was processed, in thousandths of the POSTs.
    pub(super) redirect: u32,
    /// The settings' listener is cut off or silent, in thousandths of the seconds.
    pub(super) listener: u32,
}

/// Why an operation has no result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failed {
    /// It never began.
    Unreachable,
    /// It was applied, is applied later, or never is.
    NoAnswer,
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
        self.inner.lock().unwrap().odds = Odds::default();
    }

    /// Performs an operation that its caller gives up after [`CALL_TIMEOUT`]. It is applied at some
    /// moment between the call and the answer, while others run, or after the caller gave up.
    pub(super) async fn perform<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, Failed> {
        let nth = self.before(true).await?;
        if let Some(applied_after) = self.silence() {
            if let Some(applied_after) = applied_after {
                drop(tokio::task::spawn(async move {
                    tokio::time::sleep(applied_after).await;
                    drop(work.await);
                }));
            }
            tokio::time::sleep(CALL_TIMEOUT).await;
            self.halt_if_crashed().await;
            return Err(Failed::NoAnswer);
        }
        let done = work.await;
        let pause = self.pause();
        tokio::time::sleep(pause).await;
        self.after(nth).await?;
        Ok(done)
    }

    /// Call before an effect. Returns the number of the await. `may_wait` is false where the effect
    /// must follow a check without delay.
    pub(super) async fn before(&self, may_wait: bool) -> Result<u64, Failed> {
        let (nth, crash, unreachable) = {
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
            (nth, crash, unreachable)
        };
        if crash {
            self.crash();
        }
        self.halt_if_crashed().await;
        if may_wait {
            self.wait_while_stalled().await;
            let pause = self.pause();
            tokio::time::sleep(pause).await;
            self.halt_if_crashed().await;
        }
        if unreachable {
            Err(Failed::Unreachable)
        } else {
            Ok(nth)
        }
    }

    /// Call after the effect of the `nth` await, before its answer.
    pub(super) async fn after(&self, nth: u64) -> Result<(), Failed> {
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
        if lost { Err(Failed::NoAnswer) } else { Ok(()) }
    }

    /// Whether no answer comes in time, and when the operation is applied nevertheless.
    #[expect(
        clippy::option_option,
        reason = "silent or not; and if silent, applied or not"
    )]
    pub(super) fn silence(&self) -> Option<Option<Duration>> {
        let mut inner = self.inner.lock().unwrap();
        if !inner.happens(|odds| odds.silent) {
            return None;
        }
        let latest = CALL_TIMEOUT * 3;
        let applied_after = latest.mul_f64(inner.rng.random());
        Some(inner.rng.random_bool(0.7).then_some(applied_after))
    }

    /// Whether one thing happens for which there are odds, and counts it as a fault.
    pub(super) fn happens(&self, odds: impl Fn(&Odds) -> u32) -> bool {
        self.inner.lock().unwrap().happens(odds)
    }

    /// A random duration up to this one.
    pub(super) fn up_to(&self, longest: Duration) -> Duration {
        longest.mul_f64(self.inner.lock().unwrap().rng.random())
    }

    /// How long an operation is on its way, there or back.
    fn pause(&self) -> Duration {
        let mut inner = self.inner.lock().unwrap();
        let longest = if inner.happens(|odds| odds.slow) {
            CALL_TIMEOUT / 2
        } else {
            Duration::from_millis(2)
        };
        Duration::from_micros(50) + longest.mul_f64(inner.rng.random())
    }

    /// Never returns if the worker has crashed, so that its tasks do nothing more.
    pub(super) async fn halt_if_crashed(&self) {
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
