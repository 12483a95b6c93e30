//! Chance, from one seed.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::delivery::AttemptId;

/// The dice: jitter and attempt ids. From the system for real, from a seed for a run that repeats.
pub struct Dice(Mutex<StdRng>);

impl Dice {
    /// Dice seeded by the system.
    pub fn from_system() -> Self {
        Self(Mutex::new(rand::make_rng()))
    }

    /// Dice that fall the same way every time.
    pub fn seeded(seed: u64) -> Self {
        Self(Mutex::new(StdRng::seed_from_u64(seed)))
    }

    /// A new attempt's id: 122 random bits, so nobody guesses one.
    pub fn attempt_id(&self) -> AttemptId {
        let bytes: [u8; 16] = self
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .random();
        AttemptId(uuid::Builder::from_random_bytes(bytes).into_uuid())
    }

    /// A duration below `most`, each as likely as the other: full jitter.
    pub fn below(&self, most: Duration) -> Duration {
        let fraction: f64 = self
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .random();
        most.mul_f64(fraction)
    }
}
