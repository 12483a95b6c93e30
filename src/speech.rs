//! What a call says, and in which language: scripts of texts and pauses, each with the Twilio voice
//! that reads it.

mod language;
mod matching;
mod style;

use std::time::Duration;

use voice_otp_schemas::phone::Country;
use voice_otp_schemas::{Locale, OtpCode};

use self::language::{LANGUAGES, Language};
use self::style::BRAND_VARIABLE;
pub(crate) use self::style::StyleMember;
pub use self::style::{EVERY_LOCALE, SpeechStyle};

/// What a call says until it ends or waits for a key.
#[derive(Debug, Clone)]
pub struct Script {
    /// The locale, one of [`locales`].
    pub locale: String,
    /// Twilio's name of the voice, which supports the locale.
    pub voice: String,
    /// The speech rate, in percent of the voice's own rate.
    pub rate_percent: u32,
    /// Texts and pauses, in order. Secret: they may hold the code.
    pub parts: Vec<Part>,
    /// How long it takes, by estimate, until the code has been read once. For a script without the
    /// code, until its end.
    pub heard_after: Duration,
}

/// A part of a script. `Debug` doesn't show the code.
#[derive(Clone, PartialEq, Eq)]
pub enum Part {
    /// A sentence.
    Text(String),
    /// The word for one character of the code. Secret.
    Symbol(String),
    /// A pause within a sentence.
    Break(Duration),
    /// A pause between sentences, in whole seconds.
    Pause(Duration),
}

/// How long one character of the code takes at the voice's own rate, by estimate.
const SYMBOL_DURATION: Duration = Duration::from_millis(450);
/// The pause before the greeting, and between sentences.
const SENTENCE_PAUSE: Duration = Duration::from_secs(1);
/// The locale where no other is supported.
const FALLBACK_LOCALE: &str = "en-US";

/// Writes scripts in one language and one tenant's speech style.
#[derive(Debug, Clone, Copy)]
pub struct Speaker<'a> {
    tag: &'static str,
    language: &'static Language,
    style: &'a SpeechStyle,
}

/// A supported locale and its voices.
#[derive(Debug, Clone, Copy)]
pub struct SupportedLocale {
    /// The BCP 47 tag.
    pub locale: &'static str,
    /// Twilio's name of the voice that reads it, unless the tenant chooses another.
    pub voice: &'static str,
    /// Twilio's names of the other voices that a tenant may choose.
    pub other_voices: &'static [String],
}

/// The digit that a word means in a supported locale. The simulator understands codes with it.
pub fn digit(locale: &str, word: &str) -> Option<char> {
    let digits = &LANGUAGES.get(locale)?.digits;
    (0..)
        .zip(digits)
        .find(|(_, known)| *known == word)
        .and_then(|(digit, _)| char::from_digit(digit, 10))
}

/// Every supported locale, by tag.
pub fn locales() -> impl Iterator<Item = SupportedLocale> {
    LANGUAGES.iter().map(|(tag, language)| SupportedLocale {
        locale: tag,
        voice: &language.voice,
        other_voices: &language.other_voices,
    })
}

#[expect(
    clippy::expect_used,
    reason = "a test checks that the fallback locale is supported"
)]
fn fallback() -> (&'static String, &'static Language) {
    LANGUAGES
        .get_key_value(FALLBACK_LOCALE)
        .expect("the fallback locale is supported")
}

impl<'a> Speaker<'a> {
    /// A speaker for the first of these that is supported, or has a supported relative: the
    /// request's locale, the tenant's, the language of the number's country, `en-US`.
    pub fn new(
        requested: Option<&Locale>,
        tenant: Option<&Locale>,
        country: Option<Country>,
        style: &'a SpeechStyle,
    ) -> Self {
        let tag = requested
            .and_then(matching::nearest)
            .or_else(|| tenant.and_then(matching::nearest))
            .or_else(|| country.and_then(matching::of_country))
            .unwrap_or(FALLBACK_LOCALE);
        let (tag, language) = LANGUAGES.get_key_value(tag).unwrap_or_else(|| fallback());
        Self {
            tag,
            language,
            style,
        }
    }

    /// The whole message of a call that needs no key: a greeting, the code as many times as the
    /// tenant wants, how long it is valid, goodbye. `life` is how long the code is still valid when
    /// the call starts to speak.
    pub fn message(&self, code: &OtpCode, life: Duration) -> Script {
        let mut script = self.greeting_and_code(code);
        self.push_validity(&mut script, life);
        for _ in 1..self.style.readings {
            script.parts.push(Part::Pause(SENTENCE_PAUSE));
            self.push_code(&mut script, code, &self.language.phrases.again);
        }
        self.with_goodbye(script)
    }

    /// How long [`message`](Self::message) takes, by estimate, until the code has been read once.
    pub fn heard_after(&self, code: &OtpCode) -> Duration {
        self.greeting_and_code(code).heard_after
    }

    /// A greeting, and the prompt to press a key for the code.
    pub fn prompt(&self) -> Script {
        let mut script = self.greeting();
        script
            .parts
            .push(Part::Text(self.language.phrases.press.clone()));
        self.without_code(script)
    }

    /// The prompt to press a key for the code, without a greeting.
    pub fn prompt_again(&self) -> Script {
        let mut script = self.empty();
        script
            .parts
            .push(Part::Text(self.language.phrases.press.clone()));
        self.without_code(script)
    }

    /// One reading of the code to a callee who pressed the key, and the prompt to press it again;
    /// the last reading ends with goodbye instead. `reading` counts from 1.
    pub fn reading(&self, code: &OtpCode, life: Duration, reading: u32) -> Script {
        let phrases = &self.language.phrases;
        let mut script = self.empty();
        let intro = if reading <= 1 {
            &phrases.code_is
        } else {
            &phrases.again
        };
        self.push_code(&mut script, code, intro);
        script.heard_after = self.length(&script.parts);
        self.push_validity(&mut script, life);
        if reading >= self.style.readings {
            return self.with_goodbye(script);
        }
        script.parts.push(Part::Pause(SENTENCE_PAUSE));
        script.parts.push(Part::Text(phrases.press_again.clone()));
        script
    }

    /// Goodbye alone.
    pub fn goodbye(&self) -> Script {
        let mut script = self.empty();
        script
            .parts
            .push(Part::Text(self.language.phrases.goodbye.clone()));
        self.without_code(script)
    }

    /// How many times the code is read.
    pub fn readings(&self) -> u32 {
        self.style.readings
    }

    fn empty(&self) -> Script {
        let voice = self
            .style
            .voices
            .get(self.tag)
            .unwrap_or(&self.language.voice);
        Script {
            locale: self.tag.to_owned(),
            voice: voice.clone(),
            rate_percent: self.style.rate_percent,
            parts: Vec::new(),
            heard_after: Duration::ZERO,
        }
    }

    fn greeting(&self) -> Script {
        let phrases = &self.language.phrases;
        let brand = self.style.brand(self.tag);
        let greeting = match (self.style.greetings.get(self.tag), brand) {
            (Some(own), brand) => own.replace(BRAND_VARIABLE, brand.unwrap_or_default()),
            (None, Some(brand)) => phrases.greeting_from.replace(BRAND_VARIABLE, brand),
            (None, None) => phrases.greeting.clone(),
        };
        let mut script = self.empty();
        script
            .parts
            .extend([Part::Pause(SENTENCE_PAUSE), Part::Text(greeting)]);
        script
    }

    fn greeting_and_code(&self, code: &OtpCode) -> Script {
        let mut script = self.greeting();
        self.push_code(&mut script, code, &self.language.phrases.code_is);
        script.heard_after = self.length(&script.parts);
        script
    }

    /// Adds `intro` and the code, one character at a time, with a pause after each character.
    fn push_code(&self, script: &mut Script, code: &OtpCode, intro: &str) {
        let pause = self.style.pause();
        let symbols: Vec<char> = code.expose().chars().collect();
        let in_threes = self.language.six_in_threes
            && symbols.len() == 6
            && symbols.iter().all(char::is_ascii_digit);
        script.parts.push(Part::Text(intro.to_owned()));
        for (position, symbol) in symbols.into_iter().enumerate() {
            // The pause between the two groups is half as long again.
            let before = if in_threes && position == 3 {
                pause * 3 / 2
            } else {
                pause
            };
            script.parts.push(Part::Break(before));
            script
                .parts
                .push(Part::Symbol(self.language.symbol(symbol)));
        }
        script.parts.push(Part::Break(pause));
    }

    /// Adds for how many whole minutes the code will be valid once the sentence has been said;
    /// nothing below one minute, or if the language has no sentence for the number.
    fn push_validity(&self, script: &mut Script, life: Duration) {
        let minutes =
            |script: &Script| life.saturating_sub(self.length(&script.parts)).as_secs() / 60;
        let sentence = |minutes| {
            (minutes > 0)
                .then(|| self.language.valid(self.tag, minutes))
                .flatten()
        };
        let Some(draft) = sentence(minutes(script)) else {
            return;
        };
        // The sentence takes time too: measure with it, then write it with what is left.
        script.parts.push(Part::Text(draft));
        let left = minutes(script);
        script.parts.pop();
        script.parts.extend(sentence(left).map(Part::Text));
    }

    fn with_goodbye(&self, mut script: Script) -> Script {
        script.parts.push(Part::Pause(SENTENCE_PAUSE));
        script
            .parts
            .push(Part::Text(self.language.phrases.goodbye.clone()));
        script
    }

    /// Completes a script that doesn't hold the code.
    fn without_code(&self, mut script: Script) -> Script {
        script.heard_after = self.length(&script.parts);
        script
    }

    /// How long the parts take, by estimate, in whole milliseconds, as the ledger stores it.
    fn length(&self, parts: &[Part]) -> Duration {
        let rate = self.style.rate_percent.max(1);
        let all: Duration = parts
            .iter()
            .map(|part| match part {
                Part::Text(text) => {
                    let characters = u32::try_from(text.chars().count()).unwrap_or(u32::MAX);
                    Duration::from_millis(self.language.ms_per_character.into()) * characters * 100
                        / rate
                }
                Part::Symbol(_) => SYMBOL_DURATION * 100 / rate,
                Part::Break(length) | Part::Pause(length) => *length,
            })
            .sum();
        Duration::from_millis(u64::try_from(all.as_millis()).unwrap_or(u64::MAX))
    }
}

impl Script {
    /// The script as text: a pause between sentences becomes a line break, a pause within one a
    /// space. It holds the code.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for part in &self.parts {
            match part {
                Part::Text(words) | Part::Symbol(words) => {
                    if !text.is_empty() && !text.ends_with('\n') {
                        text.push(' ');
                    }
                    text.push_str(words);
                }
                Part::Break(_) => {}
                Part::Pause(_) if text.is_empty() => {}
                Part::Pause(_) => text.push('\n'),
            }
        }
        text
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
mod tests;
