//! How many POSTs may be in flight: fewer while Twilio answers slowly.
//!
//! A Twilio that slows down must not be given more and more: requests that wait there may be
//! carried out after their timeout, when no one reads the answer. So the limit follows the latency,
//! as the congestion window of TCP follows losses: a slow answer decreases it to what would have
//! been answered promptly, prompt ones increase it by one for each full round.

use std::time::Duration;

use tokio::time::Instant;

/// A limit that follows the latency of what it limits.
#[derive(Debug)]
pub struct AdaptiveLimit {
    limit: f64,
    highest: f64,
    /// Whether the limit grows with each answer, and not with each round.
    grows_fast: bool,
    decreased_at: Option<Instant>,
    baseline: Baseline,
}

/// How a request ended, for the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// With any answer.
    Received,
    /// Without one, until the timeout or the end of the connection.
    None,
}

/// The lowest latency of the last minutes.
#[derive(Debug)]
struct Baseline {
    since: Instant,
    previous: Option<Duration>,
    current: Option<Duration>,
}

/// Where the limit begins. A burst passes at once, and a slow Twilio still answers all of it before
/// the timeout.
pub const FIRST_LIMIT: usize = 64;
/// A faster answer is never slow: on a busy machine a worker measures its own delays too.
pub const PROMPT: Duration = Duration::from_secs(3);
/// An answer is slow if it takes this many times the lowest latency.
const SLOW: u32 = 2;
/// What remains of the limit after a slow answer.
const AFTER_SLOW: f64 = 0.8;
/// What remains of the limit after a request without an answer.
const AFTER_NONE: f64 = 0.5;
/// How long after the last decrease the limit grows fast again.
const RECOVERED: Duration = Duration::from_secs(30);
/// For how long a latency counts for the baseline: between one and two windows.
const BASELINE_WINDOW: Duration = Duration::from_mins(5);

impl AdaptiveLimit {
    /// The limit of an account, which never exceeds `highest`.
    pub fn of_account(highest: usize, now: Instant) -> Self {
        Self::new(FIRST_LIMIT.min(highest), highest, now)
    }

    /// The limit of a process: `highest`, until most accounts are answered slowly.
    pub fn of_process(highest: usize, now: Instant) -> Self {
        Self::new(highest, highest, now)
    }

    fn new(first: usize, highest: usize, now: Instant) -> Self {
        Self {
            limit: as_float(first),
            highest: as_float(highest),
            grows_fast: true,
            decreased_at: None,
            baseline: Baseline {
                since: now,
                previous: None,
                current: None,
            },
        }
    }

    /// How many may be in flight: at least one.
    pub fn get(&self) -> usize {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between one and the highest limit"
        )]
        let limit = self.limit as usize;
        limit
    }

    /// Records how a request ended that was sent at `sent`, as the last of `in_flight`. Returns
    /// whether it was slow.
    pub fn record(
        &mut self,
        answer: Answer,
        sent: Instant,
        now: Instant,
        in_flight: usize,
    ) -> bool {
        let latency = now.saturating_duration_since(sent);
        let lowest = match answer {
            Answer::Received => self.baseline.record(latency, now),
            Answer::None => Duration::ZERO,
        };
        let prompt = PROMPT.max(lowest.saturating_mul(SLOW));
        if answer == Answer::Received && latency <= prompt {
            self.increase(now, in_flight);
            return false;
        }
        self.decrease(answer, sent, now, in_flight, prompt);
        true
    }

    /// Records that a request was answered promptly that was sent as the last of `in_flight`.
    pub fn increase(&mut self, now: Instant, in_flight: usize) {
        if let Some(at) = self.decreased_at
            && now.saturating_duration_since(at) > RECOVERED
        {
            self.grows_fast = true;
        }
        // A limit that isn't reached says nothing about whether more would be answered.
        if as_float(in_flight) * 2.0 >= self.limit {
            let more = if self.grows_fast {
                1.0
            } else {
                self.limit.recip()
            };
            self.limit = (self.limit + more).min(self.highest);
        }
    }

    /// Records that a request that was sent at `sent`, as the last of `in_flight`, was answered
    /// later than `prompt`, or not at all.
    pub fn decrease(
        &mut self,
        answer: Answer,
        sent: Instant,
        now: Instant,
        in_flight: usize,
        prompt: Duration,
    ) {
        let in_flight = as_float(in_flight);
        // By Little's law: so many would have been answered promptly.
        let latency = now.saturating_duration_since(sent).max(prompt);
        let mut limit = in_flight * prompt.as_secs_f64() / latency.as_secs_f64();
        // The others of the same round were sent before the decrease; they are no news.
        if self.decreased_at.is_none_or(|at| sent >= at) {
            let factor = match answer {
                Answer::Received => AFTER_SLOW,
                Answer::None => AFTER_NONE,
            };
            limit = limit.min(in_flight * factor);
            self.decreased_at = Some(now);
        }
        self.grows_fast = false;
        self.limit = self.limit.min(limit).max(1.0);
    }
}

fn as_float(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

impl Baseline {
    /// Records a latency. Returns the lowest one.
    fn record(&mut self, latency: Duration, now: Instant) -> Duration {
        if now.saturating_duration_since(self.since) > BASELINE_WINDOW {
            self.since = now;
            self.previous = self.current.take();
        }
        let current = self.current.map_or(latency, |lowest| lowest.min(latency));
        self.current = Some(current);
        self.previous.map_or(current, |lowest| lowest.min(current))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that answers one request after the other, at this many per second, beside a fixed
    /// latency. Keeps as many in flight as the limit allows, for a time. Returns the number of
    /// answers of the second half, and the highest latency in it.
    fn saturate(limit: &mut AdaptiveLimit, capacity: f64, seconds: u64) -> (usize, Duration) {
        let step = Duration::from_secs_f64(1.0 / capacity);
        let latency = Duration::from_millis(100);
        let start = Instant::now();
        let half = start + Duration::from_secs(seconds) / 2;
        let end = start + Duration::from_secs(seconds);
        let (mut now, mut free_at) = (start, start);
        let mut in_flight = std::collections::VecDeque::new();
        let (mut answers, mut slowest) = (0, Duration::ZERO);
        while now < end {
            while in_flight.len() < limit.get() {
                free_at = free_at.max(now) + step;
                in_flight.push_back((now, free_at + latency, in_flight.len() + 1));
            }
            let (sent, answered, as_last_of) = in_flight.pop_front().expect("at least one");
            now = now.max(answered);
            limit.record(Answer::Received, sent, now, as_last_of);
            if now > half {
                answers += 1;
                slowest = slowest.max(now - sent);
            }
        }
        (answers, slowest)
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_of_any_capacity_is_kept_busy_and_answers_soon() {
        for capacity in [2.0, 12.0, 60.0, 400.0] {
            let mut limit = AdaptiveLimit::of_account(1_000, Instant::now());
            let (answers, slowest) = saturate(&mut limit, capacity, 120);
            let goodput = f64::from(u32::try_from(answers).unwrap()) / 60.0;
            assert!(goodput > 0.95 * capacity, "{goodput} of {capacity}");
            assert!(
                slowest < Duration::from_secs(6),
                "{slowest:?} at {capacity}"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_prompt_server_gets_whatever_there_is() {
        let mut limit = AdaptiveLimit::of_account(1_000, Instant::now());
        saturate(&mut limit, 9_000.0, 2);
        assert_eq!(limit.get(), 1_000);
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_answers_nothing_gets_one_and_everything_once_it_is_back() {
        let mut limit = AdaptiveLimit::of_account(1_000, Instant::now());
        for _ in 0..20 {
            let sent = Instant::now();
            tokio::time::advance(Duration::from_secs(15)).await;
            limit.record(Answer::None, sent, Instant::now(), limit.get());
        }
        assert_eq!(limit.get(), 1);
        saturate(&mut limit, 9_000.0, 60);
        assert_eq!(limit.get(), 1_000);
    }

    #[tokio::test(start_paused = true)]
    async fn a_limit_that_is_not_reached_does_not_grow() {
        let mut limit = AdaptiveLimit::of_account(1_000, Instant::now());
        let first = limit.get();
        for _ in 0..1_000 {
            limit.record(Answer::Received, Instant::now(), Instant::now(), 3);
        }
        assert_eq!(limit.get(), first);
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_was_always_slow_is_not_taken_for_overloaded() {
        let mut limit = AdaptiveLimit::of_account(1_000, Instant::now());
        for _ in 0..100 {
            let sent = Instant::now();
            tokio::time::advance(Duration::from_secs(5)).await;
            assert!(!limit.record(Answer::Received, sent, Instant::now(), 64));
        }
        assert!(limit.get() > 64);
    }
}
