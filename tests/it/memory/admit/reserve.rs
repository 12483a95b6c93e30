//! Slots for the new requests of a batch.

use std::collections::{BTreeMap, HashMap};

use voice_otp::admission::{Admission, Plan};
use voice_otp_schemas::{TenantId, Timestamp};

use crate::memory::tables::{Pace, Tables, Tenant, TenantSlots};

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
    /// Probably, or if the account's circuit closes in time. The request joins the account's queue,
    /// and `at` is an estimate.
    Queued,
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
        let (over, shared) = over_share(tables, group, pace_key, &requests, now);
        let pace = tables.paces.get_mut(pace_key).expect("it was ensured");
        let base = pace.end(now);
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
        let (mut in_time, mut queued) = (0, 0);
        let wanted = requests.iter().filter(|(index, _)| !over.contains(index));
        for (n, (index, place_by)) in (0..).zip(wanted) {
            let late_at = pace.after(base, n);
            let joins =
                Pace::is_in_time(late_at, *place_by) || pace.may_close_in_time(*place_by, now);
            let (at, chance) = if pace.queue_until.is_some() && joins {
                queued += 1;
                (late_at.min(*place_by), Chance::Queued)
            } else if pace.queue_until.is_none() && Pace::is_in_time(late_at, *place_by) {
                in_time += 1;
                (pace.after(base, in_time - 1), Chance::InTime)
            } else {
                (late_at, Chance::Late)
            };
            let epoch = pace.epoch;
            slots.insert(*index, Reserved { at, epoch, chance });
        }
        if in_time > 0 {
            pace.tat = pace.after(base, in_time);
        }
        if queued > 0 {
            pace.queue_until = Some(pace.after(base, queued));
        }
        if shared {
            hold_slots(tables, group, pace_key, &requests, &slots, now);
        }
    }
    slots
}

/// Adds the slots of a batch to those that their tenants hold of a shared account.
fn hold_slots(
    tables: &mut Tables,
    group: &[Admission],
    pace_key: &str,
    requests: &[(usize, Timestamp)],
    slots: &HashMap<usize, Reserved>,
    now: Timestamp,
) {
    let mut held: BTreeMap<&TenantId, (i64, Timestamp)> = BTreeMap::new();
    for (index, _) in requests {
        let slot = slots[index];
        if slot.chance != Chance::Late && slot.at > now {
            let (count, last) = held
                .entry(&group[*index].key.tenant_id)
                .or_insert((0, slot.at));
            *count += 1;
            *last = (*last).max(slot.at);
        }
    }
    for (tenant, (count, last)) in held {
        let key = (pace_key.to_owned(), tenant.clone());
        let before = tables.tenant_slots.get(&key);
        let now_held = TenantSlots {
            held: before.map_or(0, |before| before.ahead(now)) + count,
            counted_at: now,
            held_until: before.map_or(last, |before| before.held_until.max(last)),
        };
        tables.tenant_slots.insert(key, now_held);
    }
}

/// The requests whose tenant already has its share of the slots before the request's deadline,
/// where several tenants share the rate limit; and whether they do.
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
) -> (Vec<usize>, bool) {
    let pace = &tables.paces[pace_key];
    let of_account = |tenant: &&Tenant| {
        let settings = &tenant.settings;
        settings.account_sid.as_str() == pace.account
            && tenant.verified
            && settings.enabled
            && !settings.test_mode
    };
    if pace_key != pace.account || tables.tenants.values().filter(of_account).count() < 2 {
        return (Vec::new(), false);
    }
    let share = tables
        .account(&pace.account)
        .map_or(1.0, |account| account.tenant_share);
    let mut counts: HashMap<&TenantId, i64> = HashMap::new();
    let mut over = Vec::new();
    for (index, place_by) in requests {
        let tenant = &group[*index].key.tenant_id;
        let ahead = || {
            let held = tables
                .tenant_slots
                .get(&(pace_key.to_owned(), tenant.clone()));
            held.map_or(0, |held| held.ahead(now))
        };
        let count = counts.entry(tenant).or_insert_with(ahead);
        *count += 1;
        let left = (*place_by - now)
            .num_microseconds()
            .expect("a wait is short");
        if *count > 1 && *count * pace.interval_us > (share * left as f64) as i64 {
            over.push(*index);
        }
    }
    (over, true)
}
