//! Due deliveries that wait for a permit: the earliest deadline first, and no account in another's
//! way.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use voice_otp_schemas::Timestamp;

use super::bulkhead::{Bulkhead, Permit};
use super::schedule::Held;

/// Deliveries whose slot has come.
#[derive(Debug, Default)]
pub struct Due {
    /// The deliveries of each account, by deadline.
    accounts: HashMap<String, BTreeMap<Position, Held>>,
    /// The first position of each account.
    heads: BTreeSet<(Position, String)>,
    /// The number of deliveries added so far.
    added: u64,
}

/// A place in the order: the deadline, then the order of arrival.
type Position = (Timestamp, u64);

impl Due {
    /// Whether no delivery waits.
    pub fn is_empty(&self) -> bool {
        self.heads.is_empty()
    }

    /// Adds a delivery.
    pub fn push(&mut self, held: Held) {
        self.added += 1;
        let account = held.delivery.pace_key.clone().unwrap_or_default();
        let position = (held.delivery.place_by, self.added);
        let queue = self.accounts.entry(account.clone()).or_default();
        let head = queue.first_key_value().map(|(head, _)| *head);
        queue.insert(position, held);
        if head.is_none_or(|head| position < head) {
            if let Some(head) = head {
                self.heads.remove(&(head, account.clone()));
            }
            self.heads.insert((position, account));
        }
    }

    /// The earliest deadline.
    pub fn first_deadline(&self) -> Option<Timestamp> {
        self.heads.first().map(|((place_by, _), _)| *place_by)
    }

    /// Removes a delivery whose deadline has passed.
    pub fn pop_late(&mut self, now: Timestamp) -> Option<Held> {
        let (position, account) = self.heads.first()?.clone();
        (position.0 < now)
            .then(|| self.pop(position, account))
            .flatten()
    }

    /// Removes up to `limit` deliveries that get a permit, in the order of their deadlines.
    pub fn take(&mut self, permits: &Arc<Bulkhead>, limit: usize) -> Vec<(Held, Permit)> {
        let mut taken = Vec::new();
        let mut full = HashSet::new();
        while taken.len() < limit && permits.available() > 0 {
            let next = self
                .heads
                .iter()
                .find(|(_, account)| !full.contains(account));
            let Some((position, account)) = next.cloned() else {
                break;
            };
            match permits.try_acquire(&account) {
                Some(permit) => {
                    taken.extend(self.pop(position, account).map(|held| (held, permit)));
                }
                None => drop(full.insert(account)),
            }
        }
        taken
    }

    fn pop(&mut self, position: Position, account: String) -> Option<Held> {
        let queue = self.accounts.get_mut(&account)?;
        let held = queue.remove(&position);
        let next = queue.first_key_value().map(|(next, _)| *next);
        self.heads.remove(&(position, account.clone()));
        match next {
            Some(next) => drop(self.heads.insert((next, account))),
            None => drop(self.accounts.remove(&account)),
        }
        held
    }
}
