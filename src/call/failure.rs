//! What a failed request to Twilio means, and what happens next: decided here, once.
#![deny(clippy::wildcard_enum_match_arm)]

use std::time::Duration;

use voice_otp_schemas::reason::{Reason, ReasonCode};
use voice_otp_schemas::status::Status;

/// A request to Twilio that failed.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{operator_message}")]
pub struct CallFailure {
    /// The class of the failure, which decides what happens next.
    pub class: Class,
    /// Twilio's error code, if the answer had one.
    pub provider_code: Option<u32>,
    /// The HTTP status, if there was an answer.
    pub http_status: Option<u16>,
    /// Twilio's id of the request, for its support.
    pub request_id: Option<String>,
    /// A sentence for the tenant: what to do. No number, code or secret.
    pub tenant_message: String,
    /// A clause for the operator: what happened. No number, code or secret.
    pub operator_message: String,
}

/// The class of a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// No call was made, for certain, and a retry may succeed: Twilio was unreachable.
    Transient,
    /// Twilio refused to process the request and asks to slow down; with the wait that it asks for,
    /// if it does.
    Throttled(Option<Duration>),
    /// The account's queue or concurrency is full: like `Throttled`, but the attempt counts.
    Congested,
    /// The same request will never succeed.
    Permanent(Fault),
    /// The request was sent, and no conclusive answer came back. A call may have been made.
    Ambiguous,
}

/// The responsible party of a permanent failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The tenant: Twilio rejects its credentials.
    Credentials,
    /// The tenant: its Twilio account or settings prevent the call.
    Tenant,
    /// The destination: the number doesn't exist, or can't be reached.
    Destination,
    /// The destination: calls to the number are blocked.
    Blocked,
    /// Voice-otp itself: the request was wrong.
    Internal,
}

/// What happens next to a delivery whose attempt failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Retry after a delay. The attempt counts.
    Retry {
        /// The delay, before jitter.
        after: Duration,
        /// Why it is retried, for the `deferred` status.
        reason: Reason,
    },
    /// Retry after a delay. The attempt doesn't count.
    Snooze {
        /// The wait that Twilio asked for, which applies to the whole account. `None`: the usual
        /// delay, for this delivery alone.
        wait: Option<Duration>,
        /// Why it is retried, for the `deferred` status.
        reason: Reason,
    },
    /// Find out first, from Twilio's call list, whether the attempt made a call.
    SettleFirst,
    /// Finish the delivery.
    Final {
        /// The final status.
        status: Status,
        /// Why the delivery has this status.
        reason: Reason,
    },
}

/// Decides what happens next. `spent` counts the delivery's attempts, this one included, of which
/// it may have `attempts`; `delay` is the retry schedule's delay before the next one.
pub fn next(failure: &CallFailure, spent: u32, attempts: u32, delay: Duration) -> Next {
    let reason = |code| Reason {
        provider_code: failure.provider_code,
        ..Reason::new(code, failure.tenant_message.clone())
    };
    let fail = |code| Next::Final {
        status: Status::Failed,
        reason: reason(code),
    };
    let retry = |code| {
        if spent < attempts {
            Next::Retry {
                after: delay,
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
        Class::Congested => retry(ReasonCode::Throttled),
        Class::Throttled(wait) => Next::Snooze {
            wait,
            reason: reason(ReasonCode::Throttled),
        },
        Class::Ambiguous => Next::SettleFirst,
        Class::Permanent(Fault::Credentials) => fail(ReasonCode::TenantCredentials),
        Class::Permanent(Fault::Tenant) => fail(ReasonCode::TenantConfiguration),
        Class::Permanent(Fault::Destination) => fail(ReasonCode::DestinationInvalid),
        Class::Permanent(Fault::Blocked) => fail(ReasonCode::DestinationBlocked),
        Class::Permanent(Fault::Internal) => fail(ReasonCode::RequestRefused),
    }
}

impl Class {
    /// The class as one word, for logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Transient => "transient",
            Self::Throttled(_) => "throttled",
            Self::Congested => "congested",
            Self::Permanent(Fault::Credentials) => "credentials",
            Self::Permanent(Fault::Tenant) => "tenant",
            Self::Permanent(Fault::Destination) => "destination",
            Self::Permanent(Fault::Blocked) => "blocked",
            Self::Permanent(Fault::Internal) => "internal",
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
            tenant_message: "t".to_owned(),
            operator_message: "o".to_owned(),
        };
        next(&failure, spent, 3, Duration::from_secs(1))
    }

    #[test]
    fn a_congested_account_is_retried_until_the_attempts_are_spent() {
        assert!(matches!(after(Class::Congested, 2), Next::Retry { .. }));
        let Next::Final {
            status: Status::Failed,
            reason,
        } = after(Class::Congested, 3)
        else {
            panic!("not final")
        };
        assert_eq!(
            (reason.code, reason.provider_code),
            (ReasonCode::ProviderTrouble, Some(20429))
        );
    }

    #[test]
    fn an_unreachable_twilio_is_retried_without_spending_attempts() {
        assert!(matches!(
            after(Class::Transient, 9),
            Next::Snooze { wait: None, .. }
        ));
    }

    #[test]
    fn a_throttled_attempt_is_snoozed_however_many_were_spent() {
        let wait = Some(Duration::from_secs(7));
        assert!(matches!(
            after(Class::Throttled(wait), 9),
            Next::Snooze { wait: Some(w), .. } if w.as_secs() == 7
        ));
    }

    #[test]
    fn an_unknown_outcome_is_settled_first_whatever_was_spent() {
        assert_eq!(after(Class::Ambiguous, 1), Next::SettleFirst);
        assert_eq!(after(Class::Ambiguous, 3), Next::SettleFirst);
    }

    #[test]
    fn a_permanent_failure_is_final_and_names_the_responsible_party() {
        for (fault, code) in [
            (Fault::Credentials, ReasonCode::TenantCredentials),
            (Fault::Tenant, ReasonCode::TenantConfiguration),
            (Fault::Destination, ReasonCode::DestinationInvalid),
            (Fault::Blocked, ReasonCode::DestinationBlocked),
            (Fault::Internal, ReasonCode::RequestRefused),
        ] {
            assert!(matches!(
                after(Class::Permanent(fault), 1),
                Next::Final { reason, .. } if reason.code == code
            ));
        }
    }
}
