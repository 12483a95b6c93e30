//! Seeded random numbers. Every purpose of every call has a sequence of its own, so two runs with
//! the same seed and the same calls in the same order go the same way, however their tasks
//! interleave.

use rand::SeedableRng as _;
use rand::rngs::StdRng;

/// What a sequence of random numbers is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RngPurpose {
    /// How the call goes: see [`CallPlan`](crate::call_plan::CallPlan).
    Lifecycle = 1,
    /// Whether the create request is answered.
    Answer = 2,
    /// Whether a callback is lost, delayed or duplicated.
    Callback = 3,
    /// The SID of a call.
    CallSid = 4,
    /// The id of an HTTP answer.
    RequestId = 5,
    /// The idempotency token, which a webhook request shares with its retries.
    IdempotencyToken = 6,
}

/// The seed of a run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SeededRng {
    seed: u64,
}

impl SeededRng {
    pub(crate) fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// The sequence of the `number`th case of a purpose.
    pub(crate) fn of(self, purpose: RngPurpose, number: u64) -> StdRng {
        StdRng::seed_from_u64(self.mixed(purpose, number))
    }

    /// 32 hexadecimal digits, as Twilio's ids have after their prefix. With another `salt`, the
    /// same seed gives other ids.
    pub(crate) fn id(self, purpose: RngPurpose, number: u64, salt: u64) -> String {
        let head = self.mixed(purpose, number);
        format!("{head:016x}{:016x}", mix(head ^ mix(salt)))
    }

    fn mixed(self, purpose: RngPurpose, number: u64) -> u64 {
        mix(mix(self.seed ^ mix(purpose as u64)) ^ number)
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
    fn one_seed_repeats_and_purposes_do_not_share_a_sequence() {
        let draw = |seed, purpose, number| SeededRng::new(seed).of(purpose, number).random::<u64>();
        assert_eq!(
            draw(7, RngPurpose::Lifecycle, 3),
            draw(7, RngPurpose::Lifecycle, 3)
        );
        assert_ne!(
            draw(7, RngPurpose::Lifecycle, 3),
            draw(7, RngPurpose::Lifecycle, 4)
        );
        assert_ne!(
            draw(7, RngPurpose::Lifecycle, 3),
            draw(7, RngPurpose::Answer, 3)
        );
        assert_ne!(
            draw(7, RngPurpose::Lifecycle, 3),
            draw(8, RngPurpose::Lifecycle, 3)
        );
    }

    #[test]
    fn ids_have_32_digits_and_differ_by_salt() {
        let rng = SeededRng::new(1);
        let id = rng.id(RngPurpose::CallSid, 1, 1);
        assert_eq!(id.len(), 32);
        assert!(id.bytes().all(|byte| byte.is_ascii_hexdigit()));
        assert_ne!(id, rng.id(RngPurpose::CallSid, 1, 2));
    }
}
