//! The other parties: auth services that publish, once or twice; a broker that delivers until it is acknowledged; and Twilio's
//! callbacks, which come early, late, twice, in any order, or never.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use voice_otp::engine::{Dead, Disposition, Message};
use voice_otp::ports::Ledger as _;
use voice_otp_schemas::request::Incoming;

use super::bug::Bug;
use super::world::World;
use crate::memory::sample::cancelled;

/// Publishes a request, and what goes with it.
pub(super) async fn publish(world: Arc<World>, n: u32) {
    world.moment(7_000).await;
    let mut one = world.request(n);
    let request = one.ask.incoming(one.at);
    let key = one.ask.key();
    let early = world.chance(60);
    let cancels = early || world.chance(120);
    let cancellation = cancelled(key.tenant_id.as_str(), key.delivery_id.as_str(), one.at);
    if early {
        // The cancellation overtakes its request.
        deliver(&world, &cancellation).await;
        one.taken_back = true;
    }
    world.published.lock().unwrap().push(one.clone());
    let mut under_way = vec![spawn(&world, request.clone())];
    if world.chance(250) {
        world.moment(4_000).await;
        under_way.push(spawn(&world, request));
    }
    if world.chance(80) {
        // Only once the first is there: whichever comes first is the request.
        for delivered in under_way.drain(..) {
            delivered.await.expect("delivering doesn't panic");
        }
        world.conflicts.fetch_add(1, Ordering::SeqCst);
        drop(spawn(
            &world,
            one.ask.clone().reading("666666").incoming(one.at),
        ));
    }
    if cancels && !early {
        world.moment(8_000).await;
        drop(spawn(&world, cancellation));
    }
}

fn spawn(world: &Arc<World>, incoming: Incoming) -> tokio::task::JoinHandle<()> {
    let world = Arc::clone(world);
    tokio::task::spawn(async move { deliver(&world, &incoming).await })
}

/// Delivers a message to some worker, again and again until one acknowledges it.
async fn deliver(world: &Arc<World>, incoming: &Incoming) {
    for time in 0.. {
        let worker = world.some_worker().await;
        world
            .redeliveries
            .fetch_add(u64::from(time > 0), Ordering::Relaxed);
        let message = [Message::from(incoming.clone())];
        if world.plan.bug == Some(Bug::AckBeforeCommit) {
            let engine = Arc::clone(&worker.engine);
            drop(tokio::task::spawn(
                async move { engine.take_in(&message).await },
            ));
            return;
        }
        let answered = tokio::select! {
            dispositions = worker.engine.take_in(&message) => dispositions.first().copied(),
            () = worker.seat.crashed() => None,
        };
        match answered {
            // The acknowledgement itself may be lost with its channel.
            Some(Disposition::Done) if world.is_calm() || !world.chance(60) => return,
            Some(Disposition::Dead(Dead::ConflictingDuplicate)) => {
                world.dead.fetch_add(1, Ordering::SeqCst);
                return;
            }
            Some(Disposition::Dead(why)) => panic!("{why:?}"),
            Some(Disposition::Done | Disposition::Again | Disposition::Busy) | None => {
                world.moment(400).await
            }
        }
    }
}

/// Tells some worker of each change of each call.
pub(super) async fn call_back(world: Arc<World>) {
    let mut told = HashMap::new();
    loop {
        tokio::time::sleep(Duration::from_millis(170)).await;
        for (attempt, call) in world.caller.calls_of_attempts() {
            if told.insert(call.sid.clone(), call.status) == Some(call.status) {
                continue;
            }
            for _ in 0..[0, 1, 1, 1, 2][usize::try_from(world.below(5)).unwrap()] {
                let (world, call) = (Arc::clone(&world), call.clone());
                drop(tokio::task::spawn(async move {
                    world.moment(1_500).await;
                    let worker = world.some_worker().await;
                    world.callbacks.fetch_add(1, Ordering::Relaxed);
                    // What isn't taken, Twilio's retries apart, is gone; the poller learns of it.
                    if let Ok(Some(delivery)) = worker.engine.ledger().find_attempt(attempt).await {
                        worker.engine.news(delivery, attempt, &call).await;
                    }
                }));
            }
        }
    }
}
