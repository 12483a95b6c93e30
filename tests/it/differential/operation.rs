//! What may happen to a ledger, drawn by chance.

use std::time::Duration;

use rand::RngExt as _;
use rand::rngs::StdRng;
use uuid::Uuid;
use voice_otp::delivery::{AttemptId, Key};

use crate::memory::sample::{Ask, key};

/// Tenants: two of one account, one of another, one in test mode, and one that there is no settings of.
pub(super) const TENANTS: [&str; 5] = ["alpha", "beta", "gamma", "testy", "ghost"];
/// The ids that requests have.
pub(super) const IDS: [&str; 4] = ["a", "b", "c", "d"];
/// The users that requests are for.
pub(super) const USERS: [&str; 2] = ["jane", "june"];

/// One operation. `session` says by which of the two workers, over which of the two connections.
#[derive(Debug)]
pub(super) enum Operation {
    Admit {
        session: usize,
        group: Vec<Wish>,
    },
    /// The last group again, as after a lost answer.
    AdmitAgain {
        session: usize,
    },
    /// A delivery is taken back that isn't there yet.
    Forbid {
        session: usize,
        key: Key,
    },
    /// What has been over for long is put away.
    Tidy {
        session: usize,
    },
    Begin {
        session: usize,
        picks: Vec<Pick>,
    },
    Save {
        session: usize,
        picks: Vec<Pick>,
    },
    Cancel {
        session: usize,
        key: Key,
    },
    Claim {
        session: usize,
    },
    /// A worker goes, and another one comes.
    Retire {
        session: usize,
    },
    /// One in `every` of the events that were told is published.
    Publish {
        session: usize,
        every: usize,
        from: usize,
    },
    Sweep {
        session: usize,
    },
    Hold {
        tenant: &'static str,
        wait: Duration,
    },
    Prove {
        tenant: &'static str,
    },
    Repace {
        tenant: &'static str,
        pace: f64,
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
    Trip {
        tenant: &'static str,
    },
    Mend {
        tenant: &'static str,
    },
    LookUp {
        nth_attempt: usize,
        key: Key,
        user: &'static str,
    },
    /// Time passes; then some of the workers beat, and who has died starts anew.
    Wait {
        time: Duration,
        beats: [bool; 2],
    },
}

/// A request to admit.
#[derive(Debug)]
pub(super) struct Wish {
    pub(super) ask: Ask,
    pub(super) attempt: Option<AttemptId>,
    /// Planned from older settings.
    pub(super) stale: bool,
}

/// A delivery to do something with, if it is there.
#[derive(Debug)]
pub(super) struct Pick {
    pub(super) key: Key,
    pub(super) attempt: AttemptId,
    /// As it was before the last change.
    pub(super) outdated: bool,
    /// Which of the changes that its state allows.
    pub(super) choice: u32,
    /// The call that it may turn out to be.
    pub(super) sid: u32,
}

impl Operation {
    pub(super) fn random(rng: &mut StdRng, step: u32) -> Self {
        let session = rng.random_range(0..2);
        match rng.random_range(0..100) {
            0..22 => Self::Admit {
                session,
                group: (0..rng.random_range(1..6)).map(|_| wish(rng)).collect(),
            },
            22..38 => Self::Begin {
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
            64..70 => Self::Claim { session },
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
            72 => Self::Trip {
                tenant: any(rng, &TENANTS[..3]),
            },
            73 => Self::Mend {
                tenant: any(rng, &TENANTS[..3]),
            },
            74 => Self::Retire { session },
            75..79 => Self::Publish {
                session,
                every: rng.random_range(1..4),
                from: rng.random_range(0..3),
            },
            79..83 => Self::Sweep { session },
            83..85 => Self::Hold {
                tenant: any(rng, &TENANTS[..3]),
                wait: Duration::from_secs(rng.random_range(1..20)),
            },
            85 => Self::Prove {
                tenant: any(rng, &TENANTS[..3]),
            },
            86 => Self::Repace {
                tenant: any(rng, &TENANTS[..3]),
                pace: any(rng, &[0.1, 0.5, 7.0]),
            },
            87 => Self::Forbid {
                session,
                key: any_key(rng),
            },
            88 => Self::Tidy { session },
            89..91 => Self::AdmitAgain { session },
            91..93 => Self::LookUp {
                nth_attempt: rng.random_range(0..1000),
                key: any_key(rng),
                user: any(rng, &USERS),
            },
            _ => Self::Wait {
                time: some_time(rng),
                beats: [rng.random_bool(0.7), rng.random_bool(0.7)],
            },
        }
    }
}

fn wish(rng: &mut StdRng) -> Wish {
    let mut ask = Ask::new(any(rng, &TENANTS), any(rng, &IDS))
        .calling(rng.random_range(0..4))
        .reading(any(rng, &["111111", "111111", "111111", "222222", "3"]))
        .living(Duration::from_secs(any(
            rng,
            &[20, 31, 36, 45, 70, 180, 600],
        )));
    if rng.random_bool(0.5) {
        // What was asked for earlier may come later.
        ask = ask
            .of_user(any(rng, &USERS))
            .asked_ago(Duration::from_millis(any(rng, &[0, 0, 0, 300, 5_000])));
    }
    Wish {
        ask,
        attempt: rng.random_bool(0.7).then(|| attempt(rng)),
        stale: rng.random_bool(0.05),
    }
}

/// Some deliveries, none twice.
fn picks(rng: &mut StdRng, step: u32) -> Vec<Pick> {
    let mut picks: Vec<Pick> = Vec::new();
    for n in 0..rng.random_range(1..8) {
        let key = any_key(rng);
        let (attempt, outdated, choice) =
            (attempt(rng), rng.random_bool(0.08), rng.random_range(0..8));
        // Now and then two are taken for one call.
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

fn any_key(rng: &mut StdRng) -> Key {
    key(any(rng, &TENANTS), any(rng, &IDS))
}

fn attempt(rng: &mut StdRng) -> AttemptId {
    AttemptId(Uuid::from_u128(rng.random()))
}

fn any<T: Copy>(rng: &mut StdRng, from: &[T]) -> T {
    from[rng.random_range(0..from.len())]
}

/// Around all that anything waits for: moments, slots, leases, rescues.
fn some_time(rng: &mut StdRng) -> Duration {
    let about = any(
        rng,
        &[
            0, 40, 150, 250, 900, 2_000, 3_500, 6_000, 11_000, 37_000, 61_500, 7_300_000,
        ],
    );
    Duration::from_millis(about + rng.random_range(0..60))
}
