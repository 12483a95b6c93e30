//! What is due and waits for room: the earliest deadline first, and no account in another's way.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use voice_otp_schemas::Timestamp;

use crate::agenda::Held;
use crate::bulkhead::{Berth, Bulkhead};

/// Deliveries whose slot has come.
#[derive(Debug, Default)]
pub struct Due {
    accounts: HashMap<String, BTreeMap<Place, Held>>,
    /// The first of each account.
    heads: BTreeSet<(Place, String)>,
    came: u64,
}

/// The latest moment of a POST, then the order of coming.
type Place = (Timestamp, u64);

impl Due {
    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.heads.is_empty()
    }

    /// Adds one.
    pub fn push(&mut self, held: Held) {
        self.came += 1;
        let account = held.delivery.pace_key.clone().unwrap_or_default();
        let place = (held.delivery.place_by, self.came);
        let queue = self.accounts.entry(account.clone()).or_default();
        let head = queue.first_key_value().map(|(head, _)| *head);
        queue.insert(place, held);
        if head.is_none_or(|head| place < head) {
            if let Some(head) = head {
                self.heads.remove(&(head, account.clone()));
            }
            self.heads.insert((place, account));
        }
    }

    /// The first moment at which one is too late.
    pub fn first_deadline(&self) -> Option<Timestamp> {
        self.heads.first().map(|((place_by, _), _)| *place_by)
    }

    /// Takes out one that is too late.
    pub fn pop_late(&mut self, now: Timestamp) -> Option<Held> {
        let (place, account) = self.heads.first()?.clone();
        (place.0 < now).then(|| self.pop(place, account)).flatten()
    }

    /// Takes out those that there is room for, in the order of their deadlines.
    pub fn take(&mut self, room: &Arc<Bulkhead>, most: usize) -> Vec<(Held, Berth)> {
        let mut taken = Vec::new();
        let mut full = HashSet::new();
        while taken.len() < most && room.room() > 0 {
            let Some((place, account)) = self
                .heads
                .iter()
                .find(|(_, account)| !full.contains(account))
                .cloned()
            else {
                break;
            };
            match room.try_enter(&account) {
                Some(berth) => taken.extend(self.pop(place, account).map(|held| (held, berth))),
                None => drop(full.insert(account)),
            }
        }
        taken
    }

    fn pop(&mut self, place: Place, account: String) -> Option<Held> {
        let queue = self.accounts.get_mut(&account)?;
        let held = queue.remove(&place);
        let next = queue.first_key_value().map(|(next, _)| *next);
        self.heads.remove(&(place, account.clone()));
        match next {
            Some(next) => drop(self.heads.insert((next, account))),
            None => drop(self.accounts.remove(&account)),
        }
        held
    }
}
