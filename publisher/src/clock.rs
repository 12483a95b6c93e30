//! The wall clock of a publisher.

use std::time::SystemTime;

use voice_otp_schemas::Timestamp;

/// The machine's time: for the `time` and `expires_at` of events, and for lists that people read.
/// No delivery decision depends on it; workers decide by the database's clock.
#[expect(
    clippy::disallowed_methods,
    reason = "a publisher stamps its events with its own clock"
)]
pub fn now() -> Timestamp {
    Timestamp::from(SystemTime::now())
}
