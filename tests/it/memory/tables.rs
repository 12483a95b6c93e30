//! What the ledger on Postgres has in tables.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use chrono::TimeDelta;
use voice_otp::account::AccountSid;
use voice_otp::delivery::{self, AttemptId, Delivery, Key, WorkerEpoch};
use voice_otp::event::Event;
use voice_otp::plan::Placement;
use voice_otp::ports::Begin;
use voice_otp::settings::{VoiceSettings, unproven_pace_key};
use voice_otp_schemas::{DeliveryId, PhoneNumber, TenantId, Timestamp, UserRef};

/// The tables.
#[derive(Default)]
pub(super) struct Tables {
    /// When each life ends.
    pub(super) workers: BTreeMap<WorkerEpoch, Timestamp>,
    /// Calls a second.
    pub(super) accounts: HashMap<AccountSid, f64>,
    pub(super) tenants: HashMap<TenantId, Tenant>,
    /// The version of the settings saved last.
    pub(super) versions: i64,
    pub(super) paces: HashMap<String, Pace>,
    pub(super) rows: BTreeMap<Key, Row>,
    pub(super) past_attempts: HashMap<AttemptId, (Key, Timestamp)>,
    /// What was put away: what a repeat is compared by, and when it ended.
    pub(super) finished: BTreeMap<Key, (String, Timestamp)>,
    pub(super) outbox: BTreeMap<(Key, u32), Unpublished>,
}

/// A row of `voice_settings`.
pub(super) struct Tenant {
    pub(super) settings: VoiceSettings,
    pub(super) proven: bool,
}

/// A row of `pacing`.
pub(super) struct Pace {
    pub(super) account: String,
    pub(super) interval_us: i64,
    pub(super) tat: Timestamp,
    pub(super) epoch: i64,
    pub(super) hold_until: Option<Timestamp>,
}

/// A row of `deliveries`.
pub(super) struct Row {
    pub(super) delivery: Delivery,
    pub(super) owner: WorkerEpoch,
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

impl Tables {
    pub(super) fn enlist(&mut self, lease: Duration, now: Timestamp) -> WorkerEpoch {
        let epoch = WorkerEpoch(self.workers.last_key_value().map_or(1, |(last, _)| last.0 + 1));
        self.workers.insert(epoch, now + lease);
        epoch
    }

    pub(super) fn alive(&self, now: Timestamp) -> BTreeSet<WorkerEpoch> {
        self.workers.iter().filter(|(_, until)| **until > now).map(|(epoch, _)| *epoch).collect()
    }

    /// An account without a pacing row gets one.
    pub(super) fn ensure_pace(&mut self, pace_key: &str, account: &str, now: Timestamp) {
        if self.paces.contains_key(pace_key) {
            return;
        }
        let rate = AccountSid::parse(account).ok().and_then(|sid| self.accounts.get(&sid).copied()).unwrap_or(1.0);
        let pace = Pace { account: account.to_owned(), interval_us: interval_us(rate), tat: now, epoch: 1, hold_until: None };
        self.paces.insert(pace_key.to_owned(), pace);
    }

    /// The deliveries of a user.
    pub(super) fn of_user<'a>(&'a self, tenant: &'a TenantId, user: &'a UserRef) -> impl Iterator<Item = &'a Row> {
        let fits =
            move |row: &&Row| row.delivery.key.tenant_id == *tenant && row.user.as_ref().is_some_and(|(name, _)| name == user);
        self.rows.values().filter(fits)
    }

    pub(super) fn line_is_taken(&self, line: &Line) -> bool {
        self.rows.values().any(|row| row.line.as_ref() == Some(line))
    }

    /// Puts an event where it waits to be published.
    pub(super) fn tell(&mut self, event: Event, owner: WorkerEpoch, now: Timestamp) {
        self.outbox.insert((event.key.clone(), event.sequence), Unpublished { event, owner, created_at: now });
    }

    /// A tenant's settings as the store reads them.
    pub(super) fn settings(&self, tenant: &TenantId) -> Option<VoiceSettings> {
        let tenant = self.tenants.get(tenant)?;
        let mut settings = tenant.settings.clone();
        let unproven = unproven_pace_key(&settings.account_sid, &settings.tenant_id);
        settings.pace_key = if tenant.proven { settings.account_sid.as_str().to_owned() } else { unproven };
        settings.calls_per_second = self.accounts.get(&settings.account_sid).copied()?;
        Some(settings)
    }
}

/// The pause between two calls of an account.
#[expect(clippy::cast_possible_truncation, reason = "settings hold the pace to 0.001..=10000")]
pub(super) fn interval_us(rate: f64) -> i64 {
    (1e6 / rate).ceil() as i64
}

impl Row {
    /// Its place among the user's requests.
    pub(super) fn asked(&self) -> Option<(Timestamp, &DeliveryId)> {
        self.user.as_ref().map(|(_, time)| (*time, &self.delivery.key.delivery_id))
    }
}

impl Pace {
    /// The first slot that is free.
    pub(super) fn base(&self, now: Timestamp) -> Timestamp {
        self.tat.max(now).max(self.hold_until.unwrap_or(now))
    }

    /// The time of the n-th slot after `base`.
    pub(super) fn after(&self, base: Timestamp, n: i64) -> Timestamp {
        base + TimeDelta::microseconds(n * self.interval_us)
    }
}

impl Line {
    pub(super) fn of_placement(placement: &Placement) -> Self {
        Self::Numbers(placement.account_sid.as_str().to_owned(), placement.from.clone(), placement.order.to.clone())
    }

    pub(super) fn of_begin(begin: &Begin) -> Self {
        match &begin.delivery.order {
            Some(order) => Self::Numbers(begin.account_sid.as_str().to_owned(), begin.from.clone(), order.to.clone()),
            None => Self::Alone(begin.attempt_id),
        }
    }

    /// The line's name.
    pub(super) fn bytes(&self) -> delivery::Line {
        delivery::Line(match self {
            Self::Numbers(account, from, to) => format!("{account}/{}/{}", from.expose(), to.expose()).into_bytes(),
            Self::Alone(attempt) => attempt.0.as_bytes().to_vec(),
        })
    }
}
