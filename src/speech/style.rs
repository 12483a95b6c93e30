//! A tenant's speech style: how its codes are read, and the checks that a style must pass.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::language::LANGUAGES;

/// How a tenant's codes are read. The keys of the maps are tags of [`locales`](super::locales).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SpeechStyle {
    /// The speech rate, in percent of the voice's own rate: 50 to 120.
    pub rate_percent: u32,
    /// The pause after each character of the code, in milliseconds: 200 to 2,000.
    pub pause_ms: u32,
    /// How many times the code is read: 1 to 5.
    pub readings: u32,
    /// The brand that the greeting names, by locale. [`EVERY_LOCALE`] holds the one of all locales
    /// without an entry.
    pub brands: BTreeMap<String, String>,
    /// The tenant's own greetings, by locale, with `{brand}` for the brand.
    pub greetings: BTreeMap<String, String>,
    /// Twilio's names of voices that replace the locale's first voice, by locale.
    pub voices: BTreeMap<String, String>,
}

/// The member of a [`SpeechStyle`] that a problem is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StyleMember {
    RatePercent,
    PauseMs,
    Readings,
    Brands,
    Greetings,
    Voices,
}

/// The key of [`SpeechStyle::brands`] that stands for every locale.
pub const EVERY_LOCALE: &str = "*";

/// The one variable of a greeting.
pub(super) const BRAND_VARIABLE: &str = "{brand}";

const MAX_BRAND_CHARS: usize = 60;
const MAX_GREETING_CHARS: usize = 200;

impl Default for SpeechStyle {
    fn default() -> Self {
        Self {
            rate_percent: 85,
            pause_ms: 600,
            readings: 3,
            brands: BTreeMap::new(),
            greetings: BTreeMap::new(),
            voices: BTreeMap::new(),
        }
    }
}

impl SpeechStyle {
    /// The pause after each character of the code.
    pub(super) fn pause(&self) -> Duration {
        Duration::from_millis(self.pause_ms.into())
    }

    /// The brand that the greeting names in this locale.
    pub(super) fn brand(&self, tag: &str) -> Option<&str> {
        self.brands
            .get(tag)
            .or_else(|| self.brands.get(EVERY_LOCALE))
            .map(String::as_str)
    }

    /// Every problem of the style: the member, and a clause that says what is wrong or what the
    /// value must be.
    pub(crate) fn problems(&self) -> Vec<(StyleMember, String)> {
        let mut problems = Vec::new();
        let mut refuse = |member, problem: String| problems.push((member, problem));
        if !(50..=120).contains(&self.rate_percent) {
            refuse(
                StyleMember::RatePercent,
                "must be 50 to 120 percent".to_owned(),
            );
        }
        if !(200..=2_000).contains(&self.pause_ms) {
            refuse(StyleMember::PauseMs, "must be 200 ms to 2 s".to_owned());
        }
        if !(1..=5).contains(&self.readings) {
            refuse(StyleMember::Readings, "must be 1 to 5".to_owned());
        }
        for (tag, brand) in &self.brands {
            if tag != EVERY_LOCALE && !LANGUAGES.contains_key(tag) {
                refuse(StyleMember::Brands, unsupported(tag));
            }
            if let Err(why) = check_text(brand, MAX_BRAND_CHARS) {
                refuse(StyleMember::Brands, format!("{tag}: {why}"));
            }
        }
        for (tag, greeting) in &self.greetings {
            if !LANGUAGES.contains_key(tag) {
                refuse(StyleMember::Greetings, unsupported(tag));
            }
            if let Err(why) = check_greeting(greeting) {
                refuse(StyleMember::Greetings, format!("{tag}: {why}"));
            } else if greeting.contains(BRAND_VARIABLE) && self.brand(tag).is_none() {
                let why = format!("contains {BRAND_VARIABLE}, and there is no brand for {tag}");
                refuse(StyleMember::Greetings, format!("{tag}: {why}"));
            }
        }
        for (tag, voice) in &self.voices {
            match LANGUAGES.get(tag) {
                None => refuse(StyleMember::Voices, unsupported(tag)),
                Some(language) if !language.has_voice(voice) => {
                    let voices: Vec<&str> = std::iter::once(&language.voice)
                        .chain(&language.other_voices)
                        .map(String::as_str)
                        .collect();
                    let voices = voices.join(", ");
                    refuse(
                        StyleMember::Voices,
                        format!("{tag}: must be one of {voices}"),
                    );
                }
                Some(_) => {}
            }
        }
        problems
    }
}

fn unsupported(tag: &str) -> String {
    format!("{tag} is not a supported locale; voice-otp speech locales lists them")
}

/// Checks a greeting: plain text, with [`BRAND_VARIABLE`] at most once.
fn check_greeting(text: &str) -> Result<(), String> {
    if text.matches(BRAND_VARIABLE).count() > 1 {
        return Err(format!("contains {BRAND_VARIABLE} more than once"));
    }
    // The replacement has the same length, so that positions in messages stay right.
    check_text(&text.replace(BRAND_VARIABLE, "_______"), MAX_GREETING_CHARS)
}

/// Checks that text has no markup, variables or control characters. The error says what is wrong,
/// and at which character, counted from 1.
fn check_text(text: &str, max_chars: usize) -> Result<(), String> {
    let length = text.chars().count();
    if text.trim().is_empty() {
        return Err("must not be empty".to_owned());
    }
    if length > max_chars {
        return Err(format!(
            "has {length} characters, at most {max_chars} are allowed"
        ));
    }
    for (position, character) in (1..).zip(text.chars()) {
        let why = match character {
            '{' | '}' => "a brace; the only variable is {brand}, and only in greetings",
            '<' | '>' | '&' => "markup; only plain text is allowed",
            _ if character.is_control() => "a control character",
            _ => continue,
        };
        return Err(format!("character {position}: {why}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(style: &SpeechStyle) -> String {
        style
            .problems()
            .into_iter()
            .map(|(_, problem)| format!("{problem}\n"))
            .collect()
    }

    fn by_locale(locale: &str, text: &str) -> BTreeMap<String, String> {
        BTreeMap::from([(locale.to_owned(), text.to_owned())])
    }

    #[test]
    fn a_problem_names_its_position() {
        let greeting = |text: &str| {
            problems(&SpeechStyle {
                greetings: by_locale("de-DE", text),
                brands: by_locale("*", "Acme"),
                ..SpeechStyle::default()
            })
        };
        assert_eq!(greeting("Hallo von {brand}."), "");
        assert!(greeting("{brand}, {brand}").contains("more than once"));
        assert!(
            greeting("Hallo {name}").contains("de-DE: character 7: a brace"),
            "{}",
            greeting("Hallo {name}")
        );
        assert!(greeting("{brand}: <Dial>").contains("character 10: markup"));
        assert!(greeting("a\u{7}b").contains("character 2: a control character"));
        assert!(greeting(&"x".repeat(201)).contains("201 characters, at most 200"));
        assert!(greeting(" ").contains("must not be empty"));
        let unbranded = SpeechStyle {
            greetings: by_locale("de-DE", "Hier ist {brand}"),
            brands: by_locale("fr-FR", "Acme"),
            ..SpeechStyle::default()
        };
        assert!(problems(&unbranded).contains("there is no brand for de-DE"));
        assert!(
            problems(&SpeechStyle {
                brands: by_locale("*", "{brand}"),
                ..SpeechStyle::default()
            })
            .contains("character 1: a brace")
        );
    }

    #[test]
    fn a_voice_must_support_the_locale() {
        let voice = |locale: &str, voice: &str| {
            problems(&SpeechStyle {
                voices: by_locale(locale, voice),
                ..SpeechStyle::default()
            })
        };
        assert_eq!(voice("de-DE", "Polly.Daniel-Neural"), "");
        assert!(
            voice("de-DE", "Polly.Joanna-Neural")
                .contains("Polly.Vicki-Neural, Polly.Daniel-Neural")
        );
        assert!(voice("uk-UA", "Google.uk-UA-Wavenet-A").contains("is not a supported locale"));
    }

    #[test]
    fn numbers_have_bounds() {
        let style = SpeechStyle {
            rate_percent: 20,
            pause_ms: 10,
            readings: 9,
            ..SpeechStyle::default()
        };
        assert_eq!(style.problems().len(), 3);
        assert_eq!(SpeechStyle::default().problems(), []);
    }
}
