//! Deterministic simulation: seeded runs of the core on the in-memory ports under a paused clock,
//! with every kind of fault.
//!
//! The faults: crashes at every await on a port, lost answers, workers that stall for longer than
//! their lease, clocks that differ, redeliveries, duplicates, reordering, and callbacks that arrive
//! early, late, twice or never. After each run the invariants are checked. A failure names its
//! seed, which `VOICE_OTP_SIMULATE=<seed>..<seed + 1>` runs alone.

mod broker;
mod bug;
mod callees;
mod fault_injector;
mod invariants;
mod operator;
mod plan;
mod ports;
mod worker;
mod world;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use bug::Bug;
use plan::{Plan, Stats};

/// The seeds of a usual run.
const SEEDS: u64 = 10_000;
/// A run ends once this many seeds have failed, and names them.
const MOST_FAILURES: usize = 20;
/// A planted bug must be found within this many seeds.
const SEEDS_FOR_A_BUG: u64 = 2_000;

/// Runs one plan to its end.
fn run(plan: &Plan) -> Result<Stats, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(world::run(plan))
}

/// Runs seeds on all cores, until this many have failed. Returns the sums, or the failures.
fn run_all(
    seeds: std::ops::Range<u64>,
    bug: Option<Bug>,
    most_failures: usize,
) -> Result<Stats, BTreeMap<u64, String>> {
    let (next, sum, failed) = (
        AtomicU64::new(seeds.start),
        Mutex::new(Stats::default()),
        Mutex::new(BTreeMap::new()),
    );
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, std::num::NonZero::get) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end || failed.lock().unwrap().len() >= most_failures {
                        return;
                    }
                    match run(&Plan::of_seed(seed, bug)) {
                        Ok(stats) => sum.lock().unwrap().add(&stats),
                        Err(why) => drop(failed.lock().unwrap().insert(seed, why)),
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    if failed.is_empty() {
        Ok(sum.into_inner().unwrap())
    } else {
        Err(failed)
    }
}

/// The seeds to run: `VOICE_OTP_SIMULATE`, or the usual ones.
fn seeds() -> std::ops::Range<u64> {
    let Ok(text) = std::env::var("VOICE_OTP_SIMULATE") else {
        return 0..SEEDS;
    };
    let (first, end) = text
        .split_once("..")
        .expect("VOICE_OTP_SIMULATE is a range: 0..10000");
    first.parse().expect("a number")..end.parse().expect("a number")
}

#[test]
fn whatever_fails_nothing_is_lost_no_user_is_called_twice_and_each_request_finishes_once() {
    let start = std::time::Instant::now();
    let seeds = seeds();
    let count = seeds.end - seeds.start;
    match run_all(seeds, None, MOST_FAILURES) {
        Ok(stats) => eprintln!("{count} seeds in {:?}: {stats:?}", start.elapsed()),
        Err(failed) => {
            for (seed, why) in &failed {
                eprintln!("seed {seed}: {why}");
            }
            panic!("{} of {count} seeds failed at least", failed.len());
        }
    }
}

#[test]
fn a_crash_at_any_await_on_a_port_breaks_no_invariant() {
    for after in [false, true] {
        let mut points = 0;
        for seed in 0..5 {
            // Until the run has no further await.
            for nth in 0.. {
                let plan = Plan::crashing_at(seed, nth, after);
                let stats = run(&plan).unwrap_or_else(|why| {
                    panic!("seed {seed}, crash at await {nth}, after its effect: {after}: {why}")
                });
                if stats.crashes == 0 {
                    break;
                }
                points += 1;
            }
        }
        eprintln!("a crash at each of {points} awaits, after its effect: {after}");
        assert!(points > 500, "after its effect: {after}: {points}");
    }
}

#[test]
fn planted_bugs_are_found() {
    for bug in Bug::ALL.into_iter().chain([Bug::IgnoreClockSteps]) {
        let found = run_all(0..SEEDS_FOR_A_BUG, Some(bug), 1).err();
        let found = found.and_then(|mut failed| failed.pop_first());
        let (seed, why) =
            found.unwrap_or_else(|| panic!("{bug:?} was not found in {SEEDS_FOR_A_BUG} seeds"));
        eprintln!("{bug:?}: seed {seed}: {why}");
    }
}
