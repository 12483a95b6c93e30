//! Fates: what happens to a call, and to the request that creates it.

use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};

use crate::number;

/// What the simulator does with a create request and its call. The last two digits of a fictional
/// number (`+1 NXX 555 01NN`) select a fate. `POST /simulator/fates` or
/// [`Simulator::set_fate`](crate::Simulator::set_fate) sets one for any number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// A person answers, presses 1 once if asked for a key, listens to the end and hangs up. The
    /// fate of every number that has no other.
    Answers,
    /// 01: the line is busy.
    Busy,
    /// 02: the phone rings until the timeout.
    NoAnswer,
    /// 03: the number can't be reached (SIP 404).
    Failed,
    /// 04: an answering machine answers.
    Machine,
    /// 05: a person answers and hangs up after one second.
    HangsUp,
    /// 06: the callee declines, which Twilio reports as `no-answer`.
    Rejected,
    /// 07: a person answers and presses 1 at every prompt for a key, not only at the first.
    PressesAgain,
    /// 08: a person answers and presses 7 at every prompt.
    WrongKey,
    /// 09: a person answers and presses no key.
    NoKey,
    /// 11: the first request is refused with 429, without `Retry-After`.
    Throttled,
    /// 12: the first request is refused with 429 and `Retry-After: 1`.
    ThrottledRetryAfter,
    /// 13: the first request is answered with 500, and no call is created.
    ErrorNotAccepted,
    /// 14: the first request is answered with 500, although a call is created and proceeds.
    ErrorAccepted,
    /// 15: the call is created, and the request gets no answer.
    Unanswered,
    /// 16: the call is created, and the answer takes three seconds at speed 1.
    SlowAnswer,
    /// 17: the call is created, and the connection is closed without an answer.
    Cut,
    /// 18: every request is refused with 503.
    Unavailable,
    /// 19: the call is created, and the answer is a 201 with half a JSON body.
    Unparsable,
}

impl Fate {
    /// The fate that a number selects.
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

    /// Whether only the first request to a number that selects this fate meets it.
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

/// The fates that were set for numbers, and those that are used up.
#[derive(Debug, Default)]
pub(crate) struct Fates {
    set: HashMap<String, SetFate>,
    /// Account SIDs and numbers that have met a fate that is met once.
    met: HashSet<(String, String)>,
}

#[derive(Debug)]
struct SetFate {
    fate: Fate,
    /// For how many more requests; `None` is without limit.
    left: Option<u32>,
}

impl Fates {
    /// Sets the fate of a number for its next `times` requests, or without limit. With 0 `times`,
    /// removes an earlier setting.
    pub(crate) fn set(&mut self, to: String, fate: Fate, times: Option<u32>) {
        if times == Some(0) {
            self.set.remove(&to);
        } else {
            self.set.insert(to, SetFate { fate, left: times });
        }
    }

    /// The fate of the next request; counts it.
    pub(crate) fn next(&mut self, account: &str, to: &str) -> Fate {
        if let Some(set) = self.set.get_mut(to) {
            let fate = set.fate;
            if let Some(left) = &mut set.left {
                *left -= 1;
                if *left == 0 {
                    self.set.remove(to);
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
    fn the_end_of_a_fictional_number_selects_the_fate() {
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
    fn a_fate_that_is_met_once_meets_the_first_request_of_each_account() {
        let mut fates = Fates::default();
        let to = "+14155550112";
        assert_eq!(fates.next("AC1", to), Fate::ThrottledRetryAfter);
        assert_eq!(fates.next("AC1", to), Fate::Answers);
        assert_eq!(fates.next("AC2", to), Fate::ThrottledRetryAfter);
        assert_eq!(fates.next("AC1", "+12125550112"), Fate::ThrottledRetryAfter);
    }

    #[test]
    fn a_set_fate_applies_to_its_number_of_requests() {
        let mut fates = Fates::default();
        let to = "+14155550101";
        fates.set(to.to_owned(), Fate::Machine, Some(2));
        assert_eq!(
            [(); 3].map(|()| fates.next("AC1", to)),
            [Fate::Machine, Fate::Machine, Fate::Busy]
        );
        fates.set(to.to_owned(), Fate::Answers, None);
        assert_eq!([(); 3].map(|()| fates.next("AC1", to)), [Fate::Answers; 3]);
        fates.set(to.to_owned(), Fate::Answers, Some(0));
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
