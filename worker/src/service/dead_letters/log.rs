//! The log of dead letters: at most two lines a minute for each cause, whatever is published.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Counts what is not logged line by line.
#[derive(Default)]
pub(super) struct Log(Mutex<HashMap<&'static str, Count>>);

/// The messages of one cause since its last line.
struct Count {
    since: Instant,
    messages: u64,
}

/// How long messages are counted before the next line of their cause.
const INTERVAL: Duration = Duration::from_mins(1);

impl Log {
    /// Returns true if the message gets a line of its own: the first one after an interval without
    /// any. Counts the others.
    pub(super) fn is_first(&self, cause: &'static str, now: Instant) -> bool {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(cause) {
            count.messages += 1;
            return false;
        }
        let count = Count {
            since: now,
            messages: 0,
        };
        counts.insert(cause, count);
        true
    }

    /// The causes whose interval is over, each with the messages that were counted.
    pub(super) fn due(&self, now: Instant) -> Vec<(&'static str, u64)> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut due = Vec::new();
        counts.retain(|cause, count| {
            if now.duration_since(count.since) < INTERVAL {
                return true;
            }
            if count.messages > 0 {
                due.push((*cause, count.messages));
            }
            count.since = now;
            std::mem::take(&mut count.messages) > 0
        });
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_gets_a_line_at_once_and_then_one_each_minute_with_a_count() {
        let log = Log::default();
        let mut now = Instant::now();
        let mut lines = 0;
        let mut counted = 0;
        for _ in 0..600 {
            for _ in 0..1_000 {
                lines += u32::from(log.is_first("not_json", now));
            }
            now += Duration::from_secs(1);
            for (cause, messages) in log.due(now) {
                assert_eq!(cause, "not_json");
                lines += 1;
                counted += messages;
            }
        }
        assert_eq!(lines, 11);
        assert_eq!(counted, 600_000 - 1);
        now += INTERVAL;
        assert_eq!(log.due(now), []);
        assert!(log.is_first("not_json", now), "after a quiet minute");
    }
}
