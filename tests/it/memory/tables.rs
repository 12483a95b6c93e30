//! The tables of the ledger in memory: those of the ledger on Postgres.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use chrono::TimeDelta;
use voice_otp::account::{AccountSid, CallSid};
use voice_otp::admission::PlannedCall;
use voice_otp::delivery::{self, AttemptId, Delivery};
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
    pub(super) tenant_slots: BTreeMap<(String, TenantId), TenantSlots>,
    pub(super) rows: BTreeMap<DeliveryKey, Row>,
    /// Ended attempts: the delivery, when the attempt ended, and its call if it had one.
    pub(super) past_attempts: HashMap<AttemptId, (DeliveryKey, Timestamp, Option<CallSid>)>,
    /// Calls without a price.
    pub(super) unpriced_calls: BTreeMap<CallSid, PriceQuery>,
    /// Archived deliveries: the identity that a duplicate is compared with, and when they ended.
    pub(super) finished: BTreeMap<DeliveryKey, (String, Timestamp)>,
    pub(super) outbox: BTreeMap<(DeliveryKey, u32), Unpublished>,
    /// Users' latest cancellations: their time, and when they were recorded.
    pub(super) cancelled_users: HashMap<(TenantId, UserRef), (Timestamp, Timestamp)>,
    /// What calls cost, by tenant, hour and currency: the amount and the number of calls.
    pub(super) spend: BTreeMap<(TenantId, Timestamp, String), (f64, u64)>,
    /// Since when commits from before may be lost.
    pub(super) suspect_since: Option<Timestamp>,
    /// When the rate limits were last repaired after the clock went back.
    pub(super) clock_repaired_at: Option<Timestamp>,
    /// How far the clock went back, all steps together.
    pub(super) clock_went_back: Duration,
    /// How far it went back last.
    pub(super) clock_step: Duration,
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
    /// While there is a queue: when its last delivery will have its slot, as estimated.
    pub(super) queue_until: Option<Timestamp>,
    /// When the queue was last counted.
    pub(super) queue_counted_at: Option<Timestamp>,
}

/// A row of `tenant_slots`: how many slots ahead a tenant holds of a shared account.
pub(super) struct TenantSlots {
    pub(super) held: i64,
    pub(super) counted_at: Timestamp,
    pub(super) held_until: Timestamp,
}

/// A row of `deliveries`.
pub(super) struct Row {
    pub(super) delivery: Delivery,
    pub(super) owner: Option<WorkerEpoch>,
    /// The pace key, while the delivery counts towards its account's limit of calls in progress.
    pub(super) counted: Option<String>,
    /// What a duplicate is compared with. `None` for a tombstone.
    pub(super) identity: Option<String>,
    /// The user, and the time of the request.
    pub(super) user: Option<(UserRef, Timestamp)>,
    /// Whether a call to the user is being placed or in progress.
    pub(super) user_line: bool,
    pub(super) line: Option<Line>,
    pub(super) ended_at: Option<Timestamp>,
    /// When a final row of a tenant that doesn't exist is deleted.
    pub(super) forget_at: Option<Timestamp>,
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

/// A slot closer to the deadline couldn't be used in time.
const DEADLINE_MARGIN: Duration = Duration::from_millis(5);
/// How far ahead of the ledger's clock the time of a cancellation by user counts.
const MAX_CLOCK_SKEW: Duration = Duration::from_secs(30);
/// How long a final row of a tenant that doesn't exist is kept.
const UNKNOWN_TENANT_KEPT: Duration = Duration::from_mins(5);
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
            queue_until: None,
            queue_counted_at: None,
        };
        self.paces.insert(pace_key.to_owned(), pace);
    }

    pub(super) fn account(&self, sid: &str) -> Option<&Account> {
        AccountSid::parse(sid)
            .ok()
            .and_then(|sid| self.accounts.get(&sid))
    }

    /// Makes an account's reserved slots void. If slots were ahead, or deliveries were resumed,
    /// there is a queue from now on.
    pub(super) fn void_slots(
        &mut self,
        pace_key: &str,
        hold: Duration,
        resumed: bool,
        now: Timestamp,
    ) {
        let Some(account) = self.paces.get(pace_key).map(|pace| pace.account.clone()) else {
            return;
        };
        let rate = self
            .account(&account)
            .map(|account| account.calls_per_second);
        let pace = self
            .paces
            .get_mut(pace_key)
            .expect("the row was just found");
        let old_us = pace.interval_us;
        pace.epoch += 1;
        pace.hold_until = pace.hold_until.max(Some(now + hold));
        pace.interval_us = rate.map_or(pace.interval_us, interval_us);
        let has_queue = resumed
            || pace.queue_until.is_some()
            || pace.tat > now
            || pace.probe_interval_us.is_some();
        let end = pace.queue_until.unwrap_or(pace.tat).max(now);
        pace.queue_counted_at = None;
        pace.tat = pace.tat.min(pace.after(now + POST_MARGIN, 1)).max(now);
        let head = pace.tat.max(pace.hold_until.unwrap_or(now));
        let moved = |until: Timestamp| pace.after(head, micros(until - now).max(0) / old_us);
        let queue_until = has_queue.then(|| moved(end));
        for ((key, _), slots) in &mut self.tenant_slots {
            if key == pace_key {
                slots.counted_at = head;
                slots.held_until = moved(slots.held_until);
            }
        }
        pace.queue_until = queue_until;
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
        self.void_slots(pace_key, wait, false, now);
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
        self.void_slots(pace_key, Duration::ZERO, true, now);
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

    /// Whether a cancellation of its user cancels a request with this time.
    pub(super) fn is_user_cancelled(
        &self,
        tenant: &TenantId,
        user: &UserRef,
        requested_at: Option<Timestamp>,
        now: Timestamp,
    ) -> bool {
        let (Some(requested_at), Some((cancelled_at, recorded_at))) = (
            requested_at,
            self.cancelled_users.get(&(tenant.clone(), user.clone())),
        ) else {
            return false;
        };
        requested_at <= *cancelled_at && requested_at.min(now) <= *recorded_at + MAX_CLOCK_SKEW
    }

    /// When a final row of this tenant is forgotten; `None` if it is archived.
    pub(super) fn forget_at(&self, tenant: &TenantId, now: Timestamp) -> Option<Timestamp> {
        (!self.tenants.contains_key(tenant)).then(|| now + UNKNOWN_TENANT_KEPT)
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

    /// Where the next request would have its slot: behind the queue, if there is one.
    pub(super) fn end(&self, now: Timestamp) -> Timestamp {
        self.base(now).max(self.queue_until.unwrap_or(now))
    }

    /// Whether a delivery that gets no slot while the circuit is open or half-open may still get
    /// one once it closes.
    pub(super) fn may_close_in_time(&self, place_by: Timestamp, now: Timestamp) -> bool {
        self.probe_interval_us.is_some()
            && Self::is_in_time(self.hold_until.unwrap_or(now).max(now), place_by)
    }

    /// Whether a slot can be used before a deadline.
    pub(super) fn is_in_time(slot: Timestamp, place_by: Timestamp) -> bool {
        slot <= place_by - DEADLINE_MARGIN
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

impl TenantSlots {
    /// How many of the slots are ahead. They pass evenly until the last of them.
    pub(super) fn ahead(&self, now: Timestamp) -> i64 {
        if self.held_until <= now.max(self.counted_at) {
            return 0;
        }
        let span = micros(self.held_until - self.counted_at);
        let left = micros(self.held_until - now);
        self.held.min((self.held * left + span - 1) / span)
    }
}

/// A time span in microseconds.
pub(super) fn micros(span: TimeDelta) -> i64 {
    span.num_microseconds().expect("the span is short")
}
