//! Waiting: what keeps a delivery from being placed now, and what is published about it.

use std::sync::Arc;
use std::time::Duration;

use voice_otp_schemas::Timestamp;
use voice_otp_schemas::reason::Reason;
use voice_otp_schemas::status::Status;

use super::Engine;
use super::bulkhead::Permit;
use super::deliveries::Changed;
use super::schedule::Held;
use crate::delivery::{AttemptId, CancelCause, Change, Delivery, State};
use crate::ports::{Ports, WorkerEpoch};
use crate::settings::VoiceSettings;

/// The longest wait for other calls that is published at once; then it is published again.
const BUSY_ANNOUNCEMENT: Duration = Duration::from_secs(10);

impl<P: Ports> Engine<P> {
    /// Changes a held delivery if it is still waiting, then releases it.
    async fn change_waiting(
        &self,
        mut held: Held,
        compute: impl Fn(&Delivery, Timestamp) -> Option<Change>,
    ) {
        let compute = |delivery: &Delivery, now| {
            if delivery.state == State::Waiting {
                compute(delivery, now)
            } else {
                None
            }
        };
        if self.deliveries.change(&mut held, compute).await == Changed::Done {
            held.release();
        }
    }

    /// Defers a delivery whose tenant or account was paused while it waited: it is due at its
    /// deadline only. If it has changed since the pause was read, it may have been resumed.
    pub(super) async fn defer_while_paused(
        self: Arc<Self>,
        held: Held,
        settings: Arc<VoiceSettings>,
    ) {
        let Some(paused) = settings.paused else {
            return;
        };
        let read_at = held.delivery.revision;
        self.change_waiting(held, |delivery, now| {
            if delivery.revision != read_at {
                return None;
            }
            let mut change = Change::unchanged(delivery);
            change.delivery.slot = None;
            change.delivery.wake_at = delivery.place_by;
            change.defer(now, paused.reason());
            Some(change)
        })
        .await;
    }

    /// Publishes that the delivery waits longer than last published, if it does.
    pub(super) async fn announce_wait(self: Arc<Self>, held: Held, reason: Reason) {
        self.change_waiting(held, |delivery, now| {
            let mut change = Change::unchanged(delivery);
            change.defer(now, reason.clone());
            (!change.events.is_empty()).then_some(change)
        })
        .await;
    }

    /// Publishes from time to time that the delivery waits for other calls, which may take long:
    /// not each time that it is tried.
    pub(super) async fn announce_busy(self: Arc<Self>, held: Held, reason: Reason) {
        let until = (self.clock.now() + BUSY_ANNOUNCEMENT).min(held.delivery.place_by);
        self.change_waiting(held, |delivery, now| {
            if delivery
                .announced_at
                .is_some_and(|announced| announced > now)
            {
                return None;
            }
            let mut change = Change::unchanged(delivery);
            change.delivery.wake_at = until;
            change.defer(now, reason.clone());
            // It is tried sooner than was published.
            change.delivery.wake_at = delivery.wake_at;
            (!change.events.is_empty()).then_some(change)
        })
        .await;
    }

    /// Continues with the newer value of a delivery that was changed concurrently. Perhaps this
    /// worker's own start changed it, and only the answer was lost.
    pub(super) async fn resume_after_conflict(
        self: Arc<Self>,
        worker: WorkerEpoch,
        mut held: Held,
        permit: Permit,
        attempt_id: AttemptId,
    ) {
        let Some(newer) = self.deliveries.reload(&held.delivery.key).await else {
            return;
        };
        let started = newer.state == State::Placing && newer.attempt_id == Some(attempt_id);
        held.replace(newer);
        if started {
            self.place(worker, held, permit).await;
        } else {
            held.release();
        }
    }

    /// Finishes a delivery that was superseded while it waited.
    pub(super) async fn finish_superseded(self: Arc<Self>, mut held: Held) {
        let cancel = |delivery: &Delivery, now| delivery.cancel(CancelCause::Superseded, now);
        if self.deliveries.change(&mut held, cancel).await == Changed::Done {
            held.release();
        }
    }

    /// Finishes a waiting delivery with this outcome.
    pub(super) async fn finish_waiting(self: Arc<Self>, held: Held, outcome: (Status, Reason)) {
        let (status, reason) = outcome;
        self.change_waiting(held, |delivery, now| {
            let mut change = Change::unchanged(delivery);
            change.finish(now, status, reason.clone());
            Some(change)
        })
        .await;
    }

    /// Finishes a waiting delivery as expired.
    pub(super) async fn expire_waiting(self: Arc<Self>, held: Held) {
        self.change_waiting(held, |delivery, now| Some(delivery.expire(now)))
            .await;
    }
}
