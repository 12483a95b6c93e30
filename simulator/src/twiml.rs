//! Reads inline `TwiML` as strictly as Twilio's documentation allows, and says it.
//!
//! Twilio takes any string when the call is created and fails when it is answered: with an error tone, a silent call or
//! a warning in the console. The simulator refuses the create request instead, where a developer sees it.

use std::time::Duration;

use roxmltree::{Document, Node};

use super::speech::{Manner, Speaker};
use super::transcript::Utterance;
use super::voices::Family;

mod ssml;

/// The namespace that the prefix `xml` stands for.
const XML: &str = "http://www.w3.org/XML/1998/namespace";

/// How long a `Gather` waits for a key where it doesn't say.
const GATHER_TIMEOUT: Duration = Duration::from_secs(5);

/// How long every recording takes: the simulator doesn't fetch it.
const RECORDING: Duration = Duration::from_secs(3);

/// Twilio's bound for `loop="0"`.
const ENDLESS: u32 = 1_000;

/// Attributes of `Gather`; what they mean isn't played.
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

/// Why Twilio could not say this `TwiML`. No variant holds text that would be spoken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not a well-formed document.
    #[error("the TwiML is not well-formed XML")]
    Malformed(#[source] roxmltree::Error),
    /// The outermost element isn't `Response`.
    #[error("the root element is <{0}>, not <Response>")]
    Root(String),
    /// An element that isn't known where it stands; names are case-sensitive.
    #[error("<{element}> is not known inside <{parent}>")]
    Element {
        /// The element.
        element: String,
        /// What it stands in.
        parent: String,
    },
    /// An attribute that the element doesn't have; names are case-sensitive.
    #[error("<{element}> has no attribute {attribute}")]
    Attribute {
        /// The element.
        element: String,
        /// The attribute.
        attribute: String,
    },
    /// A required attribute is missing.
    #[error("<{element}> needs the attribute {attribute}")]
    Missing {
        /// The element.
        element: String,
        /// The attribute.
        attribute: &'static str,
    },
    /// The value of an attribute is of another form.
    #[error("{attribute} of <{element}> is {wanted}")]
    Value {
        /// The element.
        element: String,
        /// The attribute.
        attribute: &'static str,
        /// What the value must be.
        wanted: &'static str,
    },
    /// Text or elements where there can be none.
    #[error("<{0}> holds something that does not belong there")]
    Content(String),
    /// Nothing to say or to fetch.
    #[error("<{0}> is empty")]
    Empty(String),
    /// More text than the voice says at once.
    #[error("<Say> has more than {0} characters of text")]
    TooLong(usize),
    /// The voice isn't known, or doesn't speak the language: the call would be silent.
    #[error("the voice {voice} is not known to speak {language}")]
    Voice {
        /// The voice.
        voice: String,
        /// The language.
        language: String,
    },
    /// The voice can't take this SSML element: the call would be silent.
    #[error("the voice {voice} does not take SSML's <{element}>")]
    Ssml {
        /// The voice.
        voice: String,
        /// The element.
        element: String,
    },
}

impl Error {
    /// The code with which Twilio would report this when the call is answered.
    pub fn code(&self) -> u32 {
        match self {
            Self::Malformed(_) => 12100,
            Self::Voice { .. } | Self::Ssml { .. } => 13511,
            Self::Empty(_) => 13520,
            Self::TooLong(_) => 13521,
            Self::Root(_)
            | Self::Element { .. }
            | Self::Attribute { .. }
            | Self::Missing { .. }
            | Self::Value { .. }
            | Self::Content(_) => 12200,
        }
    }
}

/// A stretch of a call, by a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// This is said, or not said for a while.
    Say(Vec<Utterance>),
    /// This is said, and then a key is waited for.
    Gather {
        /// What is said.
        prompt: Vec<Utterance>,
        /// How long is waited after it.
        timeout: Duration,
        /// Where the call asks with the key; where it asked before, if it is missing.
        action: Option<String>,
    },
    /// The call asks there.
    Redirect(String),
    /// The call ends.
    Hangup,
}

/// Says the document, if nobody presses a key.
///
/// # Errors
/// The first mistake in the document, also after a `Hangup`.
pub(crate) fn listen(twiml: &str) -> Result<Vec<Utterance>, Error> {
    let mut spoken = Vec::new();
    let mut over = false;
    for step in steps(twiml)? {
        match step {
            _ if over => {}
            Step::Say(said) => spoken.extend(said),
            Step::Gather {
                prompt, timeout, ..
            } => {
                spoken.extend(prompt);
                let mut speaker = Speaker::default();
                speaker.pause(timeout, &silence());
                spoken.extend(speaker.into_spoken());
            }
            // What another document says can't be known without asking for it.
            Step::Redirect(_) | Step::Hangup => over = true,
        }
    }
    Ok(spoken)
}

/// Reads the document.
///
/// # Errors
/// The first mistake in it.
pub(crate) fn steps(twiml: &str) -> Result<Vec<Step>, Error> {
    let document = Document::parse(twiml).map_err(Error::Malformed)?;
    let root = document.root_element();
    if name(root) != "Response" {
        return Err(Error::Root(name(root)));
    }
    attributes(root, &[])?;
    elements(root)?.into_iter().map(step).collect()
}

fn step(verb: Node<'_, '_>) -> Result<Step, Error> {
    let said = |speak: fn(Node<'_, '_>, &mut Speaker) -> Result<(), Error>| {
        let mut speaker = Speaker::default();
        speak(verb, &mut speaker)?;
        Ok(Step::Say(speaker.into_spoken()))
    };
    match name(verb).as_str() {
        "Say" => said(say),
        "Pause" => said(pause),
        "Play" => said(play),
        "Gather" => gather(verb),
        "Hangup" => {
            attributes(verb, &[])?;
            hollow(verb)?;
            Ok(Step::Hangup)
        }
        "Redirect" => {
            attributes(verb, &["method"])?;
            text_only(verb)?;
            Ok(Step::Redirect(
                verb.text().unwrap_or_default().trim().to_owned(),
            ))
        }
        _ => Err(unknown(verb)),
    }
}

fn say(node: Node<'_, '_>, speaker: &mut Speaker) -> Result<(), Error> {
    attributes(node, &["voice", "language", "loop"])?;
    let language = node.attribute("language").unwrap_or("en-US");
    let voice = node.attribute("voice");
    let unknown_voice = || Error::Voice {
        voice: voice.unwrap_or("man").to_owned(),
        language: language.to_owned(),
    };
    let family = Family::of(voice, language).ok_or_else(unknown_voice)?;
    let times = times(node)?;
    let manner = Manner {
        language: language.into(),
        voice: voice.unwrap_or("man").into(),
        rate: 1.0,
        spelled: false,
    };
    let from = speaker.mark();
    let letters = ssml::say(node, family, &manner, speaker)?;
    if letters == 0 {
        return Err(Error::Empty(name(node)));
    }
    if letters > family.longest_text() {
        return Err(Error::TooLong(family.longest_text()));
    }
    speaker.repeat(from, times);
    Ok(())
}

fn pause(node: Node<'_, '_>, speaker: &mut Speaker) -> Result<(), Error> {
    attributes(node, &["length"])?;
    hollow(node)?;
    let wanted = "a whole number of seconds, 1 or more";
    let seconds = whole(node, "length", wanted)?.unwrap_or(1);
    if seconds == 0 {
        return Err(value(node, "length", wanted));
    }
    speaker.pause(Duration::from_secs(seconds.into()), &silence());
    Ok(())
}

fn play(node: Node<'_, '_>, speaker: &mut Speaker) -> Result<(), Error> {
    attributes(node, &["loop", "digits"])?;
    if node.attribute("digits").is_none() {
        text_only(node)?;
    }
    let from = speaker.mark();
    speaker.play("[recording]", RECORDING, &silence());
    speaker.repeat(from, times(node)?);
    Ok(())
}

/// What is nested is said, and then a key is waited for.
fn gather(node: Node<'_, '_>) -> Result<Step, Error> {
    attributes(node, &GATHER_ATTRIBUTES)?;
    let mut speaker = Speaker::default();
    for verb in elements(node)? {
        match name(verb).as_str() {
            "Say" => say(verb, &mut speaker)?,
            "Pause" => pause(verb, &mut speaker)?,
            "Play" => play(verb, &mut speaker)?,
            _ => return Err(unknown(verb)),
        }
    }
    let timeout = match node.attribute("timeout") {
        Some("auto") | None => GATHER_TIMEOUT,
        Some(_) => {
            let seconds =
                whole(node, "timeout", "a whole number of seconds, or auto")?.unwrap_or(0);
            Duration::from_secs(seconds.into())
        }
    };
    whole(node, "numDigits", "a whole number of digits")?;
    Ok(Step::Gather {
        prompt: speaker.into_spoken(),
        timeout,
        action: node.attribute("action").map(str::to_owned),
    })
}

/// The manner of what has no voice.
fn silence() -> Manner {
    Manner {
        language: "en-US".into(),
        voice: "man".into(),
        rate: 1.0,
        spelled: false,
    }
}

/// How often to say or play it.
fn times(node: Node<'_, '_>) -> Result<u32, Error> {
    let times = whole(
        node,
        "loop",
        "a whole number; 0 repeats until the call ends",
    )?
    .unwrap_or(1);
    Ok(if times == 0 {
        ENDLESS
    } else {
        times.min(ENDLESS)
    })
}

/// The value of an attribute that is a whole number.
fn whole(
    node: Node<'_, '_>,
    attribute: &'static str,
    wanted: &'static str,
) -> Result<Option<u32>, Error> {
    let Some(text) = node.attribute(attribute) else {
        return Ok(None);
    };
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(number) if digits => Ok(Some(number)),
        _ => Err(value(node, attribute, wanted)),
    }
}

/// Refuses attributes that aren't known here.
fn attributes(node: Node<'_, '_>, known: &[&str]) -> Result<(), Error> {
    for attribute in node.attributes() {
        let attribute = match attribute.namespace() {
            None => attribute.name().to_owned(),
            Some(XML) => format!("xml:{}", attribute.name()),
            Some(_) => format!("?:{}", attribute.name()),
        };
        if !known.contains(&attribute.as_str()) {
            return Err(Error::Attribute {
                element: name(node),
                attribute,
            });
        }
    }
    Ok(())
}

/// The elements inside, where there can be no text.
fn elements<'a, 'input>(node: Node<'a, 'input>) -> Result<Vec<Node<'a, 'input>>, Error> {
    if node.children().any(is_said) {
        return Err(Error::Content(name(node)));
    }
    Ok(node.children().filter(Node::is_element).collect())
}

/// Refuses anything inside.
fn hollow(node: Node<'_, '_>) -> Result<(), Error> {
    if node
        .children()
        .any(|child| child.is_element() || is_said(child))
    {
        return Err(Error::Content(name(node)));
    }
    Ok(())
}

/// Refuses elements inside, and emptiness.
fn text_only(node: Node<'_, '_>) -> Result<(), Error> {
    if node.children().any(|child| child.is_element()) {
        return Err(Error::Content(name(node)));
    }
    if !node.children().any(is_said) {
        return Err(Error::Empty(name(node)));
    }
    Ok(())
}

/// Whether this is text that isn't only white space.
fn is_said(node: Node<'_, '_>) -> bool {
    node.is_text() && node.text().is_some_and(|text| !text.trim().is_empty())
}

/// The name of an element; one of a foreign namespace is no name of Twilio's.
fn name(node: Node<'_, '_>) -> String {
    let tag = node.tag_name();
    match tag.namespace() {
        None => tag.name().to_owned(),
        Some(_) => format!("?:{}", tag.name()),
    }
}

fn unknown(node: Node<'_, '_>) -> Error {
    let parent = node.parent_element().map_or_else(String::new, name);
    Error::Element {
        element: name(node),
        parent,
    }
}

fn value(node: Node<'_, '_>, attribute: &'static str, wanted: &'static str) -> Error {
    Error::Value {
        element: name(node),
        attribute,
        wanted,
    }
}

#[cfg(test)]
mod tests;
