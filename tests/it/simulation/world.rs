//! One run: the shared state of its workers, and its phases.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::TimeDelta;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio_util::sync::CancellationToken;
use voice_otp::Tuning;
use voice_otp::call::CallStatus;
use voice_otp::call::failure::{Class, Fault};
use voice_otp::delivery::AttemptId;
use voice_otp_schemas::{DeliveryKey, Timestamp};

use super::bug::Bug;
use super::operator::{self, Pause};
use super::plan::{
    self, COMPLETION_TIMEOUT, FAULTY_PHASE, IDLE, LEAD, LONGEST_PARKED, Plan, QUIET_PHASE, Stats,
    TENANTS, tenant_settings,
};
use super::ports::Queues;
use super::worker::{self, Worker};
use super::{broker, invariants};
use crate::memory::clock::{self, Now};
use crate::memory::sample::{Request, account, draft, number};
use crate::memory::{Answer, CallEnd, CallTimeline, MemoryLedger, MemorySink, MemoryTelephony};

/// A published request.
#[derive(Debug, Clone)]
pub(super) struct Published {
    pub(super) request: Request,
    pub(super) to: String,
    pub(super) at: Timestamp,
    pub(super) place_by: Timestamp,
    /// When its code expires, in true time.
    pub(super) expires_at: Timestamp,
    /// The request's user, if it names one.
    pub(super) user: Option<&'static str>,
    /// Whether a cancellation was acknowledged before the request was published.
    pub(super) cancelled_first: bool,
}

/// The state that all workers share.
pub(super) struct World {
    pub(super) ledger: MemoryLedger,
    pub(super) telephony: MemoryTelephony,
    /// The status log.
    pub(super) sink: MemorySink,
    pub(super) queues: Arc<Queues>,
    pub(super) plan: Plan,
    /// The true time, which publishers and Twilio have.
    pub(super) now: Now,
    /// How many milliseconds the ledger's clock is ahead of it.
    pub(super) ahead_ms: Arc<AtomicI64>,
    pub(super) tuning: Tuning,
    rng: Mutex<StdRng>,
    /// The running worker of each position.
    pub(super) workers: Mutex<Vec<Option<Worker>>>,
    /// Cancelled when no more faults are injected.
    faults_over: CancellationToken,
    pub(super) published: Mutex<Vec<Published>>,
    pub(super) pauses: Mutex<Vec<Pause>>,
    /// When the ledger's clock was stepped.
    pub(super) clock_steps: Mutex<Vec<Timestamp>>,
    /// The number of requests to the idle account, the probe left out.
    pub(super) warm_ups: AtomicU64,
    /// When the report that a delivery's code was entered was acknowledged.
    pub(super) verified: Mutex<BTreeMap<DeliveryKey, Timestamp>>,
    /// The attempts whose callee pressed the confirmation key.
    pub(super) keys_pressed: Mutex<HashSet<AttemptId>>,
    /// The attempts whose callee was read the code after a key.
    pub(super) codes_read: Mutex<HashSet<AttemptId>>,
    /// The number of published conflicting duplicates.
    pub(super) conflicts: AtomicU64,
    /// The number of dead letters.
    pub(super) dead_letters: AtomicU64,
    pub(super) crashes: AtomicU64,
    /// The number of workers that crashed or stopped.
    pub(super) ended_workers: AtomicU64,
    pub(super) faults: AtomicU64,
    pub(super) redeliveries: AtomicU64,
    pub(super) callbacks: AtomicU64,
}

/// How long the ledger's clock may be wrong after the other faults.
const LONGEST_WRONG_MS: u64 = 60_000;
/// How long after the faults, and the last step of the ledger's clock, an idle account is called.
const CALM_BEFORE_PROBE: Duration = Duration::from_secs(6);

/// Runs a plan. An error describes the violated invariant.
pub(super) async fn run(plan: &Plan) -> Result<Stats, String> {
    let (now, tuning) = (clock::tokio_clock(), plan::tuning());
    let ahead_ms = Arc::new(AtomicI64::new(0));
    let ledger_now: Now = {
        let (now, ahead_ms) = (Arc::clone(&now), Arc::clone(&ahead_ms));
        Arc::new(move || now() + TimeDelta::milliseconds(ahead_ms.load(Ordering::SeqCst)))
    };
    let ledger = MemoryLedger::new(ledger_now, plan::limits(&tuning));
    let directory = ledger.directory();
    for (name, account, rate) in TENANTS {
        let settings = directory.save(name, &tenant_settings(account, rate, plan.callbacks));
        directory.verify_credentials(&settings);
    }
    let settings = directory.save(IDLE.0, &draft(IDLE.1, IDLE.2));
    directory.verify_credentials(&settings);
    let allowed = i32::from(plan.bug == Some(Bug::ExceedMaxCalls));
    directory.set_limits(&account(1), plan.max_calls.map(|max| max + allowed), 0.5);
    let telephony = MemoryTelephony::new(Arc::clone(&now));
    let has_timeouts = plan.bug != Some(Bug::HideTimeouts);
    telephony.set_silence(tuning.post_timeout / if has_timeouts { 1 } else { 4 });
    telephony.set_list_lag(Duration::from_millis(1_500));
    telephony.set_capacity(plan.provider_capacity);
    if plan.callbacks {
        telephony.set_callbacks();
    }
    let world = Arc::new(World {
        ledger,
        telephony,
        sink: MemorySink::new(),
        queues: Arc::default(),
        plan: plan.clone(),
        now,
        ahead_ms,
        tuning,
        rng: Mutex::new(StdRng::seed_from_u64(
            plan.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15),
        )),
        workers: Mutex::new(vec![None; plan.workers]),
        faults_over: CancellationToken::new(),
        published: Mutex::default(),
        pauses: Mutex::default(),
        clock_steps: Mutex::default(),
        warm_ups: AtomicU64::default(),
        verified: Mutex::default(),
        keys_pressed: Mutex::default(),
        codes_read: Mutex::default(),
        conflicts: AtomicU64::default(),
        dead_letters: AtomicU64::default(),
        crashes: AtomicU64::default(),
        ended_workers: AtomicU64::default(),
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
    drop(tokio::task::spawn(operator::operate(Arc::clone(&world))));
    drop(tokio::task::spawn(operator::break_queue(Arc::clone(
        &world,
    ))));
    if plan.clock_steps {
        drop(tokio::task::spawn(operator::step_clock(Arc::clone(&world))));
    }
    let requests = world.below(6) + 3;
    for n in 0..requests {
        drop(tokio::task::spawn(broker::publish(
            Arc::clone(&world),
            u32::try_from(n).unwrap(),
        )));
    }
    tokio::time::sleep(FAULTY_PHASE).await;
    world.stop_faults();
    if plan.clock_steps {
        // A clock that is wrong stays wrong, until it is set right.
        world.pause(LONGEST_WRONG_MS * world.below(2)).await;
        operator::set_clock(&world, 0);
    }
    tokio::time::sleep(CALM_BEFORE_PROBE).await;
    let n = u32::try_from(requests).unwrap();
    broker::publish_idle(&world, broker::PROBE, n).await;
    let count = requests + 1 + world.warm_ups.load(Ordering::SeqCst);
    let finished = tokio::time::timeout(
        COMPLETION_TIMEOUT,
        invariants::until_all_are_final(&world, usize::try_from(count).unwrap()),
    )
    .await;
    finished.map_err(|_| format!("not all deliveries are final: {}", invariants::open(&world)))?;
    tokio::time::sleep(QUIET_PHASE).await;
    if plan.broken_queue.is_some() {
        let emptied = async {
            while world.ledger.outbox_len() > 0 {
                tokio::time::sleep(CALM_BEFORE_PROBE).await;
            }
        };
        // The invariants say whether it is.
        drop(tokio::time::timeout(LONGEST_PARKED, emptied).await);
    }
    invariants::check(&world)
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

    /// The number of faults injected so far, into workers that run and that have ended.
    pub(super) fn faults(&self) -> u64 {
        let workers = self.workers.lock().unwrap();
        let running = workers.iter().flatten().map(|worker| worker.faults.count());
        self.faults.load(Ordering::Relaxed) + running.sum::<u64>()
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
        // Redials too end before they would be given up.
        self.telephony
            .always(&number(n), Answer::Accepts(self.life()));
        let mut request = Request::new(tenant, &format!("r{n}"))
            .to(n)
            .expires_in(life);
        let user = self.chance(350).then_some("jane");
        if user.is_some() {
            request = request
                .of_user("jane")
                .requested_ago(Duration::from_millis(self.below(3_000)));
        }
        self.published(request, n, life, user)
    }

    /// Makes a request to the idle account.
    pub(super) fn idle_request(&self, id: &str, n: u32, life: Duration) -> Published {
        let request = Request::new(IDLE.0, id).to(n).expires_in(life);
        self.published(request, n, life, None)
    }

    fn published(
        &self,
        request: Request,
        n: u32,
        life: Duration,
        user: Option<&'static str>,
    ) -> Published {
        let at = (self.now)();
        Published {
            request,
            to: number(n),
            at,
            place_by: at + life - LEAD,
            expires_at: at + life,
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
            8 => Answer::AcceptsSilently(self.life()),
            9 => Answer::AcceptsLate(self.life(), Duration::from_millis(self.below(1_400))),
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
