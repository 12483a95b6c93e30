//! A call: where it stands, and Twilio's resource for it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::account::Account;
use super::clock::rfc2822;
use super::fate::Fate;
use super::number::formatted;
use super::order::Order;
use super::plan::{Callee, Talk};
use super::transcript::Utterance;

/// The version of Twilio's API, as its answers and callbacks name it.
pub(crate) const API_VERSION: &str = "2010-04-01";

/// The lists that belong to every call. The simulator has none of them.
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

/// Where a call stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    Queued,
    /// Out of the queue, not ringing yet: `initiated` in callbacks, still `queued` in the resource.
    Dialling,
    Ringing,
    InProgress,
    Ended(Ending),
}

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    Completed,
    Busy,
    NoAnswer,
    Failed,
    Canceled,
}

impl Stage {
    /// The status in the resource.
    pub(crate) fn status(self) -> &'static str {
        match self {
            Self::Queued | Self::Dialling => "queued",
            Self::Ringing => "ringing",
            Self::InProgress => "in-progress",
            Self::Ended(Ending::Completed) => "completed",
            Self::Ended(Ending::Busy) => "busy",
            Self::Ended(Ending::NoAnswer) => "no-answer",
            Self::Ended(Ending::Failed) => "failed",
            Self::Ended(Ending::Canceled) => "canceled",
        }
    }

    /// The status in callbacks, which have one more than the resource.
    pub(crate) fn told_as(self) -> &'static str {
        if self == Self::Dialling {
            "initiated"
        } else {
            self.status()
        }
    }
}

/// A call and all that is known of it.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) sid: String,
    /// Which call of this run it is: what its chances are derived from.
    pub(crate) number: u64,
    /// The account as it was when the call was created.
    pub(crate) account: Arc<Account>,
    pub(crate) order: Order,
    pub(crate) fate: Fate,
    pub(crate) stage: Stage,
    pub(crate) created: DateTime<Utc>,
    pub(crate) updated: DateTime<Utc>,
    pub(crate) dialled: Option<DateTime<Utc>>,
    pub(crate) ended: Option<DateTime<Utc>>,
    /// How long the queue was.
    pub(crate) queue_time: Duration,
    /// When it was answered, and what was to follow.
    pub(crate) answered: Option<(Instant, Talk)>,
    /// What was said, heard or not.
    pub(crate) spoken: Vec<Utterance>,
    /// How long it lasted from the answer, at the pace of life; known at the end.
    pub(crate) talked: Option<Duration>,
    /// The last response of the callee's network.
    pub(crate) sip_response: Option<u16>,
    /// What the detection found.
    pub(crate) answered_by: Option<&'static str>,
    pub(crate) price: Option<String>,
    /// The sequence numbers of the callbacks so far.
    pub(crate) told: Vec<u32>,
    /// Tells the running call that it was ended from outside.
    pub(crate) hang_up: CancellationToken,
}

impl Call {
    /// Moves on, unless the call has ended in the meantime.
    pub(crate) fn reach(&mut self, stage: Stage, now: DateTime<Utc>) -> Option<()> {
        if matches!(self.stage, Stage::Ended(_)) {
            return None;
        }
        self.stage = stage;
        self.updated = now;
        if stage == Stage::Dialling {
            self.dialled = Some(now);
        }
        if matches!(stage, Stage::Ended(_)) {
            self.ended = Some(now);
        }
        Some(())
    }

    /// How long it lasted, in Twilio's whole seconds; 0 if nobody answered.
    pub(crate) fn duration_s(&self) -> u64 {
        self.talked
            .map_or(0, |talked| (talked + Duration::from_millis(500)).as_secs())
    }

    /// How many minutes are paid for.
    pub(crate) fn minutes(&self) -> u64 {
        self.duration_s().div_ceil(60)
    }

    /// Who really answered, which Twilio may not know.
    pub(crate) fn picked_up_by(&self) -> Option<Callee> {
        self.answered.map(|(_, talk)| talk.by)
    }

    /// How much of the speech was heard.
    pub(crate) fn heard(&self) -> Duration {
        match (self.answered, self.talked) {
            (Some((_, talk)), Some(talked)) => talked.saturating_sub(talk.lead),
            _ => Duration::ZERO,
        }
    }

    /// Twilio's resource.
    pub(crate) fn resource(&self) -> Resource {
        let account = &self.account.sid;
        let base = format!("/{API_VERSION}/Accounts/{account}/Calls/{}", self.sid);
        let completed = self.stage == Stage::Ended(Ending::Completed);
        Resource {
            sid: self.sid.clone(),
            account_sid: account.clone(),
            parent_call_sid: None,
            group_sid: None,
            trunk_sid: None,
            phone_number_sid: None,
            status: self.stage.status(),
            direction: "outbound-api",
            api_version: API_VERSION,
            to: self.order.to.clone(),
            to_formatted: formatted(&self.order.to),
            from: self.order.from.clone(),
            from_formatted: formatted(&self.order.from),
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
pub(crate) struct Resource {
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
    /// Empty until the call is dialled.
    start_time: Option<String>,
    end_time: Option<String>,
    /// Whole seconds; empty unless somebody answered and the call is over.
    duration: Option<String>,
    /// Milliseconds.
    queue_time: String,
    /// Negative, and known only a while after the end.
    price: Option<String>,
    price_unit: String,
    uri: String,
    subresource_uris: BTreeMap<&'static str, String>,
}
