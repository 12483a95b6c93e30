//! Circuit breakers: a failing account or tenant is not tried with every call.
//!
//! Failures at Twilio open the circuit of an account: no calls for a while, then half-open probes
//! until one succeeds. Credentials that Twilio rejects open the circuit of a tenant: its requests
//! finish at once, until Twilio accepts the credentials again, which is probed without placing a
//! call, or until they change.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::circuit::FailureStreaks;
use super::counts::Counts;
use super::retry::as_error;
use super::shutdown::Shutdown;
use crate::call::failure::{CallFailure, Class, Fault};
use crate::ports::{Directory as _, Ledger as _, LedgerError, Ports, Telephony as _};
use crate::settings::VoiceSettings;

/// How long an account is throttled when Twilio asks to slow down without saying for how long.
const DEFAULT_THROTTLE: Duration = Duration::from_secs(1);
/// How many tenants' credentials one round probes.
const MAX_PROBES: usize = 20;

/// Opens and closes circuits.
pub(super) struct Circuits<P: Ports> {
    pub(super) ledger: Arc<P::Ledger>,
    pub(super) directory: Arc<P::Directory>,
    pub(super) telephony: Arc<P::Telephony>,
    pub(super) streaks: FailureStreaks,
    pub(super) counts: Arc<Counts>,
    pub(super) shutdown: Shutdown,
    /// The pause between two rounds of credential probes.
    pub(super) probe_interval: Duration,
}

impl<P: Ports> Circuits<P> {
    /// Records that a call was placed with these settings.
    pub(super) async fn record_success(&self, settings: &VoiceSettings) {
        self.streaks.clear(&settings.pace_key);
        if settings.circuit_open
            && let Some(_guard) = self.streaks.try_report(&settings.pace_key)
        {
            match self.ledger.close_circuit(&settings.pace_key).await {
                Ok(()) => {
                    tracing::info!(account.sid = %settings.account_sid, "account circuit closed");
                }
                Err(error) => {
                    tracing::debug!(
                        error = as_error(&error),
                        "failed to close a circuit; the next call retries"
                    );
                }
            }
        }
        if settings.pace_key != settings.account_sid.as_str()
            && let Err(error) = self.directory.mark_credentials_verified(settings).await
        {
            tracing::debug!(
                error = as_error(&error),
                "failed to mark credentials as verified; the next call retries"
            );
        }
    }

    /// Records that a call could not be placed with these settings.
    pub(super) async fn record_failure(&self, settings: &VoiceSettings, failure: &CallFailure) {
        match failure.class {
            Class::Throttled(wait) => self.throttle(settings, wait).await,
            Class::Transient | Class::Ambiguous => self.open_account(settings).await,
            Class::Permanent(Fault::Credentials) => self.open_tenant(settings).await,
            Class::Congested
            | Class::Permanent(
                Fault::Tenant | Fault::Destination | Fault::Blocked | Fault::Internal,
            ) => self.streaks.clear(&settings.pace_key),
        }
    }

    async fn throttle(&self, settings: &VoiceSettings, wait: Option<Duration>) {
        self.streaks.clear(&settings.pace_key);
        let Some(_guard) = self.streaks.try_report(&settings.pace_key) else {
            return;
        };
        let wait = wait.unwrap_or(DEFAULT_THROTTLE);
        if let Err(error) = self.ledger.throttle_account(&settings.pace_key, wait).await {
            warn_not_shared(&error);
        }
    }

    async fn open_account(&self, settings: &VoiceSettings) {
        if !self
            .streaks
            .record(&settings.pace_key, settings.circuit_open)
        {
            return;
        }
        let Some(_guard) = self.streaks.try_report(&settings.pace_key) else {
            return;
        };
        match self.ledger.open_circuit(&settings.pace_key).await {
            Ok(Some(wait)) => {
                self.counts.account_circuits.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(
                    account.sid = %settings.account_sid,
                    wait_ms = wait.as_millis(),
                    "account circuit opened: calls fail at Twilio"
                );
            }
            Ok(None) => {}
            Err(error) => warn_not_shared(&error),
        }
    }

    async fn open_tenant(&self, settings: &VoiceSettings) {
        match self.directory.mark_credentials_rejected(settings).await {
            Ok(true) => {
                self.counts
                    .credential_circuits
                    .fetch_add(1, Ordering::Relaxed);
                tracing::warn!(
                    tenant.id = %settings.tenant_id,
                    account.sid = %settings.account_sid,
                    "credential circuit opened: Twilio rejects the tenant's credentials"
                );
            }
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(
                    error = as_error(&error),
                    "failed to mark credentials as rejected"
                );
            }
        }
    }

    /// Probes rejected credentials, until asked to stop.
    pub(super) async fn probe_loop(self: Arc<Self>) {
        while !self.shutdown.sleep_or_soft(self.probe_interval).await {
            let rejected = match self.directory.claim_rejected_credentials(MAX_PROBES).await {
                Ok(rejected) => rejected,
                Err(error) => {
                    tracing::debug!(
                        error = as_error(&error),
                        "failed to read rejected credentials; retrying"
                    );
                    continue;
                }
            };
            for settings in rejected {
                if self.shutdown.soft.is_cancelled() {
                    return;
                }
                self.probe(&settings).await;
            }
        }
    }

    async fn probe(&self, settings: &VoiceSettings) {
        // The call list only shows whether Twilio accepts the credentials. No call is placed, and
        // the tenant's own From number is never called, so the list is short.
        if self.telephony.list(settings, &settings.from).await.is_err() {
            return;
        }
        match self.directory.mark_credentials_accepted(settings).await {
            Ok(()) => {
                tracing::info!(tenant.id = %settings.tenant_id, "credential circuit closed");
            }
            Err(error) => {
                tracing::debug!(
                    error = as_error(&error),
                    "failed to mark credentials as accepted; retrying"
                );
            }
        }
    }
}

fn warn_not_shared(error: &LedgerError) {
    tracing::warn!(
        error = as_error(error),
        "failed to slow the account down for the other workers"
    );
}
