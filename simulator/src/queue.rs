//! An account's queue: Twilio accepts calls at any rate, dials them at the account's calls per
//! second, and reports how long each waits.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// Twilio refuses calls that would wait longer (error 22005).
const MAX_QUEUE_TIME: Duration = Duration::from_hours(24);

/// The queue of one account, and how fast its calls are created.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    /// When the next call may be dialled; `None` before the first call.
    free: Option<Instant>,
    /// When the calls of the last second were created.
    recent: VecDeque<Instant>,
    /// The most calls that were created within any one second.
    busiest: usize,
}

/// The queue is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct QueueFull;

impl Queue {
    /// Adds a call, and returns how long it waits until it is dialled.
    pub(crate) fn join(
        &mut self,
        now: Instant,
        calls_per_second: f64,
    ) -> Result<Duration, QueueFull> {
        let turn = self.free.map_or(now, |free| free.max(now));
        let wait = turn - now;
        if wait > MAX_QUEUE_TIME {
            return Err(QueueFull);
        }
        self.free = Some(turn + interval(calls_per_second));
        self.count(now);
        Ok(wait)
    }

    /// The most calls that were created within any one second.
    pub(crate) fn busiest_second(&self) -> usize {
        self.busiest
    }

    fn count(&mut self, now: Instant) {
        while self
            .recent
            .front()
            .is_some_and(|first| now - *first >= Duration::from_secs(1))
        {
            self.recent.pop_front();
        }
        self.recent.push_back(now);
        self.busiest = self.busiest.max(self.recent.len());
    }
}

/// The time between two calls; a rate of 0 or less, or one that isn't a number, counts as 1.
fn interval(calls_per_second: f64) -> Duration {
    let second = Duration::from_secs(1);
    if calls_per_second > 0.0 {
        Duration::try_from_secs_f64(calls_per_second.recip()).unwrap_or(second)
    } else {
        second
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    #[tokio::test(start_paused = true)]
    async fn calls_are_dialled_at_the_accounts_rate() {
        let mut queue = Queue::default();
        let mut join = || queue.join(Instant::now(), 2.0);
        assert_eq!(
            [join(), join(), join()],
            [Ok(seconds(0.0)), Ok(seconds(0.5)), Ok(seconds(1.0))]
        );
        tokio::time::advance(seconds(0.75)).await;
        assert_eq!(join(), Ok(seconds(0.75)));
        tokio::time::advance(seconds(60.0)).await;
        assert_eq!([join(), join()], [Ok(seconds(0.0)), Ok(seconds(0.5))]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_fraction_of_a_call_per_second_is_a_rate_too() {
        let mut queue = Queue::default();
        let waits = [0; 3].map(|_| queue.join(Instant::now(), 0.25));
        assert_eq!(
            waits,
            [Ok(seconds(0.0)), Ok(seconds(4.0)), Ok(seconds(8.0))]
        );
        assert_eq!(
            [0.0, -1.0, f64::NAN, f64::INFINITY].map(interval),
            [1, 1, 1, 0].map(Duration::from_secs)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_queue_of_more_than_a_day_is_full() {
        let mut queue = Queue::default();
        for _ in 0..=24 {
            queue.join(Instant::now(), 1.0 / 3_600.0).unwrap();
        }
        assert_eq!(queue.join(Instant::now(), 1.0 / 3_600.0), Err(QueueFull));
    }

    #[tokio::test(start_paused = true)]
    async fn the_busiest_second_is_any_second() {
        let mut queue = Queue::default();
        for wait_ms in [0, 600, 300, 300, 5_000, 0] {
            tokio::time::advance(Duration::from_millis(wait_ms)).await;
            queue.join(Instant::now(), 1.0).unwrap();
        }
        assert_eq!(queue.busiest_second(), 3);
    }
}
