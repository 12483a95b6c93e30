//! The worker's lease: its registration in the ledger, and the heartbeat that renews it.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::clock::{ClockStep, LedgerClock};
use super::counts::Counts;
use super::retry::as_error;
use super::sync::lock;
use crate::ports::{Ledger, LedgerError, WorkerEpoch};
use voice_otp_schemas::Timestamp;

/// The registration of this worker, and until when it is valid.
pub(super) struct Lease<L> {
    ledger: Arc<L>,
    clock: Arc<LedgerClock>,
    /// The worker's name, for operators.
    name: String,
    /// How long a registration or a heartbeat is valid.
    duration: Duration,
    /// The pause between heartbeats.
    interval: Duration,
    current: Mutex<Current>,
    /// A step back of the ledger's clock whose repair has not succeeded yet.
    unrepaired: Mutex<Duration>,
    counts: Arc<Counts>,
}

#[derive(Clone, Copy)]
struct Current {
    worker: WorkerEpoch,
    /// The end of the lease, on the monotonic clock.
    until: Duration,
}

impl<L: Ledger> Lease<L> {
    /// The lease of a registration that was requested at `sent` on the monotonic clock.
    pub(super) fn new(
        ledger: Arc<L>,
        clock: Arc<LedgerClock>,
        worker: WorkerEpoch,
        sent: Duration,
        settings: (&str, Duration, Duration),
        counts: Arc<Counts>,
    ) -> Self {
        let (name, duration, interval) = settings;
        let current = Mutex::new(Current {
            worker,
            until: sent + duration,
        });
        Self {
            ledger,
            clock,
            name: name.to_owned(),
            duration,
            interval,
            current,
            unrepaired: Mutex::default(),
            counts,
        }
    }

    /// The current registration.
    pub(super) fn worker(&self) -> WorkerEpoch {
        lock(&self.current).worker
    }

    /// Whether the lease under which an intent was stored is certainly valid now. Once it isn't,
    /// another worker may be settling the delivery, so nothing may be sent for it any more.
    pub(super) fn is_valid(&self, worker: WorkerEpoch) -> bool {
        let current = *lock(&self.current);
        current.worker == worker && self.clock.elapsed() < current.until
    }

    /// Whether the current lease is valid.
    pub(super) fn is_current(&self) -> bool {
        self.is_valid(self.worker())
    }

    /// Sends heartbeats until the worker has closed. The lease counts from before a heartbeat was
    /// sent. `on_expiry` drops what the expired registration owned.
    pub(super) async fn heartbeat_loop(&self, closed: CancellationToken, on_expiry: impl Fn()) {
        let mut failing = false;
        loop {
            let sent = self.clock.elapsed();
            let worker = self.worker();
            match tokio::time::timeout(self.duration, self.ledger.heartbeat(worker)).await {
                Ok(Ok(answer)) => {
                    if std::mem::take(&mut failing) {
                        tracing::info!("database available again; the lease is renewed");
                    }
                    // First the lease: a repair of the clock may take long.
                    if answer.alive {
                        self.set(worker, sent);
                    }
                    self.set_clock(sent, answer.now).await;
                    if !answer.alive {
                        self.reregister(&on_expiry).await;
                    }
                }
                Ok(Err(error)) => {
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!(
                            error = as_error(&error),
                            "failed to renew the lease; retrying"
                        );
                    }
                }
                Err(_) => {
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!("failed to renew the lease: no answer in time; retrying");
                    }
                }
            }
            // Cancel-safe: both arms only wait.
            tokio::select! {
                () = tokio::time::sleep(self.interval) => {}
                () = closed.cancelled() => return,
            }
        }
    }

    /// Registers again after the lease has expired: other workers may own the deliveries now.
    async fn reregister(&self, on_expiry: &impl Fn()) {
        let sent = self.clock.elapsed();
        match self.ledger.register_worker(&self.name).await {
            Ok((worker, now)) => {
                on_expiry();
                self.set(worker, sent);
                self.set_clock(sent, now).await;
                // Others may have noticed a step meanwhile.
                if let Ok(by) = self.ledger.recent_step_back().await {
                    self.clock.note_step(by);
                }
                tracing::warn!(
                    worker.epoch = worker.0,
                    "lease expired; registered as a new epoch, its deliveries belong to other \
                     workers"
                );
            }
            Err(error) => {
                tracing::warn!(
                    error = as_error(&error),
                    "failed to register again; retrying"
                );
            }
        }
    }

    /// Ends the registration, so that other workers may claim its deliveries at once.
    pub(super) async fn release(&self) {
        let released =
            tokio::time::timeout(self.duration, self.ledger.release_worker(self.worker()));
        let released = released
            .await
            .unwrap_or(Err(LedgerError::ProtocolViolation("no answer in time")));
        if let Err(error) = released {
            tracing::warn!(
                error = as_error(&error),
                "failed to release the deliveries; other workers claim them when the lease expires"
            );
        }
    }

    /// Sets the clock. If the ledger's clock was set back, what was computed before is repaired. A
    /// repair that takes half a lease is left to the next heartbeat, which must not be late.
    async fn set_clock(&self, sent: Duration, now: Timestamp) {
        if let Some(step) = self.clock.set(sent, now) {
            self.counts.clock_steps.fetch_add(1, Ordering::Relaxed);
            match step {
                ClockStep::Forward(by) => {
                    tracing::error!(
                        by_s = by.as_secs_f64(),
                        "the database's clock went forward; codes expire and leases end early"
                    );
                }
                ClockStep::Back(by) => {
                    tracing::error!(
                        by_s = by.as_secs_f64(),
                        "the database's clock went back; repairing slots, leases and due times"
                    );
                    *lock(&self.unrepaired) += by;
                }
            }
        }
        let step = *lock(&self.unrepaired);
        if step.is_zero() {
            return;
        }
        let repairing = self.ledger.repair_clock_step(step);
        match tokio::time::timeout(self.duration / 2, repairing).await {
            Ok(Ok(())) => *lock(&self.unrepaired) = Duration::ZERO,
            Err(_) => tracing::debug!("a repair takes long; trying again"),
            Ok(Err(error)) => {
                tracing::warn!(
                    error = as_error(&error),
                    "failed to repair them; waiting calls may be late"
                );
            }
        }
    }

    fn set(&self, worker: WorkerEpoch, sent: Duration) {
        *lock(&self.current) = Current {
            worker,
            until: sent + self.duration,
        };
    }
}
