//! Finished deliveries: tombstones, and the archive.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use voice_otp::delivery::{Delivery, State};
use voice_otp::ports::UserCancellation;
use voice_otp_schemas::{DeliveryKey, TenantId, Timestamp, UserRef};
use voice_otp_store::ledger::Limits;

use super::admit;
use super::tables::{Row, Tables};

/// Inserts a tombstone if the delivery isn't known.
fn insert_tombstone(tables: &mut Tables, key: &DeliveryKey, now: Timestamp) -> bool {
    if tables.rows.contains_key(key) || tables.finished.contains_key(key) {
        return false;
    }
    let row = Row {
        delivery: admit::tombstone(key, now),
        owner: None,
        counted: None,
        identity: None,
        user: None,
        user_line: false,
        line: None,
        ended_at: Some(now),
        forget_at: tables.forget_at(&key.tenant_id, now),
    };
    tables.rows.insert(key.clone(), row);
    true
}

/// Inserts tombstones; of one delivery at most one, which counts as inserted for each time it is
/// named.
pub(super) fn insert_tombstones(
    tables: &mut Tables,
    keys: &[DeliveryKey],
    now: Timestamp,
) -> Vec<bool> {
    let inserted: BTreeMap<&DeliveryKey, bool> = keys
        .iter()
        .collect::<BTreeSet<_>>()
        .into_iter()
        .map(|key| (key, insert_tombstone(tables, key, now)))
        .collect();
    keys.iter().map(|key| inserted[key]).collect()
}

/// Records cancellations by user. Of one user's the last counts; one without a time is of now.
pub(super) fn cancel_users(
    tables: &mut Tables,
    cancellations: &[UserCancellation],
    now: Timestamp,
) -> Vec<bool> {
    let mut latest: HashMap<(&TenantId, &UserRef), Option<Timestamp>> = HashMap::new();
    for UserCancellation {
        tenant_id,
        user_ref,
        time,
    } in cancellations
    {
        let known = latest.entry((tenant_id, user_ref)).or_insert(*time);
        *known = (*known).and_then(|known| Some(known.max((*time)?)));
    }
    for ((tenant, user), time) in latest {
        let cancelled_at = time.unwrap_or(now);
        let key = (tenant.clone(), user.clone());
        let recorded = tables
            .cancelled_users
            .entry(key)
            .or_insert((cancelled_at, now));
        recorded.0 = recorded.0.max(cancelled_at);
        recorded.1 = recorded.1.max(now);
    }
    vec![true; cancellations.len()]
}

/// The open deliveries that a cancellation by user cancels.
pub(super) fn find_user(tables: &Tables, cancellation: &UserCancellation) -> Vec<Delivery> {
    let is_cancelled = |row: &&Row| {
        let times = cancellation.time.zip(row.delivery.requested_at);
        row.delivery.state != State::Final && times.is_none_or(|(own, of)| of <= own)
    };
    let rows = tables.of_user(&cancellation.tenant_id, &cancellation.user_ref);
    let cancelled = rows.filter(is_cancelled);
    cancelled.map(|row| row.delivery.clone()).collect()
}

/// Of these open deliveries those that a cancellation of their user cancels.
pub(super) fn find_cancelled(
    tables: &Tables,
    requests: &[(DeliveryKey, UserRef)],
) -> Vec<Delivery> {
    let found = |(key, user): &(DeliveryKey, UserRef)| {
        let row = tables.rows.get(key)?;
        let (_, user_time) = row.user.as_ref()?;
        let requested_at = row.delivery.requested_at;
        let is_cancelled = row.delivery.state != State::Final
            && tables.is_user_cancelled(&key.tenant_id, user, requested_at, *user_time);
        is_cancelled.then(|| row.delivery.clone())
    };
    requests.iter().filter_map(found).collect()
}

/// Archives deliveries that have been finished for long enough, and drops old partitions.
pub(super) fn archive_finished(tables: &mut Tables, limits: &Limits, now: Timestamp) -> u64 {
    let is_published = |key: &DeliveryKey| {
        let mut events = tables
            .outbox
            .range((key.clone(), 0)..=(key.clone(), u32::MAX));
        events.next().is_none()
    };
    let is_old = |row: &&Row| {
        row.ended_at.is_some_and(|at| at < now - limits.recent) && is_published(&row.delivery.key)
    };
    let keys: Vec<DeliveryKey> = tables
        .rows
        .values()
        .filter(is_old)
        .map(|row| row.delivery.key.clone())
        .collect();
    let is_forgotten =
        |row: &&Row| row.forget_at.is_some_and(|at| at < now) && is_published(&row.delivery.key);
    // An old one is archived, as any other.
    let forgotten: Vec<DeliveryKey> = tables
        .rows
        .values()
        .filter(is_forgotten)
        .map(|row| row.delivery.key.clone())
        .filter(|key| !keys.contains(key))
        .collect();
    for key in &forgotten {
        tables.rows.remove(key);
    }
    for key in &keys {
        if let Some(Row {
            identity: Some(identity),
            ended_at: Some(at),
            ..
        }) = tables.rows.remove(key)
        {
            tables.finished.insert(key.clone(), (identity, at));
        }
    }
    let oldest_cancellation = now - limits.recent / 2;
    tables
        .cancelled_users
        .retain(|_, (_, recorded_at)| *recorded_at >= oldest_cancellation);
    tables
        .past_attempts
        .retain(|_, (_, ended_at, _)| *ended_at >= now - limits.recent);
    // The archive is partitioned by day, and whole partitions are dropped.
    let oldest = (now - limits.retention).date_naive();
    tables
        .finished
        .retain(|_, (_, at)| at.date_naive() + chrono::Days::new(1) >= oldest);
    u64::try_from(keys.len() + forgotten.len()).unwrap()
}
