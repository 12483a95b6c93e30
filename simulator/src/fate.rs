//! What becomes of a call, and of the request that creates it.

use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};

use super::number;

/// What the simulator has in store for a create request. The end of a fictional number (`+1 NXX 555 01NN`) picks one;
/// `POST /simulator/fates` or [`Simulator::set_fate`](super::Simulator::set_fate) picks one for any number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// A person answers, listens to the end and hangs up. The fate of all numbers that have no other.
    Answers,
    /// 01: the line is busy.
    Busy,
    /// 02: it rings until the time-out.
    NoAnswer,
    /// 03: the number can't be reached (SIP 404).
    Failed,
    /// 04: an answering machine answers.
    Machine,
    /// 05: a person answers and hangs up after a second.
    HangsUp,
    /// 06: the call is declined, which Twilio also calls `no-answer`.
    Rejected,
    /// 07: a person answers who presses 1 whenever a key is asked for. (Others press it once, for the code.)
    PressesAgain,
    /// 08: a person answers who presses another key than 1.
    WrongKey,
    /// 09: a person answers who presses nothing.
    NoKey,
    /// 11: the first request is refused with 429, without `Retry-After`.
    Throttled,
    /// 12: the first request is refused with 429 and `Retry-After: 1`.
    ThrottledRetryAfter,
    /// 13: the first request is answered with 500, and no call was created.
    ErrorNotAccepted,
    /// 14: the first request is answered with 500 although the call was created, and proceeds.
    ErrorAccepted,
    /// 15: the call is created, and the answer never comes.
    Unanswered,
    /// 16: the call is created, and the answer takes three seconds (at speed 1).
    SlowAnswer,
    /// 17: the call is created, and the connection is closed without an answer.
    Cut,
    /// 18: every request is refused with 503.
    Unavailable,
    /// 19: the call is created, and the answer is a 201 whose body can't be read.
    Unparsable,
}

impl Fate {
    /// The fate that a number carries.
    fn of(number: &str) -> Self {
        match number::fictional(number) {
            Some(1) => Self::Busy,
            Some(2) => Self::NoAnswer,
            Some(3) => Self::Failed,
            Some(4) => Self::Machine,
            Some(5) => Self::HangsUp,
            Some(6) => Self::Rejected,
            Some(7) => Self::PressesAgain,
            Some(8) => Self::WrongKey,
            Some(9) => Self::NoKey,
            Some(11) => Self::Throttled,
            Some(12) => Self::ThrottledRetryAfter,
            Some(13) => Self::ErrorNotAccepted,
            Some(14) => Self::ErrorAccepted,
            Some(15) => Self::Unanswered,
            Some(16) => Self::SlowAnswer,
            Some(17) => Self::Cut,
            Some(18) => Self::Unavailable,
            Some(19) => Self::Unparsable,
            _ => Self::Answers,
        }
    }

    /// Whether a number that carries this fate meets it with its first request only.
    fn is_met_once(self) -> bool {
        matches!(
            self,
            Self::Throttled
                | Self::ThrottledRetryAfter
                | Self::ErrorNotAccepted
                | Self::ErrorAccepted
        )
    }
}

/// The fates that were chosen for numbers, and the ones already met.
#[derive(Debug, Default)]
pub(crate) struct Fates {
    chosen: HashMap<String, Chosen>,
    /// Account and number of those that met a fate that is met once.
    met: HashSet<(String, String)>,
}

#[derive(Debug)]
struct Chosen {
    fate: Fate,
    /// For how many more requests; none is for ever.
    left: Option<u32>,
}

impl Fates {
    /// Chooses the fate of a number for the next `times` requests, or for ever.
    pub(crate) fn choose(&mut self, to: String, fate: Fate, times: Option<u32>) {
        if times == Some(0) {
            self.chosen.remove(&to);
        } else {
            self.chosen.insert(to, Chosen { fate, left: times });
        }
    }

    /// The fate of this request.
    pub(crate) fn next(&mut self, account: &str, to: &str) -> Fate {
        if let Some(chosen) = self.chosen.get_mut(to) {
            let fate = chosen.fate;
            if let Some(left) = &mut chosen.left {
                *left -= 1;
                if *left == 0 {
                    self.chosen.remove(to);
                }
            }
            return fate;
        }
        let fate = Fate::of(to);
        if fate.is_met_once() && !self.met.insert((account.to_owned(), to.to_owned())) {
            return Fate::Answers;
        }
        fate
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_fictional_number_picks_the_fate() {
        let mut fates = Fates::default();
        for (to, fate) in [
            ("+14155550101", Fate::Busy),
            ("+12125550106", Fate::Rejected),
            ("+14155550115", Fate::Unanswered),
            ("+14155550115", Fate::Unanswered),
            ("+14155550119", Fate::Unparsable),
            ("+14155550107", Fate::PressesAgain),
            ("+14155550110", Fate::Answers),
            ("+14155550001", Fate::Answers),
            ("+491711234501", Fate::Answers),
        ] {
            assert_eq!(fates.next("AC1", to), fate, "{to}");
        }
    }

    #[test]
    fn a_passing_fate_meets_the_first_request_of_each_account() {
        let mut fates = Fates::default();
        let to = "+14155550112";
        assert_eq!(fates.next("AC1", to), Fate::ThrottledRetryAfter);
        assert_eq!(fates.next("AC1", to), Fate::Answers);
        assert_eq!(fates.next("AC2", to), Fate::ThrottledRetryAfter);
        assert_eq!(fates.next("AC1", "+12125550112"), Fate::ThrottledRetryAfter);
    }

    #[test]
    fn a_chosen_fate_lasts_for_its_requests_and_then_gives_way() {
        let mut fates = Fates::default();
        let to = "+14155550101";
        fates.choose(to.to_owned(), Fate::Machine, Some(2));
        assert_eq!(
            [(); 3].map(|()| fates.next("AC1", to)),
            [Fate::Machine, Fate::Machine, Fate::Busy]
        );
        fates.choose(to.to_owned(), Fate::Answers, None);
        assert_eq!([(); 3].map(|()| fates.next("AC1", to)), [Fate::Answers; 3]);
        fates.choose(to.to_owned(), Fate::Answers, Some(0));
        assert_eq!(fates.next("AC1", to), Fate::Busy);
    }

    #[test]
    fn fates_are_named_in_snake_case() {
        assert_eq!(
            serde_json::to_string(&Fate::ThrottledRetryAfter).unwrap(),
            r#""throttled_retry_after""#
        );
        assert_eq!(
            serde_json::from_str::<Fate>(r#""no_answer""#).unwrap(),
            Fate::NoAnswer
        );
    }
}
