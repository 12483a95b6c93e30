//! Admission of a batch: what the SQL function `admit`, and the Rust code before it, does.

mod insert;
mod reserve;

use std::collections::HashMap;

use voice_otp::admission::{Admission, Admitted, Plan, SettingsBasis};
use voice_otp::delivery::{CancelCause, State};
use voice_otp::ports::{Verdict, WorkerEpoch};
use voice_otp_schemas::{DeliveryId, Timestamp};
use voice_otp_store::ledger::Limits;

use super::tables::{Row, Tables};

pub(super) use insert::tombstone;

/// The verdicts, which are all set at the end.
type Answers = Vec<Option<Verdict>>;

pub(super) fn admit(
    tables: &mut Tables,
    limits: &Limits,
    worker: WorkerEpoch,
    group: &[Admission],
    now: Timestamp,
) -> Vec<Verdict> {
    let mut answers: Answers = vec![None; group.len()];
    let duplicates = in_batch_duplicates(group);
    let mut fresh = Vec::new();
    for (index, admission) in group.iter().enumerate() {
        if duplicates.iter().any(|(duplicate, _)| *duplicate == index) {
            continue;
        }
        if let Plan::Call(planned_call) = &admission.plan {
            tables.ensure_pace(
                &planned_call.pace_key,
                planned_call.account_sid.as_str(),
                now,
            );
        }
        match known_or_stale(tables, admission) {
            Some(verdict) => answers[index] = Some(verdict),
            None => fresh.push(index),
        }
    }
    let candidates: Vec<&Admission> = fresh.iter().map(|index| &group[*index]).collect();
    fresh.retain(
        |&index| match inadmissible(tables, &candidates, &group[index], now) {
            Some(cause) => {
                answers[index] = Some(Verdict::Inadmissible(cause));
                false
            }
            None => true,
        },
    );
    let slots = reserve::reserve(tables, group, &fresh, now);
    for index in fresh {
        let verdict = insert::insert(
            tables,
            limits,
            worker,
            &group[index],
            slots.get(&index).copied(),
            now,
        );
        answers[index] = Some(verdict);
    }
    // A duplicate in the batch is compared with the row of the first one. If that wasn't admitted,
    // the duplicate gets the same verdict.
    for (index, first) in duplicates {
        answers[index] = match answers[first] {
            Some(Verdict::StaleSettings) => Some(Verdict::StaleSettings),
            Some(Verdict::Inadmissible(cause)) => Some(Verdict::Inadmissible(cause)),
            _ => {
                // The statement ensures the pacing row of every admission that it looks at.
                if let Plan::Call(planned_call) = &group[index].plan {
                    tables.ensure_pace(
                        &planned_call.pace_key,
                        planned_call.account_sid.as_str(),
                        now,
                    );
                }
                known_or_stale(tables, &group[index])
            }
        };
    }
    answers
        .into_iter()
        .map(|answer| answer.expect("every admission has a verdict"))
        .collect()
}

/// Duplicates within one batch: the index of each, and that of the first with the same key.
fn in_batch_duplicates(group: &[Admission]) -> Vec<(usize, usize)> {
    let mut firsts = HashMap::new();
    let with_first = group
        .iter()
        .enumerate()
        .map(|(index, admission)| (index, *firsts.entry(&admission.key).or_insert(index)));
    with_first.filter(|(index, first)| index != first).collect()
}

/// The verdict on an admission that is a duplicate, or whose settings are stale.
fn known_or_stale(tables: &Tables, admission: &Admission) -> Option<Verdict> {
    let compared = |identity: &str| {
        if identity == admission.identity.expose() {
            Verdict::Duplicate
        } else {
            Verdict::ConflictingDuplicate
        }
    };
    if let Some((row, identity)) = tables
        .rows
        .get(&admission.key)
        .and_then(|row| Some((row, row.identity.as_ref()?)))
    {
        let attempt = match &admission.plan {
            Plan::Call(planned_call) => planned_call.attempt_id,
            Plan::Finish(_) => None,
        };
        let delivery = &row.delivery;
        let is_own_row = delivery.state == State::Placing
            && delivery.revision == 1
            && attempt.is_some()
            && delivery.attempt_id == attempt;
        return Some(match delivery.slot {
            // An earlier try of this admission inserted the row, and its answer was lost.
            Some(slot) if is_own_row => Verdict::Admitted(Box::new(Admitted {
                slot,
                admitted_at: delivery.admitted_at,
                begun: true,
                held: true,
                wake_at: delivery.wake_at,
                event: None,
                has_older_requests: false,
            })),
            _ => compared(identity),
        });
    }
    if let Some((identity, _)) = tables.finished.get(&admission.key) {
        return Some(compared(identity));
    }
    let version = tables
        .tenants
        .get(&admission.key.tenant_id)
        .map(|tenant| tenant.settings.version);
    let current = match admission.basis {
        SettingsBasis::NotNeeded => true,
        SettingsBasis::Missing => version.is_none(),
        SettingsBasis::Version(basis) => version == Some(basis),
    };
    (!current).then_some(Verdict::StaleSettings)
}

/// Why a new request must not be placed: it was cancelled before it arrived, or a newer request of
/// the same user is known.
fn inadmissible(
    tables: &Tables,
    group: &[&Admission],
    admission: &Admission,
    now: Timestamp,
) -> Option<CancelCause> {
    if !matches!(admission.plan, Plan::Call(_)) {
        return None;
    }
    if tables.rows.contains_key(&admission.key) {
        return Some(CancelCause::Request);
    }
    let (tenant, own) = (&admission.key.tenant_id, request_order(admission, now)?);
    let user = admission.user_ref.as_ref()?;
    if tables.is_user_cancelled(tenant, user, admission.requested_at, now) {
        return Some(CancelCause::Request);
    }
    let others = group
        .iter()
        .filter(|other| other.key.tenant_id == *tenant && other.user_ref.as_ref() == Some(user));
    let others = others.filter(|other| {
        !tables.rows.contains_key(&other.key)
            && !tables.is_user_cancelled(tenant, user, other.requested_at, now)
    });
    let newer_here = others
        .filter_map(|other| request_order(other, now))
        .any(|other| other > own);
    let newer = newer_here
        || tables
            .of_user(tenant, user)
            .filter_map(Row::request_order)
            .any(|other| other > own);
    newer.then_some(CancelCause::Superseded)
}

/// The position of a request among its user's requests: by time, then by delivery id.
fn request_order(admission: &Admission, now: Timestamp) -> Option<(Timestamp, &DeliveryId)> {
    let counts = matches!(admission.plan, Plan::Call(_)) && admission.user_ref.is_some();
    counts.then(|| {
        (
            admission.requested_at.unwrap_or(now).min(now),
            &admission.key.delivery_id,
        )
    })
}
