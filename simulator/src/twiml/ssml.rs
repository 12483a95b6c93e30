//! SSML: the elements inside `Say`
//! (<https://www.twilio.com/docs/voice/twiml/say/text-speech#ssml>).

use std::time::Duration;

use roxmltree::Node;

use super::error::Error;
use super::xml::{
    XML_NAMESPACE, check_attributes, check_no_content, check_no_elements, invalid_value, name,
    required, unknown_element,
};
use crate::speech::{SpeechSynthesizer, VoiceStyle};
use crate::voices::{VoiceFamily, is_language};

/// The values of `interpret-as`.
const INTERPRETATIONS: [&str; 13] = [
    "address",
    "cardinal",
    "characters",
    "date",
    "digits",
    "expletive",
    "fraction",
    "number",
    "ordinal",
    "spell-out",
    "telephone",
    "time",
    "unit",
];

/// The longest break that Twilio's voices make.
const MAX_BREAK: Duration = Duration::from_secs(10);

/// Adds what an element contains, and returns how many characters of text that is.
pub(super) fn say(
    node: Node<'_, '_>,
    family: VoiceFamily,
    style: &VoiceStyle,
    synthesizer: &mut SpeechSynthesizer,
) -> Result<usize, Error> {
    let mut characters = 0;
    for child in node.children() {
        if let Some(text) = child.text().filter(|_| child.is_text()) {
            characters += if text.trim().is_empty() {
                0
            } else {
                text.chars().count()
            };
            synthesizer.say(text, style);
        } else if child.is_element() {
            characters += element(child, family, style, synthesizer)?;
        }
    }
    Ok(characters)
}

/// The attributes of an SSML element; `None` if SSML has no such element.
fn known_attributes(element: &str) -> Option<&'static [&'static str]> {
    Some(match element {
        "break" => &["strength", "time"],
        "emphasis" => &["level"],
        "lang" => &["xml:lang"],
        "p" | "s" => &[],
        "phoneme" => &["alphabet", "ph"],
        "prosody" => &["rate", "pitch", "volume"],
        "say-as" => &["interpret-as", "format", "role"],
        "sub" => &["alias"],
        "w" => &["role"],
        _ => return None,
    })
}

/// Adds an SSML element, and returns how many characters of text it contains.
fn element(
    node: Node<'_, '_>,
    family: VoiceFamily,
    style: &VoiceStyle,
    synthesizer: &mut SpeechSynthesizer,
) -> Result<usize, Error> {
    let element = name(node);
    let known = known_attributes(&element).ok_or_else(|| unknown_element(node))?;
    if !family.supports(&element) {
        return Err(Error::Ssml {
            voice: style.voice.to_string(),
            element,
        });
    }
    check_attributes(node, known)?;
    let mut style = style.clone();
    match element.as_str() {
        "break" => {
            check_no_content(node)?;
            synthesizer.pause(break_length(node)?, &style);
            return Ok(0);
        }
        "sub" => {
            let alias = required(node, "alias")?;
            check_no_elements(node)?;
            synthesizer.say(alias, &style);
            return Ok(alias.chars().count());
        }
        "phoneme" => {
            required(node, "alphabet")?;
            required(node, "ph")?;
            check_no_elements(node)?;
        }
        "say-as" => {
            check_no_elements(node)?;
            style.spelled = is_spelled(node)?;
        }
        // Nested rates multiply, within the limits of the voices.
        "prosody" => style.rate = (style.rate * rate(node)?).clamp(0.2, 2.0),
        "lang" => style.language = language(node)?.into(),
        "emphasis" => check_level(node)?,
        "w" => {
            required(node, "role")?;
        }
        _ => {}
    }
    say(node, family, &style, synthesizer)
}

/// Checks the level of an `emphasis` element.
fn check_level(node: Node<'_, '_>) -> Result<(), Error> {
    match node.attribute("level") {
        None | Some("strong" | "moderate" | "reduced") => Ok(()),
        Some(_) => Err(invalid_value(node, "level", "strong, moderate or reduced")),
    }
}

/// The language of a `lang` element.
fn language<'a>(node: Node<'a, '_>) -> Result<&'a str, Error> {
    let Some(language) = node.attribute((XML_NAMESPACE, "lang")) else {
        return Err(Error::Missing {
            element: name(node),
            attribute: "xml:lang",
        });
    };
    if !is_language(language) {
        return Err(invalid_value(
            node,
            "xml:lang",
            "a language that a voice speaks",
        ));
    }
    Ok(language)
}

fn break_length(node: Node<'_, '_>) -> Result<Duration, Error> {
    let by_strength = match node.attribute("strength") {
        Some("none" | "x-weak") => 0,
        Some("weak") => 250,
        None | Some("medium") => 400,
        Some("strong") => 700,
        Some("x-strong") => 1_200,
        Some(_) => {
            return Err(invalid_value(
                node,
                "strength",
                "none, x-weak, weak, medium, strong or x-strong",
            ));
        }
    };
    match node.attribute("time") {
        None => Ok(Duration::from_millis(by_strength)),
        Some(time) => parse_time(time)
            .filter(|length| *length <= MAX_BREAK)
            .ok_or_else(|| invalid_value(node, "time", "a time such as 600ms or 1s, up to 10 s")),
    }
}

/// An SSML time: `600ms`, `1s` or `0.5s`.
fn parse_time(time: &str) -> Option<Duration> {
    if let Some(millis) = time.strip_suffix("ms") {
        return digits(millis)?.parse().ok().map(Duration::from_millis);
    }
    let number = time.strip_suffix('s')?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    digits(whole)?;
    digits(fraction)?;
    Duration::try_from_secs_f64(number.parse().ok()?).ok()
}

fn digits(text: &str) -> Option<&str> {
    (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())).then_some(text)
}

fn is_spelled(node: Node<'_, '_>) -> Result<bool, Error> {
    let interpretation = required(node, "interpret-as")?;
    if !INTERPRETATIONS.contains(&interpretation) {
        return Err(invalid_value(
            node,
            "interpret-as",
            "an interpretation of SSML, such as characters or digits",
        ));
    }
    Ok(matches!(
        interpretation,
        "characters" | "digits" | "spell-out" | "telephone"
    ))
}

/// The factor by which `prosody` changes the speech rate.
fn rate(node: Node<'_, '_>) -> Result<f64, Error> {
    match node.attribute("rate") {
        None | Some("medium" | "default") => Ok(1.0),
        Some("x-slow") => Ok(0.5),
        Some("slow") => Ok(0.75),
        Some("fast") => Ok(1.25),
        Some("x-fast") => Ok(1.75),
        Some(percent) => percent
            .strip_suffix('%')
            .and_then(digits)
            .and_then(|percent| percent.parse::<u8>().ok())
            .filter(|percent| (20..=200).contains(percent))
            .map(|percent| f64::from(percent) / 100.0)
            .ok_or_else(|| {
                invalid_value(
                    node,
                    "rate",
                    "x-slow, slow, medium, fast, x-fast, or 20% to 200%",
                )
            }),
    }
}
