//! The instructions for an answered call: read the code, prompt for a key, or hang up.

use std::time::Duration;

use voice_otp_schemas::Timestamp;

use crate::call::progress::is_machine;
use crate::delivery::{Change, Delivery, Played, Secrets};
use crate::settings::VoiceSettings;
use crate::settings::policy::Voicemail;
use crate::speech::{Script, Speaker};

/// Twilio's request for a call's instructions.
#[derive(Debug, Clone)]
pub struct InstructionRequest {
    /// How far the call has got.
    pub step: CallStep,
    /// The keys that were pressed, if any.
    pub digits: Option<String>,
    /// How long Twilio listened to find out who answered. Only with machine detection.
    pub listened: Option<Duration>,
}

/// How far a call has got when Twilio requests its instructions. The URL that Twilio requests
/// carries it as a query, so that no worker needs to remember it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallStep {
    /// The call was answered. It was placed under this policy.
    Answered(Voicemail),
    /// The callee pressed a key.
    KeyPressed {
        /// The number of the reading that the right key starts, from 1.
        reading: u32,
        /// How many wrong keys have been pressed in a row.
        wrong: u32,
    },
}

/// What a call does next. The variants are named like the TwiML that they become.
#[derive(Debug, Clone)]
pub enum CallInstructions {
    /// Plays the script, then hangs up.
    Say(Script),
    /// Plays the prompts one after the other until a key is pressed, then requests instructions
    /// again.
    Gather {
        /// What is played while the call waits for a key.
        prompts: Vec<Script>,
        /// The step of the next request, sent when a key is pressed.
        step: CallStep,
        /// What is played, before the call hangs up, if no key is pressed.
        last: Script,
    },
    /// Hangs up.
    HangUp,
}

/// The key that a callee presses to hear the code. The phrases of every language name it.
const CONFIRMATION_KEY: &str = "1";
/// How many times a call prompts for the key if none is pressed.
const MAX_PROMPTS: u32 = 3;
/// The wrong key at which the call says goodbye.
const MAX_WRONG_KEYS: u32 = 3;

/// The instructions for a call, and the change to save before they are sent. `None` if this worker
/// can't read the delivery's code; Twilio then asks another one.
pub fn call_instructions(
    delivery: &Delivery,
    settings: &VoiceSettings,
    request: &InstructionRequest,
    now: Timestamp,
) -> Option<(CallInstructions, Option<Change>)> {
    let secrets = delivery.secrets.as_deref()?;
    // The policy in the signed URL counts, not the tenant's current one, since the call was placed
    // under it.
    let policy = match request.step {
        CallStep::Answered(policy) => policy,
        CallStep::KeyPressed { .. } => Voicemail::PressKey,
    };
    let left = (delivery.expires_at - now).to_std().unwrap_or_default();
    let is_rejected_machine = delivery
        .answered_by
        .as_deref()
        .is_some_and(|by| match policy {
            Voicemail::HangUp => is_machine(by),
            Voicemail::WaitForBeep => by == "fax",
            Voicemail::Speak | Voicemail::PressKey => false,
        });
    if delivery.cancel_reason.is_some() || left.is_zero() || is_rejected_machine {
        let change = record_played(delivery, policy, Played::Nothing, delivery.heard_after);
        return Some((CallInstructions::HangUp, change));
    }
    let speaker = settings.speaker(&secrets.to, delivery.locale.as_ref());
    if policy == Voicemail::PressKey {
        return Some(prompt_for_key(delivery, secrets, speaker, request, left));
    }
    let message = speaker.message(&secrets.code, left);
    // The call's duration includes the time before the reading: this request's round trip, and
    // Twilio's machine detection.
    let answered_for = delivery
        .answered_at
        .and_then(|at| (now - at).to_std().ok())
        .unwrap_or_default();
    let before = answered_for.max(request.listened.unwrap_or_default());
    let heard_after = whole_millis(before + message.heard_after);
    let change = record_played(delivery, policy, Played::Code, heard_after);
    Some((CallInstructions::Say(message), change))
}

fn prompt_for_key(
    delivery: &Delivery,
    secrets: &Secrets,
    speaker: Speaker<'_>,
    request: &InstructionRequest,
    left: Duration,
) -> (CallInstructions, Option<Change>) {
    let gather = |prompts, reading, wrong| CallInstructions::Gather {
        prompts,
        step: CallStep::KeyPressed { reading, wrong },
        last: speaker.goodbye(),
    };
    let record =
        |played| record_played(delivery, Voicemail::PressKey, played, delivery.heard_after);
    match request.step {
        CallStep::Answered(_) => {
            let repeated = (1..MAX_PROMPTS).map(|_| speaker.prompt_again());
            let prompts = std::iter::once(speaker.prompt()).chain(repeated).collect();
            (gather(prompts, 1, 0), record(Played::Prompt))
        }
        CallStep::KeyPressed { reading, .. }
            if request.digits.as_deref() == Some(CONFIRMATION_KEY) =>
        {
            let script = speaker.reading(&secrets.code, left, reading);
            let instructions = if reading >= speaker.readings() {
                CallInstructions::Say(script)
            } else {
                gather(vec![script], reading + 1, 0)
            };
            (instructions, record(Played::Code))
        }
        CallStep::KeyPressed { wrong, .. } if wrong + 1 >= MAX_WRONG_KEYS => {
            (CallInstructions::Say(speaker.goodbye()), None)
        }
        CallStep::KeyPressed { reading, wrong } => (
            gather(vec![speaker.prompt_again()], reading, wrong + 1),
            None,
        ),
    }
}

/// Records what the call plays. `None` if as much, or more, is recorded already.
fn record_played(
    delivery: &Delivery,
    policy: Voicemail,
    played: Played,
    heard_after: Duration,
) -> Option<Change> {
    let is_new = match (delivery.played, played) {
        (None, _) | (Some(Played::Prompt), Played::Code | Played::Nothing) => true,
        (Some(Played::Code | Played::Nothing), _) | (Some(Played::Prompt), Played::Prompt) => false,
    };
    let mut change = Change::unchanged(delivery);
    change.delivery.voicemail = policy;
    change.delivery.played = Some(played);
    change.delivery.heard_after = heard_after;
    is_new.then_some(change)
}

/// Cuts a duration to whole milliseconds, which is what the ledger stores.
fn whole_millis(length: Duration) -> Duration {
    Duration::from_millis(u64::try_from(length.as_millis()).unwrap_or(u64::MAX))
}

impl CallStep {
    /// The query of the URL that Twilio requests at this step, with its question mark.
    pub fn to_query(self) -> String {
        match self {
            Self::Answered(policy) => format!("?policy={}", policy.as_str()),
            Self::KeyPressed { reading, wrong } => format!("?reading={reading}&wrong={wrong}"),
        }
    }

    /// Parses a query made by [`to_query`](Self::to_query), without its question mark. Twilio signs
    /// the whole URL, so a caller with a valid signature hasn't altered it.
    pub fn parse_query(query: Option<&str>) -> Option<Self> {
        let query = query?;
        if let Some(word) = query.strip_prefix("policy=") {
            return Voicemail::parse(word).map(Self::Answered);
        }
        let (reading, wrong) = query.strip_prefix("reading=")?.split_once("&wrong=")?;
        Some(Self::KeyPressed {
            reading: reading.parse().ok()?,
            wrong: wrong.parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_survives_a_round_trip_through_its_query() {
        for step in [
            CallStep::Answered(Voicemail::HangUp),
            CallStep::KeyPressed {
                reading: 2,
                wrong: 1,
            },
        ] {
            let query = step.to_query();
            assert_eq!(CallStep::parse_query(query.strip_prefix('?')), Some(step));
        }
        assert_eq!(CallStep::parse_query(Some("reading=x&wrong=1")), None);
        assert_eq!(CallStep::parse_query(Some("code=1234")), None);
        assert_eq!(CallStep::parse_query(None), None);
    }
}
