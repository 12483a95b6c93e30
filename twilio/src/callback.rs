//! Reads Twilio's requests to the workers: status callbacks
//! (<https://www.twilio.com/docs/voice/api/call-resource#statuscallback>) and requests for a call's
//! instructions (<https://www.twilio.com/docs/voice/twiml#request-parameters>).

use std::time::Duration;

use voice_otp::account::CallSid;
use voice_otp::call::answer::{CallStep, InstructionRequest};
use voice_otp::call::{Call, CallStatus};

use crate::catalogue;

/// A callback can't be used, because a parameter is missing or invalid. Holds the parameter's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the parameter {0} is missing or invalid")]
pub struct Malformed(pub &'static str);

/// Reads the form of a status callback. Unknown parameters are ignored, since Twilio adds
/// parameters without notice.
///
/// # Errors
/// [`Malformed`] if the call's SID or status is missing or invalid.
pub fn read(params: &[(String, String)]) -> Result<Call, Malformed> {
    let text = |name: &str| {
        params
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
            .filter(|value| !value.is_empty())
    };
    let sid = text("CallSid")
        .and_then(|text| CallSid::parse(text).ok())
        .ok_or(Malformed("CallSid"))?;
    let status = text("CallStatus")
        .and_then(CallStatus::parse)
        .ok_or(Malformed("CallStatus"))?;
    let word = |text: &str| {
        text.len() <= 64 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    };
    Ok(Call {
        sid,
        status,
        answered_by: text("AnsweredBy")
            .filter(|text| word(text))
            .map(str::to_owned),
        // `CallDuration` is in seconds. There is also a `Duration`, in minutes.
        duration_s: text("CallDuration").and_then(|text| text.parse().ok()),
        sip_code: text("SipResponseCode").and_then(|text| text.parse().ok()),
        created_at: None,
        outbound_api: text("Direction").is_none_or(|direction| direction == "outbound-api"),
        queue_time: None,
        price: None,
        error: text("ErrorCode")
            .and_then(|text| text.parse().ok())
            .and_then(catalogue::provider_error),
    })
}

/// Reads the form of a request for instructions; `step` comes from its URL. A parameter that isn't
/// valid counts as missing.
pub fn read_instruction_request(params: &[(String, String)], step: CallStep) -> InstructionRequest {
    let text = |name: &str| {
        params
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    };
    let key = |c: char| c.is_ascii_digit() || matches!(c, '*' | '#');
    InstructionRequest {
        step,
        digits: text("Digits")
            .filter(|digits| digits.len() <= 32 && digits.chars().all(key))
            .map(str::to_owned),
        listened: text("MachineDetectionDuration")
            .and_then(|text| text.parse().ok())
            .map(Duration::from_millis),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(entries: &[(&str, &str)]) -> Vec<(String, String)> {
        entries
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn seconds_are_taken_from_call_duration_not_from_duration() {
        let sid = format!("CA{}", "0".repeat(32));
        let call = read(&form(&[
            ("CallSid", &sid),
            ("CallStatus", "completed"),
            ("Duration", "1"),
            ("CallDuration", "23"),
        ]))
        .unwrap();
        assert_eq!(
            (call.status, call.duration_s),
            (CallStatus::Completed, Some(23))
        );
    }

    #[test]
    fn a_callback_without_a_call_is_malformed() {
        assert_eq!(
            read(&form(&[("CallStatus", "completed")])).unwrap_err(),
            Malformed("CallSid")
        );
        let sid = format!("CA{}", "0".repeat(32));
        assert_eq!(
            read(&form(&[("CallSid", &sid), ("CallStatus", "gone")])).unwrap_err(),
            Malformed("CallStatus")
        );
    }
}
