//! Which POSTs Twilio has answered, and how soon: the evidence for the absence of a call.
//!
//! A Twilio that is slow carries out a POST after the worker has given it up, however late, so a
//! call that isn't on the list may still be made. Its absence counts only once Twilio has had
//! several times as long as it was seen to take. If the POST has timed out, it counts only if
//! Twilio has made the call of one that was sent later: it makes an account's calls in the order
//! of their requests.

use std::collections::{HashMap, VecDeque};
use std::sync::Mutex;
use std::time::Duration;

use voice_otp_schemas::Timestamp;

use super::sync::lock;
use crate::account::AccountSid;

/// What is known of the POSTs of each account.
#[derive(Debug, Default)]
pub(super) struct PostHistory {
    accounts: Mutex<HashMap<AccountSid, Account>>,
}

#[derive(Debug, Default)]
struct Account {
    /// The longest that Twilio was seen to take, or to give no answer for.
    slowest: Duration,
    /// When the last POST was sent that was answered with a call.
    answered_until: Option<Timestamp>,
    /// When the last POST was sent that had no answer within its timeout.
    timed_out_until: Option<Timestamp>,
    /// When POSTs were sent and their calls made since then, about one in a second.
    calls: VecDeque<(Timestamp, Timestamp)>,
    /// When something was last recorded that was slow.
    slow_at: Option<Timestamp>,
}

/// What the history says about the absence of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Evidence {
    /// There will be none: Twilio has made the call of a later POST.
    LaterCall,
    /// There will be none if the POST has timed out: Twilio has answered one that was sent after
    /// all that timed out, and has had several times as long as it was seen to take.
    Overtaken,
    /// Nothing speaks against it.
    Consistent,
    /// Twilio was seen to take longer.
    TooEarly,
}

/// A shorter latency needs no record: the list shows the call before its absence counts.
const PROMPT: Duration = Duration::from_secs(3);
/// The absence counts after this many times the longest latency.
const TIMES_SLOWEST: u32 = 3;
/// The least time between the POSTs of two recorded calls.
const CALL_INTERVAL: Duration = Duration::from_secs(1);
/// How many calls are kept of an account.
const MAX_CALLS: usize = 300;
/// How long after it was last slow an account is forgotten: as long as codes live.
const REMEMBERED: Duration = Duration::from_hours(1);
/// When there are more accounts than this, those are forgotten that weren't slow of late.
const MANY_ACCOUNTS: usize = 1_000;

impl PostHistory {
    /// Records that a POST of an account was answered with a call.
    pub(super) fn record_call(&self, account: &AccountSid, sent: Timestamp, now: Timestamp) {
        let latency = (now - sent).to_std().unwrap_or_default();
        let mut accounts = lock(&self.accounts);
        let account = of(&mut accounts, account, now);
        if latency >= PROMPT {
            account.record_latency(latency, now);
        }
        account.answered_until = account.answered_until.max(Some(sent));
        let is_news = account
            .calls
            .back()
            .is_none_or(|(last, _)| sent >= *last + CALL_INTERVAL);
        if account.timed_out_until.is_some() && is_news {
            account.calls.push_back((sent, now));
            if account.calls.len() > MAX_CALLS {
                account.calls.pop_front();
            }
        }
    }

    /// Records that a POST of an account was answered with an error. It proves nothing: errors may
    /// overtake what waits.
    pub(super) fn record_error(&self, account: &AccountSid, sent: Timestamp, now: Timestamp) {
        let latency = (now - sent).to_std().unwrap_or_default();
        if latency >= PROMPT {
            of(&mut lock(&self.accounts), account, now).record_latency(latency, now);
        }
    }

    /// Records that a POST of an account has no answer: within its timeout, or because the
    /// connection ended.
    pub(super) fn record_no_answer(
        &self,
        account: &AccountSid,
        sent: Timestamp,
        now: Timestamp,
        timed_out: bool,
    ) {
        let mut accounts = lock(&self.accounts);
        let account = of(&mut accounts, account, now);
        account.record_latency((now - sent).to_std().unwrap_or_default(), now);
        if timed_out {
            account.timed_out_until = account.timed_out_until.max(Some(sent));
        }
    }

    /// Records that the call of a POST without an answer was found.
    pub(super) fn record_found(
        &self,
        account: &AccountSid,
        sent: Timestamp,
        created: Timestamp,
        now: Timestamp,
    ) {
        let latency = (created - sent).to_std().unwrap_or_default();
        of(&mut lock(&self.accounts), account, now).record_latency(latency, now);
    }

    /// Whether POSTs of an account have timed out, and no later one was seen to make a call.
    pub(super) fn is_slow(&self, account: &AccountSid) -> bool {
        lock(&self.accounts)
            .get(account)
            .is_some_and(Account::is_slow)
    }

    /// What is known about a POST that was sent before `sent_until`, whose call wasn't on a list
    /// that was asked for at `asked_at`. `list_delay` is how long the list may lack a call that has
    /// been made.
    pub(super) fn evidence(
        &self,
        account: &AccountSid,
        sent_until: Timestamp,
        asked_at: Timestamp,
        list_delay: Duration,
    ) -> Evidence {
        let accounts = lock(&self.accounts);
        let Some(account) = accounts.get(account) else {
            return Evidence::Consistent;
        };
        let is_later = |(sent, called): &(Timestamp, Timestamp)| {
            *sent >= sent_until && *called + list_delay <= asked_at
        };
        if account.calls.iter().any(is_later) {
            Evidence::LaterCall
        } else if asked_at < sent_until + account.slowest * TIMES_SLOWEST + list_delay {
            Evidence::TooEarly
        } else if account.timed_out_until.is_some() && !account.is_slow() {
            Evidence::Overtaken
        } else {
            Evidence::Consistent
        }
    }
}

impl Account {
    fn is_slow(&self) -> bool {
        self.timed_out_until.is_some() && self.answered_until <= self.timed_out_until
    }

    fn record_latency(&mut self, latency: Duration, now: Timestamp) {
        self.slowest = self.slowest.max(latency);
        self.slow_at = Some(now);
    }
}

fn of<'a>(
    accounts: &'a mut HashMap<AccountSid, Account>,
    account: &AccountSid,
    now: Timestamp,
) -> &'a mut Account {
    let is_recent = |account: &Account| account.slow_at.is_some_and(|at| now < at + REMEMBERED);
    if accounts.len() >= MANY_ACCOUNTS && !accounts.contains_key(account) {
        accounts.retain(|_, account| is_recent(account));
    }
    let account = accounts.entry(account.clone()).or_default();
    if account.slow_at.is_some() && !is_recent(account) {
        *account = Account::default();
    }
    account
}
