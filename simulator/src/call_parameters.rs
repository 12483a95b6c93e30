//! The parameters of a create request, checked
//! (<https://www.twilio.com/docs/voice/api/call-resource#create-a-call-resource>).

use std::time::Duration;

use crate::account::Account;
use crate::api_error::ApiError;
use crate::params::Params;
use crate::transcript::Transcript;
use crate::twiml;
use crate::utterance::Utterance;
use crate::webhook::Webhook;

pub(crate) use self::detection::Detection;

mod detection;
mod numbers;

/// How many characters of inline `TwiML` Twilio takes (error 32018).
const MAX_TWIML_CHARS: usize = 4_000;

/// How long Twilio lets the phone ring where the request doesn't say, in seconds.
const DEFAULT_TIMEOUT_S: u32 = 60;

/// The parameters that the simulator supports.
const SUPPORTED: [&str; 22] = [
    "To",
    "From",
    "Twiml",
    "Url",
    "Method",
    "StatusCallback",
    "StatusCallbackEvent",
    "StatusCallbackMethod",
    "Timeout",
    "TimeLimit",
    "SendDigits",
    "MachineDetection",
    "MachineDetectionTimeout",
    "MachineDetectionSpeechThreshold",
    "MachineDetectionSpeechEndThreshold",
    "MachineDetectionSilenceTimeout",
    "AsyncAmd",
    "AsyncAmdStatusCallback",
    "AsyncAmdStatusCallbackMethod",
    "CallReason",
    "Record",
    "Trim",
];

/// Parameters of Twilio's that the simulator doesn't support, since voice-otp doesn't send them.
const UNSUPPORTED: [&str; 14] = [
    "ApplicationSid",
    "FallbackUrl",
    "FallbackMethod",
    "RecordingChannels",
    "RecordingStatusCallback",
    "RecordingStatusCallbackMethod",
    "RecordingStatusCallbackEvent",
    "RecordingTrack",
    "SipAuthUsername",
    "SipAuthPassword",
    "Byoc",
    "CallToken",
    "ClientNotificationUrl",
    "CallerId",
];

/// A call to create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CallParameters {
    pub(crate) to: String,
    pub(crate) from: String,
    /// What the inline `TwiML` plays; empty where the call requests its `TwiML`.
    pub(crate) inline_speech: Vec<Utterance>,
    /// How long the speech takes; [`Duration::MAX`] where the call requests its `TwiML`.
    pub(crate) speech_length: Duration,
    /// Where the call requests its `TwiML`; `None` where that is inline.
    pub(crate) twiml_url: Option<Webhook>,
    /// How long the phone rings at most.
    pub(crate) timeout: Duration,
    /// How long the call lasts at most.
    pub(crate) time_limit: Option<Duration>,
    /// How long dialling the extension takes after the answer; zero without one.
    pub(crate) extension_time: Duration,
    /// Who gets progress callbacks.
    pub(crate) callback: Option<StatusCallback>,
    /// Answering machine detection, if it is requested.
    pub(crate) detection: Option<Detection>,
}

/// A subscription to a call's progress.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StatusCallback {
    pub(crate) webhook: Webhook,
    /// The events to send.
    pub(crate) events: Vec<ProgressEvent>,
}

/// The events of `StatusCallbackEvent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ProgressEvent {
    Initiated,
    Ringing,
    Answered,
    Completed,
}

impl CallParameters {
    /// Checks a create request of this account.
    ///
    /// # Errors
    /// The first mistake, with Twilio's code for it where there is one.
    pub(crate) fn parse(params: &Params, account: &Account) -> Result<Self, ApiError> {
        params.check_names(&SUPPORTED, &UNSUPPORTED)?;
        let (to, from) = numbers::parse(params, account)?;
        let twiml_url = twiml_url(params)?;
        let inline_speech = match (&twiml_url, inline_twiml(params)?) {
            (None, Some(twiml)) => twiml::listen(twiml).map_err(|error| invalid_twiml(&error))?,
            _ => Vec::new(),
        };
        let speech_length = if twiml_url.is_some() {
            Duration::MAX
        } else {
            Transcript::new(inline_speech.clone()).length()
        };
        let timeout = params.number("Timeout", 1..=600, |text| {
            ApiError::bad_request(21208, text)
        })?;
        let time_limit = params.number("TimeLimit", 1..=86_400, ApiError::strict)?;
        let extension_time = params
            .single("SendDigits")?
            .map(extension_time)
            .transpose()?;
        check_ignored(params)?;
        Ok(Self {
            to: to.to_owned(),
            from: from.to_owned(),
            inline_speech,
            speech_length,
            twiml_url,
            timeout: Duration::from_secs(timeout.unwrap_or(DEFAULT_TIMEOUT_S).into()),
            time_limit: time_limit.map(|seconds| Duration::from_secs(seconds.into())),
            callback: status_callback(params)?,
            // As at Twilio, an extension turns the detection off.
            detection: Detection::parse(params)?.filter(|_| extension_time.is_none()),
            extension_time: extension_time.unwrap_or_default(),
        })
    }
}

#[cfg(test)]
impl CallParameters {
    /// A call with 20 seconds of speech and nothing else.
    pub(crate) fn example() -> Self {
        Self {
            to: "+14155550199".to_owned(),
            from: "+14155550100".to_owned(),
            inline_speech: Vec::new(),
            twiml_url: None,
            speech_length: Duration::from_secs(20),
            timeout: Duration::from_mins(1),
            time_limit: None,
            extension_time: Duration::ZERO,
            callback: None,
            detection: None,
        }
    }
}

impl ProgressEvent {
    fn parse(word: &str) -> Option<Self> {
        match word {
            "initiated" => Some(Self::Initiated),
            "ringing" => Some(Self::Ringing),
            "answered" => Some(Self::Answered),
            "completed" => Some(Self::Completed),
            _ => None,
        }
    }
}

fn inline_twiml(params: &Params) -> Result<Option<&str>, ApiError> {
    match (params.single("Twiml")?, params.single("Url")?) {
        (Some(_), Some(_)) => Err(ApiError::bad_request(
            32019,
            "Both Twiml and Url are given: Twilio would ignore Twiml",
        )),
        (None, Some(_)) => Ok(None),
        (None, None) => Err(ApiError::bad_request(21205, "Url parameter is required")),
        (Some(twiml), None) if twiml.chars().count() > MAX_TWIML_CHARS => {
            Err(ApiError::bad_request(
                32018,
                "Twiml size exceeded maximum allowed value of 4000 characters",
            ))
        }
        (Some(twiml), None) => Ok(Some(twiml)),
    }
}

fn twiml_url(params: &Params) -> Result<Option<Webhook>, ApiError> {
    let method = params.method("Method")?;
    if params.single("Url")?.is_some() && method == Some("GET") {
        return Err(ApiError::strict("the simulator posts to the Url only"));
    }
    Webhook::in_parameter(params, "Url")
}

/// The error for `TwiML` that Twilio would accept now and fail on when the call is answered.
fn invalid_twiml(error: &twiml::Error) -> ApiError {
    let message = match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    };
    ApiError::bad_request(error.code(), message)
}

fn status_callback(params: &Params) -> Result<Option<StatusCallback>, ApiError> {
    if params.method("StatusCallbackMethod")? == Some("GET") {
        return Err(ApiError::strict(
            "the simulator posts status callbacks only",
        ));
    }
    let mut events = Vec::new();
    for word in params.all("StatusCallbackEvent") {
        events.push(ProgressEvent::parse(word).ok_or_else(|| {
            ApiError::bad_request(
                21626,
                format!(
                    "Invalid StatusCallbackEvent {word}: initiated, ringing, answered or completed"
                ),
            )
        })?);
    }
    if events.is_empty() {
        events.push(ProgressEvent::Completed);
    }
    let webhook = Webhook::in_parameter(params, "StatusCallback")?;
    Ok(webhook.map(|webhook| StatusCallback { webhook, events }))
}

/// How long dialling an extension takes, by its `SendDigits`.
fn extension_time(digits: &str) -> Result<Duration, ApiError> {
    if digits.is_empty() || digits.chars().count() > 32 {
        return Err(ApiError::bad_request(
            21206,
            "SendDigits has 1 to 32 characters",
        ));
    }
    let mut time = Duration::ZERO;
    for digit in digits.chars() {
        time += Duration::from_millis(match digit {
            'w' => 500,
            'W' => 1_000,
            '0'..='9' | 'A'..='D' | '#' | '*' => 200,
            _ => {
                return Err(ApiError::bad_request(
                    21206,
                    "SendDigits is made of 0-9, A-D, #, *, w and W",
                ));
            }
        });
    }
    Ok(time)
}

/// Checks the parameters that the simulator accepts and ignores.
fn check_ignored(params: &Params) -> Result<(), ApiError> {
    params.one_of("Trim", &["trim-silence", "do-not-trim"], ApiError::strict)?;
    params.one_of("Record", &["false"], ApiError::strict)?;
    params.single("CallReason")?;
    Ok(())
}

#[cfg(test)]
mod tests;
