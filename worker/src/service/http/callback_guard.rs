//! Refuses made-up requests before they cost a statement.

use std::num::NonZeroU32;

use axum::http::StatusCode;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use voice_otp::delivery::{AttemptId, Origin};
use voice_otp_store::Keyring;

/// Admits requests to the database: those about attempts that workers with one of our keys have
/// made, and a few others.
pub(in crate::service) struct CallbackGuard {
    keys: Keyring,
    untagged_attempts: DefaultDirectRateLimiter,
    probes: DefaultDirectRateLimiter,
}

/// Requests a second about attempts without a tag. Workers of the previous release made such
/// attempts; their calls last minutes, and what is refused here is learnt by polling. The next
/// release may refuse all of them.
const UNTAGGED_ATTEMPTS: NonZeroU32 = NonZeroU32::new(50).unwrap();
/// Probes a second. A person sends them, with `voice-otp tenant check`.
const PROBES: NonZeroU32 = NonZeroU32::new(10).unwrap();

impl CallbackGuard {
    /// A guard that knows attempts tagged with any of the keys.
    pub(in crate::service) fn new(keys: Keyring) -> Self {
        Self {
            keys,
            untagged_attempts: RateLimiter::direct(Quota::per_second(UNTAGGED_ATTEMPTS)),
            probes: RateLimiter::direct(Quota::per_second(PROBES)),
        }
    }

    /// Whether to look an attempt up, or the status to answer with.
    pub(super) fn admit_attempt(&self, attempt: AttemptId) -> Result<(), StatusCode> {
        match attempt.origin(&self.keys) {
            Origin::Tagged => Ok(()),
            Origin::Untagged => within(&self.untagged_attempts),
            Origin::Forged => Err(StatusCode::NOT_FOUND),
        }
    }

    /// Whether to look up the tenant that a probe names, or the status to answer with.
    pub(super) fn admit_probe(&self) -> Result<(), StatusCode> {
        within(&self.probes)
    }
}

/// 503 beyond the budget: Twilio tries again.
fn within(budget: &DefaultDirectRateLimiter) -> Result<(), StatusCode> {
    budget.check().map_err(|_| StatusCode::SERVICE_UNAVAILABLE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> Keyring {
        Keyring::parse(&Keyring::generate("a")).unwrap()
    }

    #[test]
    fn made_up_attempts_cost_no_look_up_and_older_ones_a_bounded_number() {
        let keys = keys();
        let guard = CallbackGuard::new(keys.clone());
        let admitted = |id: AttemptId| {
            (0..1_000)
                .filter(|_| guard.admit_attempt(id).is_ok())
                .count()
        };
        let forged = AttemptId::tagged(uuid::Uuid::new_v4().into_bytes(), &self::keys());
        assert_eq!(admitted(forged), 0);
        let ours = AttemptId::tagged(uuid::Uuid::new_v4().into_bytes(), &keys);
        assert_eq!(admitted(ours), 1_000);
        let older = AttemptId(uuid::Uuid::new_v4());
        let looked_up = admitted(older);
        assert!((50..200).contains(&looked_up), "{looked_up}");
    }
}
