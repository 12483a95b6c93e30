//! Simulated workers.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use voice_otp::engine::Engine;
use voice_otp::engine::rng::SharedRng;

use super::bug::Bug;
use super::fault_injector::{FaultInjector, Odds};
use super::ports::{SimDirectory, SimLedger, SimPorts, SimSink, SimTelephony, SkewedClock};
use super::world::World;

/// A running worker.
#[derive(Clone)]
pub(super) struct Worker {
    pub(super) engine: Arc<Engine<SimPorts>>,
    pub(super) faults: FaultInjector,
    pub(super) directory: SimDirectory,
}

/// Runs the workers of one position: whenever one crashes or stops, another starts.
pub(super) async fn run_workers(world: Arc<World>, position: usize) {
    for generation in 0_u64.. {
        let (seed, rate) = (world.random(), world.uniform(0.99, 1.01));
        let faults_are_over = world.faults_are_over();
        let odds = if faults_are_over {
            Odds::default()
        } else {
            world.plan.odds
        };
        let crash_at = world
            .plan
            .crash_at
            .filter(|_| position == 0 && generation == 0);
        let faults = FaultInjector::new(seed, odds, crash_at, world.tuning.lease);
        let bug = world.plan.bug;
        let directory = SimDirectory::new(world.ledger.directory(), faults.clone(), bug);
        drop(tokio::task::spawn(directory.clone().disturb_listener()));
        let ports = (
            SimLedger {
                ledger: world.ledger.clone(),
                sink: world.sink.clone(),
                faults: faults.clone(),
                true_time: Arc::clone(&world.now),
                bug,
            },
            directory.clone(),
            SimTelephony {
                telephony: world.telephony.clone(),
                faults: faults.clone(),
                post_timeout: world.tuning.post_timeout,
                bug,
            },
            SimSink {
                sink: world.sink.clone(),
                queues: Arc::clone(&world.queues),
                faults: faults.clone(),
                true_time: Arc::clone(&world.now),
                bug,
            },
        );
        let starting = Engine::<SimPorts>::start(
            ports,
            world.tuning.clone(),
            SharedRng::seeded(seed),
            SkewedClock::new(
                rate,
                (bug != Some(Bug::IgnoreClockSteps)).then(|| Arc::clone(&world.now)),
            ),
            "simulated",
        );
        let started = tokio::select! {
            started = starting => started.ok(),
            () = faults.crashed() => None,
        };
        if let Some((engine, background)) = started {
            let (soft, hard) = (CancellationToken::new(), CancellationToken::new());
            let running =
                tokio::task::spawn(Arc::clone(&engine).run(background, soft.clone(), hard.clone()));
            world.workers.lock().unwrap()[position] = Some(Worker {
                engine,
                faults: faults.clone(),
                directory,
            });
            // Some workers shut down gracefully.
            let longest = Duration::from_millis(world.below(20_000));
            let shuts_down = !faults_are_over && !world.plan.only_broken_queue && world.chance(150);
            tokio::select! {
                () = faults.crashed() => {}
                () = tokio::time::sleep(longest), if shuts_down => {
                    world.workers.lock().unwrap()[position] = None;
                    soft.cancel();
                    tokio::select! {
                        ended = running => ended.expect("a worker stops without a panic"),
                        () = faults.crashed() => {}
                        // As the program does: the grace period ends with a hard stop.
                        () = tokio::time::sleep(Duration::from_secs(5)) => hard.cancel(),
                    }
                }
            }
            world.workers.lock().unwrap()[position] = None;
        }
        world
            .crashes
            .fetch_add(u64::from(faults.is_crashed()), Ordering::Relaxed);
        world.ended_workers.fetch_add(1, Ordering::Relaxed);
        world.faults.fetch_add(faults.count(), Ordering::Relaxed);
        // Its remaining tasks do nothing more.
        faults.crash();
        tokio::time::sleep(Duration::from_millis(100 + world.below(1_500))).await;
    }
}
