//! What the relay remembers for a while, in two generations so that it stays small.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;
use voice_otp_schemas::DeliveryKey;

use crate::event::Event;

/// A sequence number for each delivery, remembered for between one and two generations.
pub(super) struct Generations {
    young: HashMap<DeliveryKey, u32>,
    old: HashMap<DeliveryKey, u32>,
    turned_at: Instant,
    length: Duration,
}

/// The final statuses that were published lately. A delivery must not have two.
pub(super) struct PublishedFinals(Generations);

/// How long final statuses are remembered: between one and two generations.
const FINALS_GENERATION: Duration = Duration::from_mins(1);

impl Generations {
    pub(super) fn new(length: Duration) -> Self {
        let (young, old) = (HashMap::new(), HashMap::new());
        Self {
            young,
            old,
            turned_at: Instant::now(),
            length,
        }
    }

    pub(super) fn get(&self, key: &DeliveryKey) -> Option<u32> {
        self.young.get(key).or_else(|| self.old.get(key)).copied()
    }

    pub(super) fn insert(&mut self, key: DeliveryKey, sequence: u32) {
        self.young.insert(key, sequence);
    }

    /// Begins a new generation if it is time, and nothing that began at `reading` or before may
    /// need the old one.
    pub(super) fn turn(&mut self, reading: Option<Instant>) {
        let is_read = reading.is_some_and(|began| began <= self.turned_at);
        if self.turned_at.elapsed() > self.length && !is_read {
            self.old = std::mem::take(&mut self.young);
            self.turned_at = Instant::now();
        }
    }
}

impl Default for PublishedFinals {
    fn default() -> Self {
        Self(Generations::new(FINALS_GENERATION))
    }
}

impl PublishedFinals {
    /// Records an event that was published. Returns true if it is a second final status of its
    /// delivery.
    pub(super) fn is_duplicate(&mut self, event: &Event) -> bool {
        if !event.is_final() {
            return false;
        }
        self.0.turn(None);
        let before = self.0.get(&event.key);
        self.0.insert(event.key.clone(), event.sequence);
        let duplicate = before.is_some_and(|before| before != event.sequence);
        if duplicate {
            tracing::error!(
                tenant.id = %event.key.tenant_id,
                delivery.id = %event.key.delivery_id,
                "a second final status of a delivery was published"
            );
        }
        duplicate
    }
}
