//! Ending calls: of cancelled deliveries, and calls that belong to no delivery.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Engine;
use super::deliveries::Changed;
use super::retry::as_error;
use super::span;
use crate::call::Call;
use crate::delivery::{CancelCause, Delivery, State};
use crate::ports::{Attempt, Ports, Telephony as _};

/// Whether a delivery was cancelled while its call may still ring: the call must be hung up.
pub(super) fn must_hang_up(delivery: &Delivery) -> bool {
    delivery.cancel_reason.is_some()
        && delivery.state == State::Calling
        && delivery.answered_at.is_none()
}

impl<P: Ports> Engine<P> {
    /// Cancels a delivery. Lost if this worker can't save that now.
    pub(super) async fn cancel_delivery(
        self: &Arc<Self>,
        delivery: Delivery,
        cause: CancelCause,
    ) -> Changed {
        let mut current = delivery;
        loop {
            let Some(change) = current.cancel(cause, self.clock.now()) else {
                return Changed::Done;
            };
            match self.deliveries.save(change).await {
                Ok(Some(saved)) => {
                    self.follow_cancellation(saved);
                    return Changed::Done;
                }
                Ok(None) => match self.deliveries.reload(&current.key).await {
                    Some(newer) => current = newer,
                    None => return Changed::Lost,
                },
                Err(_) => return Changed::Lost,
            }
        }
    }

    /// Does what follows from a cancellation that was saved.
    pub(super) fn follow_cancellation(self: &Arc<Self>, saved: Delivery) {
        if must_hang_up(&saved) {
            let delivery = saved.clone();
            self.spawn(|engine| engine.hang_up_cancelled(delivery));
        }
        self.schedule.update(saved);
    }

    /// Hangs up the unanswered call of a cancelled delivery, and applies what Twilio answers.
    pub(super) fn hang_up_cancelled(
        self: Arc<Self>,
        delivery: Delivery,
    ) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        // Boxed, since it applies a call update, and a call update may hang up.
        Box::pin(async move {
            let Some(attempt) = delivery.attempt_id else {
                return;
            };
            if let Some(call) = self.hang_up(&delivery, false).await {
                let found = Attempt {
                    delivery,
                    ended: false,
                };
                self.apply_call_update(found, attempt, &call).await;
            }
        })
    }

    /// Hangs up a call that belongs to no delivery, so that the user doesn't get a second one.
    pub(super) async fn hang_up_orphan(self: Arc<Self>, delivery: Delivery, call: Call) {
        if call.status.is_finished() {
            return;
        }
        self.counts.orphaned_calls.fetch_add(1, Ordering::Relaxed);
        let orphan = Delivery {
            call_sid: Some(call.sid),
            ..delivery
        };
        span::of(&orphan).in_scope(|| tracing::error!("orphaned call found; hanging it up"));
        self.hang_up(&orphan, true).await;
    }

    /// Hangs up a delivery's call, an answered one only if `even_answered`. `None` if Twilio
    /// refuses: the call was answered or has ended meanwhile, and its outcome will be reported.
    pub(super) async fn hang_up(&self, delivery: &Delivery, even_answered: bool) -> Option<Call> {
        let sid = delivery.call_sid.as_ref()?;
        let settings = self.settings.of(&delivery.key.tenant_id).await?.ok()?;
        match self.telephony.hang_up(&settings, sid, even_answered).await {
            Ok(call) => Some(call),
            Err(failure) => {
                tracing::debug!(error = as_error(&failure), "failed to hang up a call");
                None
            }
        }
    }
}
