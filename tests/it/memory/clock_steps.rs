//! Repairing what was computed before the ledger's clock went back.

use std::time::Duration;

use chrono::TimeDelta;
use voice_otp::delivery::State;
use voice_otp_schemas::Timestamp;

use super::tables::Tables;

/// A repair that is as recent as this was for the same step.
const SAME_STEP: TimeDelta = TimeDelta::seconds(10);

impl Tables {
    /// Repairs, if a lease shows that the clock went back.
    pub(super) fn repair_if_behind(&mut self, lease: Duration, now: Timestamp) {
        let latest = self.workers.values().max().copied().unwrap_or(now);
        if let Ok(step) = (latest - lease - now).to_std()
            && step > Duration::from_secs(1)
        {
            self.repair_clock_step(step, lease, now);
        }
    }

    pub(super) fn repair_clock_step(&mut self, step: Duration, lease: Duration, now: Timestamp) {
        let repaired = self.clock_repaired_at;
        let is_same = self.clock_step.abs_diff(step) <= Duration::from_secs(2);
        if is_same && repaired.is_some_and(|at| (at - now).abs() <= SAME_STEP) {
            return;
        }
        self.clock_repaired_at = Some(now);
        self.clock_went_back += step;
        self.clock_step = step;
        let ahead: Vec<String> = self
            .paces
            .iter()
            .filter(|(_, pace)| {
                pace.tat > now || pace.hold_until > Some(now) || pace.queue_until > Some(now)
            })
            .map(|(key, _)| key.clone())
            .collect();
        for key in ahead {
            if let Some(pace) = self.paces.get_mut(&key) {
                pace.tat = now.max(pace.tat - step);
                pace.queue_until = pace.queue_until.map(|until| until - step);
                let hold = pace.hold_until.filter(|until| *until > now);
                pace.hold_until = hold.map(|until| now.max(until - step)).or(pace.hold_until);
            }
            self.void_slots(&key, Duration::ZERO, true, now);
        }
        for until in self.workers.values_mut() {
            *until = (*until).min(now + lease);
        }
        for row in self.rows.values_mut() {
            let delivery = &mut row.delivery;
            let is_attempted = delivery.state != State::Waiting || delivery.attempt > 0;
            if delivery.state != State::Final && is_attempted && delivery.wake_at > now {
                delivery.revision += 1;
                delivery.wake_at = now.max(delivery.wake_at - step);
                let settle_after = delivery.settle_after;
                delivery.settle_after = settle_after.map(|after| now.max(after - step));
            }
        }
    }
}
