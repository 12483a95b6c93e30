//! At most one log line a minute about each subject, with a count.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use tokio::time::Instant;

/// Counts what is not logged.
pub(super) struct LogLimiter<T>(HashMap<T, Subject>);

struct Subject {
    logged_at: Instant,
    /// How often it happened since.
    count: u64,
}

const INTERVAL: Duration = Duration::from_mins(1);
/// How many subjects are kept before old ones are dropped.
const MANY: usize = 1_000;

impl<T> Default for LogLimiter<T> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<T: Eq + Hash> LogLimiter<T> {
    /// Counts once. Returns how often it happened since the last log line, this time included, if
    /// it is to be logged now.
    pub(super) fn count(&mut self, subject: T) -> Option<u64> {
        if self.0.len() >= MANY {
            self.0.retain(|_, kept| kept.logged_at.elapsed() < INTERVAL);
        }
        let now = Instant::now();
        let Some(kept) = self.0.get_mut(&subject) else {
            let kept = Subject {
                logged_at: now,
                count: 0,
            };
            self.0.insert(subject, kept);
            return Some(1);
        };
        kept.count += 1;
        if kept.logged_at.elapsed() < INTERVAL {
            return None;
        }
        kept.logged_at = now;
        Some(std::mem::take(&mut kept.count))
    }
}
