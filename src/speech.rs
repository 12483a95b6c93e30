//! What is said, in which language: text and pauses, and Twilio's name of the voice.

mod language;
mod manner;
mod matching;

use std::time::Duration;

use voice_otp_schemas::phone::Country;
use voice_otp_schemas::{Locale, OtpCode};

use self::language::{LANGUAGES, Language};
use self::manner::BRAND;
pub use self::manner::{EVERY_LOCALE, Manner};

/// What is said in a call, or in a turn of one.
#[derive(Debug, Clone)]
pub struct Script {
    /// The language, one that we speak.
    pub locale: String,
    /// Twilio's name of the voice; it speaks the language.
    pub voice: String,
    /// How fast it is said, in percent of the voice's own pace.
    pub rate_percent: u32,
    /// What is said and kept silent, in order. Secret: it may hold the code.
    pub parts: Vec<Part>,
    /// How long it takes until the code has been read once; all of it, where there is no code.
    pub heard_after: Duration,
}

/// A piece of a script.
#[derive(Clone, PartialEq, Eq)]
pub enum Part {
    /// Words.
    Text(String),
    /// The word for one character of the code.
    Symbol(String),
    /// Silence within a sentence.
    Break(Duration),
    /// Silence between sentences, whole seconds.
    Pause(Duration),
}

/// How long saying one character of the code takes, roughly, at the voice's own pace.
const SYMBOL_SPOKEN: Duration = Duration::from_millis(450);
/// What is said where nothing else is known.
const LAST_RESORT: &str = "en-US";

/// Who speaks: a language, in a tenant's manner.
#[derive(Debug, Clone, Copy)]
pub struct Speaker<'a> {
    tag: &'static str,
    language: &'static Language,
    manner: &'a Manner,
}

/// A locale that we speak, for people.
#[derive(Debug, Clone, Copy)]
pub struct Spoken {
    /// Its tag.
    pub locale: &'static str,
    /// Its voice, unless the tenant wants another.
    pub voice: &'static str,
    /// Other voices that speak it.
    pub other_voices: &'static [String],
}

/// The digit that a word means, in a locale that we speak.
pub fn digit(locale: &str, word: &str) -> Option<char> {
    let digits = &LANGUAGES.get(locale)?.digits;
    (0..)
        .zip(digits)
        .find(|(_, known)| *known == word)
        .and_then(|(digit, _)| char::from_digit(digit, 10))
}

/// Every locale that we speak.
pub fn locales() -> impl Iterator<Item = Spoken> {
    LANGUAGES.iter().map(|(tag, language)| Spoken {
        locale: tag,
        voice: &language.voice,
        other_voices: &language.other_voices,
    })
}

#[expect(clippy::expect_used, reason = "a test knows that it is there")]
fn last_resort() -> (&'static String, &'static Language) {
    LANGUAGES
        .get_key_value(LAST_RESORT)
        .expect("English is spoken")
}

impl<'a> Speaker<'a> {
    /// Speaks the first of these languages that we have, or its nearest relative: the request's, the tenant's, the number's
    /// country's, `en-US`.
    pub fn new(
        asked: Option<&Locale>,
        tenant: Option<&Locale>,
        country: Option<Country>,
        manner: &'a Manner,
    ) -> Self {
        let tag = asked
            .and_then(matching::nearest)
            .or_else(|| tenant.and_then(matching::nearest));
        let tag = tag
            .or_else(|| country.and_then(matching::of_country))
            .unwrap_or(LAST_RESORT);
        let (tag, language) = LANGUAGES
            .get_key_value(tag)
            .unwrap_or_else(|| last_resort());
        Self {
            tag,
            language,
            manner,
        }
    }

    /// Everything: a greeting, the code as often as the tenant wants, how long it is good for, goodbye. `life` is how long the
    /// code lives from the first word on, at the least.
    pub fn message(&self, code: &OtpCode, life: Duration) -> Script {
        let mut script = self.first_reading(code);
        self.say_life(&mut script, life);
        for _ in 1..self.manner.readings {
            script.parts.push(Part::Pause(Duration::from_secs(1)));
            self.read(&mut script, code, &self.language.phrases.again);
        }
        self.end(script)
    }

    /// How long it takes until the code has been read once in that.
    pub fn heard_after(&self, code: &OtpCode) -> Duration {
        self.first_reading(code).heard_after
    }

    /// A greeting, and which key to press.
    pub fn question(&self) -> Script {
        let mut script = self.begin();
        script
            .parts
            .push(Part::Text(self.language.phrases.press.clone()));
        self.done(script)
    }

    /// Which key to press, again.
    pub fn question_again(&self) -> Script {
        let mut script = self.empty();
        script
            .parts
            .push(Part::Text(self.language.phrases.press.clone()));
        self.done(script)
    }

    /// One reading of the code to somebody who asked for it, the `reading`th from 1, and which key to press for another; at the
    /// last, goodbye.
    pub fn reading(&self, code: &OtpCode, life: Duration, reading: u32) -> Script {
        let phrases = &self.language.phrases;
        let mut script = self.empty();
        self.read(
            &mut script,
            code,
            if reading <= 1 {
                &phrases.code_is
            } else {
                &phrases.again
            },
        );
        script.heard_after = self.length(&script.parts);
        self.say_life(&mut script, life);
        if reading >= self.manner.readings {
            return self.end(script);
        }
        script.parts.push(Part::Pause(Duration::from_secs(1)));
        script.parts.push(Part::Text(phrases.press_again.clone()));
        script
    }

    /// Nothing but goodbye.
    pub fn goodbye(&self) -> Script {
        let mut script = self.empty();
        script
            .parts
            .push(Part::Text(self.language.phrases.goodbye.clone()));
        self.done(script)
    }

    /// How often the code is read at the most.
    pub fn readings(&self) -> u32 {
        self.manner.readings
    }

    fn empty(&self) -> Script {
        let voice = self
            .manner
            .voices
            .get(self.tag)
            .unwrap_or(&self.language.voice);
        Script {
            locale: self.tag.to_owned(),
            voice: voice.clone(),
            rate_percent: self.manner.rate_percent,
            parts: Vec::new(),
            heard_after: Duration::ZERO,
        }
    }

    fn begin(&self) -> Script {
        let phrases = &self.language.phrases;
        let brand = self.manner.brand(self.tag);
        let greeting = match (self.manner.greetings.get(self.tag), brand) {
            (Some(own), brand) => own.replace(BRAND, brand.unwrap_or_default()),
            (None, Some(brand)) => phrases.greeting_from.replace(BRAND, brand),
            (None, None) => phrases.greeting.clone(),
        };
        let mut script = self.empty();
        script
            .parts
            .extend([Part::Pause(Duration::from_secs(1)), Part::Text(greeting)]);
        script
    }

    fn first_reading(&self, code: &OtpCode) -> Script {
        let mut script = self.begin();
        self.read(&mut script, code, &self.language.phrases.code_is);
        script.heard_after = self.length(&script.parts);
        script
    }

    /// The code, a character at a time, with a pause after each, the last one too.
    fn read(&self, script: &mut Script, code: &OtpCode, before: &str) {
        let pause = self.manner.pause();
        let symbols: Vec<char> = code.expose().chars().collect();
        let threes = self.language.six_in_threes
            && symbols.len() == 6
            && symbols.iter().all(char::is_ascii_digit);
        script.parts.push(Part::Text(before.to_owned()));
        for (place, symbol) in symbols.into_iter().enumerate() {
            // Between two groups the pause is half as long again.
            script.parts.push(Part::Break(if threes && place == 3 {
                pause * 3 / 2
            } else {
                pause
            }));
            script
                .parts
                .push(Part::Symbol(self.language.symbol(symbol)));
        }
        script.parts.push(Part::Break(pause));
    }

    /// How many whole minutes the code is good for when that has been said; nothing below one.
    fn say_life(&self, script: &mut Script, life: Duration) {
        let minutes =
            |script: &Script| life.saturating_sub(self.length(&script.parts)).as_secs() / 60;
        let sentence = |minutes| {
            (minutes > 0)
                .then(|| self.language.valid(self.tag, minutes))
                .flatten()
        };
        let Some(said) = sentence(minutes(script)) else {
            return;
        };
        script.parts.push(Part::Text(said));
        // Saying it took its time, too.
        let left = minutes(script);
        script.parts.pop();
        script.parts.extend(sentence(left).map(Part::Text));
    }

    fn end(&self, mut script: Script) -> Script {
        script.parts.push(Part::Pause(Duration::from_secs(1)));
        script
            .parts
            .push(Part::Text(self.language.phrases.goodbye.clone()));
        script
    }

    /// A script without a code.
    fn done(&self, mut script: Script) -> Script {
        script.heard_after = self.length(&script.parts);
        script
    }

    /// How long it takes, to the millisecond, as the ledger has it.
    fn length(&self, parts: &[Part]) -> Duration {
        let rate = self.manner.rate_percent.max(1);
        let all: Duration = parts
            .iter()
            .map(|part| match part {
                Part::Text(text) => {
                    let characters = u32::try_from(text.chars().count()).unwrap_or(u32::MAX);
                    Duration::from_millis(self.language.ms_per_character.into()) * characters * 100
                        / rate
                }
                Part::Symbol(_) => SYMBOL_SPOKEN * 100 / rate,
                Part::Break(length) | Part::Pause(length) => *length,
            })
            .sum();
        Duration::from_millis(u64::try_from(all.as_millis()).unwrap_or(u64::MAX))
    }
}

impl Script {
    /// What is said, as text: a pause between sentences is a line's end, silence within one a space.
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
