//! Where one worker's fate is decided: every await on the outside world passes here, before its effect and after.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::sync::watch;
use voice_otp::ports::LedgerError;

/// One worker's fate. Clones are the same one.
#[derive(Clone)]
pub(super) struct Seat {
    inner: Arc<Mutex<Inner>>,
    crashed: watch::Sender<bool>,
}

/// How often what goes wrong, in thousandths of the awaits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Odds {
    pub(super) crash: u32,
    pub(super) lost_answer: u32,
    pub(super) away: u32,
    /// The worker stands still, for up to twice its lease.
    pub(super) stop: u32,
}

struct Inner {
    rng: StdRng,
    odds: Odds,
    /// The await to crash at, and whether after its effect.
    crash_at: Option<(u64, bool)>,
    awaits: u64,
    faults: u64,
    stands_still_until: Option<tokio::time::Instant>,
    lease: Duration,
}

impl Seat {
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
            stands_still_until: None,
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

    /// Ends when the worker has crashed.
    pub(super) async fn crashed(&self) {
        // The sender is here.
        drop(self.crashed.subscribe().wait_for(|crashed| *crashed).await);
    }

    pub(super) fn crash(&self) {
        self.crashed.send_replace(true);
    }

    /// How many faults it met.
    pub(super) fn faults(&self) -> u64 {
        self.inner.lock().unwrap().faults
    }

    /// Nothing goes wrong any more.
    pub(super) fn calm(&self) {
        self.inner.lock().unwrap().odds = Odds {
            crash: 0,
            lost_answer: 0,
            away: 0,
            stop: 0,
        };
    }

    /// Before an effect; gives the await's number. `may_wait` is false where the effect is the very next thing after a check that must not age.
    pub(super) async fn before(&self, may_wait: bool) -> Result<u64, LedgerError> {
        let (nth, crash, away, pause) = {
            let mut inner = self.inner.lock().unwrap();
            let nth = inner.awaits;
            inner.awaits += 1;
            let crash = inner.crash_at == Some((nth, false)) || inner.happens(|odds| odds.crash);
            let away = inner.happens(|odds| odds.away);
            if inner.happens(|odds| odds.stop) {
                let longest = inner.lease * 2;
                let still = longest.mul_f64(inner.rng.random());
                inner.stands_still_until = Some(tokio::time::Instant::now() + still);
            }
            (
                nth,
                crash,
                away,
                Duration::from_micros(inner.rng.random_range(100..3_000)),
            )
        };
        if crash {
            self.crash();
        }
        self.live_on().await;
        if may_wait {
            self.stand_still().await;
            tokio::time::sleep(pause).await;
            self.live_on().await;
        }
        if away {
            Err(LedgerError::Unavailable("away".into()))
        } else {
            Ok(nth)
        }
    }

    /// After the effect of the `nth` await, before its answer.
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
        self.live_on().await;
        self.stand_still().await;
        self.live_on().await;
        if lost {
            Err(LedgerError::Unavailable("the answer was lost".into()))
        } else {
            Ok(())
        }
    }

    /// A crashed worker does nothing more: its tasks never get beyond here.
    async fn live_on(&self) {
        if self.is_crashed() {
            std::future::pending::<()>().await;
        }
    }

    async fn stand_still(&self) {
        let until = self.inner.lock().unwrap().stands_still_until;
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
