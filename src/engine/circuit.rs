//! Counting failures in a row, to decide when an account's circuit opens.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;

use super::sync::lock;

/// Failures in a row of each account, as this worker has seen them. The circuit itself is in the
/// ledger, so that every worker respects it.
#[derive(Debug, Default)]
pub struct FailureStreaks {
    streaks: Mutex<HashMap<String, u32>>,
    /// Accounts whose new state is being reported to the ledger now.
    reporting: Mutex<HashSet<String>>,
}

/// The right to report an account's state to the ledger. While it exists, no other task of this
/// worker has it.
#[derive(Debug)]
pub struct ReportGuard<'a> {
    streaks: &'a FailureStreaks,
    pace_key: &'a str,
}

/// This many failures in a row open a circuit.
const THRESHOLD: u32 = 5;

impl FailureStreaks {
    /// Records that Twilio could not be reached, or did not answer properly. Returns true if the
    /// account's circuit must open. A failed half-open probe opens it at once.
    pub fn record(&self, pace_key: &str, half_open: bool) -> bool {
        let mut streaks = lock(&self.streaks);
        let count = streaks.entry(pace_key.to_owned()).or_insert(0);
        *count += 1;
        if *count >= THRESHOLD || half_open {
            streaks.remove(pace_key);
            return true;
        }
        false
    }

    /// The right to report an account's state: of many calls that fail together, one reports it.
    /// `None` while another task does.
    pub fn try_report<'a>(&'a self, pace_key: &'a str) -> Option<ReportGuard<'a>> {
        let new = lock(&self.reporting).insert(pace_key.to_owned());
        new.then_some(ReportGuard {
            streaks: self,
            pace_key,
        })
    }

    /// Records that Twilio answered, whatever the answer was.
    pub fn clear(&self, pace_key: &str) {
        lock(&self.streaks).remove(pace_key);
    }
}

impl Drop for ReportGuard<'_> {
    fn drop(&mut self) {
        lock(&self.streaks.reporting).remove(self.pace_key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_failures_in_a_row_open_a_circuit_and_one_failed_probe_does() {
        let streaks = FailureStreaks::default();
        let mut opens = (0..10).map(|_| streaks.record("a", false));
        let first_five: Vec<bool> = opens.by_ref().take(5).collect();
        assert_eq!(first_five, [false, false, false, false, true]);
        assert_eq!(opens.next(), Some(false), "the count starts again");
        streaks.clear("a");
        assert!(!streaks.record("a", false) && streaks.record("a", true));
    }

    #[test]
    fn one_task_at_a_time_reports_an_account() {
        let streaks = FailureStreaks::default();
        let guard = streaks.try_report("a");
        assert!(guard.is_some());
        assert!(streaks.try_report("a").is_none() && streaks.try_report("b").is_some());
        drop(guard);
        assert!(streaks.try_report("a").is_some());
    }
}
