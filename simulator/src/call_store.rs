//! All calls of this run, and the queue of every account.
//!
//! Calls are kept until the simulator stops: each takes a kilobyte or two, and a run is short.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use tokio::time::Instant;

use crate::account::Account;
use crate::call::SimulatedCall;
use crate::queue::{Queue, QueueFull};

/// The calls in the order in which they were created, with indexes. A call's id is its position.
#[derive(Debug, Default)]
pub(crate) struct CallStore {
    calls: Vec<SimulatedCall>,
    by_sid: HashMap<String, usize>,
    by_account: HashMap<String, Vec<usize>>,
    by_to: HashMap<String, Vec<usize>>,
    queues: HashMap<String, Queue>,
}

impl CallStore {
    /// Adds a call to the account's queue, and returns how long it waits.
    pub(crate) fn join_queue(
        &mut self,
        account: &Account,
        now: Instant,
    ) -> Result<Duration, QueueFull> {
        self.queues
            .entry(account.sid.clone())
            .or_default()
            .join(now, account.calls_per_second)
    }

    /// Adds a call, and returns its id.
    pub(crate) fn add(&mut self, call: SimulatedCall) -> usize {
        let id = self.calls.len();
        self.by_sid.insert(call.sid.clone(), id);
        self.by_account
            .entry(call.account.sid.clone())
            .or_default()
            .push(id);
        self.by_to
            .entry(call.parameters.to.clone())
            .or_default()
            .push(id);
        self.calls.push(call);
        id
    }

    pub(crate) fn get_mut(&mut self, id: usize) -> Option<&mut SimulatedCall> {
        self.calls.get_mut(id)
    }

    /// The id of a call of this account.
    pub(crate) fn find(&self, account: &str, sid: &str) -> Option<usize> {
        let id = *self.by_sid.get(sid)?;
        (self.calls.get(id)?.account.sid == account).then_some(id)
    }

    /// The call of this account that the last part of a path (`CA….json`) names.
    pub(crate) fn at_path(&mut self, account: &str, file: &str) -> Option<&mut SimulatedCall> {
        let id = self.find(account, file.strip_suffix(".json")?)?;
        self.calls.get_mut(id)
    }

    /// The call with this SID, of any account.
    pub(crate) fn by_sid(&self, sid: &str) -> Option<&SimulatedCall> {
        self.calls.get(*self.by_sid.get(sid)?)
    }

    /// The calls of an account, to one number if it is given, the newest first.
    pub(crate) fn of_account(
        &self,
        account: &str,
        to: Option<&str>,
    ) -> impl Iterator<Item = (usize, &SimulatedCall)> {
        let ids = match to {
            Some(to) => self.by_to.get(to),
            None => self.by_account.get(account),
        };
        let ids = ids.map(Vec::as_slice).unwrap_or_default();
        let calls = ids
            .iter()
            .rev()
            .filter_map(move |id| Some((*id, self.calls.get(*id)?)));
        calls.filter(move |(_, call)| call.account.sid == account)
    }

    /// All calls, or those to one number, the oldest first.
    pub(crate) fn all(&self, to: Option<&str>) -> Vec<&SimulatedCall> {
        match to {
            Some(to) => self
                .by_to
                .get(to)
                .into_iter()
                .flatten()
                .filter_map(|id| self.calls.get(*id))
                .collect(),
            None => self.calls.iter().collect(),
        }
    }

    /// How many calls have each status of the resource.
    pub(crate) fn by_status(&self) -> BTreeMap<&'static str, u64> {
        let mut counts = BTreeMap::new();
        for call in &self.calls {
            *counts.entry(call.stage.status()).or_default() += 1;
        }
        counts
    }

    /// For every account, the most calls that were created within any one second.
    pub(crate) fn busiest_seconds(&self) -> BTreeMap<String, usize> {
        self.queues
            .iter()
            .map(|(account, queue)| (account.clone(), queue.busiest_second()))
            .collect()
    }
}
