//! What is said, in which language: text and pauses, nothing of Twilio's.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::Duration;

use serde::Deserialize;
use voice_otp_schemas::phone::Country;
use voice_otp_schemas::{Locale, OtpCode};

/// What is said in a call.
#[derive(Debug, Clone)]
pub struct Script {
    /// The language, one that we have phrases for.
    pub locale: String,
    /// How fast it is said, in percent of the voice's own pace.
    pub rate_percent: u32,
    /// What is said and kept silent, in order. Secret: it holds the code.
    pub parts: Vec<Part>,
    /// How long a call must last for the code to have been read once.
    pub heard_after: Duration,
}

/// A piece of a script.
#[derive(Clone, PartialEq, Eq)]
pub enum Part {
    /// Words.
    Text(String),
    /// One character of the code.
    Symbol(char),
    /// Silence within a sentence.
    Break(Duration),
    /// Silence between sentences, whole seconds.
    Pause(Duration),
}

/// The phrases of a language, a data file each.
#[derive(Debug, Deserialize)]
struct Phrases {
    /// Said once, at first.
    greeting: String,
    /// Before the code, at first.
    code_is: String,
    /// Before the code, the other times.
    again: String,
    /// Said once, at last.
    goodbye: String,
    /// How long one character of text takes, in milliseconds.
    ms_per_character: u32,
}

/// The pause after each character of the code, the last one too.
const SYMBOL_BREAK: Duration = Duration::from_millis(600);
/// How long saying one character of the code takes, roughly.
const SYMBOL_SPOKEN: Duration = Duration::from_millis(450);
/// How fast is spoken, in percent of the voice's own pace: slow.
const RATE_PERCENT: u32 = 85;
/// How often the code is read.
const READINGS: u32 = 3;

static LANGUAGES: LazyLock<BTreeMap<&'static str, Phrases>> = LazyLock::new(|| {
    [("en-US", include_str!("speech/en-US.json")), ("es-ES", include_str!("speech/es-ES.json"))]
        .into_iter()
        // The data files are compiled in, and a test reads them all.
        .filter_map(|(tag, text)| Some((tag, serde_json::from_str(text).ok()?)))
        .collect()
});

/// Writes the script for a code: in the first of these languages that there are phrases for: the request's, the
/// tenant's, the number's country's, `en-US`.
pub fn script(code: &OtpCode, asked: Option<&Locale>, tenant: Option<&Locale>, country: Option<Country>) -> Script {
    let tag = [asked.and_then(nearest), tenant.and_then(nearest), country.and_then(of_country)]
        .into_iter()
        .flatten()
        .next()
        .unwrap_or("en-US");
    let Some(phrases) = LANGUAGES.get(tag) else {
        return Script { locale: tag.to_owned(), rate_percent: RATE_PERCENT, parts: Vec::new(), heard_after: Duration::ZERO };
    };
    let mut parts = vec![Part::Pause(Duration::from_secs(1)), Part::Text(phrases.greeting.clone())];
    let mut heard_after = Duration::ZERO;
    for reading in 0..READINGS {
        parts.push(Part::Text(if reading == 0 { phrases.code_is.clone() } else { phrases.again.clone() }));
        for symbol in code.expose().chars() {
            parts.push(Part::Break(SYMBOL_BREAK));
            parts.push(Part::Symbol(symbol.to_ascii_uppercase()));
        }
        if reading == 0 {
            let reading: Duration = parts.iter().map(|part| part.length(phrases.ms_per_character)).sum();
            // To the millisecond, as the ledger has it.
            heard_after = Duration::from_millis(u64::try_from(reading.as_millis()).unwrap_or(u64::MAX));
        }
        parts.push(Part::Break(SYMBOL_BREAK));
        parts.push(Part::Pause(Duration::from_secs(1)));
    }
    parts.push(Part::Text(phrases.goodbye.clone()));
    Script { locale: tag.to_owned(), rate_percent: RATE_PERCENT, parts, heard_after }
}

/// The language we have that is nearest to a tag: itself, or another country's of the same language.
fn nearest(locale: &Locale) -> Option<&'static str> {
    let exact = LANGUAGES.keys().find(|tag| tag.eq_ignore_ascii_case(locale.as_str()));
    exact.or_else(|| LANGUAGES.keys().find(|tag| tag.split('-').next() == Some(locale.language()))).copied()
}

/// The language most spoken in a country, where it is one of ours.
fn of_country(country: Country) -> Option<&'static str> {
    match country.as_str() {
        "ES" | "MX" | "AR" | "CO" | "CL" | "PE" | "VE" | "EC" | "GT" | "CU" | "BO" | "DO" | "HN" | "PY" | "SV" | "NI" | "CR"
        | "PA" | "UY" => Some("es-ES"),
        _ => None,
    }
}

impl Part {
    fn length(&self, ms_per_character: u32) -> Duration {
        match self {
            Self::Text(text) => {
                let characters = u32::try_from(text.chars().count()).unwrap_or(u32::MAX);
                Duration::from_millis(u64::from(ms_per_character)) * characters * 100 / RATE_PERCENT
            }
            Self::Symbol(_) => SYMBOL_SPOKEN * 100 / RATE_PERCENT,
            Self::Break(length) | Self::Pause(length) => *length,
        }
    }
}

impl std::fmt::Debug for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text(text) => write!(f, "Text({text:?})"),
            Self::Symbol(_) => f.write_str("Symbol(…)"),
            Self::Break(length) => write!(f, "Break({length:?})"),
            Self::Pause(length) => write!(f, "Pause({length:?})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(code: &str, asked: Option<&str>, country: &str) -> (String, String) {
        let asked = asked.map(|tag| Locale::parse(tag).unwrap());
        let script = script(&OtpCode::parse(code).unwrap(), asked.as_ref(), None, Country::parse(country).ok());
        let text = script.parts.iter().map(|part| match part {
            Part::Text(text) => format!("{text} "),
            Part::Symbol(symbol) => symbol.to_string(),
            Part::Break(_) => "_".to_owned(),
            Part::Pause(_) => "| ".to_owned(),
        });
        (script.locale.clone(), text.collect())
    }

    #[test]
    fn the_code_is_read_three_times_a_character_at_a_time_with_a_pause_after_each() {
        let (_, text) = said("04A7", None, "US");
        assert_eq!(text.matches("_0_4_A_7_| ").count(), 3, "{text}");
    }

    #[test]
    fn the_language_is_the_requests_else_the_countrys_else_english() {
        for (asked, country, tag) in [
            (Some("es-MX"), "US", "es-ES"),
            (Some("en-GB"), "ES", "en-US"),
            (Some("tlh"), "ES", "es-ES"),
            (None, "ES", "es-ES"),
            (None, "FR", "en-US"),
        ] {
            assert_eq!(said("1234", asked, country).0, tag);
        }
    }

    #[test]
    fn a_call_counts_as_heard_only_after_the_first_reading() {
        let script = script(&OtpCode::parse("493027").unwrap(), None, None, None);
        assert!((7..20).contains(&script.heard_after.as_secs()), "{:?}", script.heard_after);
        assert!(!format!("{script:?}").contains("Symbol('"), "a script doesn't show its code");
    }

    #[test]
    fn every_language_file_can_be_read() {
        assert_eq!(LANGUAGES.len(), 2);
    }
}
