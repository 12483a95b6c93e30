//! What the callee hears.

use std::fmt;
use std::time::Duration;

use crate::twiml;
use crate::utterance::{Utterance, UtteranceKind};

/// The fewest characters that count as a code.
const MIN_CODE_LENGTH: usize = 4;

/// A silence of this length or more separates two readings.
const READING_SEPARATOR: Duration = Duration::from_secs(2);

/// What a call plays, in order, and how much of it the callee heard. `Display` writes the part that
/// was heard, as in `Your code is: 4 (0.6 s) 9 (0.6 s)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transcript {
    /// Everything that the call plays if it isn't hung up.
    pub spoken: Vec<Utterance>,
    /// How much of it was heard, from its beginning.
    heard: Duration,
}

impl Transcript {
    /// What inline `TwiML` plays, heard to its end.
    ///
    /// # Errors
    /// Twilio could not play it: see [`twiml::Error`].
    pub fn of(twiml: &str) -> Result<Self, twiml::Error> {
        twiml::listen(twiml).map(Self::new)
    }

    pub(crate) fn new(spoken: Vec<Utterance>) -> Self {
        Self {
            spoken,
            heard: Duration::MAX,
        }
    }

    /// The same transcript, hung up after this much of it.
    #[must_use]
    pub fn until(self, heard: Duration) -> Self {
        Self { heard, ..self }
    }

    /// How long all of it takes.
    pub fn length(&self) -> Duration {
        self.spoken.iter().map(|utterance| utterance.duration).sum()
    }

    /// The readings of a code that were heard from their first to their last character, in order.
    ///
    /// A reading is a run of at least four characters, each on its own, with nothing but silences
    /// of less than two seconds between them.
    pub fn readings_heard(&self) -> Vec<String> {
        let mut readings = Readings::default();
        let mut at = Duration::ZERO;
        for utterance in &self.spoken {
            at += utterance.duration;
            match utterance.kind {
                UtteranceKind::Character if at <= self.heard => {
                    readings.run.extend(utterance.symbol);
                }
                // The call was hung up in the middle of this reading, which doesn't count.
                UtteranceKind::Character => return readings.heard,
                UtteranceKind::Pause if utterance.duration < READING_SEPARATOR => {}
                UtteranceKind::Words | UtteranceKind::Pause => readings.end(),
            }
        }
        readings.end();
        readings.heard
    }

    /// The characters of the code, from the readings that were heard in full; empty if none was.
    /// Consecutive readings that differ are all given, with spaces between them.
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
            at += utterance.duration;
            if at > self.heard {
                break;
            }
            match utterance.kind {
                UtteranceKind::Pause => {
                    write!(f, "{space}({} s)", utterance.duration.as_secs_f64())?;
                }
                UtteranceKind::Words | UtteranceKind::Character => {
                    write!(f, "{space}{}", utterance.text)?;
                }
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
    /// Ends the run. It counts as a reading if it is long enough for a code.
    fn end(&mut self) {
        let run = std::mem::take(&mut self.run);
        if run.chars().count() >= MIN_CODE_LENGTH {
            self.heard.push(run);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWICE: &str = r#"<Response><Say language="en-US" voice="Polly.Joanna-Neural">Your code is:
        4<break time="600ms"/>9<break time="600ms"/>2<break time="600ms"/>1<break time="600ms"/>
        </Say><Pause length="1"/>
        <Say language="en-US" voice="Polly.Joanna-Neural">Again:
        4<break time="600ms"/>9<break time="600ms"/>2<break time="600ms"/>1<break time="600ms"/>
        </Say></Response>"#;

    #[test]
    fn a_transcript_reads_like_the_call() {
        let transcript = Transcript::of(TWICE).unwrap();
        assert_eq!(
            transcript.to_string(),
            "Your code is: 4 (0.6 s) 9 (0.6 s) 2 (0.6 s) 1 (0.6 s) (1 s) \
             Again: 4 (0.6 s) 9 (0.6 s) 2 (0.6 s) 1 (0.6 s)"
        );
        assert_eq!(transcript.readings_heard(), ["4921", "4921"]);
        assert_eq!(transcript.digits_heard(), "4921");
        let first = &transcript.spoken[0];
        assert_eq!(
            (&*first.language, &*first.voice, first.kind),
            ("en-US", "Polly.Joanna-Neural", UtteranceKind::Words)
        );
    }

    #[test]
    fn a_reading_that_was_cut_off_was_not_heard() {
        let whole = Transcript::of(TWICE).unwrap();
        let up_to = |character: usize| {
            let mut left = character;
            let mut duration = Duration::ZERO;
            for utterance in &whole.spoken {
                duration += utterance.duration;
                left -= usize::from(utterance.kind == UtteranceKind::Character);
                if left == 0 {
                    break;
                }
            }
            duration
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
    fn a_long_silence_separates_two_readings() {
        let code = "4 9 2 1";
        let separated = format!(
            r#"<Response><Say>{code}</Say><Pause length="2"/><Say>{code}</Say></Response>"#
        );
        assert_eq!(
            Transcript::of(&separated).unwrap().readings_heard(),
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
