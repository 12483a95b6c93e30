//! The periodic work of a worker: claiming deliveries, and archiving.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use voice_otp_schemas::reason::{Reason, ReasonCode};

use super::Engine;
use super::retry::as_error;
use crate::delivery::{Delivery, State};
use crate::ports::{Ledger as _, LedgerError, Ports};

const RESCHEDULED: &str =
    "rescheduled: the account's rate limit changed, or Twilio asked to slow down";
/// The pause after a full batch of claims: more deliveries are probably due.
const FULL_CLAIM_PAUSE: Duration = Duration::from_millis(10);
/// The pause between two archiving steps, so that they don't slow other statements down.
const ARCHIVE_PAUSE: Duration = Duration::from_millis(50);

impl<P: Ports> Engine<P> {
    /// Claims due deliveries that no living worker owns, until asked to stop.
    pub(super) async fn claim_loop(self: Arc<Self>) {
        loop {
            let limit = self.tuning.claim_rows;
            let claimed = match self.ledger.claim_due(self.lease.worker(), limit).await {
                Ok(claimed) => claimed,
                Err(error) => {
                    tracing::debug!(
                        error = as_error(&error),
                        "failed to claim deliveries; retrying"
                    );
                    Vec::new()
                }
            };
            // What this worker owns already is listed only as a reminder.
            let new = claimed
                .iter()
                .filter(|delivery| !self.schedule.contains(&delivery.key));
            let full = new.count() >= limit;
            for delivery in claimed {
                self.schedule_claimed(delivery);
            }
            let pause = if full {
                FULL_CLAIM_PAUSE
            } else {
                self.tuning.claim_interval
            };
            if self.shutdown.sleep_or_soft(pause).await {
                return;
            }
        }
    }

    /// Schedules a claimed delivery. One that is due later than published says so first.
    fn schedule_claimed(self: &Arc<Self>, delivery: Delivery) {
        let later = delivery.state == State::Waiting
            && delivery.slot.is_some()
            && delivery.is_later_than_announced();
        if !later {
            self.schedule.update(delivery);
        } else if let Some(held) = self.schedule.acquire_newer(delivery) {
            let reason = Reason::new(ReasonCode::Pace, RESCHEDULED);
            self.spawn_for(held, |engine, held| engine.announce_wait(held, reason));
        }
    }

    /// Archives finished deliveries, and counts overdue ones, until asked to stop.
    pub(super) async fn archive_loop(self: Arc<Self>) {
        loop {
            // With jitter, so that workers don't do it at the same moment.
            let interval = self.tuning.archive_interval;
            let pause = interval / 2 + self.rng.duration_below(interval);
            if self.shutdown.sleep_or_soft(pause).await {
                return;
            }
            if let Err(error) = self.archive().await {
                tracing::warn!(
                    error = as_error(&error),
                    "failed to archive finished deliveries; retrying"
                );
            }
            let overdue = self.tuning.give_up + self.tuning.overdue_margin;
            match self
                .ledger
                .count_overdue(self.lease.worker(), overdue)
                .await
            {
                Ok(count) => {
                    if count > 0 {
                        tracing::error!(count, "deliveries overdue");
                    }
                    self.counts
                        .overdue_deliveries
                        .store(count, Ordering::Relaxed);
                }
                Err(error) => {
                    tracing::warn!(
                        error = as_error(&error),
                        "failed to count overdue deliveries; retrying"
                    );
                }
            }
        }
    }

    async fn archive(&self) -> Result<(), LedgerError> {
        while self.ledger.archive_finished().await? > 0 && !self.shutdown.soft.is_cancelled() {
            tokio::time::sleep(ARCHIVE_PAUSE).await;
        }
        Ok(())
    }
}
