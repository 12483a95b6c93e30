//! Random operations on a ledger.

use std::time::Duration;

use rand::RngExt as _;
use rand::rngs::StdRng;
use uuid::Uuid;
use voice_otp::delivery::AttemptId;
use voice_otp_schemas::DeliveryKey;

use crate::memory::sample::{Request, key};

/// Tenants: two of one account, one of another, one in test mode, and one without settings.
pub(super) const TENANTS: [&str; 5] = ["alpha", "beta", "gamma", "testy", "ghost"];
/// The delivery ids of requests.
pub(super) const IDS: [&str; 4] = ["a", "b", "c", "d"];
/// The users of requests.
pub(super) const USERS: [&str; 2] = ["jane", "june"];

/// One operation. `session` selects the worker and the connection.
#[derive(Debug)]
pub(super) enum Operation {
    Admit {
        session: usize,
        group: Vec<Submission>,
    },
    /// The last batch again, as after a lost answer.
    AdmitAgain {
        session: usize,
    },
    /// Cancellations arrive before their deliveries.
    InsertTombstones {
        session: usize,
        keys: Vec<DeliveryKey>,
    },
    /// Users' cancellations: recorded, and what they cancel.
    CancelUsers {
        session: usize,
        /// The tenant, the user and how long ago; `None`: the event has no time.
        users: Vec<(&'static str, &'static str, Option<Duration>)>,
    },
    /// Codes were entered.
    MarkVerified {
        session: usize,
        keys: Vec<DeliveryKey>,
    },
    /// Prices are queried, and those of one in `every` calls are published.
    Price {
        session: usize,
        every: usize,
    },
    /// Twilio rejects a tenant's credentials, or accepts them again.
    Credentials {
        tenant: &'static str,
        rejected: bool,
    },
    /// Rejected credentials are probed.
    ProbeCredentials,
    DeleteSettings {
        tenant: &'static str,
    },
    SaveSettings {
        tenant: &'static str,
        enabled: bool,
    },
    /// Finished deliveries are archived.
    Archive {
        session: usize,
    },
    AttemptStart {
        session: usize,
        picks: Vec<Pick>,
    },
    Save {
        session: usize,
        picks: Vec<Pick>,
    },
    Cancel {
        session: usize,
        key: DeliveryKey,
    },
    ClaimDue {
        session: usize,
    },
    /// A worker is released, and another one registers.
    Release {
        session: usize,
    },
    /// One in `every` of the unpublished events is published.
    Publish {
        session: usize,
        every: usize,
        from: usize,
    },
    ClaimUnpublished {
        session: usize,
    },
    Throttle {
        tenant: &'static str,
        wait: Duration,
    },
    VerifyCredentials {
        tenant: &'static str,
    },
    SetRate {
        tenant: &'static str,
        calls_per_second: f64,
    },
    Pause {
        tenant: &'static str,
        whole_account: bool,
        paused: bool,
    },
    Limit {
        account: u32,
        max_calls: Option<i32>,
        tenant_share: f64,
    },
    OpenCircuit {
        tenant: &'static str,
    },
    CloseCircuit {
        tenant: &'static str,
    },
    LookUp {
        nth_attempt: usize,
        key: DeliveryKey,
        user: &'static str,
    },
    /// Time passes; then some of the workers send a heartbeat, and an expired one registers again.
    Wait {
        time: Duration,
        heartbeats: [bool; 2],
    },
}

/// A request to admit.
#[derive(Debug)]
pub(super) struct Submission {
    pub(super) request: Request,
    pub(super) attempt: Option<AttemptId>,
    /// Whether it is planned from older settings.
    pub(super) stale: bool,
}

/// A delivery to change, if it exists.
#[derive(Debug)]
pub(super) struct Pick {
    pub(super) key: DeliveryKey,
    pub(super) attempt: AttemptId,
    /// Whether to use the delivery as it was before the last change.
    pub(super) outdated: bool,
    /// Selects one of the changes that its state allows.
    pub(super) choice: u32,
    /// The number of the call that the change may name.
    pub(super) sid: u32,
}

impl Operation {
    pub(super) fn random(rng: &mut StdRng, step: u32) -> Self {
        let session = rng.random_range(0..2);
        match rng.random_range(0..100) {
            0..22 => Self::Admit {
                session,
                group: (0..rng.random_range(1..6))
                    .map(|_| submission(rng))
                    .collect(),
            },
            22..38 => Self::AttemptStart {
                session,
                picks: picks(rng, step),
            },
            38..60 => Self::Save {
                session,
                picks: picks(rng, step),
            },
            60..64 => Self::Cancel {
                session,
                key: any_key(rng),
            },
            64..70 => Self::ClaimDue { session },
            70 => Self::Pause {
                tenant: any(rng, &TENANTS[..3]),
                whole_account: rng.random_bool(0.4),
                paused: rng.random_bool(0.4),
            },
            71 => Self::Limit {
                account: rng.random_range(1..3),
                max_calls: any(rng, &[None, Some(1), Some(2)]),
                tenant_share: any(rng, &[0.1, 0.5, 1.0]),
            },
            72 => Self::OpenCircuit {
                tenant: any(rng, &TENANTS[..3]),
            },
            73 => Self::CloseCircuit {
                tenant: any(rng, &TENANTS[..3]),
            },
            74 => Self::Release { session },
            75..79 => Self::Publish {
                session,
                every: rng.random_range(1..4),
                from: rng.random_range(0..3),
            },
            79..83 => Self::ClaimUnpublished { session },
            83..85 => Self::Throttle {
                tenant: any(rng, &TENANTS[..3]),
                wait: Duration::from_secs(rng.random_range(1..20)),
            },
            85 => Self::VerifyCredentials {
                tenant: any(rng, &TENANTS[..3]),
            },
            86 => Self::SetRate {
                tenant: any(rng, &TENANTS[..3]),
                calls_per_second: any(rng, &[0.1, 0.5, 7.0]),
            },
            87 => Self::InsertTombstones {
                session,
                keys: any_keys(rng),
            },
            88 => Self::Archive { session },
            89 => Self::AdmitAgain { session },
            90 => Self::Price {
                session,
                every: rng.random_range(1..3),
            },
            91 => any_settings_change(rng),
            92..94 => Self::CancelUsers {
                session,
                users: any_users(rng),
            },
            94 => Self::MarkVerified {
                session,
                keys: any_keys(rng),
            },
            95..97 => Self::LookUp {
                nth_attempt: rng.random_range(0..1000),
                key: any_key(rng),
                user: any(rng, &USERS),
            },
            _ => Self::Wait {
                time: some_time(rng),
                heartbeats: [rng.random_bool(0.7), rng.random_bool(0.7)],
            },
        }
    }
}

fn any_settings_change(rng: &mut StdRng) -> Operation {
    let tenant = any(rng, &TENANTS[..3]);
    match rng.random_range(0..8) {
        0..3 => Operation::Credentials {
            tenant,
            rejected: rng.random_bool(0.6),
        },
        3..5 => Operation::ProbeCredentials,
        5 => Operation::DeleteSettings { tenant },
        _ => Operation::SaveSettings {
            tenant,
            enabled: rng.random_bool(0.7),
        },
    }
}

fn any_users(rng: &mut StdRng) -> Vec<(&'static str, &'static str, Option<Duration>)> {
    let number = rng.random_range(1..4);
    let user = |_| {
        let ago = any(rng, &[0, 0, 200, 300, 4_000, 9_000]);
        let time = rng.random_bool(0.8).then(|| Duration::from_millis(ago));
        (any(rng, &TENANTS), any(rng, &USERS), time)
    };
    (0..number).map(user).collect()
}

fn any_keys(rng: &mut StdRng) -> Vec<DeliveryKey> {
    (0..rng.random_range(1..5)).map(|_| any_key(rng)).collect()
}

fn submission(rng: &mut StdRng) -> Submission {
    let mut request = Request::new(any(rng, &TENANTS), any(rng, &IDS))
        .to(rng.random_range(0..4))
        .code(any(rng, &["111111", "111111", "111111", "222222", "3"]))
        .expires_in(Duration::from_secs(any(
            rng,
            &[20, 31, 36, 45, 70, 180, 600],
        )));
    if rng.random_bool(0.5) {
        // An earlier request may arrive later.
        request = request
            .of_user(any(rng, &USERS))
            .requested_ago(Duration::from_millis(any(rng, &[0, 0, 0, 300, 5_000])));
    }
    Submission {
        request,
        attempt: rng.random_bool(0.7).then(|| attempt(rng)),
        stale: rng.random_bool(0.05),
    }
}

/// Some deliveries, no delivery twice.
fn picks(rng: &mut StdRng, step: u32) -> Vec<Pick> {
    let mut picks: Vec<Pick> = Vec::new();
    for n in 0..rng.random_range(1..8) {
        let key = any_key(rng);
        let (attempt, outdated, choice) =
            (attempt(rng), rng.random_bool(0.08), rng.random_range(0..8));
        // Sometimes two deliveries name the same call.
        let sid = if rng.random_bool(0.08) {
            1
        } else {
            100 + step * 10 + n
        };
        if picks.iter().all(|pick| pick.key != key) {
            picks.push(Pick {
                key,
                attempt,
                outdated,
                choice,
                sid,
            });
        }
    }
    picks
}

fn any_key(rng: &mut StdRng) -> DeliveryKey {
    key(any(rng, &TENANTS), any(rng, &IDS))
}

fn attempt(rng: &mut StdRng) -> AttemptId {
    AttemptId(Uuid::from_u128(rng.random()))
}

fn any<T: Copy>(rng: &mut StdRng, from: &[T]) -> T {
    from[rng.random_range(0..from.len())]
}

/// A time near those that the ledger waits for: slots, leases, rescues.
fn some_time(rng: &mut StdRng) -> Duration {
    let about = any(
        rng,
        &[
            0, 40, 150, 250, 900, 2_000, 3_500, 6_000, 11_000, 37_000, 61_500, 7_300_000,
        ],
    );
    Duration::from_millis(about + rng.random_range(0..60))
}
