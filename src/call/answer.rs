//! What a call is told that has been answered and asks: the code, a question, or nothing.

use std::time::Duration;

use voice_otp_schemas::Timestamp;

use crate::delivery::{Change, Delivery, Order, Said};
use crate::plan::speaker;
use crate::policy::Voicemail;
use crate::progress::is_machine;
use crate::settings::VoiceSettings;
use crate::speech::Script;

/// Where in a call it asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// It was answered; it was placed under this policy.
    Answered(Voicemail),
    /// A key was pressed.
    Key {
        /// Which reading the right key brings, from 1.
        reading: u32,
        /// How many wrong keys have been pressed in a row.
        wrong: u32,
    },
}

/// What a call asks.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Where in the call.
    pub turn: Turn,
    /// The keys pressed.
    pub digits: Option<String>,
    /// How long Twilio listened who answered.
    pub listened: Option<Duration>,
}

/// What it is told.
#[derive(Debug, Clone)]
pub enum Answer {
    /// This, and then it ends.
    Say(Script),
    /// These, one after the other, until a key is pressed, which is the turn to ask with; then the last, and it ends.
    UntilKey {
        /// What is said while a key is waited for.
        prompts: Vec<Script>,
        /// Where the call is when a key was pressed.
        turn: Turn,
        /// What is said when none was.
        last: Script,
    },
    /// Nothing: it ends.
    HangUp,
}

/// The key that the code is read for.
pub const KEY: &str = "1";
/// How often it is asked for the key, and how many wrong ones are borne.
const PATIENCE: u32 = 3;

/// What to tell the call, and what has to be saved before it is told. None where this worker can't read the delivery's code.
pub fn answer(
    delivery: &Delivery,
    settings: &VoiceSettings,
    asked: &Asked,
    now: Timestamp,
) -> Option<(Answer, Option<Change>)> {
    let order = delivery.order.as_deref()?;
    // The signed URL says it, whatever the tenant wants by now.
    let policy = match asked.turn {
        Turn::Answered(policy) => policy,
        Turn::Key { .. } => Voicemail::PressKey,
    };
    let life = (delivery.expires_at - now).to_std().unwrap_or_default();
    let by_machine = delivery
        .answered_by
        .as_deref()
        .is_some_and(|by| match policy {
            Voicemail::HangUp => is_machine(by),
            Voicemail::WaitForBeep => by == "fax",
            Voicemail::Speak | Voicemail::PressKey => false,
        });
    if delivery.withdrawn.is_some() || life.is_zero() || by_machine {
        return Some((
            Answer::HangUp,
            say(delivery, policy, Said::Nothing, delivery.heard_after),
        ));
    }
    if policy == Voicemail::PressKey {
        return Some(for_a_key(delivery, order, settings, asked, life));
    }
    let message = speaker(order, delivery.locale.as_ref(), settings).message(&order.code, life);
    // The call has gone on for a while, which is not a part of the reading.
    let before = delivery
        .answered_at
        .and_then(|at| (now - at).to_std().ok())
        .unwrap_or_default();
    let before = before.max(asked.listened.unwrap_or_default());
    let change = say(
        delivery,
        policy,
        Said::Code,
        whole_millis(before + message.heard_after),
    );
    Some((Answer::Say(message), change))
}

fn for_a_key(
    delivery: &Delivery,
    order: &Order,
    settings: &VoiceSettings,
    asked: &Asked,
    life: Duration,
) -> (Answer, Option<Change>) {
    let speaker = speaker(order, delivery.locale.as_ref(), settings);
    let question = |prompts, reading, wrong| Answer::UntilKey {
        prompts,
        turn: Turn::Key { reading, wrong },
        last: speaker.goodbye(),
    };
    match asked.turn {
        Turn::Answered(_) => {
            let again = (1..PATIENCE).map(|_| speaker.question_again());
            let change = say(
                delivery,
                Voicemail::PressKey,
                Said::Question,
                delivery.heard_after,
            );
            (
                question(
                    std::iter::once(speaker.question()).chain(again).collect(),
                    1,
                    0,
                ),
                change,
            )
        }
        Turn::Key { reading, .. } if asked.digits.as_deref() == Some(KEY) => {
            let change = say(
                delivery,
                Voicemail::PressKey,
                Said::Code,
                delivery.heard_after,
            );
            let script = speaker.reading(&order.code, life, reading);
            let last = reading >= speaker.readings();
            (
                if last {
                    Answer::Say(script)
                } else {
                    question(vec![script], reading + 1, 0)
                },
                change,
            )
        }
        Turn::Key { wrong, .. } if wrong + 1 >= PATIENCE => (Answer::Say(speaker.goodbye()), None),
        Turn::Key { reading, wrong } => (
            question(vec![speaker.question_again()], reading, wrong + 1),
            None,
        ),
    }
}

/// Notes what the call is told, unless that, or more, is noted.
fn say(
    delivery: &Delivery,
    policy: Voicemail,
    said: Said,
    heard_after: Duration,
) -> Option<Change> {
    let news = match (delivery.said, said) {
        (None, _) | (Some(Said::Question), Said::Code | Said::Nothing) => true,
        (Some(Said::Code | Said::Nothing), _) | (Some(Said::Question), Said::Question) => false,
    };
    let mut change = Change::of(delivery);
    change.delivery.voicemail = policy;
    change.delivery.said = Some(said);
    change.delivery.heard_after = heard_after;
    news.then_some(change)
}

fn whole_millis(length: Duration) -> Duration {
    Duration::from_millis(u64::try_from(length.as_millis()).unwrap_or(u64::MAX))
}

impl Turn {
    /// The query that tells it, for the URL that Twilio asks next.
    pub fn query(self) -> String {
        match self {
            Self::Answered(policy) => format!("?policy={}", policy.as_str()),
            Self::Key { reading, wrong } => format!("?reading={reading}&wrong={wrong}"),
        }
    }

    /// The turn of a query. Twilio signs it, so it is as we gave it.
    pub fn of_query(query: Option<&str>) -> Option<Self> {
        let query = query?;
        if let Some(word) = query.strip_prefix("policy=") {
            return Voicemail::from_word(word).map(Self::Answered);
        }
        let (reading, wrong) = query.strip_prefix("reading=")?.split_once("&wrong=")?;
        Some(Self::Key {
            reading: reading.parse().ok()?,
            wrong: wrong.parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_is_what_its_query_says() {
        for turn in [
            Turn::Answered(Voicemail::HangUp),
            Turn::Key {
                reading: 2,
                wrong: 1,
            },
        ] {
            assert_eq!(
                Turn::of_query(Some(turn.query().trim_start_matches('?'))),
                Some(turn)
            );
        }
        assert_eq!(Turn::of_query(Some("reading=x&wrong=1")), None);
        assert_eq!(Turn::of_query(Some("code=1234")), None);
        assert_eq!(Turn::of_query(None), None);
    }
}
