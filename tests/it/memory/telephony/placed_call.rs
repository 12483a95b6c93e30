//! A placed call, whose status follows from its timeline and the time.

use std::time::Duration;

use voice_otp::account::{AccountSid, CallSid};
use voice_otp::call::{Call, CallStatus};
use voice_otp::delivery::AttemptId;
use voice_otp::price::Price;
use voice_otp_schemas::{PhoneNumber, Timestamp};

use super::{CallEnd, CallTimeline};

/// How long after a call's end its price is known.
const BILLING_DELAY: Duration = Duration::from_secs(20);

/// A placed call.
pub(super) struct PlacedCall {
    pub(super) sid: CallSid,
    pub(super) attempt_id: AttemptId,
    pub(super) account: AccountSid,
    pub(super) from: PhoneNumber,
    pub(super) to: PhoneNumber,
    pub(super) at: Timestamp,
    pub(super) timeline: CallTimeline,
    /// When it was hung up by request, and with which status it ended.
    pub(super) cut: Option<(Timestamp, CallStatus)>,
}

impl PlacedCall {
    pub(super) fn snapshot(&self, now: Timestamp) -> Call {
        let (status, duration_s) = self.status(now);
        Call {
            sid: self.sid.clone(),
            status,
            answered_by: None,
            duration_s,
            sip_code: None,
            // Twilio reports the time to the second.
            created_at: chrono::DateTime::from_timestamp(self.at.timestamp(), 0),
            outbound_api: true,
            queue_time: Some(self.timeline.queued),
            price: self.price(now),
            error: None,
        }
    }

    /// Twilio reports the price of an answered call some time after its end.
    pub(super) fn price(&self, now: Timestamp) -> Option<Price> {
        let answered = matches!(self.status(now).0, CallStatus::Completed);
        let price = || Price {
            amount: "-0.01400".to_owned(),
            unit: "USD".to_owned(),
        };
        (answered && now >= self.ended_at() + BILLING_DELAY).then(price)
    }

    pub(super) fn ended_at(&self) -> Timestamp {
        let answered_for = match self.timeline.end {
            CallEnd::Answered(listened) => listened,
            CallEnd::Unanswered(_) => Duration::ZERO,
        };
        let by_itself = self.at + self.timeline.queued + self.timeline.ringing + answered_for;
        self.cut.map_or(by_itself, |(at, _)| at.min(by_itself))
    }

    pub(super) fn status(&self, now: Timestamp) -> (CallStatus, Option<u32>) {
        let answered = self.timeline.queued + self.timeline.ringing;
        let since = |time: Timestamp| (time - self.at).to_std().unwrap_or_default();
        let seconds = |time: Duration| Some(u32::try_from(time.as_secs()).unwrap());
        let age = since(now);
        match (self.cut, self.timeline.end) {
            (Some((at, status)), _) => (status, seconds(since(at).saturating_sub(answered))),
            _ if age < self.timeline.queued => (CallStatus::Queued, None),
            _ if age < answered => (CallStatus::Ringing, None),
            (None, CallEnd::Unanswered(status)) => (status, Some(0)),
            (None, CallEnd::Answered(listened)) if age < answered + listened => {
                (CallStatus::InProgress, None)
            }
            (None, CallEnd::Answered(listened)) => (CallStatus::Completed, seconds(listened)),
        }
    }
}
