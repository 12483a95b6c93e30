//! Chance that repeats: every concern of every call has a sequence of its own, so that two runs with one seed and the
//! same calls in the same order go the same way, however their tasks interleave.

use rand::SeedableRng as _;
use rand::rngs::StdRng;

/// What a sequence of chances decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Concern {
    /// How long the call rings and speaks.
    Life = 1,
    /// Whether the create request is answered.
    Answer = 2,
    /// Whether a callback gets lost or sent twice.
    Callback = 3,
    /// The SID of a call.
    Call = 4,
    /// The id of an HTTP answer.
    Request = 5,
    /// The token that tells a callback from its retries.
    Token = 6,
}

/// The seed of a run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Dice {
    seed: u64,
}

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// The sequence of the `number`th case of a concern.
    pub(crate) fn of(self, concern: Concern, number: u64) -> StdRng {
        StdRng::seed_from_u64(self.mixed(concern, number))
    }

    /// 32 hexadecimal digits, as the tail of Twilio's ids. `salt` tells apart what a seed alone would make equal.
    pub(crate) fn id(self, concern: Concern, number: u64, salt: u64) -> String {
        let head = self.mixed(concern, number);
        format!("{head:016x}{:016x}", mix(head ^ mix(salt)))
    }

    fn mixed(self, concern: Concern, number: u64) -> u64 {
        mix(mix(self.seed ^ mix(concern as u64)) ^ number)
    }
}

/// The finalizer of the `SplitMix64` generator: neighbouring inputs give unrelated outputs.
fn mix(input: u64) -> u64 {
    let mut z = input.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use rand::RngExt as _;

    use super::*;

    #[test]
    fn one_seed_repeats_and_concerns_do_not_share_a_sequence() {
        let throw = |seed, concern, number| Dice::new(seed).of(concern, number).random::<u64>();
        assert_eq!(throw(7, Concern::Life, 3), throw(7, Concern::Life, 3));
        assert_ne!(throw(7, Concern::Life, 3), throw(7, Concern::Life, 4));
        assert_ne!(throw(7, Concern::Life, 3), throw(7, Concern::Answer, 3));
        assert_ne!(throw(7, Concern::Life, 3), throw(8, Concern::Life, 3));
    }

    #[test]
    fn ids_have_32_digits_and_differ_by_salt() {
        let dice = Dice::new(1);
        let id = dice.id(Concern::Call, 1, 1);
        assert_eq!(id.len(), 32);
        assert!(id.bytes().all(|byte| byte.is_ascii_hexdigit()));
        assert_ne!(id, dice.id(Concern::Call, 1, 2));
    }
}
