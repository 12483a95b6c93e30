//! Circuits: what goes wrong again and again is not tried with everybody's calls.
//!
//! Trouble at Twilio opens the circuit of an account: for a while none of its calls are placed, then one now and then, until one
//! goes well. Credentials that Twilio refuses open the circuit of a tenant: its requests end at once, until Twilio takes the
//! credentials again, which is asked now and then without placing a call, or until the settings change.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Engine;
use crate::failure::{CallFailure, Class, Fault};
use crate::ports::{Caller as _, Directory as _, Ledger as _, Ports};
use crate::settings::VoiceSettings;

/// How long an account is left alone that asks to slow down and doesn't say for how long.
const THROTTLED: Duration = Duration::from_secs(1);
/// Tenants whose credentials are tried again at once.
const ASKED_AT_ONCE: usize = 20;

impl<P: Ports> Engine<P> {
    /// A call was placed with these settings.
    pub(super) async fn note_success(&self, settings: &VoiceSettings) {
        self.troubles.forget(&settings.pace_key);
        if settings.on_trial
            && let Some(_telling) = self.troubles.telling(&settings.pace_key)
        {
            match self.ledger.mend(&settings.pace_key).await {
                Ok(()) => {
                    tracing::info!(account.sid = %settings.account_sid, "circuit closed: Twilio takes the account's calls again");
                }
                Err(error) => {
                    tracing::debug!(
                        error = &error as &dyn std::error::Error,
                        "can't close a circuit, the next call will"
                    );
                }
            }
        }
        if settings.pace_key != settings.account_sid.as_str()
            && let Err(error) = self.directory.proven(settings).await
        {
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                "can't note that the credentials work, the next call will"
            );
        }
    }

    /// A call could not be placed with these settings.
    pub(super) async fn note_failure(&self, settings: &VoiceSettings, failure: &CallFailure) {
        let noted = match failure.class {
            Class::Throttled(wait) => {
                self.troubles.forget(&settings.pace_key);
                let Some(_telling) = self.troubles.telling(&settings.pace_key) else {
                    return;
                };
                self.ledger
                    .hold(&settings.pace_key, wait.unwrap_or(THROTTLED))
                    .await
            }
            Class::Transient | Class::Ambiguous => {
                if !self.troubles.note(&settings.pace_key, settings.on_trial) {
                    return;
                }
                let Some(_telling) = self.troubles.telling(&settings.pace_key) else {
                    return;
                };
                match self.ledger.trip(&settings.pace_key).await {
                    Ok(Some(wait)) => {
                        self.counts.account_circuits.fetch_add(1, Ordering::Relaxed);
                        let wait_ms = wait.as_millis();
                        tracing::warn!(account.sid = %settings.account_sid, wait_ms, "circuit opened: an account's calls meet trouble at Twilio");
                        Ok(())
                    }
                    Ok(None) => Ok(()),
                    Err(error) => Err(error),
                }
            }
            Class::Permanent(Fault::Credentials) => {
                match self.directory.refused(settings).await {
                    Ok(true) => {
                        self.counts
                            .credential_circuits
                            .fetch_add(1, Ordering::Relaxed);
                        tracing::warn!(
                            tenant.id = %settings.tenant_id,
                            account.sid = %settings.account_sid,
                            "circuit opened: Twilio refuses a tenant's credentials; its requests end at once"
                        );
                    }
                    Ok(false) => {}
                    Err(error) => {
                        tracing::warn!(
                            error = &error as &dyn std::error::Error,
                            "can't note that Twilio refuses credentials"
                        );
                    }
                }
                return;
            }
            Class::Congested
            | Class::Permanent(Fault::Tenant | Fault::Destination | Fault::Blocked | Fault::Ours) =>
            {
                self.troubles.forget(&settings.pace_key);
                return;
            }
        };
        if let Err(error) = noted {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "can't tell the other workers to slow down"
            );
        }
    }

    /// Asks Twilio now and then whether it takes credentials again that it refused, until told to stop.
    pub(super) async fn ask_again_forever(self: Arc<Self>) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(self.tuning.ask_again) => {}
                () = self.soft.cancelled() => return,
            }
            let suspects = match self.directory.suspects(ASKED_AT_ONCE).await {
                Ok(suspects) => suspects,
                Err(error) => {
                    tracing::debug!(
                        error = &error as &dyn std::error::Error,
                        "can't look for refused credentials, trying again"
                    );
                    continue;
                }
            };
            for settings in suspects {
                if self.soft.is_cancelled() {
                    return;
                }
                // The tenant's own number is never called: the list only shows whether Twilio lets us in.
                if self.caller.list(&settings, &settings.from).await.is_err() {
                    continue;
                }
                match self.directory.taken(&settings).await {
                    Ok(()) => {
                        tracing::info!(tenant.id = %settings.tenant_id, "circuit closed: Twilio takes the tenant's credentials again");
                    }
                    Err(error) => {
                        tracing::debug!(
                            error = &error as &dyn std::error::Error,
                            "can't close a circuit, trying again"
                        );
                    }
                }
            }
        }
    }
}
