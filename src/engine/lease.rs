//! The worker's lease: its registration in the ledger, and the heartbeat that renews it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::clock::LedgerClock;
use super::retry::as_error;
use super::sync::lock;
use crate::ports::{Ledger, LedgerError, WorkerEpoch};

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
                    self.clock.set(sent, answer.now);
                    if answer.alive {
                        self.set(worker, sent);
                    } else {
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
                self.clock.set(sent, now);
                self.set(worker, sent);
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

    fn set(&self, worker: WorkerEpoch, sent: Duration) {
        *lock(&self.current) = Current {
            worker,
            until: sent + self.duration,
        };
    }
}
