//! Waiting: what keeps a delivery from being placed now, and what is said of it.

use std::sync::Arc;
use std::time::Duration;

use voice_otp_schemas::reason::{Reason, ReasonCode};
use voice_otp_schemas::status::Status;

use super::{Changed, Engine};
use crate::agenda::Held;
use crate::bulkhead::Berth;
use crate::delivery::{AttemptId, Change, State, WorkerEpoch};
use crate::ports::Ports;
use crate::settings::VoiceSettings;

/// How long a delivery is said to wait, at the most, for other calls to end; then it is said again.
const BUSY_FOR: Duration = Duration::from_secs(10);

impl<P: Ports> Engine<P> {
    /// Its tenant or account was paused while it waited: it is due at its last moment only, and says so once. If it has changed since
    /// the pause was read, it may have been resumed.
    pub(super) async fn park(self: Arc<Self>, mut held: Held, settings: Arc<VoiceSettings>) {
        let Some(paused) = settings.paused else {
            return;
        };
        let read_at = held.delivery.revision;
        let changed = self
            .change(&mut held, |delivery, now| {
                if delivery.state != State::Waiting || delivery.revision != read_at {
                    return None;
                }
                let mut change = Change::of(delivery);
                change.delivery.slot = None;
                change.delivery.wake_at = delivery.place_by;
                change.defer(now, paused.reason());
                Some(change)
            })
            .await;
        if changed == Changed::Done {
            held.put_down();
        }
    }

    /// Says that it waits longer than last said, if so.
    pub(super) async fn announce_wait(self: Arc<Self>, mut held: Held, reason: Reason) {
        let changed = self
            .change(&mut held, |delivery, now| {
                if delivery.state != State::Waiting {
                    return None;
                }
                let mut change = Change::of(delivery);
                change.defer(now, reason.clone());
                (!change.events.is_empty()).then_some(change)
            })
            .await;
        if changed == Changed::Done {
            held.put_down();
        }
    }

    /// Says now and then that it waits for calls that may take a while: not each time that it is looked at.
    pub(super) async fn announce_busy(self: Arc<Self>, mut held: Held, reason: Reason) {
        let until = (self.clock.now() + BUSY_FOR).min(held.delivery.place_by);
        let changed = self
            .change(&mut held, |delivery, now| {
                if delivery.state != State::Waiting
                    || delivery.announced_at.is_some_and(|said| said > now)
                {
                    return None;
                }
                let mut change = Change::of(delivery);
                change.delivery.wake_at = until;
                change.defer(now, reason.clone());
                // It is looked at sooner than was said.
                change.delivery.wake_at = delivery.wake_at;
                (!change.events.is_empty()).then_some(change)
            })
            .await;
        if changed == Changed::Done {
            held.put_down();
        }
    }

    /// It isn't as it was: somebody changed it, or the answer to this very beginning had been lost, and it was begun. Goes on
    /// with the newer value.
    pub(super) async fn look_again(
        self: Arc<Self>,
        worker: WorkerEpoch,
        mut held: Held,
        berth: Berth,
        attempt_id: AttemptId,
    ) {
        let Some(newer) = self.reload(&held.delivery.key).await else {
            return;
        };
        let begun = newer.state == State::Placing && newer.attempt_id == Some(attempt_id);
        *held.delivery = newer;
        if begun {
            self.place(worker, held, berth).await;
        } else {
            held.put_down();
        }
    }

    /// A newer request of the user has come while it waited.
    pub(super) async fn end_superseded(self: Arc<Self>, mut held: Held) {
        let changed = self
            .change(&mut held, |delivery, now| {
                delivery.withdraw(ReasonCode::Superseded, now)
            })
            .await;
        if changed == Changed::Done {
            held.put_down();
        }
    }

    pub(super) async fn end_waiting(
        self: Arc<Self>,
        mut held: Held,
        why: Option<(Status, Reason)>,
    ) {
        let changed = self
            .change(&mut held, |delivery, now| match (&why, delivery.state) {
                (Some((status, reason)), State::Waiting) => {
                    let mut change = Change::of(delivery);
                    change.end(now, *status, reason.clone());
                    Some(change)
                }
                (None, State::Waiting) => Some(delivery.expire(now)),
                _ => None,
            })
            .await;
        if changed == Changed::Done {
            held.put_down();
        }
    }
}
