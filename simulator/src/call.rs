//! A call and its resource.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::account::Account;
use crate::call_parameters::CallParameters;
use crate::call_plan::{AnswerPlan, Callee};
use crate::clock::rfc2822;
use crate::fate::Fate;
use crate::number::formatted;
use crate::utterance::Utterance;

/// The version of Twilio's API, as its answers and callbacks name it.
pub(crate) const API_VERSION: &str = "2010-04-01";

/// The lists below a call's resource. The simulator serves none of them.
const SUBRESOURCES: [(&str, &str); 9] = [
    ("events", "Events"),
    ("notifications", "Notifications"),
    ("payments", "Payments"),
    ("recordings", "Recordings"),
    ("siprec", "Siprec"),
    ("streams", "Streams"),
    ("transcriptions", "Transcriptions"),
    (
        "user_defined_message_subscriptions",
        "UserDefinedMessageSubscriptions",
    ),
    ("user_defined_messages", "UserDefinedMessages"),
];

/// How far a call has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CallStage {
    Queued,
    /// Out of the queue, not ringing yet: `initiated` in callbacks, still `queued` in the resource.
    Dialling,
    Ringing,
    InProgress,
    Ended(FinalStatus),
}

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FinalStatus {
    Completed,
    Busy,
    NoAnswer,
    Failed,
    Canceled,
}

impl CallStage {
    /// The status in the resource.
    pub(crate) fn status(self) -> &'static str {
        match self {
            Self::Queued | Self::Dialling => "queued",
            Self::Ringing => "ringing",
            Self::InProgress => "in-progress",
            Self::Ended(FinalStatus::Completed) => "completed",
            Self::Ended(FinalStatus::Busy) => "busy",
            Self::Ended(FinalStatus::NoAnswer) => "no-answer",
            Self::Ended(FinalStatus::Failed) => "failed",
            Self::Ended(FinalStatus::Canceled) => "canceled",
        }
    }

    /// The status in callbacks. They have one status more than the resource.
    pub(crate) fn callback_status(self) -> &'static str {
        if self == Self::Dialling {
            "initiated"
        } else {
            self.status()
        }
    }
}

/// A call.
#[derive(Debug)]
pub(crate) struct SimulatedCall {
    pub(crate) sid: String,
    /// The number of the call in this run, from 0. Its random decisions are derived from it.
    pub(crate) number: u64,
    /// The account as it was when the call was created.
    pub(crate) account: Arc<Account>,
    pub(crate) parameters: CallParameters,
    pub(crate) fate: Fate,
    pub(crate) stage: CallStage,
    pub(crate) created: DateTime<Utc>,
    pub(crate) updated: DateTime<Utc>,
    pub(crate) dialled: Option<DateTime<Utc>>,
    pub(crate) ended: Option<DateTime<Utc>>,
    /// How long the call has to wait in the account's queue.
    pub(crate) queue_time: Duration,
    /// When it was answered, and what was planned to follow; the answer task writes it.
    pub(crate) answered: Option<(Instant, AnswerPlan)>,
    /// What has been played or queued to play, heard or not: the inline `TwiML`'s speech from the
    /// start, else what each document adds.
    pub(crate) spoken: Vec<Utterance>,
    /// How long it lasted from the answer, in real time; `None` until it has ended.
    pub(crate) talked: Option<Duration>,
    /// The last SIP response of the callee's network; `None` until the call has ended.
    pub(crate) sip_response: Option<u16>,
    /// What answering machine detection found.
    pub(crate) answered_by: Option<&'static str>,
    pub(crate) price: Option<String>,
    /// The sequence numbers of the progress callbacks so far, lost ones included.
    pub(crate) sequence_numbers: Vec<u32>,
    /// Cancelled by an update that ends the call; stops its lifecycle.
    pub(crate) hang_up: CancellationToken,
}

impl SimulatedCall {
    /// Advances to a stage. Returns `None` and changes nothing if the call has ended.
    pub(crate) fn reach(&mut self, stage: CallStage, now: DateTime<Utc>) -> Option<()> {
        if matches!(self.stage, CallStage::Ended(_)) {
            return None;
        }
        self.stage = stage;
        self.updated = now;
        if stage == CallStage::Dialling {
            self.dialled = Some(now);
        }
        if matches!(stage, CallStage::Ended(_)) {
            self.ended = Some(now);
        }
        Some(())
    }

    /// How long it lasted from the answer, rounded to seconds as Twilio does; 0 if it wasn't
    /// answered.
    pub(crate) fn duration_s(&self) -> u64 {
        self.talked
            .map_or(0, |talked| (talked + Duration::from_millis(500)).as_secs())
    }

    /// How many minutes Twilio charges, each started one in full.
    pub(crate) fn minutes(&self) -> u64 {
        self.duration_s().div_ceil(60)
    }

    /// Who answered, whether or not detection was requested.
    pub(crate) fn picked_up_by(&self) -> Option<Callee> {
        self.answered.map(|(_, answer_plan)| answer_plan.callee)
    }

    /// How much of the speech the callee heard, from its beginning.
    pub(crate) fn heard(&self) -> Duration {
        match (self.answered, self.talked) {
            (Some((_, answer_plan)), Some(talked)) => {
                talked.saturating_sub(answer_plan.speech_after)
            }
            _ => Duration::ZERO,
        }
    }

    /// Its resource as of now.
    pub(crate) fn resource(&self) -> CallResource {
        let account = &self.account.sid;
        let base = format!("/{API_VERSION}/Accounts/{account}/Calls/{}", self.sid);
        let completed = self.stage == CallStage::Ended(FinalStatus::Completed);
        CallResource {
            sid: self.sid.clone(),
            account_sid: account.clone(),
            parent_call_sid: None,
            group_sid: None,
            trunk_sid: None,
            phone_number_sid: None,
            status: self.stage.status(),
            direction: "outbound-api",
            api_version: API_VERSION,
            to: self.parameters.to.clone(),
            to_formatted: formatted(&self.parameters.to),
            from: self.parameters.from.clone(),
            from_formatted: formatted(&self.parameters.from),
            forwarded_from: None,
            caller_name: None,
            answered_by: self.answered_by,
            date_created: rfc2822(self.created),
            date_updated: rfc2822(self.updated),
            start_time: self.dialled.map(rfc2822),
            end_time: self.ended.map(rfc2822),
            duration: completed.then(|| self.duration_s().to_string()),
            queue_time: self.queue_time.as_millis().to_string(),
            price: self.price.clone(),
            price_unit: self.account.currency.clone(),
            uri: format!("{base}.json"),
            subresource_uris: SUBRESOURCES
                .map(|(name, path)| (name, format!("{base}/{path}.json")))
                .into(),
        }
    }
}

/// Twilio's Call resource, with the fields of its `OpenAPI` description.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct CallResource {
    pub(crate) sid: String,
    account_sid: String,
    parent_call_sid: Option<String>,
    group_sid: Option<String>,
    trunk_sid: Option<String>,
    phone_number_sid: Option<String>,
    status: &'static str,
    direction: &'static str,
    api_version: &'static str,
    to: String,
    to_formatted: String,
    from: String,
    from_formatted: String,
    forwarded_from: Option<String>,
    caller_name: Option<String>,
    answered_by: Option<&'static str>,
    date_created: String,
    date_updated: String,
    /// When dialling began; null before.
    start_time: Option<String>,
    end_time: Option<String>,
    /// Whole seconds; null until an answered call has ended.
    duration: Option<String>,
    /// In milliseconds.
    queue_time: String,
    /// A negative decimal number; null until a while after the end.
    price: Option<String>,
    price_unit: String,
    uri: String,
    subresource_uris: BTreeMap<&'static str, String>,
}
