//! How a tenant wants its codes read.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::language::LANGUAGES;

/// How a tenant wants its codes read. The maps are by locale, each one that we speak.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Manner {
    /// How fast is spoken, in percent of the voice's own pace: 50 to 120.
    pub rate_percent: u32,
    /// The pause after each character of the code, in milliseconds: 200 to 2,000.
    pub pause_ms: u32,
    /// How often the code is read: 1 to 5.
    pub readings: u32,
    /// Whose call it is, as the greeting says it; under `*` for every locale without one of its own.
    pub brands: BTreeMap<String, String>,
    /// The tenant's own greetings; `{brand}` stands for the brand.
    pub greetings: BTreeMap<String, String>,
    /// Other voices than ours.
    pub voices: BTreeMap<String, String>,
}

/// The key in [`Manner::brands`] for every locale.
pub const EVERY_LOCALE: &str = "*";

const LONGEST_BRAND: usize = 60;
const LONGEST_GREETING: usize = 200;

impl Default for Manner {
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

impl Manner {
    /// The pause after each character of the code.
    pub(super) fn pause(&self) -> Duration {
        Duration::from_millis(self.pause_ms.into())
    }

    /// Whose call it is, in this locale.
    pub(super) fn brand(&self, tag: &str) -> Option<&str> {
        self.brands
            .get(tag)
            .or_else(|| self.brands.get(EVERY_LOCALE))
            .map(String::as_str)
    }

    /// What is wrong with it: the setting, and what it must be.
    pub(crate) fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        let mut wrong = |setting, problem: String| problems.push((setting, problem));
        if !(50..=120).contains(&self.rate_percent) {
            wrong("speech_rate", "50 to 120 percent".to_owned());
        }
        if !(200..=2_000).contains(&self.pause_ms) {
            wrong("digit_pause", "200 ms to 2 s".to_owned());
        }
        if !(1..=5).contains(&self.readings) {
            wrong("readings", "1 to 5".to_owned());
        }
        for (tag, brand) in &self.brands {
            if tag != EVERY_LOCALE && !LANGUAGES.contains_key(tag) {
                wrong("brand", unspoken(tag));
            }
            if let Err(why) = plain(brand, LONGEST_BRAND) {
                wrong("brand", format!("{tag}: {why}"));
            }
        }
        for (tag, greeting) in &self.greetings {
            if !LANGUAGES.contains_key(tag) {
                wrong("greeting", unspoken(tag));
            }
            if let Err(why) = template(greeting) {
                wrong("greeting", format!("{tag}: {why}"));
            } else if greeting.contains(BRAND) && self.brand(tag).is_none() {
                wrong(
                    "greeting",
                    format!("{tag}: it says {BRAND}, and there is no brand for {tag}"),
                );
            }
        }
        for (tag, voice) in &self.voices {
            match LANGUAGES.get(tag) {
                None => wrong("voice", unspoken(tag)),
                Some(language) if !language.has_voice(voice) => {
                    let voices: Vec<&str> = std::iter::once(&language.voice)
                        .chain(&language.other_voices)
                        .map(String::as_str)
                        .collect();
                    wrong(
                        "voice",
                        format!("{tag}: one that speaks it: {}", voices.join(", ")),
                    );
                }
                Some(_) => {}
            }
        }
        problems
    }
}

/// The one variable of a greeting.
pub(super) const BRAND: &str = "{brand}";

fn unspoken(tag: &str) -> String {
    format!("{tag} is none of the locales that we speak: voice-otp speech locales")
}

/// A greeting: plain text, and [`BRAND`].
fn template(text: &str) -> Result<(), String> {
    if text.matches(BRAND).count() > 1 {
        return Err(format!("it says {BRAND} more than once"));
    }
    // The same length, so that places are still places in the text.
    plain(&text.replace(BRAND, "_______"), LONGEST_GREETING)
}

/// Text without markup, variables and control characters; else what is wrong, and where.
fn plain(text: &str, longest: usize) -> Result<(), String> {
    let length = text.chars().count();
    if text.trim().is_empty() {
        return Err("it is empty".to_owned());
    }
    if length > longest {
        return Err(format!(
            "it has {length} characters, at most {longest} are taken"
        ));
    }
    for (place, character) in (1..).zip(text.chars()) {
        let why = match character {
            '{' | '}' => "a brace; the only variable is {brand}, and only a greeting has it",
            '<' | '>' | '&' => "markup; only plain text is taken",
            _ if character.is_control() => "a control character",
            _ => continue,
        };
        return Err(format!("character {place}: {why}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(manner: &Manner) -> String {
        manner
            .problems()
            .into_iter()
            .map(|(setting, problem)| format!("{setting}: {problem}\n"))
            .collect()
    }

    fn one(locale: &str, text: &str) -> BTreeMap<String, String> {
        BTreeMap::from([(locale.to_owned(), text.to_owned())])
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        let greeting = |text: &str| {
            wrong(&Manner {
                greetings: one("de-DE", text),
                brands: one("*", "Acme"),
                ..Manner::default()
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
        assert!(greeting(" ").contains("empty"));
        let unbranded = Manner {
            greetings: one("de-DE", "Hier ist {brand}"),
            brands: one("fr-FR", "Acme"),
            ..Manner::default()
        };
        assert!(wrong(&unbranded).contains("there is no brand for de-DE"));
        assert!(
            wrong(&Manner {
                brands: one("*", "{brand}"),
                ..Manner::default()
            })
            .contains("character 1: a brace")
        );
    }

    #[test]
    fn a_voice_must_speak_the_locale() {
        let voice = |locale: &str, voice: &str| {
            wrong(&Manner {
                voices: one(locale, voice),
                ..Manner::default()
            })
        };
        assert_eq!(voice("de-DE", "Polly.Daniel-Neural"), "");
        assert!(
            voice("de-DE", "Polly.Joanna-Neural")
                .contains("Polly.Vicki-Neural, Polly.Daniel-Neural")
        );
        assert!(
            voice("uk-UA", "Google.uk-UA-Wavenet-A").contains("none of the locales that we speak")
        );
    }

    #[test]
    fn numbers_have_bounds() {
        let manner = Manner {
            rate_percent: 20,
            pause_ms: 10,
            readings: 9,
            ..Manner::default()
        };
        assert_eq!(manner.problems().len(), 3);
        assert_eq!(Manner::default().problems(), []);
    }
}
