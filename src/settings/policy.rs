//! A tenant's policies: what a call does when a machine answers, and after which outcomes another
//! call is placed.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use voice_otp_schemas::status::Status;

/// What a call does when a machine answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Voicemail {
    /// Reads the code to whatever answers.
    #[default]
    Speak,
    /// Detects who answers; hangs up on a machine without reading the code.
    HangUp,
    /// Detects who answers; reads the code to a machine after its beep.
    WaitForBeep,
    /// Reads the code only after the callee has pressed 1.
    PressKey,
}

/// After which outcomes another call is placed: how many times, and how long after the last one.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Redial(BTreeMap<RedialOutcome, RedialRule>);

/// An outcome after which another call may fare better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RedialOutcome {
    /// The line was busy.
    Busy,
    /// The call was not answered.
    NoAnswer,
    /// The carrier could not complete the call.
    Failed,
    /// A machine answered, and the code was kept from it.
    Voicemail,
}

/// How many redials follow an outcome, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RedialRule {
    /// Calls in addition to the first, 0 to 5.
    pub times: u32,
    /// How long after the end of the last call, in seconds: 5 to 1,800.
    pub after_s: u64,
}

/// The part of a tenant's settings that [`progress`](crate::call::progress::progress) needs.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// What a call does when a machine answers.
    pub voicemail: Voicemail,
    /// After which outcomes another call is placed.
    pub redial: Redial,
}

const MAX_REDIALS: u32 = 5;
const REDIAL_DELAYS_S: RangeInclusive<u64> = 5..=1_800;

impl Voicemail {
    /// Every policy.
    pub const ALL: [Self; 4] = [Self::Speak, Self::HangUp, Self::WaitForBeep, Self::PressKey];

    /// The policy's word, in settings and in the ledger.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Speak => "speak",
            Self::HangUp => "hang_up",
            Self::WaitForBeep => "wait_for_beep",
            Self::PressKey => "press_key",
        }
    }

    /// Parses a policy's word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|policy| policy.as_str() == word)
    }

    /// Whether Twilio must be able to request the call's instructions from the workers.
    pub fn needs_public_url(self) -> bool {
        self != Self::Speak
    }
}

impl RedialOutcome {
    /// Every outcome.
    pub const ALL: [Self; 4] = [Self::Busy, Self::NoAnswer, Self::Failed, Self::Voicemail];

    /// The outcome's word, in settings and in the ledger.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::NoAnswer => "no_answer",
            Self::Failed => "failed",
            Self::Voicemail => "voicemail",
        }
    }

    /// Parses an outcome's word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|outcome| outcome.as_str() == word)
    }

    /// The outcome that a final status amounts to; `None` if another call would not fare better.
    fn of(status: Status) -> Option<Self> {
        match status {
            Status::Busy => Some(Self::Busy),
            Status::NoAnswer => Some(Self::NoAnswer),
            Status::Failed => Some(Self::Failed),
            Status::Voicemail => Some(Self::Voicemail),
            Status::Accepted
            | Status::Deferred
            | Status::Placed
            | Status::Ringing
            | Status::Answered
            | Status::Delivered
            | Status::HungUp
            | Status::Rejected
            | Status::Cancelled
            | Status::Expired => None,
        }
    }
}

impl Redial {
    /// Sets the rule of an outcome; zero redials remove it.
    pub fn set(&mut self, outcome: RedialOutcome, rule: RedialRule) {
        if rule.times == 0 {
            self.0.remove(&outcome);
        } else {
            self.0.insert(outcome, rule);
        }
    }

    /// The rules, by outcome.
    pub fn iter(&self) -> impl Iterator<Item = (RedialOutcome, RedialRule)> {
        self.0.iter().map(|(outcome, rule)| (*outcome, *rule))
    }

    /// How long after a call with this final status the next one is placed, if the rules allow
    /// another. `redials` counts those of any outcome so far.
    pub fn after(&self, status: Status, redials: u32) -> Option<(RedialOutcome, Duration)> {
        let outcome = RedialOutcome::of(status)?;
        let rule = self.0.get(&outcome)?;
        (redials < rule.times).then_some((outcome, Duration::from_secs(rule.after_s)))
    }

    /// What is wrong with the rules.
    pub(crate) fn problem(&self) -> Option<String> {
        let is_bad = |rule: &RedialRule| {
            rule.times > MAX_REDIALS || !REDIAL_DELAYS_S.contains(&rule.after_s)
        };
        let (outcome, _) = self.0.iter().find(|(_, rule)| is_bad(rule))?;
        let outcome = outcome.as_str();
        Some(format!(
            "{outcome}: must be at most 5 times, each 5 s to 30 min after the last call"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_redialled_as_often_as_its_outcome_allows() {
        let mut redial = Redial::default();
        assert_eq!(redial.after(Status::Busy, 0), None);
        redial.set(
            RedialOutcome::Busy,
            RedialRule {
                times: 2,
                after_s: 30,
            },
        );
        redial.set(
            RedialOutcome::NoAnswer,
            RedialRule {
                times: 1,
                after_s: 60,
            },
        );
        assert_eq!(
            redial.after(Status::Busy, 0),
            Some((RedialOutcome::Busy, Duration::from_secs(30)))
        );
        assert_eq!(
            redial.after(Status::Busy, 1),
            Some((RedialOutcome::Busy, Duration::from_secs(30)))
        );
        assert_eq!(
            redial.after(Status::NoAnswer, 1),
            None,
            "redials after every outcome count"
        );
        assert_eq!(redial.after(Status::Delivered, 0), None);
        redial.set(
            RedialOutcome::Busy,
            RedialRule {
                times: 0,
                after_s: 30,
            },
        );
        assert_eq!(redial.after(Status::Busy, 0), None);
    }

    #[test]
    fn a_redial_policy_has_bounds_and_a_json_form() {
        let mut redial = Redial::default();
        redial.set(
            RedialOutcome::Failed,
            RedialRule {
                times: 1,
                after_s: 1,
            },
        );
        assert!(redial.problem().unwrap().contains("failed"));
        redial.set(
            RedialOutcome::Failed,
            RedialRule {
                times: 1,
                after_s: 5,
            },
        );
        assert_eq!(redial.problem(), None);
        let text = serde_json::to_string(&redial).unwrap();
        assert_eq!(text, r#"{"failed":{"times":1,"after_s":5}}"#);
        assert_eq!(serde_json::from_str::<Redial>(&text).unwrap(), redial);
        assert_eq!(Voicemail::parse("press_key"), Some(Voicemail::PressKey));
    }
}
