//! The delays between attempts: exponential, with full jitter. Only this file uses the `backoff`
//! crate.
//!
//! `backoff` is unmaintained (RUSTSEC-2025-0012); the project's owner asked for it. It only doubles
//! a number here. The jitter comes from [`SharedRng`], so that a seeded run repeats.

use std::time::Duration;

use backoff::ExponentialBackoffBuilder;
use backoff::backoff::Backoff as _;

use crate::engine::rng::SharedRng;

/// The delay before the next attempt after `tries` of them: uniform up to `first · 2^(tries-1)`,
/// which is at most `longest`.
pub fn delay(first: Duration, longest: Duration, tries: u32, rng: &SharedRng) -> Duration {
    rng.duration_below(ceiling(first, longest, tries))
}

/// The upper limit of [`delay`].
fn ceiling(first: Duration, longest: Duration, tries: u32) -> Duration {
    let mut schedule = ExponentialBackoffBuilder::new()
        .with_initial_interval(first)
        .with_multiplier(2.0)
        .with_randomization_factor(0.0)
        .with_max_interval(longest)
        .with_max_elapsed_time(None)
        .build();
    let mut delay = first;
    // Twenty doublings reach any limit; more would only take time.
    for _ in 0..tries.clamp(1, 20) {
        delay = schedule.next_backoff().unwrap_or(longest);
    }
    delay
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_ceiling_doubles_up_to_the_longest() {
        let ceilings: Vec<u128> = (1..=7)
            .map(|tries| {
                ceiling(Duration::from_millis(500), Duration::from_secs(20), tries).as_millis()
            })
            .collect();
        assert_eq!(ceilings, [500, 1000, 2000, 4000, 8000, 16000, 20000]);
    }

    proptest! {
        #[test]
        fn a_delay_never_exceeds_its_limit(
            seed: u64,
            tries in 0_u32..100,
            first_ms in 1_u64..5_000,
        ) {
            let (first, longest) = (Duration::from_millis(first_ms), Duration::from_secs(20));
            let delay = delay(first, longest, tries, &SharedRng::seeded(seed));
            prop_assert!(delay <= ceiling(first, longest, tries) && delay <= longest);
        }
    }
}
