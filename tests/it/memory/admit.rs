//! Admission of a group: what `admit` in SQL, and what stands before it in Rust, does.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use voice_otp::delivery::{Delivery, Key, Slot, State, WorkerEpoch};
use voice_otp::plan::{Admission, Basis, Plan};
use voice_otp::policy::Voicemail;
use voice_otp::ports::{Admitted, Verdict};
use voice_otp_schemas::envelope::Trace;
use voice_otp_schemas::reason::ReasonCode;
use voice_otp_schemas::status::Status;
use voice_otp_schemas::{Context, DeliveryId, TenantId, Timestamp};
use voice_otp_store::ledger::Limits;

use super::tables::{Line, Row, Tables};

/// What the account's pace has for a placement.
#[derive(Clone, Copy)]
struct Reserved {
    at: Timestamp,
    epoch: i64,
    verdict: Chance,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Chance {
    InTime,
    /// If the account's circuit closes before `at`: nothing is reserved.
    Hopes,
    /// Nothing is reserved, and `at` only says how late it would be.
    Late,
}

/// Answers for every admission, once all are known.
type Answers = Vec<Option<Verdict>>;

pub(super) fn admit(
    tables: &mut Tables,
    limits: &Limits,
    worker: WorkerEpoch,
    group: &[Admission],
    now: Timestamp,
) -> Vec<Verdict> {
    let mut answers: Answers = vec![None; group.len()];
    let twins = twins(group);
    let mut fresh = Vec::new();
    for (place, admission) in group.iter().enumerate() {
        if twins.iter().any(|(twin, _)| *twin == place) {
            continue;
        }
        if let Plan::Place(placement) = &admission.plan {
            tables.ensure_pace(&placement.pace_key, placement.account_sid.as_str(), now);
        }
        match known_or_stale(tables, admission) {
            Some(verdict) => answers[place] = Some(verdict),
            None => fresh.push(place),
        }
    }
    let candidates: Vec<&Admission> = fresh.iter().map(|place| &group[*place]).collect();
    fresh.retain(
        |&place| match unwanted(tables, &candidates, &group[place], now) {
            Some(why) => {
                answers[place] = Some(Verdict::Unwanted(why));
                false
            }
            None => true,
        },
    );
    let slots = reserve(tables, group, &fresh, now);
    for place in fresh {
        let verdict = insert(
            tables,
            limits,
            worker,
            &group[place],
            slots.get(&place).copied(),
            now,
        );
        answers[place] = Some(verdict);
    }
    // Twins are compared with what stands in the row; a twin of what wasn't admitted for now waits with it.
    for (place, first) in twins {
        answers[place] = match answers[first] {
            Some(Verdict::StaleSettings) => Some(Verdict::StaleSettings),
            Some(Verdict::Unwanted(why)) => Some(Verdict::Unwanted(why)),
            _ => {
                // Asked about, like any other.
                if let Plan::Place(placement) = &group[place].plan {
                    tables.ensure_pace(&placement.pace_key, placement.account_sid.as_str(), now);
                }
                known_or_stale(tables, &group[place])
            }
        };
    }
    answers
        .into_iter()
        .map(|answer| answer.expect("every admission has a verdict"))
        .collect()
}

/// The same delivery twice in one group: where each other one stands, and where the first.
fn twins(group: &[Admission]) -> Vec<(usize, usize)> {
    let mut firsts = HashMap::new();
    let firsts_of = group
        .iter()
        .enumerate()
        .map(|(place, admission)| (place, *firsts.entry(&admission.key).or_insert(place)));
    firsts_of.filter(|(place, first)| place != first).collect()
}

fn known_or_stale(tables: &Tables, admission: &Admission) -> Option<Verdict> {
    let compared = |identity: &str| {
        if identity == admission.identity.expose() {
            Verdict::Repeat
        } else {
            Verdict::Conflict
        }
    };
    if let Some((row, identity)) = tables
        .rows
        .get(&admission.key)
        .and_then(|row| Some((row, row.identity.as_ref()?)))
    {
        let attempt = match &admission.plan {
            Plan::Place(placement) => placement.attempt_id,
            Plan::End(_) => None,
        };
        let delivery = &row.delivery;
        let ours = delivery.state == State::Placing
            && delivery.revision == 1
            && attempt.is_some()
            && delivery.attempt_id == attempt;
        return Some(match delivery.slot {
            // The admission's own row, whose answer was lost.
            Some(slot) if ours => Verdict::Placing(Box::new(Admitted {
                slot,
                admitted_at: delivery.admitted_at,
                begun: true,
                held: true,
                wake_at: delivery.wake_at,
                event: None,
                has_rivals: false,
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
        Basis::Nothing => true,
        Basis::NoSettings => version.is_none(),
        Basis::Version(basis) => version == Some(basis),
    };
    (!current).then_some(Verdict::StaleSettings)
}

/// Why a fresh placement must not be made: it was taken back before it came, or a newer one of its user is known.
fn unwanted(
    tables: &Tables,
    group: &[&Admission],
    admission: &Admission,
    now: Timestamp,
) -> Option<ReasonCode> {
    if !matches!(admission.plan, Plan::Place(_)) {
        return None;
    }
    if tables.rows.contains_key(&admission.key) {
        return Some(ReasonCode::CancelledByRequest);
    }
    let (tenant, own) = (&admission.key.tenant_id, asked(admission, now)?);
    let user = admission.user_ref.as_ref()?;
    let others = group
        .iter()
        .filter(|other| other.key.tenant_id == *tenant && other.user_ref.as_ref() == Some(user));
    let others = others.filter(|other| !tables.rows.contains_key(&other.key));
    let newer_here = others
        .filter_map(|other| asked(other, now))
        .any(|other| other > own);
    let newer = newer_here
        || tables
            .of_user(tenant, user)
            .filter_map(Row::asked)
            .any(|other| other > own);
    newer.then_some(ReasonCode::Superseded)
}

/// The place of a placement among its user's requests.
fn asked(admission: &Admission, now: Timestamp) -> Option<(Timestamp, &DeliveryId)> {
    let places = matches!(admission.plan, Plan::Place(_)) && admission.user_ref.is_some();
    places.then(|| {
        (
            admission.requested_at.unwrap_or(now).min(now),
            &admission.key.delivery_id,
        )
    })
}

/// Slots for the fresh placements of a group. As if every one got a slot; who is too late even so, or only because of
/// those before, gets none, and the others move up.
fn reserve(
    tables: &mut Tables,
    group: &[Admission],
    fresh: &[usize],
    now: Timestamp,
) -> HashMap<usize, Reserved> {
    let mut wanted: BTreeMap<&str, Vec<(usize, Timestamp)>> = BTreeMap::new();
    for &place in fresh {
        if let Plan::Place(placement) = &group[place].plan
            && placement.parked.is_none()
        {
            wanted
                .entry(&placement.pace_key)
                .or_default()
                .push((place, placement.place_by));
        }
    }
    let mut slots = HashMap::new();
    for (pace_key, places) in wanted {
        let over = over_share(tables, group, pace_key, &places, now);
        let pace = tables.paces.get_mut(pace_key).expect("it was ensured");
        let base = pace.base(now);
        for (nth, (place, _)) in (0..).zip(&places) {
            if over.contains(place) {
                slots.insert(
                    *place,
                    Reserved {
                        at: pace.after(base, nth),
                        epoch: pace.epoch,
                        verdict: Chance::Late,
                    },
                );
            }
        }
        let mut in_time = 0;
        for (n, (place, place_by)) in (0..).zip(
            places
                .into_iter()
                .filter(|(place, _)| !over.contains(place)),
        ) {
            let late_at = pace.after(base, n);
            let reserved = if late_at <= place_by {
                in_time += 1;
                Reserved {
                    at: pace.after(base, in_time - 1),
                    epoch: pace.epoch,
                    verdict: Chance::InTime,
                }
            } else if pace.may_reopen(place_by, now) {
                Reserved {
                    at: place_by,
                    epoch: pace.epoch,
                    verdict: Chance::Hopes,
                }
            } else {
                Reserved {
                    at: late_at,
                    epoch: pace.epoch,
                    verdict: Chance::Late,
                }
            };
            slots.insert(place, reserved);
        }
        if in_time > 0 {
            pace.tat = pace.after(base, in_time);
        }
    }
    slots
}

/// Of a pace that several tenants share: whose tenant has its share of the slots before its last moment already.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "as in SQL"
)]
fn over_share(
    tables: &Tables,
    group: &[Admission],
    pace_key: &str,
    places: &[(usize, Timestamp)],
    now: Timestamp,
) -> Vec<usize> {
    let pace = &tables.paces[pace_key];
    let of_account = |tenant: &&super::tables::Tenant| {
        let settings = &tenant.settings;
        settings.account_sid.as_str() == pace.account
            && tenant.proven
            && settings.enabled
            && !settings.test_mode
    };
    if pace_key != pace.account || tables.tenants.values().filter(of_account).count() < 2 {
        return Vec::new();
    }
    let share = tables
        .account(&pace.account)
        .map_or(1.0, |account| account.tenant_share);
    let mut counts: HashMap<&TenantId, i64> = HashMap::new();
    let mut over = Vec::new();
    for (place, place_by) in places {
        let tenant = &group[*place].key.tenant_id;
        let ahead = |row: &&Row| {
            let delivery = &row.delivery;
            delivery.pace_key.as_deref() == Some(pace_key)
                && delivery.key.tenant_id == *tenant
                && delivery.state == State::Waiting
                && delivery.slot.is_some_and(|slot| slot.at > now)
        };
        let waiting = || i64::try_from(tables.rows.values().filter(ahead).count()).unwrap();
        let count = counts.entry(tenant).or_insert_with(waiting);
        *count += 1;
        let left = (*place_by - now)
            .num_microseconds()
            .expect("a wait is short");
        if *count > 1 && *count * pace.interval_us > (share * left as f64) as i64 {
            over.push(*place);
        }
    }
    over
}

/// Makes the row of one that is new.
fn insert(
    tables: &mut Tables,
    limits: &Limits,
    worker: WorkerEpoch,
    admission: &Admission,
    slot: Option<Reserved>,
    now: Timestamp,
) -> Verdict {
    let user =
        asked(admission, now).and_then(|(time, _)| Some((admission.user_ref.clone()?, time)));
    let of_user = || {
        user.iter()
            .flat_map(|(name, _)| tables.of_user(&admission.key.tenant_id, name))
    };
    let user_is_busy = of_user().any(|row| row.user_line);
    let own = asked(admission, now);
    let has_rivals = of_user().any(|row| row.delivery.state != State::Final && row.asked() < own);
    let (delivery, line, verdict) = match (&admission.plan, slot) {
        (Plan::Place(placement), Some(slot)) if slot.verdict != Chance::Late => {
            let in_time = slot.verdict == Chance::InTime;
            let line = Line::of_placement(placement);
            let soon = in_time && slot.at <= now + limits.begin_ahead;
            let counted = tables
                .account(placement.account_sid.as_str())
                .is_some_and(|account| account.max_calls.is_some());
            let begun = soon
                && placement.attempt_id.is_some()
                && !counted
                && !tables.line_is_taken(&line)
                && !user_is_busy;
            let admitted = Admitted {
                slot: Slot {
                    at: slot.at,
                    epoch: slot.epoch,
                },
                admitted_at: now,
                begun,
                held: begun || in_time && slot.at <= now + limits.hold_ahead,
                wake_at: if begun {
                    now + limits.rescue
                } else {
                    slot.at.min(placement.place_by)
                },
                event: Some(
                    placement
                        .accepted
                        .clone()
                        .filled(slot.at, wait_ms(slot.at, now)),
                ),
                has_rivals,
            };
            let mut delivery =
                Delivery::admitted(admission.clone(), placement.as_ref().clone(), &admitted);
            delivery.line = begun.then(|| line.bytes());
            delivery.slot = delivery.slot.filter(|_| in_time);
            (
                delivery,
                begun.then_some(line),
                Verdict::Placing(Box::new(admitted)),
            )
        }
        (Plan::Place(placement), _) if placement.parked.is_some() => {
            let parked = placement.parked.clone().expect("it was there");
            let delivery = Delivery {
                state: State::Waiting,
                wake_at: placement.place_by,
                order: Some(Arc::clone(&placement.order)),
                announced_at: Some(placement.place_by),
                ended: None,
                locale: placement.locale.clone(),
                account_sid: Some(placement.account_sid.clone()),
                pace_key: Some(placement.pace_key.clone()),
                place_by: placement.place_by,
                heard_after: placement.heard_after,
                ..ended(admission, Status::Deferred, 2, now)
            };
            (
                delivery,
                None,
                Verdict::Parked(vec![placement.accepted.clone(), parked]),
            )
        }
        (Plan::Place(placement), slot) => {
            let slot = slot.expect("every placement is in time or too late");
            let delivery = Delivery {
                locale: placement.locale.clone(),
                account_sid: Some(placement.account_sid.clone()),
                pace_key: Some(placement.pace_key.clone()),
                place_by: placement.place_by,
                heard_after: placement.heard_after,
                ..ended(admission, Status::Expired, 1, now)
            };
            let event = placement
                .backlog
                .clone()
                .filled(slot.at, wait_ms(slot.at, now));
            (delivery, None, Verdict::Ended(vec![event]))
        }
        (Plan::End(events), _) => {
            let last = events.last().expect("an ending says something");
            (
                ended(
                    admission,
                    last.status.expect("an ending is a status"),
                    last.sequence,
                    now,
                ),
                None,
                Verdict::Ended(events.clone()),
            )
        }
    };
    match &verdict {
        Verdict::Placing(admitted) => admitted
            .event
            .iter()
            .for_each(|event| tables.tell(event.clone(), worker, now)),
        Verdict::Ended(events) | Verdict::Parked(events) => {
            for event in events {
                tables.tell(event.clone(), worker, now);
            }
        }
        Verdict::Repeat
        | Verdict::Conflict
        | Verdict::StaleSettings
        | Verdict::Busy
        | Verdict::Unwanted(_) => {
            unreachable!("it is new")
        }
    }
    let held = matches!(&verdict, Verdict::Placing(admitted) if admitted.held);
    let mut delivery = delivery;
    // In the place of a tombstone.
    delivery.revision += i64::from(tables.rows.contains_key(&admission.key));
    let row = Row {
        owner: held.then_some(worker),
        counted: None,
        untold: false,
        identity: Some(admission.identity.expose().to_owned()),
        user_line: user.is_some() && line.is_some(),
        user,
        ended_at: (delivery.state == State::Final).then_some(now),
        line,
        delivery,
    };
    tables.rows.insert(admission.key.clone(), row);
    verdict
}

/// A delivery that is over with its admission.
fn ended(admission: &Admission, ended: Status, sequence: u32, now: Timestamp) -> Delivery {
    Delivery {
        to_masked: admission.to_masked.clone(),
        context: admission.context.clone(),
        trace: admission.trace.clone(),
        requested_at: admission.requested_at,
        expires_at: admission.expires_at,
        place_by: admission.expires_at,
        sequence,
        ended: Some(ended),
        ..over(&admission.key, now)
    }
}

/// A tombstone.
pub(super) fn over(key: &Key, now: Timestamp) -> Delivery {
    Delivery {
        key: key.clone(),
        revision: 1,
        state: State::Final,
        wake_at: now,
        order: None,
        to_masked: None,
        locale: None,
        context: Context::default(),
        trace: Trace::default(),
        account_sid: None,
        pace_key: None,
        requested_at: None,
        admitted_at: now,
        expires_at: now,
        place_by: now,
        slot: None,
        announced_at: None,
        attempt: 0,
        attempt_id: None,
        intent_at: None,
        line: None,
        settle_after: None,
        call_sid: None,
        heard_after: Duration::ZERO,
        placed_at: None,
        ringing_at: None,
        answered_at: None,
        withdrawn: None,
        voicemail: Voicemail::default(),
        said: None,
        answered_by: None,
        redials: 0,
        verified: false,
        tries: 0,
        sequence: 0,
        ended: Some(Status::Cancelled),
    }
}

/// Rounded as Postgres rounds.
fn wait_ms(slot: Timestamp, now: Timestamp) -> i64 {
    let micros = (slot - now).num_microseconds().expect("a wait is short");
    (micros + 500).div_euclid(1000)
}
