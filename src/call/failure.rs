//! What went wrong with a placement, and what happens next: decided here, once.
#![deny(clippy::wildcard_enum_match_arm)]

use std::time::Duration;

use voice_otp_schemas::reason::{Reason, ReasonCode};
use voice_otp_schemas::status::Status;

/// A request to Twilio that didn't go well.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{operator}")]
pub struct CallFailure {
    /// What kind of trouble.
    pub class: Class,
    /// Twilio's error code, where it gave one.
    pub provider_code: Option<u32>,
    /// The HTTP status, where there was an answer.
    pub http_status: Option<u16>,
    /// Twilio's id of the request, for its support.
    pub request_id: Option<String>,
    /// A sentence for the tenant: what to do. No number, no code, no secret.
    pub tenant: String,
    /// A clause for the operator: what happened. No number, no code, no secret.
    pub operator: String,
}

/// What kind of trouble a failure is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// It certainly made no call, and may go well the next time: Twilio couldn't be reached.
    Transient,
    /// Twilio never processed it, and asks to slow down; with its wait, where it gave one.
    Throttled(Option<Duration>),
    /// The account's queue or concurrency is full: as throttled, but it counts as an attempt.
    Congested,
    /// The same request will never go well.
    Permanent(Fault),
    /// It was sent and no answer that tells came back: it may have made a call.
    Ambiguous,
}

/// Whose fault a permanent failure is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Twilio refuses the tenant's credentials.
    Credentials,
    /// The tenant's Twilio account or settings.
    Tenant,
    /// The number doesn't exist, or can't be reached.
    Destination,
    /// Calls to the number are blocked.
    Blocked,
    /// Our request was wrong.
    Ours,
}

/// What happens next to a delivery whose placement failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Again, after a pause; the attempt is spent.
    Retry {
        /// Before jitter.
        after: Duration,
        /// Why.
        reason: Reason,
    },
    /// Again, after a pause; no attempt is spent.
    Snooze {
        /// What Twilio asked for; holds for the whole account.
        wait: Option<Duration>,
        /// Why.
        reason: Reason,
    },
    /// Ask Twilio first whether it made a call.
    SettleFirst,
    /// It is over.
    Final {
        /// The final status.
        status: Status,
        /// Why.
        reason: Reason,
    },
}

/// Decides what is next. `spent` counts the attempts, this one included; `spacing` is the pause before the next, by
/// the retry schedule.
pub fn next(failure: &CallFailure, spent: u32, attempts: u32, spacing: Duration) -> Next {
    let reason = |code| Reason {
        provider_code: failure.provider_code,
        ..Reason::new(code, failure.tenant.clone())
    };
    let fail = |code| Next::Final {
        status: Status::Failed,
        reason: reason(code),
    };
    let again = |code| {
        if spent < attempts {
            Next::Retry {
                after: spacing,
                reason: reason(code),
            }
        } else {
            fail(ReasonCode::ProviderTrouble)
        }
    };
    match failure.class {
        Class::Transient => Next::Snooze {
            wait: None,
            reason: reason(ReasonCode::Retry),
        },
        Class::Congested => again(ReasonCode::Throttled),
        Class::Throttled(wait) => Next::Snooze {
            wait,
            reason: reason(ReasonCode::Throttled),
        },
        Class::Ambiguous => Next::SettleFirst,
        Class::Permanent(Fault::Credentials) => fail(ReasonCode::TenantCredentials),
        Class::Permanent(Fault::Tenant) => fail(ReasonCode::TenantConfiguration),
        Class::Permanent(Fault::Destination) => fail(ReasonCode::DestinationInvalid),
        Class::Permanent(Fault::Blocked) => fail(ReasonCode::DestinationBlocked),
        Class::Permanent(Fault::Ours) => fail(ReasonCode::RequestRefused),
    }
}

impl Class {
    /// A constant word for logs and metrics.
    pub fn word(self) -> &'static str {
        match self {
            Self::Transient => "transient",
            Self::Throttled(_) => "throttled",
            Self::Congested => "congested",
            Self::Permanent(Fault::Credentials) => "credentials",
            Self::Permanent(Fault::Tenant) => "tenant",
            Self::Permanent(Fault::Destination) => "destination",
            Self::Permanent(Fault::Blocked) => "blocked",
            Self::Permanent(Fault::Ours) => "ours",
            Self::Ambiguous => "ambiguous",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(class: Class, spent: u32) -> Next {
        let failure = CallFailure {
            class,
            provider_code: Some(20429),
            http_status: None,
            request_id: None,
            tenant: "t".to_owned(),
            operator: "o".to_owned(),
        };
        next(&failure, spent, 3, Duration::from_secs(1))
    }

    #[test]
    fn a_congested_account_is_tried_again_until_the_attempts_are_spent() {
        assert!(matches!(after(Class::Congested, 2), Next::Retry { .. }));
        let Next::Final {
            status: Status::Failed,
            reason,
        } = after(Class::Congested, 3)
        else {
            panic!("not over")
        };
        assert_eq!(
            (reason.code, reason.provider_code),
            (ReasonCode::ProviderTrouble, Some(20429))
        );
    }

    #[test]
    fn a_twilio_that_cannot_be_reached_is_waited_for_as_long_as_the_code_lives() {
        assert!(matches!(
            after(Class::Transient, 9),
            Next::Snooze { wait: None, .. }
        ));
    }

    #[test]
    fn a_throttled_placement_is_snoozed_however_often() {
        let wait = Some(Duration::from_secs(7));
        assert!(
            matches!(after(Class::Throttled(wait), 9), Next::Snooze { wait: Some(w), .. } if w.as_secs() == 7)
        );
    }

    #[test]
    fn an_unknown_outcome_is_settled_first_whatever_was_spent() {
        assert_eq!(after(Class::Ambiguous, 1), Next::SettleFirst);
        assert_eq!(after(Class::Ambiguous, 3), Next::SettleFirst);
    }

    #[test]
    fn a_permanent_failure_ends_at_once_and_says_whose_fault() {
        for (fault, code) in [
            (Fault::Credentials, ReasonCode::TenantCredentials),
            (Fault::Tenant, ReasonCode::TenantConfiguration),
            (Fault::Destination, ReasonCode::DestinationInvalid),
            (Fault::Blocked, ReasonCode::DestinationBlocked),
            (Fault::Ours, ReasonCode::RequestRefused),
        ] {
            assert!(
                matches!(after(Class::Permanent(fault), 1), Next::Final { reason, .. } if reason.code == code)
            );
        }
    }
}
