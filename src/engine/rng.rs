//! Random numbers: jitter and attempt ids.

use std::sync::Mutex;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::sync::lock;
use crate::delivery::AttemptId;

/// A random number generator that tasks share. In production the system seeds it; a test seeds it
/// with a number, so that a run repeats.
pub struct SharedRng(Mutex<StdRng>);

impl SharedRng {
    /// A generator that the system seeds.
    pub fn from_system() -> Self {
        Self(Mutex::new(rand::make_rng()))
    }

    /// A generator that yields the same numbers for the same seed.
    pub fn seeded(seed: u64) -> Self {
        Self(Mutex::new(StdRng::seed_from_u64(seed)))
    }

    /// A new attempt id: 122 random bits, so that it can't be guessed.
    pub fn attempt_id(&self) -> AttemptId {
        let bytes: [u8; 16] = lock(&self.0).random();
        AttemptId(uuid::Builder::from_random_bytes(bytes).into_uuid())
    }

    /// A duration below `limit`, uniformly distributed (full jitter).
    pub fn duration_below(&self, limit: Duration) -> Duration {
        let fraction: f64 = lock(&self.0).random();
        limit.mul_f64(fraction)
    }
}
