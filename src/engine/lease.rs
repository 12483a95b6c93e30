//! The worker's life in the ledger: renewing its lease, and taking over what nobody holds.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use voice_otp_schemas::reason::{Reason, ReasonCode};

use super::Engine;
use crate::delivery::{Delivery, State, WorkerEpoch};
use crate::ports::{Ledger as _, LedgerError, Ports};

const MOVED: &str = "the account's pace has changed, or Twilio asked to wait";

/// The present life.
pub(super) struct Life {
    name: String,
    present: Mutex<(WorkerEpoch, Duration)>,
}

impl Life {
    pub(super) fn new(worker: WorkerEpoch, until: Duration, name: &str) -> Self {
        Self {
            name: name.to_owned(),
            present: Mutex::new((worker, until)),
        }
    }

    pub(super) fn worker(&self) -> WorkerEpoch {
        self.present
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .0
    }

    /// Whether the lease that an intent was saved under certainly holds at this moment of the steady clock. After it, another worker may have taken
    /// a delivery over and be settling it, so nothing may be sent any more.
    pub(super) fn may_send(&self, worker: WorkerEpoch, now: Duration) -> bool {
        let (present, until) = *self.present.lock().unwrap_or_else(PoisonError::into_inner);
        present == worker && now < until
    }

    fn set(&self, worker: WorkerEpoch, until: Duration) {
        *self.present.lock().unwrap_or_else(PoisonError::into_inner) = (worker, until);
    }
}

impl<P: Ports> Engine<P> {
    /// Renews the lease, counted from before the renewal left, until the worker has closed.
    pub(super) async fn beat(self: Arc<Self>, closed: CancellationToken) {
        let mut failing = false;
        loop {
            let sent = self.clock.elapsed();
            let worker = self.life.worker();
            match tokio::time::timeout(self.tuning.lease, self.ledger.beat(worker)).await {
                Ok(Ok(beat)) => {
                    if std::mem::take(&mut failing) {
                        tracing::info!("the ledger answers again");
                    }
                    self.clock.set(sent, beat.now);
                    if beat.alive {
                        self.life.set(worker, sent + self.tuning.lease);
                    } else {
                        self.be_born_again().await;
                    }
                }
                Ok(Err(error)) => {
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!(
                            error = &error as &dyn std::error::Error,
                            "can't renew the lease, trying again"
                        );
                    }
                }
                Err(_) => {
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!("the ledger doesn't answer, so the lease isn't renewed");
                    }
                }
            }
            tokio::select! {
                () = tokio::time::sleep(self.tuning.beat) => {}
                () = closed.cancelled() => return,
            }
        }
    }

    /// The lease has lapsed: what this worker held may be others'. It starts a new life with empty hands.
    async fn be_born_again(&self) {
        let sent = self.clock.elapsed();
        match self.ledger.enlist(&self.life.name).await {
            Ok((worker, now)) => {
                self.agenda.clear();
                self.clock.set(sent, now);
                self.life.set(worker, sent + self.tuning.lease);
                tracing::warn!(
                    worker.epoch = worker.0,
                    "the lease had lapsed; this worker starts anew, others have its deliveries"
                );
            }
            Err(error) => tracing::warn!(
                error = &error as &dyn std::error::Error,
                "can't start a new life, trying again"
            ),
        }
    }

    /// Takes over due deliveries that nobody holds, until told to stop.
    pub(super) async fn claim_forever(self: Arc<Self>) {
        loop {
            let most = self.tuning.claim_rows;
            let claimed = match self.ledger.claim(self.life.worker(), most).await {
                Ok(claimed) => claimed,
                Err(error) => {
                    tracing::debug!(
                        error = &error as &dyn std::error::Error,
                        "can't claim deliveries, trying again"
                    );
                    Vec::new()
                }
            };
            // What it holds already is listed only as a reminder.
            let full = claimed
                .iter()
                .filter(|delivery| !self.agenda.holds(&delivery.key))
                .count()
                >= most;
            for delivery in claimed {
                self.take_up(delivery);
            }
            let pause = if full {
                Duration::from_millis(10)
            } else {
                self.tuning.claim
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.soft.cancelled() => return,
            }
        }
    }

    /// A delivery that was claimed goes into the agenda. If it waits longer than was said, that is said first.
    fn take_up(self: &Arc<Self>, delivery: Delivery) {
        let longer =
            delivery.state == State::Waiting && delivery.slot.is_some() && delivery.waits_longer();
        if !longer {
            self.agenda.learn(delivery);
        } else if let Some(held) = self.agenda.take_newer(delivery) {
            drop(
                self.tasks.spawn(
                    Arc::clone(self).announce_wait(held, Reason::new(ReasonCode::Pace, MOVED)),
                ),
            );
        }
    }

    /// Puts away what has been over for long, and looks for what should be over and isn't, until told to stop.
    pub(super) async fn tidy_forever(self: Arc<Self>) {
        loop {
            // Not all workers at one moment.
            let pause = self.tuning.tidy / 2 + self.dice.below(self.tuning.tidy);
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.soft.cancelled() => return,
            }
            let tidied = async {
                while self.ledger.tidy().await? > 0 && !self.soft.is_cancelled() {
                    // A little at a time, so that nobody waits for it.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                Ok::<_, LedgerError>(())
            };
            if let Err(error) = tidied.await {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "can't put finished deliveries away, trying again"
                );
            }
            match self
                .ledger
                .finals_missing(self.tuning.give_up + self.tuning.final_margin)
                .await
            {
                Ok(missing) => {
                    if missing > 0 {
                        tracing::error!(
                            missing,
                            "deliveries are not over long after their codes' ends"
                        );
                    }
                    self.counts.finals_missing.store(missing, Ordering::Relaxed);
                }
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "can't count missing endings, trying again"
                    );
                }
            }
        }
    }

    /// Publishes what a crash left unpublished, until told to stop.
    pub(super) async fn sweep_forever(self: Arc<Self>) {
        loop {
            match self
                .ledger
                .unpublished(self.life.worker(), self.tuning.group)
                .await
            {
                Ok(events) => self.relay.sweep(events),
                Err(error) => {
                    tracing::debug!(
                        error = &error as &dyn std::error::Error,
                        "can't sweep the outbox, trying again"
                    );
                }
            }
            tokio::select! {
                () = tokio::time::sleep(self.tuning.sweep) => {}
                () = self.soft.cancelled() => return,
            }
        }
    }
}
