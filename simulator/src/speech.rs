//! Speech synthesis without sound: turns text into utterances with durations.
//!
//! The durations are estimates in the middle of what Twilio's voices need. They grow with the text
//! and shrink with the rate, so that simulated calls last about as long as real ones.

use std::sync::Arc;
use std::time::Duration;

use crate::utterance::{Utterance, UtteranceKind};

/// How long one letter or digit on its own takes.
const CHARACTER_TIME: Duration = Duration::from_millis(450);

/// How long a letter within a word takes, with its share of the gap between words.
const LETTER_TIME: Duration = Duration::from_millis(65);

/// How long a character takes in scripts that write a syllable or a word with one sign.
const SYLLABLE_TIME: Duration = Duration::from_millis(200);

/// How much speech is synthesized at most. Twilio ends calls before
/// (<https://www.twilio.com/docs/voice/api/call-resource#create-a-call-resource>, `TimeLimit`).
const MAX_SPEECH: Duration = Duration::from_hours(4);

/// Languages in which a digit with a full stop is an ordinal: "4." means "the fourth".
const ORDINAL_LANGUAGES: [&str; 14] = [
    "cs", "da", "de", "et", "eu", "fi", "hr", "hu", "is", "lv", "nb", "sk", "sl", "tr",
];

/// How a stretch of text is spoken.
#[derive(Debug, Clone)]
pub(crate) struct VoiceStyle {
    pub(crate) language: Arc<str>,
    pub(crate) voice: Arc<str>,
    /// The speech rate: 1 is the voice's own, 2 is twice as fast.
    pub(crate) rate: f64,
    /// Whether every letter and digit is spoken on its own.
    pub(crate) spelled: bool,
}

/// Collects the utterances of a document, or of a part of it.
#[derive(Debug, Default)]
pub(crate) struct SpeechSynthesizer {
    utterances: Vec<Utterance>,
    duration: Duration,
}

impl SpeechSynthesizer {
    /// Adds a stretch of text.
    pub(crate) fn say(&mut self, text: &str, style: &VoiceStyle) {
        if let Some(digit) = voice_otp::speech::digit(&style.language, text.trim()) {
            // The text is one word for a digit, between two pauses.
            self.push(
                text.trim().to_owned(),
                Some(digit),
                UtteranceKind::Character,
                CHARACTER_TIME.div_f64(style.rate),
                style,
            );
            return;
        }
        let mut words: Vec<&str> = Vec::new();
        for token in text.split_whitespace() {
            if style.spelled {
                for character in token.chars().filter(|c| c.is_alphanumeric()) {
                    self.character(character, style);
                }
            } else if let Some(character) = single_character(token, text, style) {
                self.words(&mut words, style);
                self.character(character, style);
            } else if !words.is_empty() || token.contains(char::is_alphanumeric) {
                // What is left out is a comma between two digits: a breath, not a word.
                words.push(token);
            }
        }
        self.words(&mut words, style);
    }

    /// Adds a silence.
    pub(crate) fn pause(&mut self, duration: Duration, style: &VoiceStyle) {
        if duration > Duration::ZERO {
            self.push(String::new(), None, UtteranceKind::Pause, duration, style);
        }
    }

    /// Adds something that takes time and isn't speech, such as a recording.
    pub(crate) fn play(&mut self, what: &str, duration: Duration, style: &VoiceStyle) {
        self.push(what.to_owned(), None, UtteranceKind::Words, duration, style);
    }

    /// Repeats everything since the mark `from`, so that it is played `times` times in all.
    pub(crate) fn repeat(&mut self, from: usize, times: u32) {
        let once: Vec<Utterance> = self.utterances.iter().skip(from).cloned().collect();
        for _ in 1..times {
            if once.is_empty() || self.duration > MAX_SPEECH {
                return;
            }
            self.duration += once
                .iter()
                .map(|utterance| utterance.duration)
                .sum::<Duration>();
            self.utterances.extend(once.iter().cloned());
        }
    }

    /// A mark for [`SpeechSynthesizer::repeat`]: how many utterances there are so far.
    pub(crate) fn mark(&self) -> usize {
        self.utterances.len()
    }

    pub(crate) fn into_utterances(self) -> Vec<Utterance> {
        self.utterances
    }

    fn character(&mut self, character: char, style: &VoiceStyle) {
        self.push(
            character.to_string(),
            Some(character),
            UtteranceKind::Character,
            CHARACTER_TIME.div_f64(style.rate),
            style,
        );
    }

    fn words(&mut self, words: &mut Vec<&str>, style: &VoiceStyle) {
        if words.is_empty() {
            return;
        }
        let text = words.join(" ");
        words.clear();
        let duration: Duration = text
            .chars()
            .map(|c| {
                if c < '\u{2e80}' {
                    LETTER_TIME
                } else {
                    SYLLABLE_TIME
                }
            })
            .sum();
        self.push(
            text,
            None,
            UtteranceKind::Words,
            duration.div_f64(style.rate),
            style,
        );
    }

    fn push(
        &mut self,
        text: String,
        symbol: Option<char>,
        kind: UtteranceKind,
        duration: Duration,
        style: &VoiceStyle,
    ) {
        if self.duration > MAX_SPEECH {
            return;
        }
        self.duration += duration;
        let (language, voice) = (Arc::clone(&style.language), Arc::clone(&style.voice));
        self.utterances.push(Utterance {
            text,
            symbol,
            kind,
            language,
            voice,
            duration,
        });
    }
}

/// The letter or digit that this token is, if it is spoken as one character.
///
/// In running text, digits and capital letters are; a small letter may be a word, as "a" is. In a
/// text that consists of one letter (between two SSML breaks, for example), a small letter is, too.
fn single_character(token: &str, text: &str, style: &VoiceStyle) -> Option<char> {
    let mut characters = token.chars();
    let first = characters.next().filter(char::is_ascii_alphanumeric)?;
    let rest = characters.as_str();
    if !rest
        .chars()
        .all(|c| c.is_ascii_punctuation() || matches!(c, '،' | '、' | '。' | '，'))
    {
        return None;
    }
    let language = style.language.split('-').next().unwrap_or_default();
    if rest == "." && first.is_ascii_digit() && ORDINAL_LANGUAGES.contains(&language) {
        return None;
    }
    (!first.is_ascii_lowercase() || text.trim() == token).then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spoken(text: &str, language: &str, spelled: bool) -> Vec<(UtteranceKind, String)> {
        let style = VoiceStyle {
            language: language.into(),
            voice: "man".into(),
            rate: 1.0,
            spelled,
        };
        let mut synthesizer = SpeechSynthesizer::default();
        synthesizer.say(text, &style);
        synthesizer
            .into_utterances()
            .into_iter()
            .map(|utterance| (utterance.kind, utterance.text))
            .collect()
    }

    #[track_caller]
    fn check(text: &str, language: &str, expected: &[(UtteranceKind, &str)]) {
        let spoken = spoken(text, language, false);
        let spoken: Vec<_> = spoken
            .iter()
            .map(|(kind, text)| (*kind, text.as_str()))
            .collect();
        assert_eq!(spoken, expected, "{text}");
    }

    #[test]
    fn digits_are_spoken_on_their_own_only_when_separated() {
        check(
            "Code: 4, 9",
            "en-US",
            &[
                (UtteranceKind::Words, "Code:"),
                (UtteranceKind::Character, "4"),
                (UtteranceKind::Character, "9"),
            ],
        );
        check(
            "4 , 9",
            "en-US",
            &[
                (UtteranceKind::Character, "4"),
                (UtteranceKind::Character, "9"),
            ],
        );
        check("Code 4921", "en-US", &[(UtteranceKind::Words, "Code 4921")]);
        check(
            "B 7",
            "en-US",
            &[
                (UtteranceKind::Character, "B"),
                (UtteranceKind::Character, "7"),
            ],
        );
    }

    #[test]
    fn a_small_letter_is_a_word_unless_it_is_the_whole_text() {
        check("a code", "en-US", &[(UtteranceKind::Words, "a code")]);
        check(" b ", "en-US", &[(UtteranceKind::Character, "b")]);
    }

    #[test]
    fn a_digit_with_a_full_stop_is_an_ordinal_in_german() {
        check("4. 9.", "de-DE", &[(UtteranceKind::Words, "4. 9.")]);
        check(
            "4. 9.",
            "en-US",
            &[
                (UtteranceKind::Character, "4"),
                (UtteranceKind::Character, "9"),
            ],
        );
    }

    #[test]
    fn spelled_text_is_spoken_character_by_character() {
        let expected: Vec<_> = ["4", "a", "2"]
            .map(|c| (UtteranceKind::Character, c.to_owned()))
            .into();
        assert_eq!(spoken("4a-2", "en-US", true), expected);
    }

    #[test]
    fn slow_speech_takes_longer() {
        let style = VoiceStyle {
            language: "en-US".into(),
            voice: "man".into(),
            rate: 0.5,
            spelled: false,
        };
        let mut synthesizer = SpeechSynthesizer::default();
        synthesizer.say("4", &style);
        let spoken = synthesizer.into_utterances();
        assert_eq!(spoken.len(), 1);
        assert_eq!(spoken[0].duration, CHARACTER_TIME * 2);
    }

    #[test]
    fn endless_repetition_stops_after_four_hours() {
        let style = VoiceStyle {
            language: "en-US".into(),
            voice: "man".into(),
            rate: 1.0,
            spelled: false,
        };
        let mut synthesizer = SpeechSynthesizer::default();
        synthesizer.pause(Duration::from_hours(1), &style);
        synthesizer.repeat(0, 1_000);
        assert_eq!(synthesizer.mark(), 5);
    }
}
