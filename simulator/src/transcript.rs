//! What the person on the phone hears.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::twiml;

/// The fewest characters that make a code.
const SHORTEST_CODE: usize = 4;

/// A silence from which on the next character begins another reading.
const BETWEEN_READINGS: Duration = Duration::from_secs(2);

/// What a call says, in order, and how much of it was heard. `Display` gives the part that was heard, as in
/// `Your code is: 4 (0.6 s) 9 (0.6 s)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transcript {
    /// Everything that is said if nobody hangs up.
    pub spoken: Vec<Utterance>,
    heard: Duration,
}

/// One stretch of a transcript.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Utterance {
    /// What is said; empty for a pause.
    pub text: String,
    /// The letter or digit that is said on its own, where one is: also as a word, as in `four`.
    pub symbol: Option<char>,
    /// What sort of stretch it is.
    pub kind: Kind,
    /// The language it is said in.
    pub language: Arc<str>,
    /// The voice that says it; `man` where the `TwiML` names none, as at Twilio.
    pub voice: Arc<str>,
    /// How long it takes, by estimate.
    pub lasts: Duration,
}

/// The sorts of stretches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Words, said as words. A number such as `4921` is one, and so is `4.` where that is an ordinal.
    Words,
    /// One letter or digit on its own.
    Character,
    /// Silence.
    Pause,
}

impl Transcript {
    /// What inline `TwiML` says, heard to its end.
    ///
    /// # Errors
    /// Anything that would keep Twilio from saying it: see [`twiml::Error`].
    pub fn of(twiml: &str) -> Result<Self, twiml::Error> {
        twiml::listen(twiml).map(Self::new)
    }

    pub(crate) fn new(spoken: Vec<Utterance>) -> Self {
        Self {
            spoken,
            heard: Duration::MAX,
        }
    }

    /// The same, hung up after this much of it.
    #[must_use]
    pub fn until(self, heard: Duration) -> Self {
        Self { heard, ..self }
    }

    /// How long all of it takes.
    pub fn length(&self) -> Duration {
        self.spoken.iter().map(|utterance| utterance.lasts).sum()
    }

    /// The readings of a code that were heard from their first to their last character, in order.
    ///
    /// A reading is a run of at least four characters, each on its own, with nothing but short silences between them.
    pub fn readings_heard(&self) -> Vec<String> {
        let mut readings = Readings::default();
        let mut at = Duration::ZERO;
        for utterance in &self.spoken {
            at += utterance.lasts;
            match utterance.kind {
                Kind::Character if at <= self.heard => readings.run.extend(utterance.symbol),
                // Hung up in the middle of a reading: it doesn't count.
                Kind::Character => return readings.heard,
                Kind::Pause if utterance.lasts < BETWEEN_READINGS => {}
                Kind::Words | Kind::Pause => readings.end(),
            }
        }
        readings.end();
        readings.heard
    }

    /// The characters of the code, from the readings that were heard fully; empty if none was. Readings that differ
    /// from one another stand one after the other, with spaces between them.
    pub fn digits_heard(&self) -> String {
        let mut readings = self.readings_heard();
        readings.dedup();
        readings.join(" ")
    }
}

impl fmt::Display for Transcript {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut at = Duration::ZERO;
        let mut space = "";
        for utterance in &self.spoken {
            at += utterance.lasts;
            if at > self.heard {
                break;
            }
            match utterance.kind {
                Kind::Pause => write!(f, "{space}({} s)", utterance.lasts.as_secs_f64())?,
                Kind::Words | Kind::Character => write!(f, "{space}{}", utterance.text)?,
            }
            space = " ";
        }
        Ok(())
    }
}

/// The readings found so far, and the run of characters that may become the next.
#[derive(Default)]
struct Readings {
    run: String,
    heard: Vec<String>,
}

impl Readings {
    fn end(&mut self) {
        let run = std::mem::take(&mut self.run);
        if run.chars().count() >= SHORTEST_CODE {
            self.heard.push(run);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWICE: &str = r#"<Response><Say language="en-US" voice="Polly.Joanna-Neural">Your code is:
        4<break time="600ms"/>9<break time="600ms"/>2<break time="600ms"/>1<break time="600ms"/></Say>
        <Pause length="1"/>
        <Say language="en-US" voice="Polly.Joanna-Neural">Again:
        4<break time="600ms"/>9<break time="600ms"/>2<break time="600ms"/>1<break time="600ms"/></Say></Response>"#;

    #[test]
    fn a_transcript_reads_like_the_call() {
        let transcript = Transcript::of(TWICE).unwrap();
        assert_eq!(
            transcript.to_string(),
            "Your code is: 4 (0.6 s) 9 (0.6 s) 2 (0.6 s) 1 (0.6 s) (1 s) Again: 4 (0.6 s) 9 (0.6 s) 2 (0.6 s) 1 (0.6 s)"
        );
        assert_eq!(transcript.readings_heard(), ["4921", "4921"]);
        assert_eq!(transcript.digits_heard(), "4921");
        let first = &transcript.spoken[0];
        assert_eq!(
            (&*first.language, &*first.voice, first.kind),
            ("en-US", "Polly.Joanna-Neural", Kind::Words)
        );
    }

    #[test]
    fn a_reading_that_was_cut_off_was_not_heard() {
        let whole = Transcript::of(TWICE).unwrap();
        let up_to = |character: usize| {
            let mut left = character;
            let mut lasts = Duration::ZERO;
            for utterance in &whole.spoken {
                lasts += utterance.lasts;
                left -= usize::from(utterance.kind == Kind::Character);
                if left == 0 {
                    break;
                }
            }
            lasts
        };
        let hung_up = |after: Duration| Transcript::of(TWICE).unwrap().until(after);
        assert_eq!(hung_up(up_to(3)).digits_heard(), "");
        assert_eq!(
            hung_up(up_to(3)).to_string(),
            "Your code is: 4 (0.6 s) 9 (0.6 s) 2"
        );
        assert_eq!(hung_up(up_to(4)).readings_heard(), ["4921"]);
        assert_eq!(hung_up(up_to(7)).readings_heard(), ["4921"]);
        assert_eq!(hung_up(up_to(8)).readings_heard(), ["4921", "4921"]);
        assert_eq!(hung_up(Duration::ZERO).to_string(), "");
    }

    #[test]
    fn a_long_silence_parts_two_readings() {
        let code = "4 9 2 1";
        let parted = format!(
            r#"<Response><Say>{code}</Say><Pause length="2"/><Say>{code}</Say></Response>"#
        );
        assert_eq!(
            Transcript::of(&parted).unwrap().readings_heard(),
            ["4921", "4921"]
        );
        let run_on = format!(r"<Response><Say>{code}</Say><Pause/><Say>{code}</Say></Response>");
        assert_eq!(
            Transcript::of(&run_on).unwrap().readings_heard(),
            ["49214921"]
        );
    }

    #[test]
    fn readings_that_differ_are_all_shown() {
        let twiml = "<Response><Say>Code 1 2 3 4. Again: 1 2 3 5</Say></Response>";
        assert_eq!(Transcript::of(twiml).unwrap().digits_heard(), "1234 1235");
    }
}
