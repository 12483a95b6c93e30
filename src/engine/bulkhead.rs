//! Permits for requests in flight at Twilio, shared among accounts: an account that answers slowly,
//! or not at all, uses up its own share and leaves the rest to the others, and gets fewer permits
//! until it answers promptly again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::adaptive_limit::{AdaptiveLimit, Answer, FIRST_LIMIT, PROMPT};
use super::sync::lock;

/// A number of permits. While half of them are available an account may hold as many as its limit
/// allows; from then on only its share. The limits follow the latency of the answers, where that is
/// recorded.
#[derive(Debug)]
pub struct Bulkhead {
    total: usize,
    /// How many permits an account may hold once half are in use.
    share: usize,
    used: Mutex<Used>,
    released: Notify,
    /// The turn of each account that is waited for.
    turns: Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>,
}

#[derive(Debug)]
struct Used {
    total: usize,
    by_account: HashMap<String, usize>,
    /// The limits of the accounts whose answers were recorded.
    limits: HashMap<String, AccountLimit>,
    /// The limit of all accounts together.
    process: AdaptiveLimit,
    /// When it was last checked how many accounts are answered slowly.
    checked_at: Instant,
    /// Whether most were.
    mostly_slow: bool,
}

#[derive(Debug)]
struct AccountLimit {
    limit: AdaptiveLimit,
    recorded_at: Instant,
    was_slow: bool,
}

/// A permit, returned when dropped.
#[derive(Debug)]
pub struct Permit {
    bulkhead: Arc<Bulkhead>,
    account: String,
    /// How many permits its account held with it.
    own: usize,
    /// How many all accounts held with it.
    total: usize,
}

/// An account's share is one in this many permits.
const SHARES: usize = 16;
/// How long after its last answer the limit of an account without a permit may be forgotten.
const REMEMBERED: Duration = Duration::from_mins(2);
/// When there are more limits than this, those that may be forgotten are.
const MANY_LIMITS: usize = 10_000;
/// How recent an answer must be to count for the limit of all accounts.
const RECENT: Duration = Duration::from_secs(20);
/// How many accounts must have recent answers.
const ENOUGH_ACCOUNTS: usize = 4;
/// The pause between two checks of how many accounts are answered slowly.
const CHECK_INTERVAL: Duration = Duration::from_millis(250);

impl Bulkhead {
    /// A bulkhead with this many permits, all available.
    pub fn new(total: usize) -> Arc<Self> {
        Arc::new(Self {
            total,
            share: (total / SHARES).max(1),
            used: Mutex::new(Used {
                total: 0,
                by_account: HashMap::new(),
                limits: HashMap::new(),
                process: AdaptiveLimit::of_process(total, Instant::now()),
                checked_at: Instant::now(),
                mostly_slow: false,
            }),
            released: Notify::new(),
            turns: Mutex::default(),
        })
    }

    /// A permit for an account, if it may have one now.
    pub fn try_acquire(self: &Arc<Self>, account: &str) -> Option<Permit> {
        let mut used = lock(&self.used);
        let own = used.by_account.get(account).copied().unwrap_or(0);
        let limit = used.limits.get(account).map(|account| account.limit.get());
        if used.total >= used.process.get()
            || own >= limit.unwrap_or(FIRST_LIMIT)
            || (own >= self.share && used.total >= self.total / 2)
        {
            return None;
        }
        used.total += 1;
        match used.by_account.get_mut(account) {
            Some(own) => *own += 1,
            None => drop(used.by_account.insert(account.to_owned(), 1)),
        }
        Some(Permit {
            bulkhead: Arc::clone(self),
            account: account.to_owned(),
            own: own + 1,
            total: used.total,
        })
    }

    /// Waits for a permit for an account. Those who wait for the same account get theirs in the
    /// order in which they came.
    pub async fn acquire(self: &Arc<Self>, account: &str) -> Permit {
        let turn = {
            let mut turns = lock(&self.turns);
            turns.retain(|_, turn| turn.strong_count() > 0);
            let turn = turns.get(account).and_then(Weak::upgrade);
            turn.unwrap_or_else(|| {
                let turn = Arc::default();
                turns.insert(account.to_owned(), Arc::downgrade(&turn));
                turn
            })
        };
        let _turn = turn.lock().await;
        loop {
            // Before the check, so that a permit released right after it is not missed.
            let released = self.released.notified();
            tokio::pin!(released);
            released.as_mut().enable();
            if let Some(permit) = self.try_acquire(account) {
                return permit;
            }
            released.await;
        }
    }

    /// Completes when the next permit is released after this call.
    pub fn released(&self) -> tokio::sync::futures::Notified<'_> {
        self.released.notified()
    }

    /// The number of permits that are not in use.
    pub fn available(&self) -> usize {
        self.total.saturating_sub(lock(&self.used).total)
    }
}

impl Permit {
    /// Records how a request ended that was sent at `sent` with this permit. The limits follow.
    pub fn record(&self, answer: Answer, sent: Instant) {
        let now = Instant::now();
        let mut used = lock(&self.bulkhead.used);
        let used = &mut *used;
        let highest = self.bulkhead.total;
        if used.limits.len() >= MANY_LIMITS && !used.limits.contains_key(&self.account) {
            used.limits.retain(|account, limit| {
                used.by_account.contains_key(account) || now - limit.recorded_at < REMEMBERED
            });
        }
        let account = used.limits.entry(self.account.clone()).or_insert_with(|| {
            let limit = AdaptiveLimit::of_account(highest, now);
            AccountLimit {
                limit,
                recorded_at: now,
                was_slow: false,
            }
        });
        account.was_slow = account.limit.record(answer, sent, now, self.own);
        account.recorded_at = now;
        let was_slow = account.was_slow;
        if now - used.checked_at >= CHECK_INTERVAL {
            used.checked_at = now;
            used.mostly_slow = used.are_most_slow(now);
        }
        if !was_slow {
            used.process.increase(now, self.total);
        } else if used.mostly_slow {
            // One slow account alone is the business of its own limit.
            used.process.decrease(answer, sent, now, self.total, PROMPT);
        }
    }
}

impl Used {
    /// Whether most accounts with recent answers are answered slowly.
    fn are_most_slow(&self, now: Instant) -> bool {
        let recent = self
            .limits
            .values()
            .filter(|limit| now - limit.recorded_at < RECENT);
        let (mut all, mut slow) = (0_usize, 0_usize);
        for limit in recent {
            all += 1;
            slow += usize::from(limit.was_slow);
        }
        all >= ENOUGH_ACCOUNTS && slow * 2 > all
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut used = lock(&self.bulkhead.used);
        used.total -= 1;
        if let Some(own) = used.by_account.get_mut(&self.account) {
            *own -= 1;
            if *own == 0 {
                used.by_account.remove(&self.account);
            }
        }
        drop(used);
        self.bulkhead.released.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_account_leaves_half_to_the_others() {
        let bulkhead = Bulkhead::new(64);
        let greedy: Vec<Permit> = std::iter::from_fn(|| bulkhead.try_acquire("greedy")).collect();
        assert_eq!((greedy.len(), bulkhead.available()), (32, 32));
        let others: Vec<Permit> = (0..100)
            .filter_map(|n| bulkhead.try_acquire(&format!("other {}", n % 8)))
            .collect();
        assert_eq!(others.len(), 32, "each its share");
        assert!(bulkhead.try_acquire("late").is_none(), "there are no more");
        drop(greedy);
        assert_eq!(bulkhead.available(), 32);
    }

    #[tokio::test(start_paused = true)]
    async fn a_waiting_account_gets_the_permit_that_is_released() {
        let bulkhead = Bulkhead::new(1);
        let first = bulkhead.acquire("one").await;
        let waiting = bulkhead.acquire("another");
        tokio::pin!(waiting);
        let too_early =
            tokio::time::timeout(std::time::Duration::from_millis(10), &mut waiting).await;
        assert!(too_early.is_err(), "there is none");
        drop(first);
        let permit = waiting.await;
        assert_eq!(bulkhead.available(), 0);
        drop(permit);
    }

    /// One answer for each of these accounts, after this time.
    async fn answer(bulkhead: &Arc<Bulkhead>, accounts: &[&str], after: Duration) {
        let sent = Instant::now();
        let permits: Vec<Permit> = accounts
            .iter()
            .filter_map(|account| bulkhead.try_acquire(account))
            .collect();
        tokio::time::advance(after).await;
        for permit in permits {
            permit.record(Answer::Received, sent);
        }
    }

    /// How many of so many permits are given, each to the account of its number.
    fn permits_of(bulkhead: &Arc<Bulkhead>, of: u32, account: impl Fn(u32) -> String) -> usize {
        let permits: Vec<Permit> = (0..of)
            .filter_map(|n| bulkhead.try_acquire(&account(n)))
            .collect();
        permits.len()
    }

    fn all_permits(bulkhead: &Arc<Bulkhead>) -> usize {
        permits_of(bulkhead, 1_000, |n| format!("other {n}"))
    }

    #[tokio::test(start_paused = true)]
    async fn one_slow_account_gets_less_and_takes_nothing_from_the_others() {
        let bulkhead = Bulkhead::new(64);
        let accounts = ["slow", "one", "two", "three", "four"];
        answer(&bulkhead, &accounts, Duration::from_millis(100)).await;
        for _ in 0..20 {
            answer(&bulkhead, &accounts[1..], Duration::from_millis(100)).await;
            answer(&bulkhead, &["slow", "slow"], Duration::from_secs(9)).await;
        }
        assert_eq!(permits_of(&bulkhead, 64, |_| "slow".to_owned()), 1);
        assert_eq!(all_permits(&bulkhead), 64);
    }

    #[tokio::test(start_paused = true)]
    async fn when_most_accounts_are_slow_all_of_them_get_less_until_they_are_not() {
        let bulkhead = Bulkhead::new(64);
        let accounts = ["one", "two", "three", "four", "five"];
        answer(&bulkhead, &accounts, Duration::from_millis(100)).await;
        for _ in 0..20 {
            answer(&bulkhead, &accounts, Duration::from_secs(9)).await;
        }
        assert!(all_permits(&bulkhead) <= 2, "{}", all_permits(&bulkhead));
        for _ in 0..200 {
            answer(&bulkhead, &accounts, Duration::from_millis(100)).await;
        }
        // A limit grows to twice of what is used.
        assert!(all_permits(&bulkhead) >= 10, "{}", all_permits(&bulkhead));
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_wait_for_one_account_are_served_in_the_order_in_which_they_came() {
        let bulkhead = Bulkhead::new(1);
        let first = bulkhead.acquire("one").await;
        let order = Arc::new(Mutex::new(Vec::new()));
        let tasks = tokio_util::task::TaskTracker::new();
        for n in 0..20 {
            let (bulkhead, order) = (Arc::clone(&bulkhead), Arc::clone(&order));
            drop(tasks.spawn(async move {
                let permit = bulkhead.acquire("one").await;
                lock(&order).push(n);
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
                drop(permit);
            }));
            tokio::task::yield_now().await;
        }
        drop(first);
        tasks.close();
        tasks.wait().await;
        assert_eq!(*lock(&order), (0..20).collect::<Vec<_>>());
    }
}
