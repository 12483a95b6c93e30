//! A reader of `TwiML` that is as strict as Twilio's documentation allows
//! (<https://www.twilio.com/docs/voice/twiml>).
//!
//! Twilio accepts any string when a call is created, and fails when the call is answered: with an
//! error message, a silent call or a warning in its console. The simulator refuses the create
//! request, where the developer sees it.

use std::time::Duration;

use roxmltree::{Document, Node};

pub use self::error::Error;

use self::xml::{
    check_attributes, check_no_content, check_only_text, child_elements, invalid_value, name,
    unknown_element, whole_number,
};
use crate::speech::{SpeechSynthesizer, VoiceStyle};
use crate::utterance::Utterance;
use crate::voices::VoiceFamily;

mod error;
mod ssml;
mod xml;

/// How long a `Gather` waits for a key by default.
const DEFAULT_GATHER_TIMEOUT: Duration = Duration::from_secs(5);

/// How long every recording takes: the simulator doesn't fetch it.
const RECORDING_TIME: Duration = Duration::from_secs(3);

/// How often Twilio plays something with `loop="0"`, and the most for any `loop`
/// (<https://www.twilio.com/docs/voice/twiml/say#loop>).
const MAX_LOOPS: u32 = 1_000;

/// The attributes of `Gather`. The simulator uses `action` and `timeout`, checks `numDigits`, and
/// ignores the others.
const GATHER_ATTRIBUTES: [&str; 18] = [
    "action",
    "actionOnEmptyResult",
    "bargeIn",
    "debug",
    "enhanced",
    "finishOnKey",
    "hints",
    "input",
    "language",
    "maxSpeechTime",
    "method",
    "numDigits",
    "partialResultCallback",
    "partialResultCallbackMethod",
    "profanityFilter",
    "speechModel",
    "speechTimeout",
    "timeout",
];

/// A step of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Plays speech, a recording or silence.
    Say(Vec<Utterance>),
    /// Plays a prompt, then waits for a key.
    Gather {
        prompt: Vec<Utterance>,
        /// How long it waits after the prompt.
        timeout: Duration,
        /// The URL to request with the key; the document's own if it is missing.
        action: Option<String>,
    },
    /// Continues with the document at this URL.
    Redirect(String),
    /// Ends the call.
    Hangup,
}

/// Reads a document, and returns what it plays if no key is pressed.
///
/// # Errors
/// The first mistake in the document, also after a `Hangup`.
pub(crate) fn listen(twiml: &str) -> Result<Vec<Utterance>, Error> {
    let mut spoken = Vec::new();
    let mut ended = false;
    for step in steps(twiml)? {
        match step {
            _ if ended => {}
            Step::Say(utterances) => spoken.extend(utterances),
            Step::Gather {
                prompt, timeout, ..
            } => {
                spoken.extend(prompt);
                let mut synthesizer = SpeechSynthesizer::default();
                synthesizer.pause(timeout, &default_style());
                spoken.extend(synthesizer.into_utterances());
            }
            // Only a request would show what the other document plays.
            Step::Redirect(_) | Step::Hangup => ended = true,
        }
    }
    Ok(spoken)
}

/// Reads a document.
///
/// # Errors
/// The first mistake in it.
pub(crate) fn steps(twiml: &str) -> Result<Vec<Step>, Error> {
    let document = Document::parse(twiml).map_err(Error::Malformed)?;
    let root = document.root_element();
    if name(root) != "Response" {
        return Err(Error::Root(name(root)));
    }
    check_attributes(root, &[])?;
    child_elements(root)?.into_iter().map(step).collect()
}

fn step(node: Node<'_, '_>) -> Result<Step, Error> {
    let played = |add: fn(Node<'_, '_>, &mut SpeechSynthesizer) -> Result<(), Error>| {
        let mut synthesizer = SpeechSynthesizer::default();
        add(node, &mut synthesizer)?;
        Ok(Step::Say(synthesizer.into_utterances()))
    };
    match name(node).as_str() {
        "Say" => played(say),
        "Pause" => played(pause),
        "Play" => played(play),
        "Gather" => gather(node),
        "Hangup" => {
            check_attributes(node, &[])?;
            check_no_content(node)?;
            Ok(Step::Hangup)
        }
        "Redirect" => {
            check_attributes(node, &["method"])?;
            check_only_text(node)?;
            Ok(Step::Redirect(
                node.text().unwrap_or_default().trim().to_owned(),
            ))
        }
        _ => Err(unknown_element(node)),
    }
}

fn say(node: Node<'_, '_>, synthesizer: &mut SpeechSynthesizer) -> Result<(), Error> {
    check_attributes(node, &["voice", "language", "loop"])?;
    let language = node.attribute("language").unwrap_or("en-US");
    let voice = node.attribute("voice");
    let unknown_voice = || Error::Voice {
        voice: voice.unwrap_or("man").to_owned(),
        language: language.to_owned(),
    };
    let family = VoiceFamily::of(voice, language).ok_or_else(unknown_voice)?;
    let times = times(node)?;
    let style = VoiceStyle {
        language: language.into(),
        voice: voice.unwrap_or("man").into(),
        rate: 1.0,
        spelled: false,
    };
    let from = synthesizer.mark();
    let characters = ssml::say(node, family, &style, synthesizer)?;
    if characters == 0 {
        return Err(Error::Empty(name(node)));
    }
    if characters > family.max_text_chars() {
        return Err(Error::TooLong(family.max_text_chars()));
    }
    synthesizer.repeat(from, times);
    Ok(())
}

fn pause(node: Node<'_, '_>, synthesizer: &mut SpeechSynthesizer) -> Result<(), Error> {
    check_attributes(node, &["length"])?;
    check_no_content(node)?;
    let wanted = "a whole number of seconds, 1 or more";
    let seconds = whole_number(node, "length", wanted)?.unwrap_or(1);
    if seconds == 0 {
        return Err(invalid_value(node, "length", wanted));
    }
    synthesizer.pause(Duration::from_secs(seconds.into()), &default_style());
    Ok(())
}

fn play(node: Node<'_, '_>, synthesizer: &mut SpeechSynthesizer) -> Result<(), Error> {
    check_attributes(node, &["loop", "digits"])?;
    if node.attribute("digits").is_none() {
        check_only_text(node)?;
    }
    let from = synthesizer.mark();
    synthesizer.play("[recording]", RECORDING_TIME, &default_style());
    synthesizer.repeat(from, times(node)?);
    Ok(())
}

fn gather(node: Node<'_, '_>) -> Result<Step, Error> {
    check_attributes(node, &GATHER_ATTRIBUTES)?;
    let mut synthesizer = SpeechSynthesizer::default();
    for child in child_elements(node)? {
        match name(child).as_str() {
            "Say" => say(child, &mut synthesizer)?,
            "Pause" => pause(child, &mut synthesizer)?,
            "Play" => play(child, &mut synthesizer)?,
            _ => return Err(unknown_element(child)),
        }
    }
    let timeout = match node.attribute("timeout") {
        Some("auto") | None => DEFAULT_GATHER_TIMEOUT,
        Some(_) => {
            let seconds =
                whole_number(node, "timeout", "a whole number of seconds, or auto")?.unwrap_or(0);
            Duration::from_secs(seconds.into())
        }
    };
    whole_number(node, "numDigits", "a whole number of digits")?;
    Ok(Step::Gather {
        prompt: synthesizer.into_utterances(),
        timeout,
        action: node.attribute("action").map(str::to_owned),
    })
}

/// The style of pauses and recordings, which have no voice.
fn default_style() -> VoiceStyle {
    VoiceStyle {
        language: "en-US".into(),
        voice: "man".into(),
        rate: 1.0,
        spelled: false,
    }
}

/// How often an element is played, by its `loop`.
fn times(node: Node<'_, '_>) -> Result<u32, Error> {
    let times = whole_number(
        node,
        "loop",
        "a whole number; 0 repeats until the call ends",
    )?
    .unwrap_or(1);
    Ok(if times == 0 {
        MAX_LOOPS
    } else {
        times.min(MAX_LOOPS)
    })
}

#[cfg(test)]
mod tests;
