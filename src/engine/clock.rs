//! The ledger's time.
//!
//! The clocks of workers differ; the database has one clock. So every time that is stored, compared
//! or published is the ledger's. Its answer to each heartbeat sets [`LedgerClock`], which runs on
//! between the answers by a clock that counts suspension. An answer that differs from what the
//! clock shows means that the ledger's own clock was set, or that another server has taken over.
//! So right before a POST the machine's own clock counts too, if it is later.

use std::sync::Mutex;
use std::time::Duration;

use voice_otp_schemas::Timestamp;

use super::sync::lock;

/// A clock that never goes back, and that counts the time during which the machine was suspended
/// (`CLOCK_BOOTTIME` on Linux).
pub trait MonotonicClock: Send + Sync + 'static {
    /// The time since some fixed moment.
    fn elapsed(&self) -> Duration;

    /// The time of day by the machine's own clock, which may be wrong; `None` if it isn't known.
    fn time_of_day(&self) -> Option<Timestamp>;
}

/// A step of the ledger's clock: how far it was set, beside the time that has passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClockStep {
    /// It was set forward by this much.
    Forward(Duration),
    /// It was set back by this much.
    Back(Duration),
}

/// A difference of more than this is a step. Clocks that are slewed differ by far less between two
/// heartbeats.
const STEP: Duration = Duration::from_secs(1);

/// A reading that took longer than this is ignored: it may be wrong by half of it.
const MAX_READING: Duration = Duration::from_millis(200);

/// The ledger's time, estimated between its answers.
pub struct LedgerClock {
    monotonic: Box<dyn MonotonicClock>,
    /// The first reading, on the monotonic clock.
    watched_from: Duration,
    reading: Mutex<Reading>,
}

/// What is known of the ledger's clock.
struct Reading {
    /// A moment on the monotonic clock, and the ledger's time then.
    anchor: (Duration, Timestamp),
    /// The steps of the last hour: when they were noticed on the monotonic clock, and how far the
    /// ledger's clock was set.
    steps: Vec<(Duration, Duration)>,
}

/// How long a step is remembered: as long as codes live.
const REMEMBERED: Duration = Duration::from_hours(1);

impl LedgerClock {
    /// A clock that shows the ledger's `now`, which was read at `read_at` on the monotonic clock.
    pub fn new(monotonic: impl MonotonicClock, read_at: Duration, now: Timestamp) -> Self {
        Self {
            watched_from: read_at,
            reading: Mutex::new(Reading {
                anchor: (read_at, now),
                steps: Vec::new(),
            }),
            monotonic: Box::new(monotonic),
        }
    }

    /// The time on the monotonic clock: for deadlines that must hold however the ledger's time
    /// changes.
    pub fn elapsed(&self) -> Duration {
        self.monotonic.elapsed()
    }

    /// The ledger's time now.
    pub fn now(&self) -> Timestamp {
        let (at, then) = lock(&self.reading).anchor;
        then + self.monotonic.elapsed().saturating_sub(at)
    }

    /// The ledger's time now, or the machine's if that is later. A code must have expired by
    /// neither: if they differ, one of them is wrong.
    pub fn latest(&self) -> Timestamp {
        let now = self.now();
        self.monotonic
            .time_of_day()
            .map_or(now, |here| here.max(now))
    }

    /// Sets the clock to the ledger's `now`, which was read between `sent` on the monotonic clock
    /// and this call. An answer that took too long is ignored, unless it shows a step. Returns the
    /// step, if the ledger's clock was set by more than a second.
    pub fn set(&self, sent: Duration, now: Timestamp) -> Option<ClockStep> {
        let received = self.monotonic.elapsed();
        let taken = received.saturating_sub(sent);
        let read = sent + taken / 2;
        let mut reading = lock(&self.reading);
        let (at, then) = reading.anchor;
        let expected = then + read.saturating_sub(at);
        let tolerance = STEP + taken / 2;
        let step = if let Ok(ahead) = (now - expected).to_std()
            && ahead > tolerance
        {
            Some(ClockStep::Forward(ahead))
        } else if let Ok(behind) = (expected - now).to_std()
            && behind > tolerance
        {
            Some(ClockStep::Back(behind))
        } else {
            None
        };
        if taken <= MAX_READING || step.is_some() {
            reading.anchor = (read, now);
        }
        if let Some(ClockStep::Forward(by) | ClockStep::Back(by)) = step {
            let oldest = received.saturating_sub(REMEMBERED);
            reading.steps.retain(|(noticed, _)| *noticed >= oldest);
            reading.steps.push((received, by));
        }
        step
    }

    /// Notes that the ledger's clock was set by this much before this worker could notice.
    pub fn note_step(&self, by: Duration) {
        if !by.is_zero() {
            let noticed = self.monotonic.elapsed();
            lock(&self.reading).steps.push((noticed, by));
        }
    }

    /// How far times that the ledger stored in the last hour may be from other clocks: as far as it
    /// was set since, or as it is from the machine's clock now.
    pub fn uncertainty(&self) -> Duration {
        let difference = self.machine_difference();
        let reading = lock(&self.reading);
        let steps = reading.steps.iter().map(|(_, by)| *by);
        steps.sum::<Duration>().max(difference)
    }

    /// Whether an interval of the ledger's time, up to this long and ending now, says how much time
    /// has passed: the ledger's clock was watched and not set meanwhile, and the machine's agrees
    /// with it.
    pub fn measures(&self, interval: Duration) -> bool {
        let Some(since) = self.monotonic.elapsed().checked_sub(interval) else {
            return false;
        };
        self.watched_from <= since
            && self.machine_difference() <= STEP
            && !lock(&self.reading)
                .steps
                .iter()
                .any(|(noticed, _)| *noticed >= since)
    }

    /// Whether no step of the ledger's clock is known.
    pub fn never_set(&self) -> bool {
        lock(&self.reading).steps.is_empty()
    }

    /// How far the machine's clock is from the ledger's.
    fn machine_difference(&self) -> Duration {
        let now = self.now();
        self.monotonic.time_of_day().map_or(Duration::ZERO, |here| {
            (here - now).abs().to_std().unwrap_or_default()
        })
    }

    /// The time until a moment; zero if it has passed.
    pub fn until(&self, time: Timestamp) -> Duration {
        (time - self.now()).to_std().unwrap_or_default()
    }
}

/// Tokio's clock, which tests can pause. It doesn't count suspension.
pub struct TokioClock(tokio::time::Instant);

impl TokioClock {
    /// A clock that starts at zero now.
    pub fn start() -> Self {
        Self(tokio::time::Instant::now())
    }
}

impl MonotonicClock for TokioClock {
    fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }

    fn time_of_day(&self) -> Option<Timestamp> {
        None
    }
}
