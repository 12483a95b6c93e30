//! The simulator's reports, which Twilio doesn't have: what the callee heard, and what was sent.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use chrono::SecondsFormat;
use serde::{Deserialize, Serialize};
use url::Url;

use crate::call::SimulatedCall;
use crate::fate::Fate;
use crate::state::SimulatorState;
use crate::transcript::Transcript;

/// What happened to a call, and what the callee heard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallReport {
    /// The call's SID.
    pub sid: String,
    /// The account's SID.
    pub account_sid: String,
    /// The number called.
    pub to: String,
    /// The caller's number.
    pub from: String,
    /// Its status in Twilio's resource.
    pub status: String,
    /// Its fate.
    pub fate: Fate,
    /// When it was created, in RFC 3339.
    pub created: String,
    /// How long it waited in the account's queue, in milliseconds.
    pub queue_time_ms: u64,
    /// `human` or `machine`, once the call is answered, whether or not detection was requested.
    pub picked_up_by: Option<String>,
    /// How long it lasted from the answer, in whole seconds; once it has ended.
    pub duration_s: Option<u64>,
    /// What was heard, once the call has ended: words, characters, and pauses as in `(0.6 s)`.
    pub transcript: String,
    /// The characters of the code, from the readings that were heard from beginning to end.
    pub digits_heard: String,
    /// How many readings of the code were heard from beginning to end.
    pub readings_heard: usize,
    /// The path of the status callback's URL, which may identify the delivery.
    pub callback_path: Option<String>,
    /// The sequence numbers of the progress callbacks, lost ones included, in order.
    pub sequence_numbers: Vec<u32>,
}

impl CallReport {
    pub(crate) fn of(call: &SimulatedCall) -> Self {
        let heard = transcript(call);
        let callback = call.parameters.callback.as_ref();
        Self {
            sid: call.sid.clone(),
            account_sid: call.account.sid.clone(),
            to: call.parameters.to.clone(),
            from: call.parameters.from.clone(),
            status: call.stage.status().to_owned(),
            fate: call.fate,
            created: call.created.to_rfc3339_opts(SecondsFormat::Millis, true),
            queue_time_ms: u64::try_from(call.queue_time.as_millis()).unwrap_or(u64::MAX),
            picked_up_by: call.picked_up_by().map(|callee| callee.as_str().to_owned()),
            duration_s: call.ended.map(|_| call.duration_s()),
            transcript: heard.to_string(),
            digits_heard: heard.digits_heard(),
            readings_heard: heard.readings_heard().len(),
            callback_path: callback.and_then(|callback| {
                Some(Url::parse(&callback.webhook.url).ok()?.path().to_owned())
            }),
            sequence_numbers: call.sequence_numbers.clone(),
        }
    }
}

/// What was heard of a call; empty until it has ended.
pub(crate) fn transcript(call: &SimulatedCall) -> Transcript {
    Transcript::new(call.spoken.clone()).until(call.heard())
}

/// Counts since the simulator started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Stats {
    /// Requests to all endpoints.
    pub requests: u64,
    /// Create requests, refused ones included.
    pub create_requests: u64,
    /// Calls that were created, whether or not their requests were answered.
    pub calls_created: u64,
    /// Calls by their status in Twilio's resource.
    pub calls_by_status: BTreeMap<&'static str, u64>,
    /// Callbacks that were answered with 2xx.
    pub callbacks_sent: u64,
    /// Callbacks that failed, after all retries.
    pub callbacks_failed: u64,
    /// Callbacks that a random fault lost (see [`Faults`](crate::Faults)).
    pub callbacks_lost: u64,
    /// `TwiML` requests that were answered with `TwiML` that Twilio could play.
    pub asked: u64,
    /// `TwiML` requests that failed, or were answered with something that Twilio could not play.
    pub asked_in_vain: u64,
    /// For every account, the most calls that were created within any one second.
    pub busiest_second: BTreeMap<String, usize>,
}

impl Stats {
    pub(crate) fn of(state: &SimulatorState) -> Self {
        let counters = &state.counters;
        let store = state.calls();
        let calls_by_status = store.by_status();
        Self {
            requests: counters.requests.load(Ordering::Relaxed),
            create_requests: counters.creates.load(Ordering::Relaxed),
            calls_created: calls_by_status.values().sum(),
            calls_by_status,
            callbacks_sent: counters.callbacks_sent.load(Ordering::Relaxed),
            callbacks_failed: counters.callbacks_failed.load(Ordering::Relaxed),
            callbacks_lost: counters.callbacks_lost.load(Ordering::Relaxed),
            asked: counters.asked.load(Ordering::Relaxed),
            asked_in_vain: counters.asked_in_vain.load(Ordering::Relaxed),
            busiest_second: store.busiest_seconds(),
        }
    }
}
