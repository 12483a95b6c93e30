//! How many POSTs may be retries: about a tenth. What fails because Twilio is overloaded must not
//! overload it more.

use std::collections::HashMap;
use std::sync::Mutex;

use tokio::time::Instant;

use super::sync::lock;

/// The retry budgets of the accounts. Placed calls earn retries.
#[derive(Debug, Default)]
pub(super) struct RetryBudget {
    accounts: Mutex<HashMap<String, Budget>>,
}

#[derive(Debug)]
struct Budget {
    retries: f64,
    at: Instant,
}

/// How many retries an account may save up.
const MOST: f64 = 20.0;
/// How many retries a placed call earns.
const PER_CALL: f64 = 0.1;
/// How many retries a second earns, so that an account whose calls all fail is still tried.
const PER_SECOND: f64 = 0.2;
/// When there are more accounts than this, those with a full budget are forgotten.
const MANY_ACCOUNTS: usize = 1_000;

impl RetryBudget {
    /// Records that a call of an account was placed.
    pub(super) fn earn(&self, account: &str) {
        // An account without an entry has a full budget.
        if let Some(budget) = lock(&self.accounts).get_mut(account) {
            budget.retries = (budget.retries + PER_CALL).min(MOST);
        }
    }

    /// Takes one retry from the budget of an account. Returns whether there was one.
    pub(super) fn spend(&self, account: &str) -> bool {
        let now = Instant::now();
        let mut accounts = lock(&self.accounts);
        if accounts.len() >= MANY_ACCOUNTS {
            accounts.retain(|_, budget| budget.at(now) < MOST);
        }
        let budget = accounts.entry(account.to_owned()).or_insert(Budget {
            retries: MOST,
            at: now,
        });
        budget.retries = budget.at(now);
        budget.at = now;
        let has_one = budget.retries >= 1.0;
        if has_one {
            budget.retries -= 1.0;
        }
        has_one
    }
}

impl Budget {
    /// What is in it now.
    fn at(&self, now: Instant) -> f64 {
        let waited = now.saturating_duration_since(self.at).as_secs_f64();
        (self.retries + waited * PER_SECOND).min(MOST)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn spend_all(budget: &RetryBudget) -> usize {
        std::iter::from_fn(|| budget.spend("one").then_some(())).count()
    }

    #[tokio::test(start_paused = true)]
    async fn retries_are_a_tenth_of_the_calls() {
        let budget = RetryBudget::default();
        assert_eq!(spend_all(&budget), 20, "what was saved up");
        for _ in 0..105 {
            budget.earn("one");
        }
        assert_eq!(spend_all(&budget), 10);
        assert!(budget.spend("another"), "each account has its own");
    }

    #[tokio::test(start_paused = true)]
    async fn an_account_whose_calls_all_fail_is_still_tried() {
        let budget = RetryBudget::default();
        spend_all(&budget);
        tokio::time::advance(Duration::from_secs(26)).await;
        assert_eq!(spend_all(&budget), 5);
    }
}
