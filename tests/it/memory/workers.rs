//! Worker registrations: heartbeats, release, and the deliveries of expired workers.

use std::time::Duration;

use voice_otp::delivery::{Delivery, Slot, State};
use voice_otp::ports::{Heartbeat, WorkerEpoch};
use voice_otp_schemas::{DeliveryKey, Timestamp};
use voice_otp_store::ledger::Limits;

use super::tables::{Pace, Row, Tables, micros};

/// A delivery that is overdue by more than this is claimed even from a worker with a valid lease.
const TAKEOVER_AGE: Duration = Duration::from_mins(1);
/// How long the count of a queue is used.
const QUEUE_COUNT_INTERVAL: Duration = Duration::from_secs(5);
/// A slot that is given now can't be used at once.
const LEAD_TIME: Duration = Duration::from_millis(100);

pub(super) fn heartbeat(
    tables: &mut Tables,
    limits: &Limits,
    worker: WorkerEpoch,
    now: Timestamp,
) -> Heartbeat {
    // An expired lease is not extended: other workers may own its deliveries already.
    let lease = tables
        .workers
        .get_mut(&worker)
        .filter(|until| **until > now);
    let alive = lease.map(|until| *until = now + limits.lease).is_some();
    Heartbeat { now, alive }
}

pub(super) fn release(tables: &mut Tables, worker: WorkerEpoch, now: Timestamp) {
    if let Some(until) = tables.workers.get_mut(&worker) {
        *until = now;
    }
}

/// What the SQL function `claim_deliveries` does. Unlike the store, it lists no delivery twice, and
/// parks all deliveries of a step at once.
pub(super) fn claim_due(
    tables: &mut Tables,
    limits: &Limits,
    worker: WorkerEpoch,
    limit: usize,
    now: Timestamp,
) -> Vec<Delivery> {
    count_a_queue(tables, now);
    let mut claimed = give_slots(tables, limits, worker, limit, now);
    let alive = tables.alive(now);
    let free = |row: &Row| {
        let delivery = &row.delivery;
        let late = delivery.wake_at < now - TAKEOVER_AGE
            && (delivery.state != State::Unsettled || delivery.expires_at < now - TAKEOVER_AGE);
        let due = delivery.wake_at <= now
            || (delivery.state == State::Waiting && delivery.wake_at <= now + limits.claim_ahead);
        let has_owner = row.owner.is_some_and(|owner| alive.contains(&owner));
        due && (!has_owner || (row.owner != Some(worker) && late))
    };
    for key in first(tables, limit, free) {
        let parked = is_parked(tables, &tables.rows[&key].delivery, limits, now);
        let row = tables.rows.get_mut(&key).expect("the row was just found");
        row.delivery.revision += 1;
        if parked {
            row.owner = None;
            row.delivery.slot = None;
            row.delivery.wake_at = row.delivery.place_by;
        } else {
            row.owner = Some(worker);
            claimed.push(key);
        }
    }
    let overdue =
        |row: &Row| row.owner == Some(worker) && row.delivery.wake_at < now - limits.forgotten;
    let own = first(tables, limit, overdue);
    let others = own
        .into_iter()
        .filter(|key| !claimed.contains(key))
        .collect::<Vec<_>>();
    claimed
        .iter()
        .chain(&others)
        .map(|key| tables.rows[key].delivery.clone())
        .collect()
}

/// Whether a delivery waits in the queue of its account: it has no valid slot, and isn't retried at
/// a time of its own.
fn is_queued(delivery: &Delivery, pace_key: &str, epoch: i64) -> bool {
    delivery.pace_key.as_deref() == Some(pace_key)
        && delivery.state == State::Waiting
        && delivery.slot.is_none_or(|slot| slot.epoch != epoch)
        && (delivery.slot.is_some() || delivery.wake_at >= delivery.place_by)
}

/// Whether a due delivery with a void slot waits in the queue instead.
fn is_parked(tables: &Tables, delivery: &Delivery, limits: &Limits, now: Timestamp) -> bool {
    let pace = delivery
        .pace_key
        .as_ref()
        .and_then(|key| tables.paces.get(key));
    delivery.state == State::Waiting
        && delivery.place_by > now + limits.claim_ahead
        && pace.is_some_and(|pace| {
            pace.queue_until.is_some() && delivery.slot.is_some_and(|slot| slot.epoch != pace.epoch)
        })
}

fn is_account_paused(tables: &Tables, pace: &Pace) -> bool {
    tables
        .account(&pace.account)
        .is_some_and(|account| account.paused)
}

fn is_tenant_paused(tables: &Tables, delivery: &Delivery) -> bool {
    let tenant = tables.tenants.get(&delivery.key.tenant_id);
    tenant.is_some_and(|tenant| tenant.paused)
}

/// Counts one queue, and corrects the estimate of its end.
fn count_a_queue(tables: &mut Tables, now: Timestamp) {
    let uncounted = tables
        .paces
        .iter()
        .filter(|(_, pace)| pace.queue_until.is_some() && !is_account_paused(tables, pace))
        .filter(|(_, pace)| pace.queue_counted_at < Some(now - QUEUE_COUNT_INTERVAL))
        .min_by_key(|(key, pace)| (pace.queue_counted_at, (*key).clone()));
    let Some((pace_key, pace)) = uncounted.map(|(key, pace)| (key.clone(), pace)) else {
        return;
    };
    // Only the pauses of tenants that still belong to the account count.
    let is_paused_here = |delivery: &Delivery| {
        let tenant = tables.tenants.get(&delivery.key.tenant_id);
        tenant.is_some_and(|tenant| {
            tenant.paused && tenant.settings.account_sid.as_str() == pace.account
        })
    };
    let waiting = tables
        .rows
        .values()
        .map(|row| &row.delivery)
        .filter(|delivery| is_queued(delivery, &pace_key, pace.epoch) && !is_paused_here(delivery))
        .count();
    let until = pace.after(pace.base(now), i64::try_from(waiting).unwrap());
    let pace = tables.paces.get_mut(&pace_key).expect("it was just found");
    pace.queue_until = Some(until);
    pace.queue_counted_at = Some(now);
}

/// Gives the deliveries of each queue the slots that come soon.
fn give_slots(
    tables: &mut Tables,
    limits: &Limits,
    worker: WorkerEpoch,
    limit: usize,
    now: Timestamp,
) -> Vec<DeliveryKey> {
    let (alive, soon) = (tables.alive(now), now + limits.claim_ahead);
    let mut given = Vec::new();
    let keys: Vec<String> = tables.paces.keys().cloned().collect();
    for pace_key in keys {
        let pace = &tables.paces[&pace_key];
        if pace.queue_until.is_none()
            || pace.tat > soon
            || pace.hold_until > Some(soon)
            || is_account_paused(tables, pace)
        {
            continue;
        }
        let base = pace.base(now).max(now + LEAD_TIME);
        let wanted = usize::try_from(1 + micros(soon - base) / pace.step_us()).unwrap_or(0);
        let wanted = wanted.min(limit);
        let mut queued: Vec<(&DeliveryKey, &Row)> = tables
            .rows
            .iter()
            .filter(|(_, row)| is_queued(&row.delivery, &pace_key, pace.epoch))
            .filter(|(_, row)| Pace::is_in_time(base, row.delivery.place_by))
            .filter(|(_, row)| !is_tenant_paused(tables, &row.delivery))
            .collect();
        queued.sort_by_key(|(key, row)| {
            (
                row.delivery.attempt > 0,
                row.delivery.admitted_at,
                (*key).clone(),
            )
        });
        let is_drained = queued.len() < wanted;
        let is_free = |row: &Row| {
            row.owner
                .is_none_or(|owner| owner == worker || !alive.contains(&owner))
        };
        let in_time: Vec<DeliveryKey> = (0..)
            .zip(
                queued
                    .into_iter()
                    .take(wanted)
                    .filter(|(_, row)| is_free(row)),
            )
            .filter(|(n, (_, row))| Pace::is_in_time(pace.after(base, *n), row.delivery.place_by))
            .map(|(_, (key, _))| key.clone())
            .collect();
        let (epoch, circuit_open) = (pace.epoch, pace.probe_interval_us.is_some());
        let slots: Vec<Timestamp> = (0..=i64::try_from(in_time.len()).unwrap())
            .map(|n| pace.after(base, n))
            .collect();
        for (key, at) in in_time.iter().zip(&slots) {
            let row = tables.rows.get_mut(key).expect("the row was just found");
            row.owner = Some(worker);
            row.delivery.revision += 1;
            row.delivery.slot = Some(Slot { at: *at, epoch });
            row.delivery.wake_at = *at;
        }
        let pace = tables.paces.get_mut(&pace_key).expect("it was just found");
        if !in_time.is_empty() {
            pace.tat = slots[in_time.len()];
        }
        if is_drained && !circuit_open {
            pace.queue_until = None;
        }
        given.extend(in_time);
    }
    given
}

/// The keys of the `limit` open deliveries that are due first, among those that `which` selects.
fn first(tables: &Tables, limit: usize, which: impl Fn(&Row) -> bool) -> Vec<DeliveryKey> {
    let rows = tables
        .rows
        .iter()
        .filter(|(_, row)| row.delivery.state != State::Final && which(row));
    let mut keys: Vec<(Timestamp, &DeliveryKey)> =
        rows.map(|(key, row)| (row.delivery.wake_at, key)).collect();
    keys.sort();
    keys.into_iter()
        .take(limit)
        .map(|(_, key)| key.clone())
        .collect()
}
