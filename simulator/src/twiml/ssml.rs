//! SSML: the elements that may stand inside `Say`.

use std::time::Duration;

use roxmltree::Node;

use super::super::speech::{Manner, Speaker};
use super::super::voices::{Family, is_language};
use super::{Error, XML, attributes, hollow, name, unknown, value};

/// What `say-as` can make of its text.
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

/// The longest break that a voice makes.
const LONGEST_BREAK: Duration = Duration::from_secs(10);

/// Says what an element holds, and returns how many characters of text that was.
pub(super) fn say(
    node: Node<'_, '_>,
    family: Family,
    manner: &Manner,
    speaker: &mut Speaker,
) -> Result<usize, Error> {
    let mut letters = 0;
    for child in node.children() {
        if let Some(text) = child.text().filter(|_| child.is_text()) {
            letters += if text.trim().is_empty() {
                0
            } else {
                text.chars().count()
            };
            speaker.say(text, manner);
        } else if child.is_element() {
            letters += element(child, family, manner, speaker)?;
        }
    }
    Ok(letters)
}

fn element(
    node: Node<'_, '_>,
    family: Family,
    manner: &Manner,
    speaker: &mut Speaker,
) -> Result<usize, Error> {
    let element = name(node);
    let known: &[&str] = match element.as_str() {
        "break" => &["strength", "time"],
        "emphasis" => &["level"],
        "lang" => &["xml:lang"],
        "p" | "s" => &[],
        "phoneme" => &["alphabet", "ph"],
        "prosody" => &["rate", "pitch", "volume"],
        "say-as" => &["interpret-as", "format", "role"],
        "sub" => &["alias"],
        "w" => &["role"],
        _ => return Err(unknown(node)),
    };
    if !family.takes(&element) {
        return Err(Error::Ssml {
            voice: manner.voice.to_string(),
            element,
        });
    }
    attributes(node, known)?;
    match element.as_str() {
        "break" => {
            hollow(node)?;
            speaker.pause(length_of_break(node)?, manner);
            Ok(0)
        }
        "sub" => {
            let alias = required(node, "alias")?;
            no_elements(node)?;
            speaker.say(alias, manner);
            Ok(alias.chars().count())
        }
        "phoneme" => {
            required(node, "alphabet")?;
            required(node, "ph")?;
            no_elements(node)?;
            say(node, family, manner, speaker)
        }
        "say-as" => {
            no_elements(node)?;
            let spelled = is_spelled(node)?;
            say(
                node,
                family,
                &Manner {
                    spelled,
                    ..manner.clone()
                },
                speaker,
            )
        }
        "prosody" => {
            // Nested rates multiply, but no voice is slower or faster than this.
            let rate = (manner.rate * rate(node)?).clamp(0.2, 2.0);
            say(
                node,
                family,
                &Manner {
                    rate,
                    ..manner.clone()
                },
                speaker,
            )
        }
        "lang" => {
            let Some(language) = node.attribute((XML, "lang")) else {
                return Err(Error::Missing {
                    element,
                    attribute: "xml:lang",
                });
            };
            if !is_language(language) {
                return Err(value(node, "xml:lang", "a language that a voice speaks"));
            }
            say(
                node,
                family,
                &Manner {
                    language: language.into(),
                    ..manner.clone()
                },
                speaker,
            )
        }
        "emphasis" => {
            if !matches!(
                node.attribute("level"),
                None | Some("strong" | "moderate" | "reduced")
            ) {
                return Err(value(node, "level", "strong, moderate or reduced"));
            }
            say(node, family, manner, speaker)
        }
        "w" => {
            required(node, "role")?;
            say(node, family, manner, speaker)
        }
        _ => say(node, family, manner, speaker),
    }
}

fn length_of_break(node: Node<'_, '_>) -> Result<Duration, Error> {
    let by_strength = match node.attribute("strength") {
        Some("none" | "x-weak") => 0,
        Some("weak") => 250,
        None | Some("medium") => 400,
        Some("strong") => 700,
        Some("x-strong") => 1_200,
        Some(_) => {
            return Err(value(
                node,
                "strength",
                "none, x-weak, weak, medium, strong or x-strong",
            ));
        }
    };
    match node.attribute("time") {
        None => Ok(Duration::from_millis(by_strength)),
        Some(time) => seconds(time)
            .filter(|length| *length <= LONGEST_BREAK)
            .ok_or_else(|| value(node, "time", "a time such as 600ms or 1s, up to 10 s")),
    }
}

/// A time of SSML: `600ms`, `1s` or `0.5s`.
fn seconds(time: &str) -> Option<Duration> {
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
        return Err(value(
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

/// How much faster than otherwise.
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
                value(
                    node,
                    "rate",
                    "x-slow, slow, medium, fast, x-fast, or 20% to 200%",
                )
            }),
    }
}

fn required<'a>(node: Node<'a, '_>, attribute: &'static str) -> Result<&'a str, Error> {
    node.attribute(attribute)
        .filter(|text| !text.is_empty())
        .ok_or_else(|| Error::Missing {
            element: name(node),
            attribute,
        })
}

fn no_elements(node: Node<'_, '_>) -> Result<(), Error> {
    if node.children().any(|child| child.is_element()) {
        return Err(Error::Content(name(node)));
    }
    Ok(())
}
