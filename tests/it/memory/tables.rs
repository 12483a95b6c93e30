//! What the ledger on Postgres has in tables.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use chrono::TimeDelta;
use voice_otp::account::{AccountSid, CallSid};
use voice_otp::delivery::{self, AttemptId, Delivery, Key, Slot, State, WorkerEpoch};
use voice_otp::event::Event;
use voice_otp::plan::Placement;
use voice_otp::ports::{Begin, Unpriced};
use voice_otp::settings::{Paused, VoiceSettings, unproven_pace_key};
use voice_otp_schemas::{DeliveryId, PhoneNumber, TenantId, Timestamp, UserRef};
use voice_otp_store::ledger::{CIRCUIT_FIRST, CIRCUIT_LONGEST};

/// The tables.
#[derive(Default)]
pub(super) struct Tables {
    /// When each life ends.
    pub(super) workers: BTreeMap<WorkerEpoch, Timestamp>,
    pub(super) accounts: HashMap<AccountSid, Account>,
    pub(super) tenants: HashMap<TenantId, Tenant>,
    /// The version of the settings saved last.
    pub(super) versions: i64,
    pub(super) paces: HashMap<String, Pace>,
    pub(super) rows: BTreeMap<Key, Row>,
    /// Placements that are over: whose, since when, and the call that was over.
    pub(super) past_attempts: HashMap<AttemptId, (Key, Timestamp, Option<CallSid>)>,
    /// Calls without a price.
    pub(super) unpriced: BTreeMap<CallSid, Owed>,
    /// What was put away: what a repeat is compared by, and when it ended.
    pub(super) finished: BTreeMap<Key, (String, Timestamp)>,
    pub(super) outbox: BTreeMap<(Key, u32), Unpublished>,
}

/// A row of `accounts`.
pub(super) struct Account {
    pub(super) calls_per_second: f64,
    pub(super) paused: bool,
    pub(super) max_calls: Option<i64>,
    pub(super) tenant_share: f64,
}

/// A row of `voice_settings`.
pub(super) struct Tenant {
    pub(super) settings: VoiceSettings,
    pub(super) proven: bool,
    pub(super) paused: bool,
    pub(super) refused_until: Option<Timestamp>,
}

/// A row of `pacing`.
pub(super) struct Pace {
    pub(super) account: String,
    pub(super) interval_us: i64,
    pub(super) tat: Timestamp,
    pub(super) epoch: i64,
    pub(super) hold_until: Option<Timestamp>,
    pub(super) trial_us: Option<i64>,
    pub(super) opened: i32,
}

/// A row of `deliveries`.
pub(super) struct Row {
    pub(super) delivery: Delivery,
    pub(super) owner: Option<WorkerEpoch>,
    /// The pace key of one that counts among its account's calls in progress.
    pub(super) counted: Option<String>,
    /// Its slot is later than was last said.
    pub(super) untold: bool,
    /// None: a tombstone.
    pub(super) identity: Option<String>,
    /// The user, and when they asked.
    pub(super) user: Option<(UserRef, Timestamp)>,
    /// Whether a call to the user is being placed or goes on.
    pub(super) user_line: bool,
    pub(super) line: Option<Line>,
    pub(super) ended_at: Option<Timestamp>,
}

/// A row of `outbox`.
pub(super) struct Unpublished {
    pub(super) event: Event,
    pub(super) owner: WorkerEpoch,
    pub(super) created_at: Timestamp,
}

/// What at most one placement may be under way on.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) enum Line {
    /// An account, From and To.
    Numbers(String, PhoneNumber, PhoneNumber),
    /// The number called can't be opened here.
    Alone(AttemptId),
}

/// What is moved is nobody's for so long.
const UNTIL_CLAIMED: Duration = Duration::from_millis(700);
/// Slots of the next moments may be under way already.
const MAYBE_UNDER_WAY: Duration = Duration::from_millis(50);

impl Tables {
    pub(super) fn enlist(&mut self, lease: Duration, now: Timestamp) -> WorkerEpoch {
        let epoch = WorkerEpoch(
            self.workers
                .last_key_value()
                .map_or(1, |(last, _)| last.0 + 1),
        );
        self.workers.insert(epoch, now + lease);
        epoch
    }

    pub(super) fn alive(&self, now: Timestamp) -> BTreeSet<WorkerEpoch> {
        self.workers
            .iter()
            .filter(|(_, until)| **until > now)
            .map(|(epoch, _)| *epoch)
            .collect()
    }

    /// An account without a pacing row gets one.
    pub(super) fn ensure_pace(&mut self, pace_key: &str, account: &str, now: Timestamp) {
        if self.paces.contains_key(pace_key) {
            return;
        }
        let rate = self
            .account(account)
            .map_or(1.0, |account| account.calls_per_second);
        let pace = Pace {
            account: account.to_owned(),
            interval_us: interval_us(rate),
            tat: now,
            epoch: 1,
            hold_until: None,
            trial_us: None,
            opened: 0,
        };
        self.paces.insert(pace_key.to_owned(), pace);
    }

    pub(super) fn account(&self, sid: &str) -> Option<&Account> {
        AccountSid::parse(sid)
            .ok()
            .and_then(|sid| self.accounts.get(&sid))
    }

    /// Gives the waiting of an account new slots, in order; all slots before are void.
    pub(super) fn repace(&mut self, pace_key: &str, hold: Duration, now: Timestamp) {
        let Some(account) = self.paces.get(pace_key).map(|pace| pace.account.clone()) else {
            return;
        };
        let (rate, paused) = self.account(&account).map_or((None, false), |account| {
            (Some(account.calls_per_second), account.paused)
        });
        let pace = self
            .paces
            .get_mut(pace_key)
            .expect("it was there a moment ago");
        pace.epoch += 1;
        pace.hold_until = pace.hold_until.max(Some(now + hold));
        pace.interval_us = rate.map_or(pace.interval_us, interval_us);
        pace.tat = pace.tat.min(pace.after(now + MAYBE_UNDER_WAY, 1)).max(now);
        let tenants = &self.tenants;
        let moves = |row: &&mut Row| {
            let delivery = &row.delivery;
            delivery.pace_key.as_deref() == Some(pace_key)
                && delivery.state == State::Waiting
                && !paused
                && !tenants
                    .get(&delivery.key.tenant_id)
                    .is_some_and(|tenant| tenant.paused)
        };
        let has_own_time = |row: &&mut Row| {
            row.delivery.slot.is_none() && row.delivery.wake_at < row.delivery.place_by
        };
        let (others, mut waiting): (Vec<_>, Vec<_>) =
            self.rows.values_mut().filter(moves).partition(has_own_time);
        for row in others {
            row.delivery.revision += 1;
        }
        waiting.sort_by_key(|row| {
            (
                row.delivery.attempt > 0,
                row.delivery.admitted_at,
                row.delivery.key.clone(),
            )
        });
        let base = pace.base(now).max(now + UNTIL_CLAIMED);
        let mut in_time = 0;
        for (n, row) in (0..).zip(waiting) {
            let delivery = &mut row.delivery;
            delivery.revision += 1;
            row.owner = None;
            if pace.after(base, n) <= delivery.place_by {
                let at = pace.after(base, in_time);
                delivery.slot = Some(Slot {
                    at,
                    epoch: pace.epoch,
                });
                delivery.wake_at = at;
                row.untold = delivery.waits_longer();
                in_time += 1;
                pace.tat = pace.tat.max(pace.after(base, in_time));
            } else {
                let hopes =
                    pace.trial_us.is_some() && pace.at_its_own_pace(base, n) <= delivery.place_by;
                delivery.slot = None;
                delivery.wake_at = if hopes { delivery.place_by } else { now };
                row.untold = hopes && delivery.waits_longer();
            }
        }
    }

    /// Opens an account's circuit.
    pub(super) fn trip(&mut self, pace_key: &str, now: Timestamp) -> Option<Duration> {
        let pace = self.paces.get_mut(pace_key)?;
        if pace.trial_us.is_some() && pace.hold_until > Some(now) {
            return None;
        }
        let wait =
            (CIRCUIT_FIRST * 2_u32.pow(pace.opened.min(10).cast_unsigned())).min(CIRCUIT_LONGEST);
        pace.trial_us = Some(2_000_000);
        pace.opened += 1;
        self.repace(pace_key, wait, now);
        Some(wait)
    }

    /// Closes it.
    pub(super) fn mend(&mut self, pace_key: &str, now: Timestamp) {
        let Some(pace) = self
            .paces
            .get_mut(pace_key)
            .filter(|pace| pace.trial_us.is_some())
        else {
            return;
        };
        pace.trial_us = None;
        pace.opened = 0;
        self.repace(pace_key, Duration::ZERO, now);
    }

    /// The deliveries of a user.
    pub(super) fn of_user<'a>(
        &'a self,
        tenant: &'a TenantId,
        user: &'a UserRef,
    ) -> impl Iterator<Item = &'a Row> {
        let fits = move |row: &&Row| {
            row.delivery.key.tenant_id == *tenant
                && row.user.as_ref().is_some_and(|(name, _)| name == user)
        };
        self.rows.values().filter(fits)
    }

    pub(super) fn line_is_taken(&self, line: &Line) -> bool {
        self.rows
            .values()
            .any(|row| row.line.as_ref() == Some(line))
    }

    /// Puts an event where it waits to be published.
    pub(super) fn tell(&mut self, event: Event, owner: WorkerEpoch, now: Timestamp) {
        self.outbox.insert(
            (event.key.clone(), event.sequence),
            Unpublished {
                event,
                owner,
                created_at: now,
            },
        );
    }

    /// A tenant's settings as the store reads them.
    pub(super) fn settings(&self, tenant: &TenantId) -> Option<VoiceSettings> {
        let tenant = self.tenants.get(tenant)?;
        let mut settings = tenant.settings.clone();
        let unproven = unproven_pace_key(&settings.account_sid, &settings.tenant_id);
        settings.pace_key = if tenant.proven {
            settings.account_sid.as_str().to_owned()
        } else {
            unproven
        };
        let account = self.accounts.get(&settings.account_sid)?;
        settings.calls_per_second = account.calls_per_second;
        settings.paused = match (tenant.paused, account.paused) {
            (_, true) => Some(Paused::Account),
            (true, false) => Some(Paused::Tenant),
            (false, false) => None,
        };
        settings.refused = tenant.refused_until.is_some();
        settings.on_trial = self
            .paces
            .get(&settings.pace_key)
            .is_some_and(|pace| pace.trial_us.is_some());
        Some(settings)
    }
}

/// The pause between two calls of an account: a hundredth of the pace is kept back.
#[expect(
    clippy::cast_possible_truncation,
    reason = "settings hold the pace to 0.001..=10000"
)]
pub(super) fn interval_us(rate: f64) -> i64 {
    (1_010_000.0 / rate).round_ties_even() as i64
}

/// A call without a price, and when it is asked for.
pub(super) struct Owed {
    pub(super) call: Unpriced,
    pub(super) ask_at: Timestamp,
    pub(super) asked: u32,
}

impl Row {
    /// Its place among the user's requests.
    pub(super) fn asked(&self) -> Option<(Timestamp, &DeliveryId)> {
        self.user
            .as_ref()
            .map(|(_, time)| (*time, &self.delivery.key.delivery_id))
    }
}

impl Pace {
    /// The first slot that is free.
    pub(super) fn base(&self, now: Timestamp) -> Timestamp {
        self.tat.max(now).max(self.hold_until.unwrap_or(now))
    }

    /// The time of the n-th slot after `base`.
    pub(super) fn after(&self, base: Timestamp, n: i64) -> Timestamp {
        base + TimeDelta::microseconds(n * self.step_us())
    }

    /// The same, as if no circuit were tried out.
    fn at_its_own_pace(&self, base: Timestamp, n: i64) -> Timestamp {
        base + TimeDelta::microseconds(n * self.interval_us)
    }

    /// Whether who gets no slot while a circuit is tried out may get one once it closes.
    pub(super) fn may_reopen(&self, place_by: Timestamp, now: Timestamp) -> bool {
        self.trial_us.is_some() && self.hold_until.unwrap_or(now).max(now) <= place_by
    }

    /// The pause between two calls.
    pub(super) fn step_us(&self) -> i64 {
        self.interval_us.max(self.trial_us.unwrap_or(0))
    }
}

impl Line {
    pub(super) fn of_placement(placement: &Placement) -> Self {
        Self::Numbers(
            placement.account_sid.as_str().to_owned(),
            placement.from.clone(),
            placement.order.to.clone(),
        )
    }

    pub(super) fn of_begin(begin: &Begin) -> Self {
        match &begin.delivery.order {
            Some(order) => Self::Numbers(
                begin.account_sid.as_str().to_owned(),
                begin.from.clone(),
                order.to.clone(),
            ),
            None => Self::Alone(begin.attempt_id),
        }
    }

    /// The line's name.
    pub(super) fn bytes(&self) -> delivery::Line {
        delivery::Line(match self {
            Self::Numbers(account, from, to) => {
                format!("{account}/{}/{}", from.expose(), to.expose()).into_bytes()
            }
            Self::Alone(attempt) => attempt.0.as_bytes().to_vec(),
        })
    }
}
