//! Slots for the new requests of a batch.

use std::collections::{BTreeMap, HashMap};

use voice_otp::admission::{Admission, Plan};
use voice_otp::delivery::State;
use voice_otp_schemas::{TenantId, Timestamp};

use crate::memory::tables::{Row, Tables, Tenant};

/// The rate limit's answer for one request.
#[derive(Clone, Copy)]
pub(super) struct Reserved {
    pub(super) at: Timestamp,
    pub(super) epoch: i64,
    pub(super) chance: Chance,
}

/// Whether a request can meet its deadline.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Chance {
    /// Yes. The slot is reserved.
    InTime,
    /// Only if the account's circuit closes before `at`. Nothing is reserved.
    IfCircuitCloses,
    /// No. Nothing is reserved; `at` is the first free slot.
    Late,
}

/// Reserves slots for the new requests of a batch, by index. A request that is too late, alone or
/// because of those before it, gets no slot, and the others move up.
pub(super) fn reserve(
    tables: &mut Tables,
    group: &[Admission],
    fresh: &[usize],
    now: Timestamp,
) -> HashMap<usize, Reserved> {
    let mut wanted: BTreeMap<&str, Vec<(usize, Timestamp)>> = BTreeMap::new();
    for &index in fresh {
        if let Plan::Call(planned_call) = &group[index].plan
            && planned_call.deferred.is_none()
        {
            wanted
                .entry(&planned_call.pace_key)
                .or_default()
                .push((index, planned_call.place_by));
        }
    }
    let mut slots = HashMap::new();
    for (pace_key, requests) in wanted {
        let over = over_share(tables, group, pace_key, &requests, now);
        let pace = tables.paces.get_mut(pace_key).expect("it was ensured");
        let base = pace.base(now);
        for (nth, (index, _)) in (0..).zip(&requests) {
            if over.contains(index) {
                slots.insert(
                    *index,
                    Reserved {
                        at: pace.after(base, nth),
                        epoch: pace.epoch,
                        chance: Chance::Late,
                    },
                );
            }
        }
        let mut in_time = 0;
        for (n, (index, place_by)) in (0..).zip(
            requests
                .into_iter()
                .filter(|(index, _)| !over.contains(index)),
        ) {
            let late_at = pace.after(base, n);
            let reserved = if late_at <= place_by {
                in_time += 1;
                Reserved {
                    at: pace.after(base, in_time - 1),
                    epoch: pace.epoch,
                    chance: Chance::InTime,
                }
            } else if pace.may_close_in_time(place_by, now) {
                Reserved {
                    at: place_by,
                    epoch: pace.epoch,
                    chance: Chance::IfCircuitCloses,
                }
            } else {
                Reserved {
                    at: late_at,
                    epoch: pace.epoch,
                    chance: Chance::Late,
                }
            };
            slots.insert(index, reserved);
        }
        if in_time > 0 {
            pace.tat = pace.after(base, in_time);
        }
    }
    slots
}

/// The requests whose tenant already has its share of the slots before the request's deadline,
/// where several tenants share the rate limit.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "as in SQL"
)]
fn over_share(
    tables: &Tables,
    group: &[Admission],
    pace_key: &str,
    requests: &[(usize, Timestamp)],
    now: Timestamp,
) -> Vec<usize> {
    let pace = &tables.paces[pace_key];
    let of_account = |tenant: &&Tenant| {
        let settings = &tenant.settings;
        settings.account_sid.as_str() == pace.account
            && tenant.verified
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
    for (index, place_by) in requests {
        let tenant = &group[*index].key.tenant_id;
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
            over.push(*index);
        }
    }
    over
}
