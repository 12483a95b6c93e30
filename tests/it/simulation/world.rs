//! One run: the shared state of its workers, and its phases.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio_util::sync::CancellationToken;
use voice_otp::Tuning;
use voice_otp::call::CallStatus;
use voice_otp::call::failure::{Class, Fault};
use voice_otp_schemas::Timestamp;

use super::plan::{
    self, COMPLETION_TIMEOUT, FAULTY_PHASE, LEAD, Plan, QUIET_PHASE, Stats, TENANTS,
    tenant_settings,
};
use super::worker::{self, Worker};
use super::{broker, invariants};
use crate::memory::clock::{self, Now};
use crate::memory::sample::{Request, account, key, number};
use crate::memory::{Answer, CallEnd, CallTimeline, MemoryLedger, MemorySink, MemoryTelephony};

/// A published request.
#[derive(Debug, Clone)]
pub(super) struct Published {
    pub(super) request: Request,
    pub(super) to: String,
    pub(super) at: Timestamp,
    pub(super) place_by: Timestamp,
    /// The request's user, if it names one.
    pub(super) user: Option<&'static str>,
    /// Whether a cancellation was acknowledged before the request was published.
    pub(super) cancelled_first: bool,
}

/// The state that all workers share.
pub(super) struct World {
    pub(super) ledger: MemoryLedger,
    pub(super) telephony: MemoryTelephony,
    pub(super) sink: MemorySink,
    pub(super) plan: Plan,
    pub(super) now: Now,
    pub(super) tuning: Tuning,
    rng: Mutex<StdRng>,
    /// The running worker of each position.
    pub(super) workers: Mutex<Vec<Option<Worker>>>,
    /// Cancelled when no more faults are injected.
    faults_over: CancellationToken,
    pub(super) published: Mutex<Vec<Published>>,
    /// The number of published conflicting duplicates.
    pub(super) conflicts: AtomicU64,
    /// The number of dead letters.
    pub(super) dead_letters: AtomicU64,
    pub(super) crashes: AtomicU64,
    pub(super) faults: AtomicU64,
    pub(super) redeliveries: AtomicU64,
    pub(super) callbacks: AtomicU64,
}

/// Runs a plan. An error describes the violated invariant.
pub(super) async fn run(plan: &Plan) -> Result<Stats, String> {
    let (now, tuning) = (clock::tokio_clock(), plan::tuning());
    let ledger = MemoryLedger::new(Arc::clone(&now), plan::limits(&tuning));
    let directory = ledger.directory();
    for (name, account, rate) in TENANTS {
        let settings = directory.save(name, &tenant_settings(account, rate));
        directory.verify_credentials(&settings);
    }
    let telephony = MemoryTelephony::new(Arc::clone(&now));
    telephony.set_silence(tuning.post_timeout);
    telephony.set_list_lag(Duration::from_millis(1_500));
    let world = Arc::new(World {
        ledger,
        telephony,
        sink: MemorySink::new(),
        plan: plan.clone(),
        now,
        tuning,
        rng: Mutex::new(StdRng::seed_from_u64(
            plan.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15),
        )),
        workers: Mutex::new(vec![None; plan.workers]),
        faults_over: CancellationToken::new(),
        published: Mutex::default(),
        conflicts: AtomicU64::default(),
        dead_letters: AtomicU64::default(),
        crashes: AtomicU64::default(),
        faults: AtomicU64::default(),
        redeliveries: AtomicU64::default(),
        callbacks: AtomicU64::default(),
    });
    for position in 0..plan.workers {
        drop(tokio::task::spawn(worker::run_workers(
            Arc::clone(&world),
            position,
        )));
    }
    drop(tokio::task::spawn(broker::send_callbacks(Arc::clone(
        &world,
    ))));
    drop(tokio::task::spawn(operate(Arc::clone(&world))));
    let count = world.below(6) + 3;
    for n in 0..count {
        drop(tokio::task::spawn(broker::publish(
            Arc::clone(&world),
            u32::try_from(n).unwrap(),
        )));
    }
    tokio::time::sleep(FAULTY_PHASE).await;
    world.stop_faults();
    let finished = tokio::time::timeout(
        COMPLETION_TIMEOUT,
        invariants::until_all_are_final(&world, usize::try_from(count).unwrap()),
    )
    .await;
    finished.map_err(|_| format!("not all deliveries are final: {}", invariants::open(&world)))?;
    tokio::time::sleep(QUIET_PHASE).await;
    invariants::check(&world)
}

/// An operator who pauses and resumes tenants and accounts, and changes rates and restores them. At
/// the end everything is resumed.
async fn operate(world: Arc<World>) {
    let directory = world.ledger.directory();
    while !world.faults_are_over() {
        world.pause(4_000).await;
        let (tenant, n, rate) = TENANTS[usize::try_from(world.below(3)).unwrap()];
        let name = key(tenant, "any").tenant_id;
        match world.below(6) {
            0 => directory.set_tenant_paused(&name, true),
            1 => directory.set_tenant_paused(&name, false),
            2 => directory.set_account_paused(&account(n), true),
            3 => directory.set_account_paused(&account(n), false),
            // Earlier slots become void, and the rate limit holds throughout.
            4 => drop((
                directory.save(tenant, &tenant_settings(n, rate / 2.0)),
                directory.save(tenant, &tenant_settings(n, rate)),
            )),
            _ => {}
        }
    }
    for (tenant, n, _) in TENANTS {
        directory.set_tenant_paused(&key(tenant, "any").tenant_id, false);
        directory.set_account_paused(&account(n), false);
    }
}

impl World {
    fn stop_faults(&self) {
        self.faults_over.cancel();
        for worker in self.workers.lock().unwrap().iter().flatten() {
            worker.faults.stop_faults();
        }
    }

    /// A random running worker.
    pub(super) async fn random_worker(&self) -> Worker {
        loop {
            let running: Vec<Worker> = self
                .workers
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

    /// Whether faults are no longer injected.
    pub(super) fn faults_are_over(&self) -> bool {
        self.faults_over.is_cancelled()
    }

    pub(super) fn random(&self) -> u64 {
        self.rng.lock().unwrap().random()
    }

    pub(super) fn below(&self, limit: u64) -> u64 {
        self.rng.lock().unwrap().random_range(0..limit.max(1))
    }

    pub(super) fn uniform(&self, least: f64, most: f64) -> f64 {
        self.rng.lock().unwrap().random_range(least..most)
    }

    /// True with this probability, in thousandths.
    pub(super) fn chance(&self, per_mille: u64) -> bool {
        self.below(1_000) < per_mille
    }

    /// Waits for a random time.
    pub(super) async fn pause(&self, longest_ms: u64) {
        tokio::time::sleep(Duration::from_millis(self.below(longest_ms))).await;
    }

    /// Makes the `n`th request, published now, and sets Twilio's answers to its POSTs.
    pub(super) fn request(&self, n: u32) -> Published {
        let (tenant, ..) = TENANTS[usize::try_from(self.below(3)).unwrap()];
        let life = Duration::from_secs(7 + self.below(25));
        for _ in 0..self.below(3) {
            self.telephony.answers(&number(n), &[self.failure()]);
        }
        self.telephony
            .answers(&number(n), &[Answer::Accepts(self.life())]);
        let mut request = Request::new(tenant, &format!("r{n}"))
            .to(n)
            .expires_in(life);
        let user = self.chance(350).then_some("jane");
        if user.is_some() {
            request = request
                .of_user("jane")
                .requested_ago(Duration::from_millis(self.below(3_000)));
        }
        let at = (self.now)();
        Published {
            request,
            to: number(n),
            at,
            place_by: at + life - LEAD,
            user,
            cancelled_first: false,
        }
    }

    fn failure(&self) -> Answer {
        match self.below(12) {
            0..4 => Answer::Fails(Class::Transient),
            4 => Answer::Fails(Class::Congested),
            5 => Answer::Fails(Class::Throttled(None)),
            6 => Answer::Fails(Class::Throttled(Some(Duration::from_millis(500)))),
            7 => Answer::Fails(Class::Permanent(Fault::Destination)),
            8..10 => Answer::AcceptsSilently(self.life()),
            _ => Answer::DropsSilently,
        }
    }

    fn life(&self) -> CallTimeline {
        let end = match self.below(6) {
            0 => CallEnd::Unanswered(CallStatus::Busy),
            1 => CallEnd::Unanswered(CallStatus::NoAnswer),
            _ => CallEnd::Answered(Duration::from_secs(1 + self.below(15))),
        };
        let (queued, ringing) = (
            Duration::from_millis(self.below(500)),
            Duration::from_millis(self.below(4_000)),
        );
        CallTimeline {
            queued,
            ringing,
            end,
        }
    }
}
