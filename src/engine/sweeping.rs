//! The sweeper: publishes events that were left behind in the outbox.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use voice_otp_schemas::{TenantId, Timestamp};

use super::Engine;
use super::retry::as_error;
use crate::ports::{Ledger as _, LedgerError, Ports};

/// The pause after a sweep that found all it may take: more events are probably left.
const FULL_SWEEP_PAUSE: Duration = Duration::from_millis(10);

/// What the sweeper remembers between two sweeps.
struct Sweeper {
    /// How far this worker's own old events have been looked at.
    own_after: Timestamp,
    /// When they are looked at next.
    own_at: Instant,
    /// How many sweeps in a row have failed.
    failures: u32,
}

impl<P: Ports> Engine<P> {
    /// Publishes the events of dead workers, and forgotten ones of this worker, until asked to
    /// stop.
    pub(super) async fn sweep_loop(self: Arc<Self>) {
        let mut sweeper = Sweeper {
            own_after: Timestamp::UNIX_EPOCH,
            own_at: Instant::now(),
            failures: 0,
        };
        loop {
            let full = match self.sweep(&mut sweeper).await {
                Ok(full) => {
                    if std::mem::take(&mut sweeper.failures) > 1 {
                        tracing::info!("the outbox is swept again");
                    }
                    full
                }
                Err(error) => {
                    sweeper.failures += 1;
                    // One failure may be a lost connection. Two leave statuses unpublished.
                    if sweeper.failures == 2 {
                        tracing::warn!(
                            error = as_error(&error),
                            "failed to sweep the outbox; retrying"
                        );
                    }
                    false
                }
            };
            let pause = if full {
                FULL_SWEEP_PAUSE
            } else {
                self.tuning.sweep_interval
            };
            if self.shutdown.sleep_or_soft(pause).await {
                return;
            }
        }
    }

    /// Hands left-behind events to the relay. Returns whether more should be swept at once.
    async fn sweep(&self, sweeper: &mut Sweeper) -> Result<bool, LedgerError> {
        if !self.relay.accepts_swept() {
            return Ok(false);
        }
        let Some(closed) = self.relay.begin_sweep().await else {
            return Ok(false);
        };
        let swept = self.sweep_once(sweeper, &closed).await;
        self.relay.end_sweep();
        let full = swept?;
        if full {
            self.relay.until_little_is_pending(&self.shutdown).await;
        }
        Ok(full)
    }

    /// Reads left-behind events, without those of tenants of which the relay takes no more.
    async fn sweep_once(
        &self,
        sweeper: &mut Sweeper,
        closed: &HashSet<TenantId>,
    ) -> Result<bool, LedgerError> {
        let (worker, limit) = (self.lease.worker(), self.tuning.max_batch);
        let left_behind = self.ledger.claim_unpublished(worker, limit).await?;
        let mut full = left_behind.len() >= limit;
        self.relay.sweep(left_behind);
        if Instant::now() >= sweeper.own_at {
            let (events, last) = self
                .ledger
                .find_own_unpublished(worker, sweeper.own_after, limit, closed)
                .await?;
            if events.len() >= limit {
                full = true;
            } else {
                sweeper.own_at = Instant::now() + self.tuning.sweep_age;
            }
            sweeper.own_after = last
                .filter(|_| events.len() >= limit)
                .unwrap_or(Timestamp::UNIX_EPOCH);
            self.relay.sweep(events);
        }
        Ok(full)
    }
}
