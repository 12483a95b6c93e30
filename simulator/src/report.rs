//! What the simulator tells about itself, which Twilio would not: what was heard, and what was sent.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use chrono::SecondsFormat;
use serde::{Deserialize, Serialize};
use url::Url;

use super::call::Call;
use super::fate::Fate;
use super::transcript::Transcript;
use super::world::World;

/// What became of a call, and what the person on the phone heard.
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
    /// Twilio's status of the call now.
    pub status: String,
    /// What the simulator had in store for it.
    pub fate: Fate,
    /// When it was created, in RFC 3339.
    pub created: String,
    /// How long it had to wait in the account's queue, in milliseconds.
    pub queue_time_ms: u64,
    /// `human` or `machine`, once somebody has answered; also when no detection was ordered.
    pub picked_up_by: Option<String>,
    /// How long the call lasted, in whole seconds; once it has ended.
    pub duration_s: Option<u64>,
    /// What was heard, once the call has ended: words, characters, and pauses as in `(0.6 s)`.
    pub transcript: String,
    /// The code, from those of its readings that were heard from beginning to end.
    pub digits_heard: String,
    /// How many readings of the code were heard from beginning to end.
    pub readings_heard: usize,
    /// The path of the status callback's URL, which may say whose call this is.
    pub callback_path: Option<String>,
    /// The sequence numbers of the callbacks that were sent, or got lost, in order.
    pub sequence_numbers: Vec<u32>,
}

impl CallReport {
    pub(crate) fn of(call: &Call) -> Self {
        let heard = transcript(call);
        let callback = call.order.callback.as_ref();
        Self {
            sid: call.sid.clone(),
            account_sid: call.account.sid.clone(),
            to: call.order.to.clone(),
            from: call.order.from.clone(),
            status: call.stage.status().to_owned(),
            fate: call.fate,
            created: call.created.to_rfc3339_opts(SecondsFormat::Millis, true),
            queue_time_ms: u64::try_from(call.queue_time.as_millis()).unwrap_or(u64::MAX),
            picked_up_by: call.picked_up_by().map(|callee| callee.name().to_owned()),
            duration_s: call.ended.map(|_| call.duration_s()),
            transcript: heard.to_string(),
            digits_heard: heard.digits_heard(),
            readings_heard: heard.readings_heard().len(),
            callback_path: callback
                .and_then(|callback| Some(Url::parse(&callback.url).ok()?.path().to_owned())),
            sequence_numbers: call.told.clone(),
        }
    }
}

/// What was heard of a call; nothing until it has ended.
pub(crate) fn transcript(call: &Call) -> Transcript {
    Transcript::new(call.spoken.clone()).until(call.heard())
}

/// Counts since the simulator started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Stats {
    /// All requests to the API.
    pub requests: u64,
    /// Create requests, also refused ones.
    pub create_requests: u64,
    /// Calls that were created, whether or not the client was told.
    pub calls_created: u64,
    /// How many calls stand at which of Twilio's statuses.
    pub calls_by_status: BTreeMap<&'static str, u64>,
    /// Callbacks that were answered with 2xx.
    pub callbacks_sent: u64,
    /// Callbacks that Twilio would have given up.
    pub callbacks_failed: u64,
    /// Callbacks that got lost by chance (see [`Faults`](super::Faults)).
    pub callbacks_lost: u64,
    /// How often calls asked what to say, and were told.
    pub asked: u64,
    /// How often they asked, and were told nothing that Twilio could say.
    pub asked_in_vain: u64,
    /// For every account, the most calls that were created within any one second: its pace as the simulator met it.
    pub busiest_second: BTreeMap<String, usize>,
}

impl Stats {
    pub(crate) fn of(world: &World) -> Self {
        let tally = &world.tally;
        let book = world.book();
        let calls_by_status = book.by_status();
        Self {
            requests: tally.requests.load(Ordering::Relaxed),
            create_requests: tally.creates.load(Ordering::Relaxed),
            calls_created: calls_by_status.values().sum(),
            calls_by_status,
            callbacks_sent: tally.callbacks_sent.load(Ordering::Relaxed),
            callbacks_failed: tally.callbacks_failed.load(Ordering::Relaxed),
            callbacks_lost: tally.callbacks_lost.load(Ordering::Relaxed),
            asked: tally.asked.load(Ordering::Relaxed),
            asked_in_vain: tally.asked_in_vain.load(Ordering::Relaxed),
            busiest_second: book.busiest_seconds(),
        }
    }
}
