//! Cancelling deliveries: by an event, by a newer request of the user, by an entered code.

use std::sync::Arc;

use voice_otp_schemas::DeliveryKey;
use voice_otp_schemas::request::{Cancelled, Target, Verified};

use super::{DeadLetterReason, Disposition};
use crate::delivery::{CancelCause, Delivery, State};
use crate::engine::Engine;
use crate::engine::deliveries::Changed;
use crate::engine::retry::{retryable, until_answered};
use crate::ports::{Ledger as _, LedgerError, Ports};

impl<P: Ports> Engine<P> {
    /// Cancels the deliveries that a `cancelled` event names.
    pub(super) async fn cancel(self: &Arc<Self>, cancelled: &Cancelled) -> Disposition {
        let found = until_answered(&self.shutdown, "find deliveries to cancel", || async {
            retryable(self.find_to_cancel(cancelled).await)
        });
        let found = match found.await {
            Some(Ok(found)) => found,
            Some(Err(_)) => return Disposition::DeadLetter(DeadLetterReason::RefusedByDatabase),
            None => return Disposition::Requeue,
        };
        for delivery in found {
            if self.cancel_delivery(delivery, CancelCause::Request).await == Changed::Lost {
                return Disposition::Requeue;
            }
        }
        Disposition::Acknowledge
    }

    /// The deliveries that a `cancelled` event names. For one that has not arrived yet, the
    /// cancellation is recorded.
    async fn find_to_cancel(&self, cancelled: &Cancelled) -> Result<Vec<Delivery>, LedgerError> {
        let tenant_id = &cancelled.tenant_id;
        match &cancelled.target {
            Target::Delivery(delivery_id) => {
                let key = DeliveryKey {
                    tenant_id: tenant_id.clone(),
                    delivery_id: delivery_id.clone(),
                };
                let mut found = self.ledger.find(&key).await?;
                if found.is_none() && !self.ledger.insert_tombstone(&key).await? {
                    // It has arrived meanwhile.
                    found = self.ledger.find(&key).await?;
                }
                Ok(found.into_iter().collect())
            }
            Target::User(user) => self.ledger.find_user(tenant_id, user).await,
        }
    }

    /// Cancels the older open deliveries of the user that a new delivery is for.
    pub(in crate::engine) async fn supersede(self: Arc<Self>, newer: DeliveryKey) {
        let older = until_answered(&self.shutdown, "find older requests", || {
            self.ledger.find_older_requests(&newer)
        });
        for request in older.await.unwrap_or_default() {
            // What is lost here is found when the newer delivery's attempt is started.
            let (Changed::Done | Changed::Lost) =
                self.cancel_delivery(request, CancelCause::Superseded).await;
        }
    }

    /// Records that a code was entered, and cancels a redial that waits.
    pub(super) async fn mark_verified(self: &Arc<Self>, verified: &Verified) -> Disposition {
        let key = DeliveryKey {
            tenant_id: verified.tenant_id.clone(),
            delivery_id: verified.delivery_id.clone(),
        };
        let known = until_answered(&self.shutdown, "mark a delivery as verified", || async {
            retryable(self.ledger.mark_verified(&key).await)
        });
        match known.await {
            Some(Ok(true)) => {}
            Some(Ok(false)) => {
                tracing::debug!(
                    tenant.id = %key.tenant_id,
                    "a code was entered for an unknown delivery"
                );
                return Disposition::Acknowledge;
            }
            Some(Err(_)) => return Disposition::DeadLetter(DeadLetterReason::RefusedByDatabase),
            None => return Disposition::Requeue,
        }
        if let Some(found) = self.deliveries.reload(&key).await
            && found.state == State::Waiting
            && found.redials > 0
            && self.cancel_delivery(found, CancelCause::Verified).await == Changed::Lost
        {
            return Disposition::Requeue;
        }
        Disposition::Acknowledge
    }
}
