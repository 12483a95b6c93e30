//! What a tenant wants when nobody, or nobody but a machine, picks up.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use voice_otp_schemas::status::Status;

/// What a call does about answering machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Voicemail {
    /// It speaks to whatever answers.
    #[default]
    Speak,
    /// Twilio listens first who answers; at a machine the call ends without the code.
    HangUp,
    /// Twilio listens first who answers; a machine is spoken to after its beep.
    WaitForBeep,
    /// The code is read only to who presses a key for it.
    PressKey,
}

/// How often, and after how long, a call is placed again that reached nobody.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Redial(BTreeMap<Outcome, Again>);

/// How a call can end that is worth another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The line was busy.
    Busy,
    /// Nobody answered.
    NoAnswer,
    /// The carrier could not complete the call.
    Failed,
    /// A machine answered, and the code was kept from it.
    Voicemail,
}

/// How often and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Again {
    /// Calls in addition to the first, 0 to 5.
    pub times: u32,
    /// How long after the end of the last one, in seconds: 5 to 1800.
    pub after_s: u64,
}

/// What [`crate::progress`] needs to know of a tenant's settings.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// See [`Voicemail`].
    pub voicemail: Voicemail,
    /// See [`Redial`].
    pub redial: Redial,
}

impl Voicemail {
    /// Every policy.
    pub const ALL: [Self; 4] = [Self::Speak, Self::HangUp, Self::WaitForBeep, Self::PressKey];

    /// The word for it, in settings and in the ledger.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Speak => "speak",
            Self::HangUp => "hang_up",
            Self::WaitForBeep => "wait_for_beep",
            Self::PressKey => "press_key",
        }
    }

    /// The policy of a word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|policy| policy.as_str() == word)
    }

    /// Whether Twilio must be able to ask us what to say.
    pub fn needs_public_url(self) -> bool {
        self != Self::Speak
    }
}

impl Outcome {
    /// Every outcome.
    pub const ALL: [Self; 4] = [Self::Busy, Self::NoAnswer, Self::Failed, Self::Voicemail];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::NoAnswer => "no_answer",
            Self::Failed => "failed",
            Self::Voicemail => "voicemail",
        }
    }

    /// The outcome of a word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|outcome| outcome.as_str() == word)
    }

    fn of(status: Status) -> Option<Self> {
        Self::from_word(status.as_str())
    }
}

impl Redial {
    /// Sets what happens after an outcome.
    pub fn set(&mut self, outcome: Outcome, again: Again) {
        if again.times == 0 {
            self.0.remove(&outcome);
        } else {
            self.0.insert(outcome, again);
        }
    }

    /// What is set, by outcome.
    pub fn iter(&self) -> impl Iterator<Item = (Outcome, Again)> {
        self.0.iter().map(|(outcome, again)| (*outcome, *again))
    }

    /// How long after a call that ended like this the next is placed; `redials` counts those there have been.
    pub fn after(&self, status: Status, redials: u32) -> Option<Duration> {
        let again = self.0.get(&Outcome::of(status)?)?;
        (redials < again.times).then_some(Duration::from_secs(again.after_s))
    }

    /// What is wrong with it.
    pub(crate) fn problem(&self) -> Option<String> {
        let bad = self
            .0
            .iter()
            .find(|(_, again)| again.times > 5 || !(5..=1_800).contains(&again.after_s));
        bad.map(|(outcome, _)| {
            format!(
                "{}: at most 5 times, each 5 s to 30 min after the last",
                outcome.as_str()
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_placed_again_as_often_as_its_outcome_allows() {
        let mut redial = Redial::default();
        assert_eq!(redial.after(Status::Busy, 0), None);
        redial.set(
            Outcome::Busy,
            Again {
                times: 2,
                after_s: 30,
            },
        );
        redial.set(
            Outcome::NoAnswer,
            Again {
                times: 1,
                after_s: 60,
            },
        );
        assert_eq!(redial.after(Status::Busy, 0), Some(Duration::from_secs(30)));
        assert_eq!(redial.after(Status::Busy, 1), Some(Duration::from_secs(30)));
        assert_eq!(redial.after(Status::NoAnswer, 1), None, "all redials count");
        assert_eq!(redial.after(Status::Delivered, 0), None);
        redial.set(
            Outcome::Busy,
            Again {
                times: 0,
                after_s: 30,
            },
        );
        assert_eq!(redial.after(Status::Busy, 0), None);
    }

    #[test]
    fn a_policy_has_bounds_and_a_form() {
        let mut redial = Redial::default();
        redial.set(
            Outcome::Failed,
            Again {
                times: 1,
                after_s: 1,
            },
        );
        assert!(redial.problem().unwrap().contains("failed"));
        redial.set(
            Outcome::Failed,
            Again {
                times: 1,
                after_s: 5,
            },
        );
        assert_eq!(redial.problem(), None);
        let text = serde_json::to_string(&redial).unwrap();
        assert_eq!(text, r#"{"failed":{"times":1,"after_s":5}}"#);
        assert_eq!(serde_json::from_str::<Redial>(&text).unwrap(), redial);
        assert_eq!(Voicemail::from_word("press_key"), Some(Voicemail::PressKey));
    }
}
