//! Admission of a batch.

use std::collections::{BTreeMap, HashMap};

use tokio_postgres::Row;
use voice_otp::admission::{Admission, Admitted, Plan};
use voice_otp::delivery::{CancelCause, Slot};
use voice_otp::ports::{LedgerError, Verdict, WorkerEpoch};
use voice_otp_schemas::DeliveryKey;

use self::columns::Columns;
use super::{PgLedger, is_line_conflict, is_locked};
use crate::keys::Keyring;

mod columns;

/// A batch's verdicts, until every one is known.
type Answers = Vec<Option<Verdict>>;

/// How often a batch is asked for again when another transaction inserts one of its deliveries at
/// the same moment.
const MAX_RACES: usize = 5;

pub(super) async fn admit(
    ledger: &PgLedger,
    worker: WorkerEpoch,
    group: &[Admission],
) -> Result<Vec<Verdict>, LedgerError> {
    let mut answers: Answers = vec![None; group.len()];
    let duplicates = duplicates_in_batch(group);
    let mut open: Vec<usize> = (0..group.len())
        .filter(|place| !duplicates.contains_key(place))
        .collect();
    let mut held_back: Vec<usize> = duplicates.keys().copied().collect();
    for _ in 0..MAX_RACES {
        let asked: Vec<&Admission> = open.iter().filter_map(|place| group.get(*place)).collect();
        if asked.is_empty() {
            break;
        }
        let rows = ask(ledger, worker, &asked).await?;
        if rows.len() != asked.len() {
            return Err(LedgerError::ProtocolViolation(
                "an admission has no verdict",
            ));
        }
        for ((place, admission), row) in open.iter().zip(asked).zip(&rows) {
            if let Some(answer) = answers.get_mut(*place) {
                *answer = verdict(admission, row, &ledger.keys)?;
            }
        }
        open.retain(|place| matches!(answers.get(*place), Some(None)));
        if open.is_empty() {
            // The firsts have their verdicts. Their duplicates are now compared with the stored
            // row, as any duplicate is.
            for place in std::mem::take(&mut held_back) {
                let first = duplicates.get(&place).and_then(|first| answers.get(*first));
                if let Some(Some(
                    not_now @ (Verdict::StaleSettings
                    | Verdict::Inadmissible(_)
                    | Verdict::RowLocked),
                )) = first
                {
                    // A duplicate of a request that wasn't admitted for now waits with it.
                    let not_now = not_now.clone();
                    if let Some(answer) = answers.get_mut(place) {
                        *answer = Some(not_now);
                    }
                } else {
                    open.push(place);
                }
            }
        }
    }
    let complete: Option<Vec<Verdict>> = answers.into_iter().collect();
    complete
        .ok_or_else(|| LedgerError::Unavailable("an admission lost too many races in a row".into()))
}

/// The requests of a batch whose delivery occurs earlier in it: their positions, and the position
/// of the first with the same key.
fn duplicates_in_batch(group: &[Admission]) -> BTreeMap<usize, usize> {
    let mut firsts: HashMap<&DeliveryKey, usize> = HashMap::with_capacity(group.len());
    let mut duplicates = BTreeMap::new();
    for (place, admission) in group.iter().enumerate() {
        let first = *firsts.entry(&admission.key).or_insert(place);
        if first != place {
            duplicates.insert(place, first);
        }
    }
    duplicates
}

async fn ask(
    ledger: &PgLedger,
    worker: WorkerEpoch,
    group: &[&Admission],
) -> Result<Vec<Row>, LedgerError> {
    let mut columns = Columns::of(group, &ledger.keys);
    let mut skip = ledger.skips_locked();
    loop {
        match columns.ask(ledger, worker, skip).await {
            // Another worker started an attempt on one of the lines at this moment. The batch is
            // admitted without starting any.
            Err(error) if is_line_conflict(&error) && columns.starts_attempts() => {
                columns.start_no_attempts();
            }
            // Another transaction holds an account's pacing row: that account's requests are
            // skipped.
            Err(error) if is_locked(&error) && !skip => {
                ledger.skip_locked_for_a_while();
                skip = true;
            }
            rows => return rows,
        }
    }
}

/// Reads a row's verdict; `None`: a race, to be asked for again.
fn verdict(
    admission: &Admission,
    row: &Row,
    keys: &Keyring,
) -> Result<Option<Verdict>, LedgerError> {
    let slot = || match (row.get("slot_at"), row.get("slot_epoch")) {
        (Some(at), Some(epoch)) => Ok(Slot { at, epoch }),
        _ => Err(LedgerError::ProtocolViolation("a slot is missing")),
    };
    // The request's own row, stored a moment ago: the answer was lost, the events are written.
    let was_known = row.get::<_, Option<&str>>("identity_key").is_some();
    let wait_ms: i64 = row.get::<_, Option<i64>>("wait_ms").unwrap_or(0);
    Ok(Some(match (row.get("verdict"), &admission.plan) {
        ("admitted", Plan::Call(call)) => {
            let slot = slot()?;
            Verdict::Admitted(Box::new(Admitted {
                admitted_at: row.get("admitted_at"),
                begun: row.get("begun"),
                held: row.get("held"),
                wake_at: row.get("wake_at"),
                event: (!was_known).then(|| call.accepted.clone().filled(slot.at, wait_ms)),
                has_older_requests: row.get("has_older_requests"),
                slot,
            }))
        }
        ("admitted_without_slot", Plan::Call(call)) => Verdict::AdmittedWithoutSlot(
            std::iter::once(call.accepted.clone())
                .chain(call.deferred.clone())
                .collect(),
        ),
        ("row_locked", Plan::Call(_)) => Verdict::RowLocked,
        ("account_backlog", Plan::Call(call)) => {
            Verdict::Finished(vec![call.expired.clone().filled(slot()?.at, wait_ms)])
        }
        ("finished", Plan::Finish(events)) => Verdict::Finished(events.clone()),
        ("duplicate", _) => {
            let (key_id, mac): (String, Vec<u8>) =
                (row.get("identity_key"), row.get("identity_mac"));
            match keys.hash_with(&key_id, "identity", admission.identity.expose()) {
                Some(computed) if computed != mac => Verdict::ConflictingDuplicate,
                // Without the key there is nothing to compare. The same content is far likelier.
                Some(_) | None => Verdict::Duplicate,
            }
        }
        ("stale_settings", _) => Verdict::StaleSettings,
        ("cancelled", Plan::Call(_)) => Verdict::Inadmissible(CancelCause::Request),
        ("superseded", Plan::Call(_)) => Verdict::Inadmissible(CancelCause::Superseded),
        ("race", _) => return Ok(None),
        _ => return Err(LedgerError::ProtocolViolation("a verdict is unknown")),
    }))
}
