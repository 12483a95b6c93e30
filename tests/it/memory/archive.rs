//! Finished deliveries: tombstones, and the archive.

use voice_otp_schemas::{DeliveryKey, Timestamp};
use voice_otp_store::ledger::Limits;

use super::admit;
use super::tables::{Row, Tables};

/// Inserts a tombstone if the delivery isn't known.
pub(super) fn insert_tombstone(tables: &mut Tables, key: &DeliveryKey, now: Timestamp) -> bool {
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
    };
    tables.rows.insert(key.clone(), row);
    true
}

/// Archives deliveries that have been finished for long enough, and drops old partitions.
pub(super) fn archive_finished(tables: &mut Tables, limits: &Limits, now: Timestamp) -> u64 {
    let is_published = |key: &DeliveryKey| {
        tables
            .outbox
            .range((key.clone(), 0)..=(key.clone(), u32::MAX))
            .next()
            .is_none()
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
    tables
        .past_attempts
        .retain(|_, (_, ended_at, _)| *ended_at >= now - limits.recent);
    // The archive is partitioned by day, and whole partitions are dropped.
    let oldest = (now - limits.retention).date_naive();
    tables
        .finished
        .retain(|_, (_, at)| at.date_naive() + chrono::Days::new(1) >= oldest);
    u64::try_from(keys.len()).unwrap()
}
