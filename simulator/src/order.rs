//! A create request, checked: what is to be called, what is to be said, and who wants to know.

use std::time::Duration;

use url::Url;

use super::account::Account;
use super::number::is_e164;
use super::overrides::Overrides;
use super::params::Params;
use super::refusal::Refusal;
use super::transcript::{Transcript, Utterance};
use super::twiml;

/// The most characters of inline `TwiML`.
const LONGEST_TWIML: usize = 4_000;

/// How long Twilio lets the phone ring where the request doesn't say.
const DEFAULT_TIMEOUT_S: u32 = 60;

/// What the simulator takes.
const TAKEN: [&str; 22] = [
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

/// What Twilio knows, and this project doesn't need.
const KNOWN: [&str; 14] = [
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

/// A call to be placed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Order {
    pub(crate) to: String,
    pub(crate) from: String,
    /// What inline `TwiML` says.
    pub(crate) spoken: Vec<Utterance>,
    /// How long that takes; without an end, where the call asks what to say.
    pub(crate) speech: Duration,
    /// Where the call asks what to say.
    pub(crate) ask: Option<Ask>,
    /// How long the phone rings at most.
    pub(crate) timeout: Duration,
    /// How long the call lasts at most.
    pub(crate) time_limit: Option<Duration>,
    /// How long it takes to dial the extension after the answer.
    pub(crate) dialling: Duration,
    pub(crate) callback: Option<Callback>,
    pub(crate) detection: Option<Detection>,
}

/// Where a call asks what to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ask {
    /// As given, with its fragment.
    pub(crate) url: String,
    pub(crate) overrides: Overrides,
}

/// Who wants to know what becomes of the call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Callback {
    /// As given, with its fragment.
    pub(crate) url: String,
    pub(crate) overrides: Overrides,
    pub(crate) events: Vec<Event>,
}

/// The progress events that Twilio tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    Initiated,
    Ringing,
    Answered,
    Completed,
}

/// Answering machine detection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Detection {
    /// Waits for the end of a machine's greeting.
    pub(crate) message_end: bool,
    /// Doesn't keep the speech waiting.
    pub(crate) in_background: bool,
    /// Who wants to know the result of a detection in the background.
    pub(crate) callback: Option<Callback>,
}

impl Order {
    /// Checks a create request of this account.
    ///
    /// # Errors
    /// The first mistake, with Twilio's code for it where there is one.
    pub(crate) fn read(params: &Params, account: &Account) -> Result<Self, Refusal> {
        params.only(&TAKEN, &KNOWN)?;
        let (to, from) = numbers(params, account)?;
        let ask = ask(params)?;
        let spoken = match (&ask, inline_twiml(params)?) {
            (None, Some(twiml)) => twiml::listen(twiml).map_err(|error| refused_twiml(&error))?,
            _ => Vec::new(),
        };
        let speech = if ask.is_some() {
            Duration::MAX
        } else {
            Transcript::new(spoken.clone()).length()
        };
        let timeout = params.number("Timeout", 1..=600, |text| Refusal::bad(21208, text))?;
        let time_limit = params.number("TimeLimit", 1..=86_400, Refusal::strict)?;
        let dialling = params.one("SendDigits")?.map(dialling).transpose()?;
        idle(params)?;
        Ok(Self {
            to: to.to_owned(),
            from: from.to_owned(),
            spoken,
            speech,
            ask,
            timeout: Duration::from_secs(timeout.unwrap_or(DEFAULT_TIMEOUT_S).into()),
            time_limit: time_limit.map(|seconds| Duration::from_secs(seconds.into())),
            callback: callback(params)?,
            // As at Twilio, an extension to dial turns the detection off.
            detection: detection(params)?.filter(|_| dialling.is_none()),
            dialling: dialling.unwrap_or_default(),
        })
    }
}

#[cfg(test)]
impl Order {
    /// A plain order of 20 seconds of speech.
    pub(crate) fn example() -> Self {
        Self {
            to: "+14155550199".to_owned(),
            from: "+14155550100".to_owned(),
            spoken: Vec::new(),
            ask: None,
            speech: Duration::from_secs(20),
            timeout: Duration::from_mins(1),
            time_limit: None,
            dialling: Duration::ZERO,
            callback: None,
            detection: None,
        }
    }
}

/// `To` and `From`, with the magic numbers of Twilio's test credentials.
fn numbers<'a>(params: &'a Params, account: &Account) -> Result<(&'a str, &'a str), Refusal> {
    let to = params.one("To")?.filter(|to| !to.is_empty());
    let to = to.ok_or_else(|| Refusal::bad(21201, "No 'To' number is specified"))?;
    let from = params.one("From")?.filter(|from| !from.is_empty());
    let from = from.ok_or_else(|| Refusal::bad(21213, "A 'From' phone number is required"))?;
    if !is_e164(to) {
        return Err(Refusal::bad(
            21211,
            format!("The phone number you are attempting to call, {to}, is not valid."),
        ));
    }
    if !is_e164(from) || from == "+15005550001" {
        return Err(Refusal::bad(
            21212,
            format!("The source phone number provided, {from}, is not valid."),
        ));
    }
    if !account.may_call_from(from) {
        let message = format!(
            "The source phone number provided, {from}, is not yet verified for your account. You may only make calls \
             from phone numbers that you've verified or purchased from Twilio."
        );
        return Err(Refusal::bad(21210, message));
    }
    if to == from {
        return Err(Refusal::bad(21211, format!("{to} cannot call itself")));
    }
    if !account.may_call(to) {
        return Err(Refusal::bad(
            21215,
            format!("Account not authorized to call {to}"),
        ));
    }
    match to {
        "+15005550001" => Err(Refusal::bad(
            21217,
            format!("Phone number {to} does not appear to be valid"),
        )),
        "+15005550002" => Err(Refusal::bad(
            21214,
            format!("The phone number {to} cannot be reached"),
        )),
        "+15005550003" => Err(Refusal::bad(
            21215,
            format!("Account not authorized to call {to}"),
        )),
        "+15005550004" => Err(Refusal::bad(
            21216,
            format!("Call to {to} was blocked by Twilio"),
        )),
        _ => Ok((to, from)),
    }
}

fn inline_twiml(params: &Params) -> Result<Option<&str>, Refusal> {
    match (params.one("Twiml")?, params.one("Url")?) {
        (Some(_), Some(_)) => Err(Refusal::bad(
            32019,
            "Both Twiml and Url are given: Twilio would ignore Twiml",
        )),
        (None, Some(_)) => Ok(None),
        (None, None) => Err(Refusal::bad(21205, "Url parameter is required")),
        (Some(twiml), None) if twiml.chars().count() > LONGEST_TWIML => Err(Refusal::bad(
            32018,
            "Twiml size exceeded maximum allowed value of 4000 characters",
        )),
        (Some(twiml), None) => Ok(Some(twiml)),
    }
}

fn ask(params: &Params) -> Result<Option<Ask>, Refusal> {
    let method = params.word("Method", &["GET", "POST"], |text| Refusal::bad(21209, text))?;
    let Some(url) = params.one("Url")? else {
        return Ok(None);
    };
    if method == Some("GET") {
        return Err(Refusal::strict("the simulator posts to the Url only"));
    }
    let overrides = callback_url("Url", url)?;
    Ok(Some(Ask {
        url: url.to_owned(),
        overrides,
    }))
}

/// Real Twilio would take the request and fail when the call is answered.
fn refused_twiml(error: &twiml::Error) -> Refusal {
    let message = match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    };
    Refusal::bad(error.code(), message)
}

fn callback(params: &Params) -> Result<Option<Callback>, Refusal> {
    let method = params.word("StatusCallbackMethod", &["GET", "POST"], |text| {
        Refusal::bad(21209, text)
    })?;
    if method == Some("GET") {
        return Err(Refusal::strict("the simulator posts status callbacks only"));
    }
    let mut events = Vec::new();
    for word in params.all("StatusCallbackEvent") {
        events.push(Event::parse(word).ok_or_else(|| {
            Refusal::bad(
                21626,
                format!(
                    "Invalid StatusCallbackEvent {word}: initiated, ringing, answered or completed"
                ),
            )
        })?);
    }
    if events.is_empty() {
        events.push(Event::Completed);
    }
    callback_to(params, "StatusCallback", events)
}

fn callback_to(
    params: &Params,
    name: &str,
    events: Vec<Event>,
) -> Result<Option<Callback>, Refusal> {
    let Some(url) = params.one(name)? else {
        return Ok(None);
    };
    let overrides = callback_url(name, url)?;
    Ok(Some(Callback {
        url: url.to_owned(),
        overrides,
        events,
    }))
}

impl Event {
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

/// Checks a URL that Twilio is to call. Loopback addresses pass, which Twilio could not reach.
fn callback_url(name: &str, url: &str) -> Result<Overrides, Refusal> {
    let refused = |why: &str| Refusal::bad(21205, format!("{name} is not a valid URL: {why}"));
    let parsed = Url::parse(url).map_err(|_| refused("it must be absolute"))?;
    if !matches!(parsed.scheme(), "http" | "https") {
        return Err(refused("it must be http or https"));
    }
    match parsed.host_str() {
        None | Some("") => return Err(refused("it has no host")),
        Some(host) if host.contains('_') => return Err(refused("its host has an underscore")),
        Some(_) => {}
    }
    Overrides::of(url).map_err(|why| refused(&why))
}

fn detection(params: &Params) -> Result<Option<Detection>, Refusal> {
    params.number("MachineDetectionTimeout", 3..=59, Refusal::strict)?;
    params.number(
        "MachineDetectionSpeechThreshold",
        1_000..=6_000,
        Refusal::strict,
    )?;
    params.number(
        "MachineDetectionSpeechEndThreshold",
        500..=5_000,
        Refusal::strict,
    )?;
    params.number(
        "MachineDetectionSilenceTimeout",
        2_000..=10_000,
        Refusal::strict,
    )?;
    let in_background =
        params.word("AsyncAmd", &["true", "false"], Refusal::strict)? == Some("true");
    let method = params.word("AsyncAmdStatusCallbackMethod", &["GET", "POST"], |text| {
        Refusal::bad(21209, text)
    })?;
    if method == Some("GET") {
        return Err(Refusal::strict("the simulator posts callbacks only"));
    }
    let callback = callback_to(params, "AsyncAmdStatusCallback", Vec::new())?;
    let ways = ["Enable", "DetectMessageEnd"];
    let way = params.word("MachineDetection", &ways, |text| Refusal::bad(21234, text))?;
    Ok(way.map(|way| Detection {
        message_end: way == "DetectMessageEnd",
        in_background,
        callback,
    }))
}

/// How long it takes to dial an extension.
fn dialling(digits: &str) -> Result<Duration, Refusal> {
    if digits.is_empty() || digits.chars().count() > 32 {
        return Err(Refusal::bad(21206, "SendDigits has 1 to 32 characters"));
    }
    let mut lasts = Duration::ZERO;
    for digit in digits.chars() {
        lasts += Duration::from_millis(match digit {
            'w' => 500,
            'W' => 1_000,
            '0'..='9' | 'A'..='D' | '#' | '*' => 200,
            _ => {
                return Err(Refusal::bad(
                    21206,
                    "SendDigits is made of 0-9, A-D, #, *, w and W",
                ));
            }
        });
    }
    Ok(lasts)
}

/// Checks what is taken without meaning.
fn idle(params: &Params) -> Result<(), Refusal> {
    params.word("Trim", &["trim-silence", "do-not-trim"], Refusal::strict)?;
    params.word("Record", &["false"], Refusal::strict)?;
    params.one("CallReason")?;
    Ok(())
}

#[cfg(test)]
mod tests;
