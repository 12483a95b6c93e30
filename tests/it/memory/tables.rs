//! The tables of the ledger in memory: those of the ledger on Postgres.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use chrono::TimeDelta;
use voice_otp::account::{AccountSid, CallSid};
use voice_otp::admission::PlannedCall;
use voice_otp::delivery::{self, AttemptId, Delivery, Slot, State};
use voice_otp::event::Event;
use voice_otp::ports::WorkerEpoch;
use voice_otp::ports::{AttemptStart, UnpricedCall};
use voice_otp::settings::{Paused, VoiceSettings, unverified_pace_key};
use voice_otp_schemas::DeliveryKey;
use voice_otp_schemas::{DeliveryId, PhoneNumber, TenantId, Timestamp, UserRef};
use voice_otp_store::ledger::{CIRCUIT_FIRST, CIRCUIT_LONGEST};

/// The tables.
#[derive(Default)]
pub(super) struct Tables {
    /// When each registration's lease expires.
    pub(super) workers: BTreeMap<WorkerEpoch, Timestamp>,
    pub(super) accounts: HashMap<AccountSid, Account>,
    pub(super) tenants: HashMap<TenantId, Tenant>,
    /// The last version that was given to settings.
    pub(super) versions: i64,
    pub(super) paces: HashMap<String, Pace>,
    pub(super) rows: BTreeMap<DeliveryKey, Row>,
    /// Ended attempts: the delivery, when the attempt ended, and its call if it had one.
    pub(super) past_attempts: HashMap<AttemptId, (DeliveryKey, Timestamp, Option<CallSid>)>,
    /// Calls without a price.
    pub(super) unpriced_calls: BTreeMap<CallSid, PriceQuery>,
    /// Archived deliveries: the identity that a duplicate is compared with, and when they ended.
    pub(super) finished: BTreeMap<DeliveryKey, (String, Timestamp)>,
    pub(super) outbox: BTreeMap<(DeliveryKey, u32), Unpublished>,
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
    /// Whether Twilio has accepted the credentials once.
    pub(super) verified: bool,
    pub(super) paused: bool,
    /// When rejected credentials are probed next; `None` if they aren't rejected.
    pub(super) rejected_until: Option<Timestamp>,
}

/// A row of `pacing`.
pub(super) struct Pace {
    pub(super) account: String,
    pub(super) interval_us: i64,
    /// When the next slot is free (GCRA's theoretical arrival time).
    pub(super) tat: Timestamp,
    pub(super) epoch: i64,
    /// No slot is earlier than this.
    pub(super) hold_until: Option<Timestamp>,
    /// The interval between calls while the circuit is open or half-open.
    pub(super) probe_interval_us: Option<i64>,
    /// How many times in a row the circuit has opened.
    pub(super) opened: i32,
}

/// A row of `deliveries`.
pub(super) struct Row {
    pub(super) delivery: Delivery,
    pub(super) owner: Option<WorkerEpoch>,
    /// The pace key, while the delivery counts towards its account's limit of calls in progress.
    pub(super) counted: Option<String>,
    /// Whether the delivery is due later than last published.
    pub(super) unannounced: bool,
    /// What a duplicate is compared with. `None` for a tombstone.
    pub(super) identity: Option<String>,
    /// The user, and the time of the request.
    pub(super) user: Option<(UserRef, Timestamp)>,
    /// Whether a call to the user is being placed or in progress.
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

/// The line that at most one attempt may use at a time.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) enum Line {
    /// An account, From and To.
    Numbers(String, PhoneNumber, PhoneNumber),
    /// The called number can't be unsealed here, so the attempt has a line of its own.
    Unknown(AttemptId),
}

/// Moved deliveries have no owner until they are claimed, which takes about this long.
const CLAIM_DELAY: Duration = Duration::from_millis(700);
/// Attempts with a slot within this time may have started already.
const POST_MARGIN: Duration = Duration::from_millis(50);

impl Tables {
    pub(super) fn register_worker(&mut self, lease: Duration, now: Timestamp) -> WorkerEpoch {
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

    /// Inserts a pacing row for the key if there is none.
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
            probe_interval_us: None,
            opened: 0,
        };
        self.paces.insert(pace_key.to_owned(), pace);
    }

    pub(super) fn account(&self, sid: &str) -> Option<&Account> {
        AccountSid::parse(sid)
            .ok()
            .and_then(|sid| self.accounts.get(&sid))
    }

    /// Gives an account's waiting deliveries new slots, in order. All earlier slots become void.
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
            .expect("the row was just found");
        pace.epoch += 1;
        pace.hold_until = pace.hold_until.max(Some(now + hold));
        pace.interval_us = rate.map_or(pace.interval_us, interval_us);
        pace.tat = pace.tat.min(pace.after(now + POST_MARGIN, 1)).max(now);
        let tenants = &self.tenants;
        let is_moved = |row: &&mut Row| {
            let delivery = &row.delivery;
            delivery.pace_key.as_deref() == Some(pace_key)
                && delivery.state == State::Waiting
                && !paused
                && !tenants
                    .get(&delivery.key.tenant_id)
                    .is_some_and(|tenant| tenant.paused)
        };
        let has_retry_time = |row: &&mut Row| {
            row.delivery.slot.is_none() && row.delivery.wake_at < row.delivery.place_by
        };
        let (others, mut waiting): (Vec<_>, Vec<_>) = self
            .rows
            .values_mut()
            .filter(is_moved)
            .partition(has_retry_time);
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
        let base = pace.base(now).max(now + CLAIM_DELAY);
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
                row.unannounced = delivery.is_later_than_announced();
                in_time += 1;
                pace.tat = pace.tat.max(pace.after(base, in_time));
            } else {
                let waits_for_circuit = pace.probe_interval_us.is_some()
                    && pace.at_full_rate(base, n) <= delivery.place_by;
                delivery.slot = None;
                delivery.wake_at = if waits_for_circuit {
                    delivery.place_by
                } else {
                    now
                };
                row.unannounced = waits_for_circuit && delivery.is_later_than_announced();
            }
        }
    }

    /// Opens an account's circuit. Returns for how long; `None` if it was open already.
    pub(super) fn open_circuit(&mut self, pace_key: &str, now: Timestamp) -> Option<Duration> {
        let pace = self.paces.get_mut(pace_key)?;
        if pace.probe_interval_us.is_some() && pace.hold_until > Some(now) {
            return None;
        }
        let wait =
            (CIRCUIT_FIRST * 2_u32.pow(pace.opened.min(10).cast_unsigned())).min(CIRCUIT_LONGEST);
        pace.probe_interval_us = Some(2_000_000);
        pace.opened += 1;
        self.repace(pace_key, wait, now);
        Some(wait)
    }

    /// Closes an account's circuit.
    pub(super) fn close_circuit(&mut self, pace_key: &str, now: Timestamp) {
        let Some(pace) = self
            .paces
            .get_mut(pace_key)
            .filter(|pace| pace.probe_interval_us.is_some())
        else {
            return;
        };
        pace.probe_interval_us = None;
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

    pub(super) fn is_line_busy(&self, line: &Line) -> bool {
        self.rows
            .values()
            .any(|row| row.line.as_ref() == Some(line))
    }

    /// Writes an event into the outbox.
    pub(super) fn push_event(&mut self, event: Event, owner: WorkerEpoch, now: Timestamp) {
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
        let unverified = unverified_pace_key(&settings.account_sid, &settings.tenant_id);
        settings.pace_key = if tenant.verified {
            settings.account_sid.as_str().to_owned()
        } else {
            unverified
        };
        let account = self.accounts.get(&settings.account_sid)?;
        settings.calls_per_second = account.calls_per_second;
        settings.paused = match (tenant.paused, account.paused) {
            (_, true) => Some(Paused::Account),
            (true, false) => Some(Paused::Tenant),
            (false, false) => None,
        };
        settings.credentials_rejected = tenant.rejected_until.is_some();
        settings.circuit_open = self
            .paces
            .get(&settings.pace_key)
            .is_some_and(|pace| pace.probe_interval_us.is_some());
        Some(settings)
    }
}

/// The interval between two calls of an account. One percent of the rate is kept in reserve.
#[expect(
    clippy::cast_possible_truncation,
    reason = "settings hold the pace to 0.001..=10000"
)]
pub(super) fn interval_us(rate: f64) -> i64 {
    (1_010_000.0 / rate).round_ties_even() as i64
}

/// A call without a price, and when the price is queried.
pub(super) struct PriceQuery {
    pub(super) call: UnpricedCall,
    pub(super) query_at: Timestamp,
    pub(super) queries: u32,
}

impl Row {
    /// The position among the user's requests: by time, then by delivery id.
    pub(super) fn request_order(&self) -> Option<(Timestamp, &DeliveryId)> {
        self.user
            .as_ref()
            .map(|(_, time)| (*time, &self.delivery.key.delivery_id))
    }
}

impl Pace {
    /// The first free slot.
    pub(super) fn base(&self, now: Timestamp) -> Timestamp {
        self.tat.max(now).max(self.hold_until.unwrap_or(now))
    }

    /// The time of the n-th slot after `base`.
    pub(super) fn after(&self, base: Timestamp, n: i64) -> Timestamp {
        base + TimeDelta::microseconds(n * self.step_us())
    }

    /// The time of the n-th slot after `base`, if the circuit were closed.
    fn at_full_rate(&self, base: Timestamp, n: i64) -> Timestamp {
        base + TimeDelta::microseconds(n * self.interval_us)
    }

    /// Whether a delivery that gets no slot while the circuit is open or half-open may still get
    /// one once it closes.
    pub(super) fn may_close_in_time(&self, place_by: Timestamp, now: Timestamp) -> bool {
        self.probe_interval_us.is_some() && self.hold_until.unwrap_or(now).max(now) <= place_by
    }

    /// The current interval between two calls.
    pub(super) fn step_us(&self) -> i64 {
        self.interval_us.max(self.probe_interval_us.unwrap_or(0))
    }
}

impl Line {
    pub(super) fn of_planned_call(planned_call: &PlannedCall) -> Self {
        Self::Numbers(
            planned_call.account_sid.as_str().to_owned(),
            planned_call.from.clone(),
            planned_call.secrets.to.clone(),
        )
    }

    pub(super) fn of_start(start: &AttemptStart) -> Self {
        match &start.delivery.secrets {
            Some(secrets) => Self::Numbers(
                start.account_sid.as_str().to_owned(),
                start.from.clone(),
                secrets.to.clone(),
            ),
            None => Self::Unknown(start.attempt_id),
        }
    }

    /// The line as deliveries store it.
    pub(super) fn bytes(&self) -> delivery::Line {
        delivery::Line(match self {
            Self::Numbers(account, from, to) => {
                format!("{account}/{}/{}", from.expose(), to.expose()).into_bytes()
            }
            Self::Unknown(attempt) => attempt.0.as_bytes().to_vec(),
        })
    }
}
