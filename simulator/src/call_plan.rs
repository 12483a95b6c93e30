//! How a call will go, decided at random from its seed when the call is created.

use std::time::Duration;

use rand::RngExt as _;
use rand::rngs::StdRng;

use crate::call_parameters::CallParameters;
use crate::fate::Fate;

/// How a call goes unless an update ends it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CallPlan {
    /// From the start of dialling until the phone rings.
    pub(crate) dial: Duration,
    /// How long the phone rings before the callee answers or declines, if the timeout doesn't come
    /// first.
    pub(crate) ring: Duration,
    /// How long the phone rings at most.
    pub(crate) timeout: Duration,
    pub(crate) outcome: RingOutcome,
    /// From the end of the call until its price is known.
    pub(crate) price_delay: Duration,
}

/// What ends the ringing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RingOutcome {
    /// The call ends before the phone rings.
    Busy,
    /// The call ends before the phone rings.
    Failed,
    /// The phone rings until the timeout.
    NoAnswer,
    /// The callee declines.
    Rejected,
    /// The callee answers.
    Answered(AnswerPlan),
}

/// What happens after the answer. Every duration counts from the answer, in real time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AnswerPlan {
    /// Who answers.
    pub(crate) callee: Callee,
    /// When answering machine detection has a result; `None` if it wasn't requested, or if the call
    /// ends first.
    pub(crate) detection_after: Option<Duration>,
    /// When the speech begins.
    pub(crate) speech_after: Duration,
    /// When the call ends.
    pub(crate) ends_after: Duration,
}

/// Who answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Callee {
    Human,
    Machine,
}

impl Callee {
    /// The word in the simulator's reports.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Human => "human",
            Self::Machine => "machine",
        }
    }

    /// The `AnsweredBy` that Twilio's detection reports
    /// (<https://www.twilio.com/docs/voice/answering-machine-detection>).
    pub(crate) fn answered_by(self, message_end: bool) -> &'static str {
        match (self, message_end) {
            (Self::Human, _) => "human",
            (Self::Machine, false) => "machine_start",
            (Self::Machine, true) => "machine_end_beep",
        }
    }
}

impl CallPlan {
    /// Plans a call with this fate. The same generator state makes the same plan.
    pub(crate) fn of(fate: Fate, parameters: &CallParameters, rng: &mut StdRng) -> Self {
        let dial = millis(rng, 300, 800);
        let ring = millis(rng, 1_500, 4_000);
        let price_delay = millis(rng, 1_000, 3_000);
        // Both are drawn for every fate, so that a call's fate doesn't shift its other draws.
        let human = detection_time(parameters, Callee::Human, rng);
        let machine = detection_time(parameters, Callee::Machine, rng);
        let answered = |callee, detection_after, hangs_up_after| {
            RingOutcome::Answered(AnswerPlan::of(
                parameters,
                callee,
                detection_after,
                hangs_up_after,
            ))
        };
        let outcome = match fate {
            Fate::Busy => RingOutcome::Busy,
            Fate::Failed => RingOutcome::Failed,
            Fate::NoAnswer => RingOutcome::NoAnswer,
            Fate::Rejected => RingOutcome::Rejected,
            Fate::Machine => answered(Callee::Machine, machine, None),
            Fate::HangsUp => answered(Callee::Human, human, Some(Duration::from_secs(1))),
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
            | Fate::Unparsable => answered(Callee::Human, human, None),
        };
        // Declining takes a moment; answering takes until the callee has reached the phone.
        let ring = if outcome == RingOutcome::Rejected {
            ring / 10
        } else {
            ring
        };
        Self {
            dial,
            ring,
            timeout: parameters.timeout,
            outcome,
            price_delay,
        }
    }
}

impl AnswerPlan {
    fn of(
        parameters: &CallParameters,
        callee: Callee,
        detection_after: Option<Duration>,
        hangs_up_after: Option<Duration>,
    ) -> Self {
        let blocking = parameters
            .detection
            .as_ref()
            .is_some_and(|detection| !detection.in_background);
        let blocked = detection_after.filter(|_| blocking).unwrap_or_default();
        let speech_after = parameters.extension_time + blocked;
        let whole = speech_after.saturating_add(parameters.speech_length);
        let ends_after = [hangs_up_after, parameters.time_limit]
            .into_iter()
            .flatten()
            .fold(whole, Duration::min);
        Self {
            callee,
            detection_after: detection_after.filter(|detection| *detection <= ends_after),
            speech_after,
            ends_after,
        }
    }
}

/// How long detection takes, if it was requested: people greet briefly, machines at length.
fn detection_time(
    parameters: &CallParameters,
    callee: Callee,
    rng: &mut StdRng,
) -> Option<Duration> {
    let detection = parameters.detection.as_ref();
    let time = match callee {
        Callee::Human => millis(rng, 1_500, 3_000),
        Callee::Machine if detection.is_some_and(|detection| detection.message_end) => {
            millis(rng, 8_000, 14_000)
        }
        Callee::Machine => millis(rng, 3_000, 5_000),
    };
    detection.map(|_| time)
}

fn millis(rng: &mut StdRng, min: u64, max: u64) -> Duration {
    Duration::from_millis(rng.random_range(min..=max))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call_parameters::Detection;
    use crate::rng::{RngPurpose, SeededRng};

    fn answer_plan(fate: Fate, parameters: &CallParameters) -> AnswerPlan {
        match CallPlan::of(
            fate,
            parameters,
            &mut SeededRng::new(7).of(RngPurpose::Lifecycle, 1),
        )
        .outcome
        {
            RingOutcome::Answered(answer_plan) => answer_plan,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_same_seed_makes_the_same_plan() {
        let plan_of = |number| {
            CallPlan::of(
                Fate::Answers,
                &CallParameters::example(),
                &mut SeededRng::new(7).of(RngPurpose::Lifecycle, number),
            )
        };
        assert_eq!(plan_of(1), plan_of(1));
        assert_ne!(plan_of(1), plan_of(2));
        let plan = plan_of(3);
        assert!((300..=800).contains(&plan.dial.as_millis()), "{plan:?}");
        assert!((1_500..=4_000).contains(&plan.ring.as_millis()), "{plan:?}");
    }

    #[test]
    fn a_person_listens_to_the_end_unless_something_comes_first() {
        let seconds = Duration::from_secs;
        assert_eq!(
            answer_plan(Fate::Answers, &CallParameters::example()).ends_after,
            seconds(20)
        );
        assert_eq!(
            answer_plan(Fate::HangsUp, &CallParameters::example()).ends_after,
            seconds(1)
        );
        let limited = CallParameters {
            time_limit: Some(seconds(5)),
            ..CallParameters::example()
        };
        assert_eq!(answer_plan(Fate::Answers, &limited).ends_after, seconds(5));
        let extension = CallParameters {
            extension_time: seconds(2),
            ..CallParameters::example()
        };
        assert_eq!(
            answer_plan(Fate::Answers, &extension).ends_after,
            seconds(22)
        );
        assert_eq!(
            answer_plan(Fate::Answers, &extension).speech_after,
            seconds(2)
        );
    }

    #[test]
    fn detection_keeps_the_speech_waiting_unless_it_is_in_the_background() {
        let with = |in_background| {
            let detection = Detection {
                message_end: true,
                in_background,
                callback: None,
            };
            answer_plan(
                Fate::Machine,
                &CallParameters {
                    detection: Some(detection),
                    ..CallParameters::example()
                },
            )
        };
        let blocking = with(false);
        assert_eq!(blocking.detection_after, Some(blocking.speech_after));
        assert_eq!(
            blocking.ends_after,
            blocking.speech_after + Duration::from_secs(20)
        );
        assert!(blocking.speech_after >= Duration::from_secs(8));
        assert_eq!(with(true).speech_after, Duration::ZERO);
        assert_eq!(with(true).detection_after, blocking.detection_after);
        assert_eq!(
            answer_plan(Fate::Machine, &CallParameters::example()).detection_after,
            None
        );
    }
}
