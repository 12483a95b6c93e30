//! How many dead letters a publisher may cause.

use std::num::NonZeroU32;

use governor::clock::DefaultClock;
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter};

/// A limit per publisher and queue, and one per publisher. The broker's user that a message names
/// identifies the publisher; messages without one share a limit.
pub(super) struct Budget {
    per_queue: Limiter,
    per_publisher: Limiter,
}

type Limiter = RateLimiter<String, HashMapStateStore<String>, DefaultClock>;

/// How many letters one publisher may cause in one queue at once; and how many per second on
/// average.
const PER_QUEUE: (u32, u32) = (200, 2);
/// The same over all queues.
const PER_PUBLISHER: (u32, u32) = (1_000, 10);
/// With more limits than this in use, the rest share one.
const MAX_KEYS: usize = 10_000;

impl Budget {
    pub(super) fn new() -> Self {
        Self {
            per_queue: limiter(PER_QUEUE),
            per_publisher: limiter(PER_PUBLISHER),
        }
    }

    /// Takes one letter of the budget, or returns false if none is left.
    pub(super) fn take(&self, user: Option<&str>, queue: &str) -> bool {
        let user = user.unwrap_or_default();
        // The broker's user names may contain a space, the names of our queues don't.
        take(&self.per_queue, format!("{queue} {user}"))
            && take(&self.per_publisher, user.to_owned())
    }
}

fn limiter((burst, per_second): (u32, u32)) -> Limiter {
    let [burst, per_second] =
        [burst, per_second].map(|number| NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN));
    RateLimiter::hashmap(Quota::per_second(per_second).allow_burst(burst))
}

fn take(limiter: &Limiter, key: String) -> bool {
    if limiter.len() < MAX_KEYS {
        return limiter.check_key(&key).is_ok();
    }
    // Those that are full again needn't be remembered.
    limiter.retain_recent();
    let is_full = limiter.len() >= MAX_KEYS;
    let key = if is_full { String::new() } else { key };
    limiter.check_key(&key).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(budget: &Budget, user: Option<&str>, queue: &str, wanted: u32) -> u32 {
        (0..wanted)
            .map(|_| u32::from(budget.take(user, queue)))
            .sum()
    }

    #[test]
    fn a_flood_of_one_publisher_leaves_the_budgets_of_the_others() {
        let budget = Budget::new();
        let flood = taken(&budget, Some("flood"), "q.1", 5_000);
        assert!((200..220).contains(&flood), "{flood}");
        assert_eq!(taken(&budget, Some("other"), "q.1", 100), 100);
        assert_eq!(taken(&budget, None, "q.1", 100), 100);
        assert_eq!(taken(&budget, Some("flood"), "q.2", 100), 100);
    }

    #[test]
    fn a_flood_over_all_queues_is_limited_too() {
        let budget = Budget::new();
        let flood: u32 = (0..128)
            .map(|lane| taken(&budget, Some("flood"), &format!("q.{lane}"), 400))
            .sum();
        assert!((1_000..1_100).contains(&flood), "{flood}");
    }

    #[test]
    fn the_number_of_limits_is_bounded() {
        let budget = Budget::new();
        for user in 0..3 * MAX_KEYS {
            budget.take(Some(&format!("user-{user}")), "q.1");
        }
        assert!(budget.per_queue.len() <= MAX_KEYS + 1);
        assert!(budget.per_publisher.len() <= MAX_KEYS + 1);
    }
}
