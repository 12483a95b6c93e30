//! Cancellations that are remembered: of deliveries that have not arrived, and of users.

use std::collections::BTreeMap;

use voice_otp::delivery::Delivery;
use voice_otp::ports::{LedgerError, UserCancellation};
use voice_otp_schemas::{DeliveryKey, TenantId, Timestamp, UserRef};

use super::{PgLedger, find, row};

const INSERT_TOMBSTONES: &str = include_str!("../../sql/statements/insert_tombstones.sql");
const CANCEL_USERS: &str = include_str!("../../sql/statements/cancel_users.sql");
const FIND_USER_DELIVERIES: &str = include_str!("../../sql/statements/find_user_deliveries.sql");
const FIND_CANCELLED: &str = include_str!("../../sql/statements/find_cancelled.sql");

pub(super) async fn insert_tombstones(
    ledger: &PgLedger,
    keys: &[DeliveryKey],
) -> Result<Vec<bool>, LedgerError> {
    let (tenants, ids) = find::columns(keys);
    let rows = ledger.query(INSERT_TOMBSTONES, &[&tenants, &ids]).await?;
    Ok(rows.iter().map(|row| row.get("inserted")).collect())
}

pub(super) async fn cancel_users(
    ledger: &PgLedger,
    cancellations: &[UserCancellation],
) -> Result<Vec<bool>, LedgerError> {
    // Of one user's cancellations the last counts. One without a time is of now.
    let mut latest: BTreeMap<Vec<u8>, Option<Timestamp>> = BTreeMap::new();
    for cancellation in cancellations {
        for mac in hashes(ledger, cancellation) {
            let time = latest.entry(mac).or_insert(cancellation.time);
            *time = (*time).and_then(|known| Some(known.max(cancellation.time?)));
        }
    }
    let (macs, times): (Vec<&[u8]>, Vec<Option<Timestamp>>) = latest
        .iter()
        .map(|(mac, time)| (mac.as_slice(), *time))
        .unzip();
    let rows = ledger.query(CANCEL_USERS, &[&macs, &times]).await?;
    if rows.len() != macs.len() {
        return Err(LedgerError::ProtocolViolation(
            "a cancellation has no answer",
        ));
    }
    let recorded: BTreeMap<&[u8], bool> = macs
        .into_iter()
        .zip(rows.iter().map(|row| row.get("recorded")))
        .collect();
    let is_recorded = |cancellation| {
        let macs = hashes(ledger, cancellation);
        macs.iter()
            .all(|mac| recorded.get(mac.as_slice()) == Some(&true))
    };
    Ok(cancellations.iter().map(is_recorded).collect())
}

pub(super) async fn find_users(
    ledger: &PgLedger,
    cancellations: &[UserCancellation],
) -> Result<Vec<Vec<Delivery>>, LedgerError> {
    let (mut macs, mut times, mut numbers) = (Vec::new(), Vec::new(), Vec::new());
    for (number, cancellation) in (0_i64..).zip(cancellations) {
        for mac in hashes(ledger, cancellation) {
            macs.push(mac);
            times.push(cancellation.time);
            numbers.push(number);
        }
    }
    let rows = ledger
        .query(FIND_USER_DELIVERIES, &[&macs, &times, &numbers])
        .await?;
    let mut found = vec![Vec::new(); cancellations.len()];
    for row in &rows {
        let number = usize::try_from(row.get::<_, i64>("number")).unwrap_or(usize::MAX);
        if let Some(of_user) = found.get_mut(number) {
            of_user.push(row::delivery(row, &ledger.keys)?);
        }
    }
    Ok(found)
}

pub(super) async fn find_cancelled(
    ledger: &PgLedger,
    requests: &[(DeliveryKey, UserRef)],
) -> Result<Vec<Delivery>, LedgerError> {
    let mac = |(key, user): &(DeliveryKey, UserRef)| {
        let text = hashed_text(&key.tenant_id, user);
        ledger.keys.hash("user", &text).1
    };
    let macs: Vec<Vec<u8>> = requests.iter().map(mac).collect();
    let tenants: Vec<&str> = requests
        .iter()
        .map(|(key, _)| key.tenant_id.as_str())
        .collect();
    let ids: Vec<&str> = requests
        .iter()
        .map(|(key, _)| key.delivery_id.as_str())
        .collect();
    let rows = ledger
        .query(FIND_CANCELLED, &[&macs, &tenants, &ids])
        .await?;
    row::deliveries(&rows, &ledger.keys)
}

/// The user's hashes, by every key: a request may have been hashed with any.
fn hashes(ledger: &PgLedger, cancellation: &UserCancellation) -> Vec<Vec<u8>> {
    let text = hashed_text(&cancellation.tenant_id, &cancellation.user_ref);
    ledger.keys.hashes("user", &text)
}

/// The text whose hash stands for a user.
pub(super) fn hashed_text(tenant: &TenantId, user: &UserRef) -> String {
    format!("{tenant}\0{}", user.as_str())
}
