//! Random numbers: jitter and attempt ids.

use std::sync::Mutex;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use voice_otp_schemas::keys::Keyring;

use super::sync::lock;
use crate::delivery::AttemptId;

/// A random number generator that tasks share. In production the system seeds it; a test seeds it
/// with a number, so that a run repeats.
pub struct SharedRng {
    rng: Mutex<StdRng>,
    /// Tags attempt ids; `None` for a run that must repeat without keys.
    keys: Option<Keyring>,
}

impl SharedRng {
    /// A generator that the system seeds. Its attempt ids are tagged with the first key.
    pub fn from_system(keys: Keyring) -> Self {
        Self {
            rng: Mutex::new(rand::make_rng()),
            keys: Some(keys),
        }
    }

    /// A generator that yields the same numbers for the same seed. Its attempt ids have no tag.
    pub fn seeded(seed: u64) -> Self {
        Self {
            rng: Mutex::new(StdRng::seed_from_u64(seed)),
            keys: None,
        }
    }

    /// A new attempt id, with so many random bits that it can't be guessed.
    pub fn attempt_id(&self) -> AttemptId {
        let bytes: [u8; 16] = lock(&self.rng).random();
        match &self.keys {
            Some(keys) => AttemptId::tagged(bytes, keys),
            None => AttemptId(uuid::Builder::from_random_bytes(bytes).into_uuid()),
        }
    }

    /// A duration below `limit`, uniformly distributed (full jitter).
    pub fn duration_below(&self, limit: Duration) -> Duration {
        let fraction: f64 = lock(&self.rng).random();
        limit.mul_f64(fraction)
    }
}
