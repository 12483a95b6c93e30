//! From text to utterances: which characters stand on their own, and how long it all takes.
//!
//! The lengths are estimates in the middle of what Twilio's voices need. What matters is that they grow with the text,
//! so that a code that is read slowly and three times takes as long as it would in a person's ear.

use std::sync::Arc;
use std::time::Duration;

use super::transcript::{Kind, Utterance};

/// One letter or digit on its own.
const CHARACTER: Duration = Duration::from_millis(450);

/// A letter within a word, with its share of the gap between words.
const LETTER: Duration = Duration::from_millis(65);

/// A character of a script that writes syllables or words with one sign.
const SYLLABLE: Duration = Duration::from_millis(200);

/// Longer than Twilio lets any call last: what comes after isn't worth writing down.
const LONGEST: Duration = Duration::from_hours(4);

/// Languages in which a digit with a full stop is an ordinal: "4." is "the fourth".
const ORDINAL_LANGUAGES: [&str; 14] = [
    "cs", "da", "de", "et", "eu", "fi", "hr", "hu", "is", "lv", "nb", "sk", "sl", "tr",
];

/// How a stretch of text is said.
#[derive(Debug, Clone)]
pub(crate) struct Manner {
    pub(crate) language: Arc<str>,
    pub(crate) voice: Arc<str>,
    /// 1 is the voice's own pace, 2 twice as fast.
    pub(crate) rate: f64,
    /// Every letter and digit on its own.
    pub(crate) spelled: bool,
}

/// Writes down what is said.
#[derive(Debug, Default)]
pub(crate) struct Speaker {
    spoken: Vec<Utterance>,
    lasts: Duration,
}

impl Speaker {
    /// Says a stretch of text.
    pub(crate) fn say(&mut self, text: &str, manner: &Manner) {
        if let Some(digit) = voice_otp::speech::digit(&manner.language, text.trim()) {
            // A digit's word that is all there is, between two pauses.
            self.push(
                text.trim().to_owned(),
                Some(digit),
                Kind::Character,
                CHARACTER.div_f64(manner.rate),
                manner,
            );
            return;
        }
        let mut words: Vec<&str> = Vec::new();
        for token in text.split_whitespace() {
            if manner.spelled {
                for character in token.chars().filter(|c| c.is_alphanumeric()) {
                    self.character(character, manner);
                }
            } else if let Some(character) = alone(token, text, manner) {
                self.words(&mut words, manner);
                self.character(character, manner);
            } else if !words.is_empty() || token.contains(char::is_alphanumeric) {
                // Else it is a comma between two digits: a breath, not a word.
                words.push(token);
            }
        }
        self.words(&mut words, manner);
    }

    /// Says nothing for a while.
    pub(crate) fn pause(&mut self, lasts: Duration, manner: &Manner) {
        if lasts > Duration::ZERO {
            self.push(String::new(), None, Kind::Pause, lasts, manner);
        }
    }

    /// Something that takes time and is no speech, such as a recording.
    pub(crate) fn play(&mut self, what: &str, lasts: Duration, manner: &Manner) {
        self.push(what.to_owned(), None, Kind::Words, lasts, manner);
    }

    /// Says everything since `from` again until it has been said `times` times.
    pub(crate) fn repeat(&mut self, from: usize, times: u32) {
        let once: Vec<Utterance> = self.spoken.iter().skip(from).cloned().collect();
        for _ in 1..times {
            if once.is_empty() || self.lasts > LONGEST {
                return;
            }
            self.lasts += once
                .iter()
                .map(|utterance| utterance.lasts)
                .sum::<Duration>();
            self.spoken.extend(once.iter().cloned());
        }
    }

    /// How many utterances there are so far: a mark for [`Speaker::repeat`].
    pub(crate) fn mark(&self) -> usize {
        self.spoken.len()
    }

    pub(crate) fn into_spoken(self) -> Vec<Utterance> {
        self.spoken
    }

    fn character(&mut self, character: char, manner: &Manner) {
        self.push(
            character.to_string(),
            Some(character),
            Kind::Character,
            CHARACTER.div_f64(manner.rate),
            manner,
        );
    }

    fn words(&mut self, words: &mut Vec<&str>, manner: &Manner) {
        if words.is_empty() {
            return;
        }
        let text = words.join(" ");
        words.clear();
        let lasts: Duration = text
            .chars()
            .map(|c| if c < '\u{2e80}' { LETTER } else { SYLLABLE })
            .sum();
        self.push(text, None, Kind::Words, lasts.div_f64(manner.rate), manner);
    }

    fn push(
        &mut self,
        text: String,
        symbol: Option<char>,
        kind: Kind,
        lasts: Duration,
        manner: &Manner,
    ) {
        if self.lasts > LONGEST {
            return;
        }
        self.lasts += lasts;
        let (language, voice) = (Arc::clone(&manner.language), Arc::clone(&manner.voice));
        self.spoken.push(Utterance {
            text,
            symbol,
            kind,
            language,
            voice,
            lasts,
        });
    }
}

/// The letter or digit that this token is, if it is said as one character.
///
/// In running text only digits and capitals are; a small letter may be a word, as "a" is. A text that is nothing but
/// one letter (between two SSML breaks, say) is a character in either case.
fn alone(token: &str, text: &str, manner: &Manner) -> Option<char> {
    let mut characters = token.chars();
    let first = characters.next().filter(char::is_ascii_alphanumeric)?;
    let rest = characters.as_str();
    if !rest
        .chars()
        .all(|c| c.is_ascii_punctuation() || matches!(c, '،' | '、' | '。' | '，'))
    {
        return None;
    }
    let language = manner.language.split('-').next().unwrap_or_default();
    if rest == "." && first.is_ascii_digit() && ORDINAL_LANGUAGES.contains(&language) {
        return None;
    }
    (!first.is_ascii_lowercase() || text.trim() == token).then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str, language: &str, spelled: bool) -> Vec<(Kind, String)> {
        let manner = Manner {
            language: language.into(),
            voice: "man".into(),
            rate: 1.0,
            spelled,
        };
        let mut speaker = Speaker::default();
        speaker.say(text, &manner);
        speaker
            .into_spoken()
            .into_iter()
            .map(|utterance| (utterance.kind, utterance.text))
            .collect()
    }

    #[track_caller]
    fn check(text: &str, language: &str, expected: &[(Kind, &str)]) {
        let said = said(text, language, false);
        let said: Vec<_> = said
            .iter()
            .map(|(kind, text)| (*kind, text.as_str()))
            .collect();
        assert_eq!(said, expected, "{text}");
    }

    #[test]
    fn digits_stand_on_their_own_only_when_parted() {
        check(
            "Code: 4, 9",
            "en-US",
            &[
                (Kind::Words, "Code:"),
                (Kind::Character, "4"),
                (Kind::Character, "9"),
            ],
        );
        check(
            "4 , 9",
            "en-US",
            &[(Kind::Character, "4"), (Kind::Character, "9")],
        );
        check("Code 4921", "en-US", &[(Kind::Words, "Code 4921")]);
        check(
            "B 7",
            "en-US",
            &[(Kind::Character, "B"), (Kind::Character, "7")],
        );
    }

    #[test]
    fn a_small_letter_is_a_word_unless_it_is_all_there_is() {
        check("a code", "en-US", &[(Kind::Words, "a code")]);
        check(" b ", "en-US", &[(Kind::Character, "b")]);
    }

    #[test]
    fn a_digit_with_a_full_stop_is_an_ordinal_in_german() {
        check("4. 9.", "de-DE", &[(Kind::Words, "4. 9.")]);
        check(
            "4. 9.",
            "en-US",
            &[(Kind::Character, "4"), (Kind::Character, "9")],
        );
    }

    #[test]
    fn spelled_text_is_said_character_by_character() {
        let expected: Vec<_> = ["4", "a", "2"]
            .map(|c| (Kind::Character, c.to_owned()))
            .into();
        assert_eq!(said("4a-2", "en-US", true), expected);
    }

    #[test]
    fn slow_speech_takes_longer() {
        let manner = Manner {
            language: "en-US".into(),
            voice: "man".into(),
            rate: 0.5,
            spelled: false,
        };
        let mut speaker = Speaker::default();
        speaker.say("4", &manner);
        let spoken = speaker.into_spoken();
        assert_eq!(spoken.len(), 1);
        assert_eq!(spoken[0].lasts, CHARACTER * 2);
    }

    #[test]
    fn endless_repetition_ends_with_the_longest_call() {
        let manner = Manner {
            language: "en-US".into(),
            voice: "man".into(),
            rate: 1.0,
            spelled: false,
        };
        let mut speaker = Speaker::default();
        speaker.pause(Duration::from_hours(1), &manner);
        speaker.repeat(0, 1_000);
        assert_eq!(speaker.mark(), 5);
    }
}
