//! One run: what is planned for it by its seed, and how it is played.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio_util::sync::CancellationToken;
use voice_otp::Tuning;
use voice_otp::dice::Dice;
use voice_otp::engine::Engine;
use voice_otp::failure::{Class, Fault};
use voice_otp::policy::{Again, Outcome};
use voice_otp::progress::CallStatus;
use voice_otp::settings::Draft;
use voice_otp_schemas::Timestamp;
use voice_otp_store::ledger::Limits;

use super::broker;
use super::bug::Bug;
use super::check;
use super::ports::{SimCaller, SimLedger, SimPorts, SimSink, SkewedSteady};
use super::seat::{Odds, Seat};
use crate::memory::clock::{self, Now};
use crate::memory::sample::{Ask, account, draft, key, number};
use crate::memory::{Answer, Life, MemoryCaller, MemoryLedger, MemorySink, Then};

/// What a run is to be.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    seed: u64,
    workers: usize,
    odds: Odds,
    /// The first worker crashes at this await, before or after its effect.
    crash_at: Option<(u64, bool)>,
    pub(super) bug: Option<Bug>,
}

/// What happened in runs.
#[derive(Debug, Default, Clone)]
pub(super) struct Stats {
    pub(super) requests: u64,
    pub(super) posts: u64,
    pub(super) calls: u64,
    pub(super) crashes: u64,
    pub(super) faults: u64,
    pub(super) redeliveries: u64,
    pub(super) callbacks: u64,
    pub(super) statuses: u64,
}

/// A request, and what became of it on the way.
#[derive(Debug, Clone)]
pub(super) struct Published {
    pub(super) ask: Ask,
    pub(super) to: String,
    pub(super) at: Timestamp,
    pub(super) place_by: Timestamp,
    /// Of one user, of one tenant.
    pub(super) user: Option<&'static str>,
    /// It was taken back, and that acknowledged, before it was published.
    pub(super) taken_back: bool,
}

/// Everything that the workers share, and who they are.
pub(super) struct World {
    pub(super) ledger: MemoryLedger,
    pub(super) caller: MemoryCaller,
    pub(super) sink: MemorySink,
    pub(super) plan: Plan,
    pub(super) now: Now,
    tuning: Tuning,
    rng: Mutex<StdRng>,
    slots: Mutex<Vec<Option<Worker>>>,
    /// The storm is over: nothing fails any more.
    calm: CancellationToken,
    pub(super) published: Mutex<Vec<Published>>,
    /// Conflicting repeats: published, and put with the dead letters.
    pub(super) conflicts: AtomicU64,
    pub(super) dead: AtomicU64,
    pub(super) crashes: AtomicU64,
    pub(super) faults: AtomicU64,
    pub(super) redeliveries: AtomicU64,
    pub(super) callbacks: AtomicU64,
}

/// A worker that runs.
#[derive(Clone)]
pub(super) struct Worker {
    pub(super) engine: Arc<Engine<SimPorts>>,
    pub(super) seat: Seat,
}

/// Tenant, account, calls a second of the account.
pub(super) const TENANTS: [(&str, u32, f64); 3] =
    [("acme", 1, 4.0), ("bell", 1, 4.0), ("coop", 2, 2.0)];
/// A call is placed no later than this before its code expires.
const LEAD: Duration = Duration::from_secs(4);
/// While requests are published and things fail.
const STORM: Duration = Duration::from_secs(10);
/// Everything has ended so long after the storm.
const LONGEST: Duration = Duration::from_mins(3);
/// A second ending or a late call would come within this.
const AFTERMATH: Duration = Duration::from_secs(15);

impl Plan {
    pub(super) fn of_seed(seed: u64, bug: Option<Bug>) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        // Some runs are calm but for one kind of trouble, which then shows for itself.
        let mut odds = |most: u32| {
            if rng.random_bool(0.7) {
                rng.random_range(0..=most)
            } else {
                0
            }
        };
        let odds = Odds {
            crash: odds(12),
            lost_answer: odds(40),
            away: odds(40),
            stop: odds(6),
        };
        Self {
            seed,
            workers: rng.random_range(1..4),
            odds,
            crash_at: None,
            bug,
        }
    }

    /// No trouble but one crash of the first of two workers.
    pub(super) fn crashing_at(seed: u64, nth: u64, after: bool) -> Self {
        let odds = Odds {
            crash: 0,
            lost_answer: 0,
            away: 0,
            stop: 0,
        };
        Self {
            seed,
            workers: 2,
            odds,
            crash_at: Some((nth, after)),
            bug: None,
        }
    }
}

impl Stats {
    pub(super) fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.posts += other.posts;
        self.calls += other.calls;
        self.crashes += other.crashes;
        self.faults += other.faults;
        self.redeliveries += other.redeliveries;
        self.callbacks += other.callbacks;
        self.statuses += other.statuses;
    }
}

/// Everything a tenth as long as in truth, so that a run is short.
fn tuning() -> Tuning {
    Tuning {
        lead: LEAD,
        post_timeout: Duration::from_secs(1),
        retry_first: Duration::from_millis(100),
        retry_longest: Duration::from_secs(2),
        settle_look: Duration::from_millis(400),
        settle_absent: Duration::from_secs(2),
        quiet_with_callbacks: Duration::from_secs(3),
        quiet_without_callbacks: Duration::from_secs(1),
        queue_moment: Duration::from_secs(1),
        quiet_longest: Duration::from_secs(3),
        give_up: Duration::from_secs(20),
        beat: Duration::from_millis(500),
        lease: Duration::from_secs(2),
        claim: Duration::from_millis(500),
        sweep: Duration::from_secs(1),
        sweep_age: Duration::from_secs(1),
        ..Tuning::default()
    }
}

fn limits(tuning: &Tuning) -> Limits {
    Limits {
        lease: tuning.lease,
        begin_ahead: tuning.begin_ahead,
        slot_late: tuning.slot_late,
        hold_ahead: tuning.hold_ahead,
        claim_ahead: tuning.claim_ahead,
        rescue: tuning.post_timeout * 2 + tuning.lease,
        forgotten: tuning.sweep_age,
        recent: tuning.longest_life * 2,
        retention: Duration::from_hours(7 * 24),
    }
}

/// Plays a run; says what was wrong, if anything.
pub(super) async fn play(plan: &Plan) -> Result<Stats, String> {
    let (now, tuning) = (clock::of_tokio(), tuning());
    let ledger = MemoryLedger::new(Arc::clone(&now), limits(&tuning));
    let directory = ledger.directory();
    for (name, account, pace) in TENANTS {
        let settings = directory.save(name, &wanted(account, pace));
        directory.prove(&settings);
    }
    let caller = MemoryCaller::new(Arc::clone(&now));
    caller.set_silence(tuning.post_timeout);
    caller.set_list_lag(Duration::from_millis(1_500));
    let world = Arc::new(World {
        ledger,
        caller,
        sink: MemorySink::new(),
        plan: plan.clone(),
        now,
        tuning,
        rng: Mutex::new(StdRng::seed_from_u64(
            plan.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15),
        )),
        slots: Mutex::new(vec![None; plan.workers]),
        calm: CancellationToken::new(),
        published: Mutex::default(),
        conflicts: AtomicU64::default(),
        dead: AtomicU64::default(),
        crashes: AtomicU64::default(),
        faults: AtomicU64::default(),
        redeliveries: AtomicU64::default(),
        callbacks: AtomicU64::default(),
    });
    for place in 0..plan.workers {
        drop(tokio::task::spawn(work(Arc::clone(&world), place)));
    }
    drop(tokio::task::spawn(broker::call_back(Arc::clone(&world))));
    drop(tokio::task::spawn(operate(Arc::clone(&world))));
    let count = world.below(6) + 3;
    for n in 0..count {
        drop(tokio::task::spawn(broker::publish(
            Arc::clone(&world),
            u32::try_from(n).unwrap(),
        )));
    }
    tokio::time::sleep(STORM).await;
    world.calm();
    let ended = tokio::time::timeout(
        LONGEST,
        check::until_all_have_ended(&world, usize::try_from(count).unwrap()),
    )
    .await;
    ended.map_err(|_| format!("not all have ended: {}", check::open(&world)))?;
    tokio::time::sleep(AFTERMATH).await;
    check::all(&world)
}

/// An operator who pauses and resumes tenants and accounts, and changes nobody's pace but twice. In the end all go on.
async fn operate(world: Arc<World>) {
    let directory = world.ledger.directory();
    while !world.is_calm() {
        world.moment(4_000).await;
        let (tenant, n, pace) = TENANTS[usize::try_from(world.below(3)).unwrap()];
        let name = key(tenant, "any").tenant_id;
        match world.below(6) {
            0 => directory.pause(&name, true),
            1 => directory.pause(&name, false),
            2 => directory.pause_account(&account(n), true),
            3 => directory.pause_account(&account(n), false),
            // The slots of before are void, and the pace is kept over the change.
            4 => drop((
                directory.save(tenant, &wanted(n, pace / 2.0)),
                directory.save(tenant, &wanted(n, pace)),
            )),
            _ => {}
        }
    }
    for (tenant, n, _) in TENANTS {
        directory.pause(&key(tenant, "any").tenant_id, false);
        directory.pause_account(&account(n), false);
    }
}

/// One place for a worker: whoever crashes there is followed by another.
async fn work(world: Arc<World>, place: usize) {
    for life in 0_u64.. {
        let (seed, rate) = (world.random(), world.uniform(0.99, 1.01));
        let calm = world.calm.is_cancelled();
        let odds = if calm {
            Odds {
                crash: 0,
                lost_answer: 0,
                away: 0,
                stop: 0,
            }
        } else {
            world.plan.odds
        };
        let crash_at = world.plan.crash_at.filter(|_| place == 0 && life == 0);
        let seat = Seat::new(seed, odds, crash_at, world.tuning.lease);
        let bug = world.plan.bug;
        let ports = (
            SimLedger {
                ledger: world.ledger.clone(),
                sink: world.sink.clone(),
                seat: seat.clone(),
                bug,
            },
            world.ledger.directory(),
            SimCaller {
                caller: world.caller.clone(),
                seat: seat.clone(),
                bug,
            },
            SimSink {
                sink: world.sink.clone(),
                seat: seat.clone(),
            },
        );
        let starting = Engine::<SimPorts>::start(
            ports,
            world.tuning.clone(),
            Dice::seeded(seed),
            SkewedSteady::new(rate),
            "simulated",
        );
        let started = tokio::select! {
            started = starting => started.ok(),
            () = seat.crashed() => None,
        };
        if let Some((engine, works)) = started {
            let (soft, hard) = (CancellationToken::new(), CancellationToken::new());
            let running =
                tokio::task::spawn(Arc::clone(&engine).run(works, soft.clone(), hard.clone()));
            world.slots.lock().unwrap()[place] = Some(Worker {
                engine,
                seat: seat.clone(),
            });
            // Some lives end well.
            let longest = Duration::from_millis(world.below(20_000));
            let stops_well = !calm && world.chance(150);
            tokio::select! {
                () = seat.crashed() => {}
                () = tokio::time::sleep(longest), if stops_well => {
                    world.slots.lock().unwrap()[place] = None;
                    soft.cancel();
                    tokio::select! {
                        ended = running => ended.expect("a worker ends well"),
                        () = seat.crashed() => {}
                        // As a program stops: in the end at once.
                        () = tokio::time::sleep(Duration::from_secs(5)) => hard.cancel(),
                    }
                }
            }
            world.slots.lock().unwrap()[place] = None;
        }
        world
            .crashes
            .fetch_add(u64::from(seat.is_crashed()), Ordering::Relaxed);
        world.faults.fetch_add(seat.faults(), Ordering::Relaxed);
        // What is left of it does nothing more.
        seat.crash();
        tokio::time::sleep(Duration::from_millis(100 + world.below(1_500))).await;
    }
}

/// A tenant's settings. Every other one has calls placed again that reached nobody.
fn wanted(account: u32, pace: f64) -> Draft {
    let mut draft = draft(account, pace);
    if account.is_multiple_of(2) {
        draft.redial.set(
            Outcome::Busy,
            Again {
                times: 1,
                after_s: 5,
            },
        );
        draft.redial.set(
            Outcome::NoAnswer,
            Again {
                times: 2,
                after_s: 5,
            },
        );
    }
    draft
}

impl World {
    fn calm(&self) {
        self.calm.cancel();
        for worker in self.slots.lock().unwrap().iter().flatten() {
            worker.seat.calm();
        }
    }

    /// Some worker that runs.
    pub(super) async fn some_worker(&self) -> Worker {
        loop {
            let running: Vec<Worker> = self
                .slots
                .lock()
                .unwrap()
                .iter()
                .flatten()
                .cloned()
                .collect();
            if !running.is_empty() {
                let which = usize::try_from(self.below(running.len() as u64)).unwrap();
                return running[which].clone();
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub(super) fn is_calm(&self) -> bool {
        self.calm.is_cancelled()
    }

    pub(super) fn random(&self) -> u64 {
        self.rng.lock().unwrap().random()
    }

    pub(super) fn below(&self, most: u64) -> u64 {
        self.rng.lock().unwrap().random_range(0..most.max(1))
    }

    fn uniform(&self, least: f64, most: f64) -> f64 {
        self.rng.lock().unwrap().random_range(least..most)
    }

    /// True in so many of a thousand cases.
    pub(super) fn chance(&self, per_mille: u64) -> bool {
        self.below(1_000) < per_mille
    }

    pub(super) async fn moment(&self, longest_ms: u64) {
        tokio::time::sleep(Duration::from_millis(self.below(longest_ms))).await;
    }

    /// The `n`th request, published now, and what Twilio will make of it.
    pub(super) fn request(&self, n: u32) -> Published {
        let (tenant, ..) = TENANTS[usize::try_from(self.below(3)).unwrap()];
        let life = Duration::from_secs(7 + self.below(25));
        for _ in 0..self.below(3) {
            self.caller.answers(&number(n), &[self.trouble()]);
        }
        self.caller
            .answers(&number(n), &[Answer::Takes(self.life())]);
        let mut ask = Ask::new(tenant, &format!("r{n}")).calling(n).living(life);
        let user = self.chance(350).then_some("jane");
        if user.is_some() {
            ask = ask
                .of_user("jane")
                .asked_ago(Duration::from_millis(self.below(3_000)));
        }
        let at = (self.now)();
        Published {
            ask,
            to: number(n),
            at,
            place_by: at + life - LEAD,
            user,
            taken_back: false,
        }
    }

    fn trouble(&self) -> Answer {
        match self.below(12) {
            0..4 => Answer::Fails(Class::Transient),
            4 => Answer::Fails(Class::Congested),
            5 => Answer::Fails(Class::Throttled(None)),
            6 => Answer::Fails(Class::Throttled(Some(Duration::from_millis(500)))),
            7 => Answer::Fails(Class::Permanent(Fault::Destination)),
            8..10 => Answer::TakesUnheard(self.life()),
            _ => Answer::Loses,
        }
    }

    fn life(&self) -> Life {
        let then = match self.below(6) {
            0 => Then::Ends(CallStatus::Busy),
            1 => Then::Ends(CallStatus::NoAnswer),
            _ => Then::Talks(Duration::from_secs(1 + self.below(15))),
        };
        let (queued, rings) = (
            Duration::from_millis(self.below(500)),
            Duration::from_millis(self.below(4_000)),
        );
        Life {
            queued,
            rings,
            then,
        }
    }
}
