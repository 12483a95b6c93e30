//! The outside parties: auth services that publish once or twice, a broker that redelivers until a
//! message is acknowledged, and Twilio's callbacks, which arrive early, late, twice, in any order
//! or never.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use voice_otp::engine::{DeadLetterReason, Disposition, Message};
use voice_otp_schemas::request::Incoming;

use super::bug::Bug;
use super::callees;
use super::world::{Published, World};
use crate::memory::sample::{cancelled, cancelled_user, verified};

/// The delivery id of the request that shows whether the idle account is alive.
pub(super) const PROBE: &str = "probe";
const PROBE_LIFE: Duration = Duration::from_mins(1);

/// Publishes a request, and sometimes a duplicate, a conflicting duplicate or a cancellation of it.
pub(super) async fn publish(world: Arc<World>, n: u32) {
    world.pause(7_000).await;
    let mut one = world.request(n);
    let request = one.request.incoming(one.at);
    let key = one.request.key();
    let early = world.chance(60);
    let cancels = early || world.chance(120);
    let tenant = key.tenant_id.as_str();
    let cancellation = match one.user {
        Some(user) if world.chance(500) => cancelled_user(tenant, user, one.at),
        _ => cancelled(tenant, key.delivery_id.as_str(), one.at),
    };
    if early {
        // The cancellation arrives before its request.
        deliver(&world, &cancellation).await;
        one.cancelled_first = true;
    }
    world.published.lock().unwrap().push(one.clone());
    let mut deliveries = vec![spawn(&world, request.clone())];
    if world.chance(250) {
        world.pause(4_000).await;
        deliveries.push(spawn(&world, request));
    }
    if world.chance(80) {
        // Only once the first is processed, since whichever arrives first is the request.
        for delivered in deliveries.drain(..) {
            delivered.await.expect("delivering doesn't panic");
        }
        world.conflicts.fetch_add(1, Ordering::SeqCst);
        drop(spawn(
            &world,
            one.request.clone().code("666666").incoming(one.at),
        ));
    }
    if !cancels && world.chance(350) {
        drop(tokio::task::spawn(verify(
            Arc::clone(&world),
            one.clone(),
            deliveries,
        )));
        return;
    }
    if cancels && !early {
        // At the same moment, or later.
        let soon = world.chance(400);
        world.pause(if soon { 20 } else { 8_000 }).await;
        drop(spawn(&world, cancellation));
    }
}

/// Publishes a request to the idle account: the probe, or one that uses its rate limit before.
pub(super) async fn publish_idle(world: &Arc<World>, id: &str, n: u32) {
    let life = if id == PROBE {
        PROBE_LIFE
    } else {
        PROBE_LIFE * 3
    };
    let one = world.idle_request(id, n, life);
    world.published.lock().unwrap().push(one.clone());
    deliver(world, &one.request.incoming(one.at)).await;
}

/// Reports, some time after a request was acknowledged, that its code was entered.
async fn verify(world: Arc<World>, one: Published, deliveries: Vec<tokio::task::JoinHandle<()>>) {
    for delivered in deliveries {
        delivered.await.expect("delivering doesn't panic");
    }
    let soon = world.chance(300);
    world.pause(if soon { 20 } else { 15_000 }).await;
    let key = one.request.key();
    let now = (world.now)();
    let event = verified(key.tenant_id.as_str(), key.delivery_id.as_str(), now);
    deliver(&world, &event).await;
    let acknowledged = (world.now)();
    world.verified.lock().unwrap().insert(key, acknowledged);
}

fn spawn(world: &Arc<World>, incoming: Incoming) -> tokio::task::JoinHandle<()> {
    let world = Arc::clone(world);
    tokio::task::spawn(async move { deliver(&world, &incoming).await })
}

/// Delivers a message to random workers until one acknowledges it.
async fn deliver(world: &Arc<World>, incoming: &Incoming) {
    for time in 0.. {
        let worker = world.random_worker().await;
        world
            .redeliveries
            .fetch_add(u64::from(time > 0), Ordering::Relaxed);
        let message = [Message::from(incoming.clone())];
        if world.plan.bug == Some(Bug::AckBeforeCommit) {
            let engine = Arc::clone(&worker.engine);
            drop(tokio::task::spawn(
                async move { engine.process(&message).await },
            ));
            return;
        }
        let answered = tokio::select! {
            dispositions = worker.engine.process(&message) => dispositions.first().copied(),
            () = worker.faults.crashed() => None,
        };
        match answered {
            // The acknowledgement may be lost with its channel.
            Some(Disposition::Acknowledge) if world.faults_are_over() || !world.chance(60) => {
                return;
            }
            Some(Disposition::DeadLetter(DeadLetterReason::ConflictingDuplicate)) => {
                world.dead_letters.fetch_add(1, Ordering::SeqCst);
                return;
            }
            Some(Disposition::DeadLetter(why)) => panic!("{why:?}"),
            Some(Disposition::Acknowledge | Disposition::Requeue | Disposition::RetrySoon)
            | None => world.pause(400).await,
        }
    }
}

/// Sends each status of each call to a random worker.
pub(super) async fn send_callbacks(world: Arc<World>) {
    let mut reported = HashMap::new();
    loop {
        tokio::time::sleep(Duration::from_millis(170)).await;
        for (attempt, call) in world.telephony.calls_of_attempts() {
            if reported.insert(call.sid.clone(), call.status) == Some(call.status) {
                continue;
            }
            callees::answer(&world, attempt, &call);
            for _ in 0..[0, 1, 1, 1, 2][usize::try_from(world.below(5)).unwrap()] {
                let (world, call) = (Arc::clone(&world), call.clone());
                drop(tokio::task::spawn(async move {
                    world.pause(1_500).await;
                    let worker = world.random_worker().await;
                    world.callbacks.fetch_add(1, Ordering::Relaxed);
                    // A callback that the worker doesn't process is lost, and polling finds the
                    // change.
                    if let Ok(Some(delivery)) = worker.engine.attempt(attempt).await {
                        worker
                            .engine
                            .apply_call_update(delivery, attempt, &call)
                            .await;
                    }
                }));
            }
        }
    }
}
