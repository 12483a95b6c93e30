//! The languages: one JSON file each, with its phrases, its digits and its locales.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use icu_locale::LocaleCanonicalizer;
use icu_plurals::{PluralCategory, PluralRules};
use serde::Deserialize;
use serde_json::{Map, Value};

/// A language as one supported locale speaks it.
#[derive(Debug)]
pub(super) struct Language {
    /// Twilio's name of the voice that reads it, unless the tenant chooses another.
    pub(super) voice: String,
    /// Twilio's names of the other voices that a tenant may choose.
    pub(super) other_voices: Vec<String>,
    /// Other tags that mean this locale.
    pub(super) aliases: Vec<String>,
    /// The sentences.
    pub(super) phrases: Phrases,
    /// The words for 0 to 9.
    pub(super) digits: [String; 10],
    /// Whether its speakers say six digits in two groups of three.
    pub(super) six_in_threes: bool,
    /// How long one character of text takes at the voice's own rate, in milliseconds, by estimate.
    pub(super) ms_per_character: u32,
}

/// The sentences of a language.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Phrases {
    /// The greeting, at the start of a call.
    pub(super) greeting: String,
    /// The greeting of a tenant with a brand, which replaces `{brand}`.
    pub(super) greeting_from: String,
    /// Introduces the first reading of the code.
    pub(super) code_is: String,
    /// Introduces the other readings.
    pub(super) again: String,
    /// For how many minutes (`{n}`) the code is valid, by plural category; `=1` and the like are
    /// for that number alone.
    valid: BTreeMap<String, String>,
    /// The prompt to press 1 for the code.
    pub(super) press: String,
    /// The prompt to press 1 for another reading.
    pub(super) press_again: String,
    /// The end of a call.
    pub(super) goodbye: String,
}

/// A language file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    locales: BTreeMap<String, LocaleEntry>,
    phrases: Map<String, Value>,
    /// Phrases that differ in one locale, by tag.
    #[serde(default)]
    overrides: BTreeMap<String, Map<String, Value>>,
    digits: [String; 10],
    six_in_threes: bool,
    ms_per_character: u32,
}

/// A locale in a language file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LocaleEntry {
    voice: String,
    #[serde(default)]
    other_voices: Vec<String>,
    #[serde(default)]
    also: Vec<String>,
}

macro_rules! files {
    ($($name:literal)*) => { [$(include_str!(concat!($name, ".json"))),*] };
}

const FILES: [&str; 48] = files!(
    "af" "ar" "bg" "bn" "ca" "cmn" "cs" "cy" "da" "de" "el" "en" "es" "eu" "fi" "fil" "fr" "gl"
    "gu" "he" "hi" "hu" "id" "is" "it" "ja" "kn" "ko" "lt" "lv" "ml" "mr" "ms" "nb" "nl" "pa" "pl"
    "pt" "ro" "ru" "sk" "sv" "ta" "te" "th" "tr" "vi" "yue"
);

/// Every supported locale, by tag.
pub(super) static LANGUAGES: LazyLock<BTreeMap<String, Language>> =
    LazyLock::new(|| FILES.into_iter().flat_map(read).collect());

#[expect(
    clippy::expect_used,
    reason = "the files are compiled in, and a test reads all of them"
)]
fn read(text: &str) -> Vec<(String, Language)> {
    let File {
        locales,
        phrases,
        mut overrides,
        digits,
        six_in_threes,
        ms_per_character,
    } = serde_json::from_str(text).expect("a language file");
    let language = |(tag, entry): (String, LocaleEntry)| {
        let mut phrases = phrases.clone();
        phrases.extend(overrides.remove(&tag).unwrap_or_default());
        let phrases =
            serde_json::from_value(Value::Object(phrases)).expect("a language file's phrases");
        let LocaleEntry {
            voice,
            other_voices,
            also,
        } = entry;
        (
            tag,
            Language {
                voice,
                other_voices,
                aliases: also,
                phrases,
                digits: digits.clone(),
                six_in_threes,
                ms_per_character,
            },
        )
    };
    locales.into_iter().map(language).collect()
}

impl Language {
    /// The sentence that says for how many minutes the code is valid; `None` if the language has
    /// none for this number.
    pub(super) fn valid(&self, tag: &str, minutes: u64) -> Option<String> {
        let phrases = &self.phrases.valid;
        let phrase = phrases
            .get(&format!("={minutes}"))
            .or_else(|| phrases.get(category(tag, minutes)))
            .or(phrases.get("other"));
        Some(phrase?.replace("{n}", &minutes.to_string()))
    }

    /// The word for one character of a code.
    pub(super) fn symbol(&self, symbol: char) -> String {
        let digit = symbol
            .to_digit(10)
            .and_then(|digit| self.digits.get(usize::try_from(digit).ok()?));
        // Every voice spells a capital letter that stands alone.
        digit
            .cloned()
            .unwrap_or_else(|| symbol.to_ascii_uppercase().to_string())
    }

    /// Whether the voice, by Twilio's name, supports this locale.
    pub(super) fn has_voice(&self, voice: &str) -> bool {
        self.voice == voice || self.other_voices.iter().any(|other| other == voice)
    }
}

/// The plural category of a number in a language, by CLDR.
fn category(tag: &str, number: u64) -> &'static str {
    let language = tag.split('-').next().unwrap_or_default();
    let rules = icu_locale::Locale::try_from_str(language)
        .ok()
        .and_then(|mut language| {
            // CLDR has some languages under other names: `arb` is `ar` there.
            LocaleCanonicalizer::new_extended().canonicalize(&mut language);
            PluralRules::try_new_cardinal((&language).into()).ok()
        });
    match rules.map(|rules| rules.category_for(number)) {
        Some(PluralCategory::Zero) => "zero",
        Some(PluralCategory::One) => "one",
        Some(PluralCategory::Two) => "two",
        Some(PluralCategory::Few) => "few",
        Some(PluralCategory::Many) => "many",
        Some(PluralCategory::Other) | None => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_66_locales_have_complete_phrases() {
        assert_eq!(LANGUAGES.len(), 66);
        for (tag, language) in LANGUAGES.iter() {
            let phrases = &language.phrases;
            assert_eq!(phrases.greeting_from.matches("{brand}").count(), 1, "{tag}");
            for text in [
                &phrases.greeting,
                &phrases.code_is,
                &phrases.again,
                &phrases.press,
                &phrases.press_again,
                &phrases.goodbye,
            ] {
                assert!(
                    !text.is_empty() && !text.contains(['{', '<', '&']),
                    "{tag}: {text}"
                );
            }
            assert!(
                language
                    .digits
                    .iter()
                    .all(|word| !word.is_empty() && !word.contains(char::is_numeric)),
                "{tag}"
            );
            let words: std::collections::BTreeSet<_> = language.digits.iter().collect();
            assert_eq!(words.len(), 10, "{tag}");
        }
    }

    #[test]
    fn every_plural_form_that_a_language_has_is_written() {
        for (tag, language) in LANGUAGES.iter() {
            for minutes in 1..=60 {
                let (category, phrases) = (category(tag, minutes), &language.phrases.valid);
                let written =
                    phrases.contains_key(category) || phrases.contains_key(&format!("={minutes}"));
                // Some languages have no plural.
                assert!(
                    written || phrases.len() == 1,
                    "{tag}: {category} for {minutes}"
                );
                let text = language.valid(tag, minutes).unwrap();
                assert!(!text.contains('{') && !text.is_empty(), "{tag}: {text}");
            }
            for known in language.phrases.valid.keys() {
                assert!(
                    ["=1", "zero", "one", "two", "few", "many", "other"].contains(&known.as_str()),
                    "{tag}: {known}"
                );
            }
        }
    }

    #[test]
    fn plural_forms_are_right_where_they_are_many() {
        for (tag, minutes, text) in [
            ("pl-PL", 1, "Kod jest ważny jeszcze przez jedną minutę."),
            ("pl-PL", 3, "Kod jest ważny jeszcze przez 3 minuty."),
            ("pl-PL", 12, "Kod jest ważny jeszcze przez 12 minut."),
            ("pl-PL", 22, "Kod jest ważny jeszcze przez 22 minuty."),
            ("ru-RU", 21, "Код действует ещё 21 минуту."),
            ("ru-RU", 11, "Код действует ещё 11 минут."),
            ("cs-CZ", 4, "Kód platí ještě 4 minuty."),
            ("cs-CZ", 5, "Kód platí ještě 5 minut."),
            ("ar-XA", 2, "هذا الرمز صالح لمدة دقيقتين."),
            ("ar-XA", 5, "هذا الرمز صالح لمدة 5 دقائق."),
            ("arb", 10, "هذا الرمز صالح لمدة 10 دقائق."),
            ("ar-XA", 11, "هذا الرمز صالح لمدة 11 دقيقة."),
            ("lt-LT", 21, "Šis kodas galioja dar 21 minutę."),
            ("lt-LT", 15, "Šis kodas galioja dar 15 minučių."),
            ("ro-RO", 5, "Codul mai este valabil 5 minute."),
            ("ro-RO", 25, "Codul mai este valabil 25 de minute."),
            ("cy-GB", 2, "Mae'r cod hwn yn ddilys am ddwy funud arall."),
            ("de-DE", 1, "Dieser Code ist noch eine Minute gültig."),
            ("ja-JP", 4, "このコードはあと4分間有効です。"),
        ] {
            assert_eq!(LANGUAGES[tag].valid(tag, minutes).as_deref(), Some(text));
        }
    }
}
