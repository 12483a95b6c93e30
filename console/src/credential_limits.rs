//! Limits of the look-ups of credentials, for each client address.
//!
//! No one can guess a token, but each look-up of a wrong one costs a statement.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;
use voice_otp_server::client_address::network_of;

use crate::problem::Problem;

/// How many credentials an address may have looked up.
pub(crate) struct CredentialLimits {
    sign_ins: AddressLimit,
    unknown_credentials: AddressLimit,
    known_credentials: KnownCredentials,
}

/// Sign-ins of one address at once, and the time after which there may be another.
const SIGN_INS: (NonZeroU32, Duration) = (NonZeroU32::new(30).unwrap(), Duration::from_secs(2));
/// Unknown bearer tokens and sessions of one address at once, and the time after which there may
/// be another.
const UNKNOWN_CREDENTIALS: (NonZeroU32, Duration) =
    (NonZeroU32::new(120).unwrap(), Duration::from_millis(500));
/// Addresses that are counted apart. Further ones are counted together.
const MAX_ADDRESSES: usize = 10_000;
/// How long a valid credential counts as known.
const KNOWN_FOR: Duration = Duration::from_mins(10);
/// Credentials that are known at once.
const MAX_KNOWN: usize = 10_000;

impl Default for CredentialLimits {
    fn default() -> Self {
        Self {
            sign_ins: AddressLimit::new(SIGN_INS),
            unknown_credentials: AddressLimit::new(UNKNOWN_CREDENTIALS),
            known_credentials: KnownCredentials::default(),
        }
    }
}

impl CredentialLimits {
    /// Counts a sign-in of an address. An error if there were too many.
    pub(crate) fn admit_sign_in(&self, client: IpAddr) -> Result<(), Problem> {
        self.sign_ins.admit(client).map_err(|wait| {
            let detail = "Too many sign-ins came from your address. Wait a moment, then sign in \
                          again.";
            Problem::too_many_requests(detail).with_retry_after(wait)
        })
    }

    /// Counts the use of a bearer token or session, unless it was valid a short time ago. An error
    /// if the address has used too many that weren't.
    pub(crate) fn admit_credential(&self, client: IpAddr, credential: &str) -> Result<(), Problem> {
        if self.known_credentials.contains(credential) {
            return Ok(());
        }
        self.unknown_credentials.admit(client).map_err(|wait| {
            let detail = "Too many requests with an invalid token or session came from your \
                          address. Check the token, wait a moment, and try again.";
            Problem::too_many_requests(detail).with_retry_after(wait)
        })
    }

    /// Remembers that a credential is valid, so that its owner doesn't wait for strangers at the
    /// same address. It is looked up each time nevertheless.
    pub(crate) fn remember_valid(&self, credential: &str) {
        self.known_credentials.insert(credential);
    }
}

/// A token bucket for each address.
struct AddressLimit(DefaultKeyedRateLimiter<IpAddr>);

impl AddressLimit {
    fn new((burst, period): (NonZeroU32, Duration)) -> Self {
        let quota = Quota::with_period(period).unwrap_or_else(|| Quota::per_second(burst));
        Self(RateLimiter::keyed(quota.allow_burst(burst)))
    }

    /// Counts one, or returns how long to wait.
    fn admit(&self, client: IpAddr) -> Result<(), Duration> {
        if self.0.len() >= MAX_ADDRESSES {
            // Those whose buckets are full again.
            self.0.retain_recent();
        }
        let key = if self.0.len() >= MAX_ADDRESSES {
            IpAddr::V4(Ipv4Addr::UNSPECIFIED)
        } else {
            network_of(client)
        };
        self.0
            .check_key(&key)
            .map_err(|refused| refused.wait_time_from(DefaultClock::default().now()))
    }
}

/// Credentials that were valid a short time ago, by their hashes.
#[derive(Default)]
struct KnownCredentials(Mutex<HashMap<[u8; 32], Instant>>);

impl KnownCredentials {
    fn contains(&self, credential: &str) -> bool {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let since = known.get(&hash(credential));
        since.is_some_and(|since| since.elapsed() < KNOWN_FOR)
    }

    fn insert(&self, credential: &str) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MAX_KNOWN {
            known.retain(|_, since| since.elapsed() < KNOWN_FOR);
        }
        if known.len() < MAX_KNOWN {
            known.insert(hash(credential), Instant::now());
        }
    }
}

fn hash(credential: &str) -> [u8; 32] {
    Sha256::digest(credential.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(n: u32) -> IpAddr {
        IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + n))
    }

    #[test]
    fn an_address_has_a_bounded_number_of_sign_ins_and_no_other_waits_for_it() {
        let limits = CredentialLimits::default();
        let admitted = (0..100)
            .filter(|_| limits.admit_sign_in(address(1)).is_ok())
            .count();
        assert!((30..35).contains(&admitted), "{admitted}");
        let refused = limits.admit_sign_in(address(1)).unwrap_err();
        assert_eq!(refused.status().as_u16(), 429);
        assert!(limits.admit_sign_in(address(2)).is_ok());
    }

    #[test]
    fn a_valid_token_is_admitted_beside_any_number_of_invalid_ones() {
        let limits = CredentialLimits::default();
        limits.remember_valid("valid");
        let admitted = (0..1_000)
            .filter(|n| {
                limits
                    .admit_credential(address(1), &format!("wrong {n}"))
                    .is_ok()
            })
            .count();
        assert!((120..130).contains(&admitted), "{admitted}");
        assert!(limits.admit_credential(address(1), "valid").is_ok());
    }

    #[test]
    fn the_addresses_that_are_counted_apart_are_bounded() {
        let limits = CredentialLimits::default();
        for n in 0..30_000 {
            drop(limits.admit_sign_in(address(n)));
        }
        assert!(limits.sign_ins.0.len() <= MAX_ADDRESSES + 1);
    }
}
