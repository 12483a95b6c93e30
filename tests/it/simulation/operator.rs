//! The operator of a run: changes settings, and the host of the database, whose clock steps.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use voice_otp_schemas::Timestamp;

use super::broker::publish_idle;
use super::plan::{TENANTS, tenant_settings};
use super::world::World;
use crate::memory::MemoryDirectory;
use crate::memory::sample::{account, key};

/// A time during which a tenant was paused, or each tenant of an account.
#[derive(Debug, Clone)]
pub(super) struct Pause {
    pub(super) tenants: Vec<&'static str>,
    pub(super) whole_account: bool,
    pub(super) from: Timestamp,
    pub(super) until: Option<Timestamp>,
}

/// The longest step of the ledger's clock.
const LONGEST_STEP_MS: u64 = 15_000;
/// For how long a consumer's queue is broken, and how much longer at most.
const SHORTEST_BROKEN: Duration = Duration::from_secs(5);
const LONGEST_BROKEN_MS: u64 = 60_000;
const FIRST_WARM_UP_NUMBER: u32 = 100;

/// Pauses and resumes tenants and accounts, and changes rates and restores them. At the end
/// everything is resumed.
pub(super) async fn operate(world: Arc<World>) {
    while !world.faults_are_over() {
        world.pause(4_000).await;
        let (tenant, n, rate) = TENANTS[usize::try_from(world.below(3)).unwrap()];
        let settings = |rate| tenant_settings(n, rate, world.plan.callbacks);
        match world.below(6) {
            0 => set_tenant_paused(&world, tenant, true),
            1 => set_tenant_paused(&world, tenant, false),
            2 => set_account_paused(&world, n, true),
            3 => set_account_paused(&world, n, false),
            // Earlier slots become void, and the rate limit holds throughout.
            4 => change(&world, |directory| {
                drop(directory.save(tenant, &settings(rate / 2.0)));
                drop(directory.save(tenant, &settings(rate)));
            }),
            _ => {}
        }
    }
    for (tenant, n, _) in TENANTS {
        set_tenant_paused(&world, tenant, false);
        set_account_paused(&world, n, false);
    }
}

/// Breaks a consumer's queue, and mends it.
pub(super) async fn break_queue(world: Arc<World>) {
    *world.queues.broken.lock().unwrap() = world.plan.broken_queue;
    tokio::time::sleep(SHORTEST_BROKEN).await;
    world.pause(LONGEST_BROKEN_MS).await;
    *world.queues.broken.lock().unwrap() = None;
}

fn set_tenant_paused(world: &World, tenant: &'static str, paused: bool) {
    change(world, |directory| {
        directory.set_tenant_paused(&key(tenant, "any").tenant_id, paused);
    });
    note(world, vec![tenant], false, paused);
}

fn set_account_paused(world: &World, n: u32, paused: bool) {
    change(world, |directory| {
        directory.set_account_paused(&account(n), paused);
    });
    let of_account = TENANTS.iter().filter(|(_, own, _)| *own == n);
    let tenants = of_account.map(|(name, ..)| *name).collect();
    note(world, tenants, true, paused);
}

/// Changes settings, of which every worker is notified.
fn change(world: &World, change: impl FnOnce(&MemoryDirectory)) {
    change(&world.ledger.directory());
    for worker in world.workers.lock().unwrap().iter().flatten() {
        worker.directory.notify();
    }
}

/// Notes a pause, or its end. A tenant's pause and its account's are two.
fn note(world: &World, tenants: Vec<&'static str>, whole_account: bool, paused: bool) {
    let now = (world.now)();
    let mut pauses = world.pauses.lock().unwrap();
    let current = pauses.iter_mut().find(|pause| {
        pause.tenants == tenants && pause.whole_account == whole_account && pause.until.is_none()
    });
    match current {
        Some(pause) if !paused => pause.until = Some(now),
        None if paused => pauses.push(Pause {
            tenants,
            whole_account,
            from: now,
            until: None,
        }),
        Some(_) | None => {}
    }
}

/// Steps the ledger's clock, forward and back, as when it is set, or when another host becomes the
/// primary. Uses the idle account's rate limit meanwhile.
pub(super) async fn step_clock(world: Arc<World>) {
    loop {
        world.pause(6_000).await;
        if world.faults_are_over() {
            return;
        }
        let step = i64::try_from(world.below(2 * LONGEST_STEP_MS)).unwrap()
            - i64::try_from(LONGEST_STEP_MS).unwrap();
        set_clock(&world, if world.chance(300) { 0 } else { step });
        let n = world.warm_ups.fetch_add(1, Ordering::SeqCst);
        drop(tokio::task::spawn(warm_up(Arc::clone(&world), n)));
    }
}

async fn warm_up(world: Arc<World>, n: u64) {
    let number = FIRST_WARM_UP_NUMBER + u32::try_from(n).unwrap();
    publish_idle(&world, &format!("warm-up-{n}"), number).await;
}

/// Sets the ledger's clock.
pub(super) fn set_clock(world: &World, ahead_ms: i64) {
    let before = world.ahead_ms.swap(ahead_ms, Ordering::SeqCst);
    if before != ahead_ms {
        world.clock_steps.lock().unwrap().push((world.now)());
    }
}
