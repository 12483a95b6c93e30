//! The events that the relay has in hand, and which of them may be published next.
//!
//! Of each delivery one event is published at a time, so its statuses keep their order. Tenants
//! take turns, and so do the routing keys of a tenant. The broker routes a status by its routing
//! key alone, so a full queue refuses all statuses with some routing keys and none with others: a
//! routing key whose status was refused is parked, and one status probes it after each pause: one
//! that wasn't refused before, if there is one, since other queues get a copy with each publish.

mod tenant;

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};

use tokio::time::Instant;
use voice_otp_schemas::{DeliveryKey, TenantId};

use self::tenant::{MAX_IN_FLIGHT, Route, Tenant, pause};
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

/// Where an event waits for its turn.
#[derive(Debug, Clone, Copy)]
enum Place {
    /// Before the others.
    First,
    /// Behind the others.
    Last,
    /// Behind the others that were refused.
    Refused,
}

/// How often an event is published at most while the broker refuses it, and how many refused
/// events in a row end the probing of a routing key.
pub(super) const MAX_PUBLISHES: u32 = 5;

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
            self.offer(&key, Place::Last);
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
                route.refusals = 0;
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
        let was_refused_often = delivery.refusals >= MAX_PUBLISHES;
        let (given_up, parked_until) = self
            .land(event, |route| {
                let is_parked = route.parked_until.is_some();
                route.refusals += u32::from(counts && !is_parked);
                let is_last = was_refused_often || route.refusals >= MAX_PUBLISHES;
                if counts && (is_last || route.refusing) {
                    route.refusing = true;
                    // A refusal is an answer; the next ones need not wait for each other.
                    route.window = match why {
                        Refusal::Refused => (route.window + 1).min(MAX_IN_FLIGHT),
                        Refusal::Unconfirmed | Refusal::NothingConfirmed => 1,
                    };
                    return (true, None);
                }
                if is_parked {
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
        self.offer(&event.key, Place::Refused);
        Refused::Again
    }

    /// Records that the broker said nothing about an event.
    pub(super) fn unanswered(&mut self, event: &Event) {
        self.land(event, |_| ());
        self.offer(&event.key, Place::First);
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
            self.offer(&event.key, Place::Last);
        }
        self.give_turn(&event.key.tenant_id, &event.routing_key);
        self.tidy(&event.key.tenant_id, &event.routing_key);
    }

    /// Lets the first event of a delivery wait for its turn among those with its routing key.
    fn offer(&mut self, key: &DeliveryKey, place: Place) {
        let first = self
            .deliveries
            .get(key)
            .and_then(|delivery| delivery.events.front());
        let Some(name) = first.map(|event| event.routing_key.clone()) else {
            return;
        };
        let tenant = self.tenants.entry(key.tenant_id.clone()).or_default();
        let route = tenant.routes.entry(name.clone()).or_insert_with(Route::new);
        match place {
            Place::First => route.waiting.push_front(key.clone()),
            Place::Last => route.waiting.push_back(key.clone()),
            Place::Refused => route.refused.push_back(key.clone()),
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
