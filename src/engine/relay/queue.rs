//! The events that the relay has in hand, and which of them may be published next.
//!
//! Of each delivery one event is published at a time, so its statuses keep their order. Tenants
//! take turns, and so do the routing keys of a tenant. The broker routes a status by its routing
//! key alone, so a full queue refuses all statuses with some routing keys and none with others: a
//! routing key whose status was refused is parked, and one status probes it after each pause.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::time::Duration;

use tokio::time::Instant;
use voice_otp_schemas::{DeliveryKey, TenantId};

use crate::event::Event;

/// The events in hand.
#[derive(Default)]
pub(super) struct Queue {
    deliveries: HashMap<DeliveryKey, InHand>,
    tenants: HashMap<TenantId, Tenant>,
    /// The tenants that may have an event to publish, in the order of their turns.
    turns: VecDeque<TenantId>,
    /// The parked routing keys, by the time at which they are probed.
    parked: BTreeSet<(Instant, TenantId, String)>,
    /// The tenants with a failing routing key.
    failing: HashSet<TenantId>,
    /// How many of their events are not published.
    failing_events: usize,
    /// The tenants of which an event was left in the outbox, since they had too many in hand.
    full: HashSet<TenantId>,
}

/// The events of one delivery.
struct InHand {
    /// Not published, in order. The first may be in flight.
    events: VecDeque<Event>,
    in_flight: bool,
    /// How often the first event was refused.
    refusals: u32,
    /// How many events are published and not known to be deleted from the outbox.
    undeleted: usize,
    /// The highest sequence that was accepted.
    highest: u32,
}

#[derive(Default)]
struct Tenant {
    /// How many events are not published.
    events: usize,
    in_flight: usize,
    routes: HashMap<String, Route>,
    /// The routing keys that may have an event to publish, in the order of their turns.
    ready: VecDeque<String>,
    failing_routes: usize,
    in_turn: bool,
}

/// The statuses with one routing key.
struct Route {
    /// The deliveries whose first event has this routing key and isn't in flight. Some may have
    /// been dropped since.
    waiting: VecDeque<DeliveryKey>,
    in_flight: usize,
    /// How many may be in flight: grows with each answer of the broker.
    window: usize,
    /// How many probes in a row were refused.
    failures: u32,
    parked_until: Option<Instant>,
    /// Whether a status was given up and none was confirmed since. Then none is published twice.
    refusing: bool,
    is_ready: bool,
}

/// Why an event is not confirmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The broker refused it.
    Refused,
    /// The broker didn't confirm it, and confirmed others that were published later.
    Unconfirmed,
    /// The broker didn't confirm it, nor any other: perhaps the status log doesn't have it.
    NothingConfirmed,
}

/// What follows a refused event.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// It is published again after a pause.
    Again,
    /// It was refused so often that it counts as published.
    GivenUp,
}

/// How often an event is published at most while the broker refuses it.
pub(super) const MAX_PUBLISHES: u32 = 5;
/// How many events of one tenant may be in flight. RabbitMQ reads no more from a connection on
/// which 32 messages wait for a quorum queue that doesn't answer.
const MAX_IN_FLIGHT: usize = 24;
/// How many events of one tenant may be in hand.
const MAX_EVENTS: usize = 12_500;
/// How many events may be in hand of a tenant with a failing routing key.
const MAX_FAILING_EVENTS: usize = 1_000;
/// The pause after the first refusal. It is tripled for each further one in a row.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause.
const MAX_PAUSE: Duration = Duration::from_mins(1);

impl Queue {
    /// The highest sequence in hand of a delivery.
    pub(super) fn highest(&self, key: &DeliveryKey) -> Option<u32> {
        self.deliveries.get(key).map(|delivery| delivery.highest)
    }

    /// Accepts an event that follows those in hand. Returns false if its tenant has too many: then
    /// it stays in the outbox.
    pub(super) fn push(&mut self, event: Event) -> bool {
        let tenant_id = event.key.tenant_id.clone();
        let tenant = self.tenants.entry(tenant_id.clone()).or_default();
        if tenant.events >= tenant.capacity() {
            self.full.insert(tenant_id);
            return false;
        }
        tenant.events += 1;
        self.failing_events += usize::from(tenant.failing_routes > 0);
        let key = event.key.clone();
        let delivery = self.deliveries.entry(key.clone()).or_insert(InHand {
            events: VecDeque::new(),
            in_flight: false,
            refusals: 0,
            undeleted: 0,
            highest: 0,
        });
        delivery.highest = event.sequence;
        delivery.events.push_back(event);
        if delivery.events.len() == 1 {
            self.offer(&key, false);
        }
        true
    }

    /// Takes the next event to publish. It is in flight until one of the methods below records its
    /// result.
    pub(super) fn take(&mut self) -> Option<Event> {
        while let Some(tenant_id) = self.turns.pop_front() {
            let Some(tenant) = self.tenants.get_mut(&tenant_id) else {
                continue;
            };
            let event = tenant.take(&mut self.deliveries);
            tenant.in_turn = tenant.may_take();
            if tenant.in_turn {
                self.turns.push_back(tenant_id);
            }
            if event.is_some() {
                return event;
            }
        }
        None
    }

    /// When a parked routing key is probed next.
    pub(super) fn next_probe(&self) -> Option<Instant> {
        self.parked.first().map(|(at, ..)| *at)
    }

    /// Records that an event is confirmed. It is in hand until it is deleted from the outbox.
    pub(super) fn confirmed(&mut self, event: &Event) {
        self.land(event, |route| {
            if route.parked_until.is_none() {
                route.window = (route.window + 1).min(MAX_IN_FLIGHT);
                route.failures = 0;
                route.refusing = false;
            }
        });
        self.advance(event);
    }

    /// Records that the broker refused an event, or didn't confirm it.
    pub(super) fn refused(&mut self, event: &Event, why: Refusal, now: Instant) -> Refused {
        let counts = why != Refusal::NothingConfirmed;
        let Some(delivery) = self.deliveries.get_mut(&event.key) else {
            return Refused::Again;
        };
        delivery.refusals += u32::from(counts);
        let is_last = counts && delivery.refusals >= MAX_PUBLISHES;
        let (given_up, parked_until) = self
            .land(event, |route| {
                if is_last || (counts && route.refusing) {
                    route.refusing = true;
                    // A refusal is an answer; the next ones need not wait for each other.
                    route.window = match why {
                        Refusal::Refused => (route.window + 1).min(MAX_IN_FLIGHT),
                        Refusal::Unconfirmed | Refusal::NothingConfirmed => 1,
                    };
                    return (true, None);
                }
                if route.parked_until.is_some() {
                    // Of several that were in flight together, the first parked it.
                    return (false, None);
                }
                route.parked_until = Some(now + pause(route.failures));
                route.failures += 1;
                route.window = 1;
                (false, route.parked_until)
            })
            .unwrap_or_default();
        if given_up {
            self.advance(event);
            return Refused::GivenUp;
        }
        if let Some(until) = parked_until {
            let (tenant_id, name) = (event.key.tenant_id.clone(), event.routing_key.clone());
            self.parked.insert((until, tenant_id, name));
        }
        self.offer(&event.key, true);
        Refused::Again
    }

    /// Records that the broker said nothing about an event.
    pub(super) fn unanswered(&mut self, event: &Event) {
        self.land(event, |_| ());
        self.offer(&event.key, true);
    }

    /// Records that a published event is deleted from the outbox. Returns the highest sequence of a
    /// delivery of which nothing is in hand any more.
    pub(super) fn deleted(&mut self, key: &DeliveryKey) -> Option<u32> {
        let delivery = self.deliveries.get_mut(key)?;
        delivery.undeleted = delivery.undeleted.saturating_sub(1);
        if delivery.undeleted > 0 || !delivery.events.is_empty() {
            return None;
        }
        let highest = delivery.highest;
        self.deliveries.remove(key);
        Some(highest)
    }

    /// How many events belong to tenants with a failing routing key.
    pub(super) fn failing_events(&self) -> usize {
        self.failing_events
    }

    /// The tenants whose events stay in the outbox for now.
    pub(super) fn closed_tenants(&self) -> HashSet<TenantId> {
        let has_enough = |tenant_id: &&TenantId| {
            let tenant = self.tenants.get(*tenant_id);
            tenant.is_some_and(|tenant| tenant.events > tenant.capacity() / 2)
        };
        let failing = self.failing.iter().filter(has_enough);
        failing.chain(&self.full).cloned().collect()
    }

    /// Whether events can be published without waiting for a probe.
    pub(super) fn may_take(&self) -> bool {
        !self.turns.is_empty()
    }

    /// Drops the events of a failing tenant that exceed what it may have in hand: whole deliveries
    /// that were never refused. They are in the outbox. Returns how many, and the deliveries of
    /// which nothing is in hand any more, with the highest sequence that was published.
    pub(super) fn shed(&mut self, tenant_id: &TenantId) -> (usize, Vec<(DeliveryKey, u32)>) {
        let (mut dropped, mut forgotten) = (0, Vec::new());
        let Some(tenant) = self.tenants.get_mut(tenant_id) else {
            return (dropped, forgotten);
        };
        let mut excess = tenant.events.saturating_sub(tenant.capacity());
        if excess == 0 || tenant.failing_routes == 0 {
            return (dropped, forgotten);
        }
        self.deliveries.retain(|key, delivery| {
            let is_tried = delivery.in_flight || delivery.refusals > 0;
            if key.tenant_id != *tenant_id || is_tried || excess == 0 {
                return true;
            }
            let Some(first) = delivery.events.front() else {
                return true;
            };
            delivery.highest = first.sequence.saturating_sub(1);
            dropped += delivery.events.len();
            excess = excess.saturating_sub(delivery.events.len());
            delivery.events.clear();
            if delivery.undeleted == 0 {
                forgotten.push((key.clone(), delivery.highest));
            }
            delivery.undeleted > 0
        });
        tenant.events -= dropped;
        self.failing_events -= dropped;
        self.full.insert(tenant_id.clone());
        (dropped, forgotten)
    }

    /// Ends the flight of an event, and changes its route.
    fn land<T>(&mut self, event: &Event, change: impl FnOnce(&mut Route) -> T) -> Option<T> {
        let tenant_id = &event.key.tenant_id;
        let delivery = self.deliveries.get_mut(&event.key)?;
        delivery.in_flight = false;
        let tenant = self.tenants.get_mut(tenant_id)?;
        tenant.in_flight = tenant.in_flight.saturating_sub(1);
        let route = tenant.routes.get_mut(&event.routing_key)?;
        route.in_flight = route.in_flight.saturating_sub(1);
        let was_failing = route.is_failing();
        let changed = change(route);
        match (was_failing, route.is_failing()) {
            (false, true) => {
                tenant.failing_routes += 1;
                if self.failing.insert(tenant_id.clone()) {
                    self.failing_events += tenant.events;
                }
            }
            (true, false) => {
                tenant.failing_routes -= 1;
                if tenant.failing_routes == 0 {
                    self.failing.remove(tenant_id);
                    self.failing_events -= tenant.events;
                }
            }
            (true, true) | (false, false) => {}
        }
        Some(changed)
    }

    /// Removes the first event of a delivery, which counts as published, and offers the next.
    fn advance(&mut self, event: &Event) {
        let Some(delivery) = self.deliveries.get_mut(&event.key) else {
            return;
        };
        delivery.events.pop_front();
        delivery.refusals = 0;
        delivery.undeleted += 1;
        let has_next = !delivery.events.is_empty();
        if let Some(tenant) = self.tenants.get_mut(&event.key.tenant_id) {
            tenant.events -= 1;
            self.failing_events -= usize::from(tenant.failing_routes > 0);
            if tenant.events <= tenant.capacity() / 2 {
                self.full.remove(&event.key.tenant_id);
            }
        }
        if has_next {
            self.offer(&event.key, false);
        }
        self.give_turn(&event.key.tenant_id, &event.routing_key);
        self.tidy(&event.key.tenant_id, &event.routing_key);
    }

    /// Lets the first event of a delivery wait for its turn: as the next of its routing key, or as
    /// the last.
    fn offer(&mut self, key: &DeliveryKey, next: bool) {
        let first = self
            .deliveries
            .get(key)
            .and_then(|delivery| delivery.events.front());
        let Some(name) = first.map(|event| event.routing_key.clone()) else {
            return;
        };
        let tenant = self.tenants.entry(key.tenant_id.clone()).or_default();
        let route = tenant.routes.entry(name.clone()).or_insert_with(Route::new);
        if next {
            route.waiting.push_front(key.clone());
        } else {
            route.waiting.push_back(key.clone());
        }
        self.give_turn(&key.tenant_id, &name);
    }

    /// Gives a routing key and its tenant a turn, if they may have something to publish.
    fn give_turn(&mut self, tenant_id: &TenantId, name: &str) {
        let Some(tenant) = self.tenants.get_mut(tenant_id) else {
            return;
        };
        if let Some(route) = tenant.routes.get_mut(name)
            && route.may_take()
            && !route.is_ready
        {
            route.is_ready = true;
            tenant.ready.push_back(name.to_owned());
        }
        if !tenant.in_turn && tenant.may_take() {
            tenant.in_turn = true;
            self.turns.push_back(tenant_id.clone());
        }
    }

    /// Ends the pauses that are over: each of these routing keys is probed by one event.
    pub(super) fn unpark(&mut self, now: Instant) {
        while self.parked.first().is_some_and(|(at, ..)| *at <= now)
            && let Some((_, tenant_id, name)) = self.parked.pop_first()
        {
            let tenant = self.tenants.get_mut(&tenant_id);
            if let Some(route) = tenant.and_then(|tenant| tenant.routes.get_mut(&name)) {
                route.parked_until = None;
            }
            self.give_turn(&tenant_id, &name);
        }
    }

    /// Forgets a routing key that has nothing to remember, and a tenant without any.
    fn tidy(&mut self, tenant_id: &TenantId, name: &str) {
        let Some(tenant) = self.tenants.get_mut(tenant_id) else {
            return;
        };
        if tenant.routes.get(name).is_some_and(Route::is_idle) {
            tenant.routes.remove(name);
        }
        if tenant.routes.is_empty() && tenant.events == 0 && !tenant.in_turn {
            self.tenants.remove(tenant_id);
        }
    }
}

impl Tenant {
    fn capacity(&self) -> usize {
        if self.failing_routes > 0 {
            MAX_FAILING_EVENTS
        } else {
            MAX_EVENTS
        }
    }

    fn may_take(&self) -> bool {
        self.in_flight < MAX_IN_FLIGHT && !self.ready.is_empty()
    }

    /// Takes the next event of the next routing key that has one.
    fn take(&mut self, deliveries: &mut HashMap<DeliveryKey, InHand>) -> Option<Event> {
        while self.may_take()
            && let Some(name) = self.ready.pop_front()
        {
            let Some(route) = self.routes.get_mut(&name) else {
                continue;
            };
            route.is_ready = false;
            let mut taken = None;
            while route.may_take()
                && taken.is_none()
                && let Some(key) = route.waiting.pop_front()
            {
                taken = deliveries
                    .get_mut(&key)
                    .filter(|delivery| !delivery.in_flight)
                    .and_then(|delivery| {
                        let first = delivery.events.front()?;
                        let event = (first.routing_key == name).then(|| first.clone())?;
                        delivery.in_flight = true;
                        Some(event)
                    });
            }
            if taken.is_some() {
                route.in_flight += 1;
                self.in_flight += 1;
            }
            if route.may_take() {
                route.is_ready = true;
                self.ready.push_back(name);
            }
            if taken.is_some() {
                return taken;
            }
        }
        None
    }
}

impl Route {
    fn new() -> Self {
        Self {
            waiting: VecDeque::new(),
            in_flight: 0,
            window: MAX_IN_FLIGHT,
            failures: 0,
            parked_until: None,
            refusing: false,
            is_ready: false,
        }
    }

    fn may_take(&self) -> bool {
        self.parked_until.is_none() && self.in_flight < self.window && !self.waiting.is_empty()
    }

    fn is_failing(&self) -> bool {
        self.failures > 0 && !self.refusing
    }

    fn is_idle(&self) -> bool {
        self.waiting.is_empty()
            && self.in_flight == 0
            && self.failures == 0
            && self.parked_until.is_none()
            && !self.refusing
            && !self.is_ready
    }
}

/// The pause after `failures` refused probes and one more.
fn pause(failures: u32) -> Duration {
    FIRST_PAUSE
        .saturating_mul(3_u32.saturating_pow(failures))
        .min(MAX_PAUSE)
}
