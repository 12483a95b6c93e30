//! What will happen on the line, thrown with the dice when the call is created.

use std::time::Duration;

use rand::RngExt as _;
use rand::rngs::StdRng;

use super::fate::Fate;
use super::order::Order;

/// How a call goes if nobody interferes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    /// From the start of dialling until it rings.
    pub(crate) dial: Duration,
    /// How long it rings before something happens, if the time-out doesn't come first.
    pub(crate) ring: Duration,
    /// How long it rings at most.
    pub(crate) timeout: Duration,
    pub(crate) outcome: Outcome,
    /// From the end of the call until its price is known.
    pub(crate) billing: Duration,
}

/// What ends the ringing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Ends before it rings.
    Busy,
    /// Ends before it rings.
    Failed,
    /// Rings until the time-out.
    NoAnswer,
    Rejected,
    Answered(Talk),
}

/// What happens after the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Talk {
    pub(crate) by: Callee,
    /// From the answer until the detection has a result, if one was ordered.
    pub(crate) detection: Option<Duration>,
    /// From the answer until the speech begins.
    pub(crate) lead: Duration,
    /// From the answer until the end of the call.
    pub(crate) lasts: Duration,
}

/// Who answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Callee {
    Human,
    Machine,
}

impl Callee {
    /// The word of the simulator's reports.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Human => "human",
            Self::Machine => "machine",
        }
    }

    /// Twilio's word for what its detection finds.
    pub(crate) fn answered_by(self, message_end: bool) -> &'static str {
        match (self, message_end) {
            (Self::Human, _) => "human",
            (Self::Machine, false) => "machine_start",
            (Self::Machine, true) => "machine_end_beep",
        }
    }
}

impl Plan {
    /// Throws the dice for a call with this fate.
    pub(crate) fn of(fate: Fate, order: &Order, rng: &mut StdRng) -> Self {
        let dial = millis(rng, 300, 800);
        let ring = millis(rng, 1_500, 4_000);
        let billing = millis(rng, 1_000, 3_000);
        let human = detection(order, Callee::Human, rng);
        let machine = detection(order, Callee::Machine, rng);
        let outcome = match fate {
            Fate::Busy => Outcome::Busy,
            Fate::Failed => Outcome::Failed,
            Fate::NoAnswer => Outcome::NoAnswer,
            Fate::Rejected => Outcome::Rejected,
            Fate::Machine => Outcome::Answered(Talk::of(order, Callee::Machine, machine, None)),
            Fate::HangsUp => Outcome::Answered(Talk::of(
                order,
                Callee::Human,
                human,
                Some(Duration::from_secs(1)),
            )),
            Fate::Answers
            | Fate::PressesAgain
            | Fate::WrongKey
            | Fate::NoKey
            | Fate::Throttled
            | Fate::ThrottledRetryAfter
            | Fate::ErrorNotAccepted
            | Fate::ErrorAccepted
            | Fate::Unanswered
            | Fate::SlowAnswer
            | Fate::Cut
            | Fate::Unavailable
            | Fate::Unparsable => Outcome::Answered(Talk::of(order, Callee::Human, human, None)),
        };
        // Declining takes a moment; an answer takes until somebody is at the phone.
        let ring = if outcome == Outcome::Rejected {
            ring / 10
        } else {
            ring
        };
        Self {
            dial,
            ring,
            timeout: order.timeout,
            outcome,
            billing,
        }
    }
}

impl Talk {
    fn of(
        order: &Order,
        by: Callee,
        detection: Option<Duration>,
        patience: Option<Duration>,
    ) -> Self {
        let blocking = order
            .detection
            .as_ref()
            .is_some_and(|detection| !detection.in_background);
        let lead = order.dialling + detection.filter(|_| blocking).unwrap_or_default();
        let whole = lead.saturating_add(order.speech);
        let lasts = [patience, order.time_limit]
            .into_iter()
            .flatten()
            .fold(whole, Duration::min);
        Self {
            by,
            detection: detection.filter(|detection| *detection <= lasts),
            lead,
            lasts,
        }
    }
}

/// How long the detection takes, if one was ordered: people are short, greetings are long.
fn detection(order: &Order, by: Callee, rng: &mut StdRng) -> Option<Duration> {
    let takes = match by {
        Callee::Human => millis(rng, 1_500, 3_000),
        Callee::Machine
            if order
                .detection
                .as_ref()
                .is_some_and(|detection| detection.message_end) =>
        {
            millis(rng, 8_000, 14_000)
        }
        Callee::Machine => millis(rng, 3_000, 5_000),
    };
    order.detection.as_ref().map(|_| takes)
}

fn millis(rng: &mut StdRng, least: u64, most: u64) -> Duration {
    Duration::from_millis(rng.random_range(least..=most))
}

#[cfg(test)]
mod tests {
    use super::super::dice::{Concern, Dice};
    use super::super::order::Detection;
    use super::*;

    fn talk(fate: Fate, order: &Order) -> Talk {
        match Plan::of(fate, order, &mut Dice::new(7).of(Concern::Life, 1)).outcome {
            Outcome::Answered(talk) => talk,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_same_throw_makes_the_same_plan() {
        let throw = |number| {
            Plan::of(
                Fate::Answers,
                &Order::example(),
                &mut Dice::new(7).of(Concern::Life, number),
            )
        };
        assert_eq!(throw(1), throw(1));
        assert_ne!(throw(1), throw(2));
        let plan = throw(3);
        assert!((300..=800).contains(&plan.dial.as_millis()), "{plan:?}");
        assert!((1_500..=4_000).contains(&plan.ring.as_millis()), "{plan:?}");
    }

    #[test]
    fn a_person_listens_to_the_end_unless_something_comes_first() {
        let seconds = Duration::from_secs;
        assert_eq!(talk(Fate::Answers, &Order::example()).lasts, seconds(20));
        assert_eq!(talk(Fate::HangsUp, &Order::example()).lasts, seconds(1));
        let limited = Order {
            time_limit: Some(seconds(5)),
            ..Order::example()
        };
        assert_eq!(talk(Fate::Answers, &limited).lasts, seconds(5));
        let extension = Order {
            dialling: seconds(2),
            ..Order::example()
        };
        assert_eq!(talk(Fate::Answers, &extension).lasts, seconds(22));
        assert_eq!(talk(Fate::Answers, &extension).lead, seconds(2));
    }

    #[test]
    fn detection_keeps_the_speech_waiting_unless_it_is_in_the_background() {
        let with = |in_background| {
            let detection = Detection {
                message_end: true,
                in_background,
                callback: None,
            };
            talk(
                Fate::Machine,
                &Order {
                    detection: Some(detection),
                    ..Order::example()
                },
            )
        };
        let blocking = with(false);
        assert_eq!(blocking.detection, Some(blocking.lead));
        assert_eq!(blocking.lasts, blocking.lead + Duration::from_secs(20));
        assert!(blocking.lead >= Duration::from_secs(8));
        assert_eq!(with(true).lead, Duration::ZERO);
        assert_eq!(with(true).detection, blocking.detection);
        assert_eq!(talk(Fate::Machine, &Order::example()).detection, None);
    }
}
