//! The core under every kind of failure, by chance and by the clock's book: seeded runs on the in-memory ports under a paused
//! clock, with crashes at every await on the outside world, lost answers, workers that stand still for longer than their lease,
//! clocks that differ, redeliveries, repeats, disorder, callbacks that come early, late, twice or never.
//!
//! After each run the invariants are checked. A failure names its seed: `VOICE_OTP_SIMULATE=<seed>..<seed + 1>`.

mod broker;
mod bug;
mod check;
mod ports;
mod seat;
mod world;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use bug::Bug;
use world::{Plan, Stats};

/// Seeds of a usual run.
const SEEDS: u64 = 10_000;
/// A planted bug must show within so many.
const SEEDS_FOR_A_BUG: u64 = 2_000;

/// Runs one seed to its end.
fn run(plan: &Plan) -> Result<Stats, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(world::play(plan))
}

/// Runs seeds on all cores; gives the sums, or the first failure.
fn run_all(seeds: std::ops::Range<u64>, bug: Option<Bug>) -> Result<Stats, String> {
    let (next, sum, failed) = (
        AtomicU64::new(seeds.start),
        Mutex::new(Stats::default()),
        Mutex::new(None),
    );
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, std::num::NonZero::get) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end || failed.lock().unwrap().is_some() {
                        return;
                    }
                    match run(&Plan::of_seed(seed, bug)) {
                        Ok(stats) => sum.lock().unwrap().add(&stats),
                        Err(why) => *failed.lock().unwrap() = Some(format!("seed {seed}: {why}")),
                    }
                }
            });
        }
    });
    match failed.into_inner().unwrap() {
        Some(why) => Err(why),
        None => Ok(sum.into_inner().unwrap()),
    }
}

/// `VOICE_OTP_SIMULATE` is a range of seeds.
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
fn whatever_fails_nothing_is_lost_nobody_is_called_twice_and_each_request_ends_once() {
    let start = std::time::Instant::now();
    let seeds = seeds();
    let count = seeds.end - seeds.start;
    match run_all(seeds, None) {
        Ok(stats) => eprintln!("{count} seeds in {:?}: {stats:?}", start.elapsed()),
        Err(why) => panic!("{why}"),
    }
}

#[test]
fn a_crash_at_any_await_on_the_outside_world_breaks_nothing() {
    for after in [false, true] {
        let mut points = 0;
        for seed in 0..5 {
            // Until there is no such await any more in the run.
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
    for bug in Bug::ALL {
        let found = run_all(0..SEEDS_FOR_A_BUG, Some(bug));
        let why = found
            .err()
            .unwrap_or_else(|| panic!("{bug:?} was not found in {SEEDS_FOR_A_BUG} seeds"));
        eprintln!("{bug:?}: {why}");
    }
}
