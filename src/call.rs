//! A call at Twilio: what is known of it, how an update changes its delivery, what a failed request
//! means, and which instructions an answered call gets.

pub mod answer;
pub mod failure;
pub mod progress;

use std::time::Duration;

use voice_otp_schemas::Timestamp;

use crate::account::CallSid;
use crate::call::failure::Class;
use crate::price::Price;

/// A call's status, as Twilio reports it
/// (<https://www.twilio.com/docs/voice/api/call-resource#call-status-values>). `initiated` occurs
/// only in callbacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CallStatus {
    /// Waits in Twilio's queue.
    Queued,
    /// Twilio is dialling.
    Initiated,
    /// The callee's telephone rings.
    Ringing,
    /// Answered, and in progress.
    InProgress,
    /// Answered, and ended.
    Completed,
    /// The line was busy.
    Busy,
    /// Not answered within the ring timeout, or declined.
    NoAnswer,
    /// Twilio or the carrier could not complete the call.
    Failed,
    /// Cancelled before it was answered.
    Canceled,
}

/// What is known of a call.
#[derive(Debug, Clone)]
pub struct Call {
    /// Twilio's SID of the call.
    pub sid: CallSid,
    /// The status.
    pub status: CallStatus,
    /// Who answered, in Twilio's word (`human`, `machine_start`, …). Only with machine detection.
    pub answered_by: Option<String>,
    /// How long the call was, in whole seconds. Only once it has ended.
    pub duration_s: Option<u32>,
    /// The carrier's last SIP status, where Twilio reports it.
    pub sip_code: Option<u16>,
    /// When Twilio created the call, to the second. Absent from callbacks.
    pub created_at: Option<Timestamp>,
    /// Whether the call was placed through the API, and not by other means of the same account.
    pub outbound_api: bool,
    /// How long Twilio estimates that the call will stay in its queue.
    pub queue_time: Option<Duration>,
    /// The price. Twilio reports it some time after the call has ended.
    pub price: Option<Price>,
    /// The error that Twilio reports for the call.
    pub error: Option<ProviderError>,
}

/// An error that Twilio reports for a call that it had accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderError {
    /// Twilio's error code (<https://www.twilio.com/docs/api/errors>).
    pub code: u32,
    /// The class of the failure.
    pub class: Class,
    /// A sentence for the tenant: what to do. No number, code or secret.
    pub tenant_message: &'static str,
}

impl CallStatus {
    /// Parses Twilio's word; `None` for an unknown one.
    pub fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "queued" => Self::Queued,
            "initiated" => Self::Initiated,
            "ringing" => Self::Ringing,
            "in-progress" => Self::InProgress,
            "completed" => Self::Completed,
            "busy" => Self::Busy,
            "no-answer" => Self::NoAnswer,
            "failed" => Self::Failed,
            "canceled" => Self::Canceled,
            _ => return None,
        })
    }

    /// Whether this is the last status of its call.
    pub fn is_finished(self) -> bool {
        match self {
            Self::Queued | Self::Initiated | Self::Ringing | Self::InProgress => false,
            Self::Completed | Self::Busy | Self::NoAnswer | Self::Failed | Self::Canceled => true,
        }
    }
}
