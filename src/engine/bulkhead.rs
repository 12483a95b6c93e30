//! Room for what is under way at Twilio, shared among accounts: one that answers slowly, or not at all, fills its own part
//! and leaves the rest to the others.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// A number of berths. As long as half of them are free an account may take as many as it likes; from then on only up to
/// its share.
#[derive(Debug)]
pub struct Bulkhead {
    most: usize,
    share: usize,
    taken: Mutex<Taken>,
    freed: Notify,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by_account: HashMap<String, usize>,
}

/// A place taken; free again once dropped.
#[derive(Debug)]
pub struct Berth {
    bulkhead: Arc<Bulkhead>,
    account: String,
}

/// Once half is taken, an account holds at most one in so many.
const SHARES: usize = 16;

impl Bulkhead {
    /// So many berths, all free.
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self {
            most,
            share: (most / SHARES).max(1),
            taken: Mutex::default(),
            freed: Notify::new(),
        })
    }

    /// A berth for an account, if there is one for it now.
    pub fn try_enter(self: &Arc<Self>, account: &str) -> Option<Berth> {
        let mut taken = self.lock();
        let own = taken.by_account.get(account).copied().unwrap_or(0);
        if taken.all >= self.most || (own >= self.share && taken.all >= self.most / 2) {
            return None;
        }
        taken.all += 1;
        match taken.by_account.get_mut(account) {
            Some(own) => *own += 1,
            None => drop(taken.by_account.insert(account.to_owned(), 1)),
        }
        Some(Berth {
            bulkhead: Arc::clone(self),
            account: account.to_owned(),
        })
    }

    /// Waits for a berth for an account.
    pub async fn enter(self: &Arc<Self>, account: &str) -> Berth {
        loop {
            // Before the look, so that a berth freed right after it is not missed.
            let freed = self.freed.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
            if let Some(berth) = self.try_enter(account) {
                return berth;
            }
            freed.await;
        }
    }

    /// Hears of the next berth that is freed after this call.
    pub fn freed(&self) -> tokio::sync::futures::Notified<'_> {
        self.freed.notified()
    }

    /// How many are free.
    pub fn room(&self) -> usize {
        self.most.saturating_sub(self.lock().all)
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Berth {
    fn drop(&mut self) {
        let mut taken = self.bulkhead.lock();
        taken.all -= 1;
        if let Some(own) = taken.by_account.get_mut(&self.account) {
            *own -= 1;
            if *own == 0 {
                taken.by_account.remove(&self.account);
            }
        }
        drop(taken);
        self.bulkhead.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_account_leaves_half_to_the_others() {
        let bulkhead = Bulkhead::new(64);
        let greedy: Vec<Berth> = std::iter::from_fn(|| bulkhead.try_enter("greedy")).collect();
        assert_eq!((greedy.len(), bulkhead.room()), (32, 32));
        let others: Vec<Berth> = (0..100)
            .filter_map(|n| bulkhead.try_enter(&format!("other {}", n % 8)))
            .collect();
        assert_eq!(others.len(), 32, "each its share");
        assert!(bulkhead.try_enter("late").is_none(), "there are no more");
        drop(greedy);
        assert_eq!(bulkhead.room(), 32);
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_a_berth_gets_the_one_that_is_freed() {
        let bulkhead = Bulkhead::new(1);
        let first = bulkhead.enter("one").await;
        let waiting = bulkhead.enter("another");
        tokio::pin!(waiting);
        let too_early =
            tokio::time::timeout(std::time::Duration::from_millis(10), &mut waiting).await;
        assert!(too_early.is_err(), "there is none");
        drop(first);
        let berth = waiting.await;
        assert_eq!(bulkhead.room(), 0);
        drop(berth);
    }
}
