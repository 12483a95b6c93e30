//! The pauses between placements: exponential, full jitter. The one room of the `backoff` crate.
//!
//! `backoff` is unmaintained (RUSTSEC-2025-0012) and here because the project's owner asked for it. It only doubles
//! a number; the jitter is of our own [`Dice`], so that a seeded run repeats.

use std::time::Duration;

use backoff::ExponentialBackoffBuilder;
use backoff::backoff::Backoff as _;

use crate::dice::Dice;

/// The pause before the next placement after `spent` of them: anything up to `first · 2^(spent-1)`, at most `longest`.
pub fn pause(first: Duration, longest: Duration, spent: u32, dice: &Dice) -> Duration {
    dice.below(ceiling(first, longest, spent))
}

/// The longest that [`pause`] may be.
fn ceiling(first: Duration, longest: Duration, spent: u32) -> Duration {
    let mut schedule = ExponentialBackoffBuilder::new()
        .with_initial_interval(first)
        .with_multiplier(2.0)
        .with_randomization_factor(0.0)
        .with_max_interval(longest)
        .with_max_elapsed_time(None)
        .build();
    let mut pause = first;
    // Twenty doublings reach any ceiling; more would only burn time.
    for _ in 0..spent.clamp(1, 20) {
        pause = schedule.next_backoff().unwrap_or(longest);
    }
    pause
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_ceiling_doubles_up_to_the_longest() {
        let ceilings: Vec<u128> = (1..=7)
            .map(|spent| {
                ceiling(Duration::from_millis(500), Duration::from_secs(20), spent).as_millis()
            })
            .collect();
        assert_eq!(ceilings, [500, 1000, 2000, 4000, 8000, 16000, 20000]);
    }

    proptest! {
        #[test]
        fn a_pause_is_never_longer_than_its_ceiling(seed: u64, spent in 0_u32..100, first_ms in 1_u64..5_000) {
            let (first, longest) = (Duration::from_millis(first_ms), Duration::from_secs(20));
            let pause = pause(first, longest, spent, &Dice::seeded(seed));
            prop_assert!(pause <= ceiling(first, longest, spent) && pause <= longest);
        }
    }
}
