//! When trouble with an account is more than a coincidence.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

/// Failures in a row, by pace key, as this worker has seen them. What follows from them is the ledger's, so that all workers
/// learn of it.
#[derive(Debug, Default)]
pub struct Troubles {
    in_a_row: Mutex<HashMap<String, u32>>,
    /// Accounts that the ledger is just being told of.
    telling: Mutex<HashSet<String>>,
}

/// As long as it lives, nobody else here tells the ledger of the account.
#[derive(Debug)]
pub struct Telling<'a> {
    troubles: &'a Troubles,
    pace_key: &'a str,
}

/// So many in a row open a circuit.
const TOO_MANY: u32 = 5;

impl Troubles {
    /// Notes that Twilio could not be reached, or did not answer as it should. True if the account's circuit should be open: at once
    /// if it is just being tried out.
    pub fn note(&self, pace_key: &str, on_trial: bool) -> bool {
        let mut in_a_row = self.in_a_row.lock().unwrap_or_else(PoisonError::into_inner);
        let count = in_a_row.entry(pace_key.to_owned()).or_insert(0);
        *count += 1;
        if *count >= TOO_MANY || on_trial {
            in_a_row.remove(pace_key);
            return true;
        }
        false
    }

    /// Leave to tell the ledger of an account: of many calls that meet the same, one tells. None if one is just at it.
    pub fn telling<'a>(&'a self, pace_key: &'a str) -> Option<Telling<'a>> {
        let new = self
            .telling
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(pace_key.to_owned());
        new.then_some(Telling {
            troubles: self,
            pace_key,
        })
    }

    /// Notes that Twilio answered, whatever it said.
    pub fn forget(&self, pace_key: &str) {
        self.in_a_row
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(pace_key);
    }
}

impl Drop for Telling<'_> {
    fn drop(&mut self) {
        self.troubles
            .telling
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(self.pace_key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_failures_in_a_row_are_too_many_and_one_is_on_trial() {
        let troubles = Troubles::default();
        let mut notes = (0..10).map(|_| troubles.note("a", false));
        assert_eq!(
            notes.by_ref().take(5).collect::<Vec<_>>(),
            [false, false, false, false, true]
        );
        assert_eq!(notes.next(), Some(false), "it counts anew");
        troubles.forget("a");
        assert!(!troubles.note("a", false) && troubles.note("a", true));
        let telling = troubles.telling("a");
        assert!(
            telling.is_some() && troubles.telling("a").is_none() && troubles.telling("b").is_some()
        );
        drop(telling);
        assert!(troubles.telling("a").is_some());
    }
}
