//! The events of one tenant, by routing key.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;
use voice_otp_schemas::DeliveryKey;

use super::InHand;
use crate::event::Event;

/// The events of one tenant.
#[derive(Default)]
pub(super) struct Tenant {
    /// How many events are not published.
    pub(super) events: usize,
    pub(super) in_flight: usize,
    pub(super) routes: HashMap<String, Route>,
    /// The routing keys that may have an event to publish, in the order of their turns.
    pub(super) ready: VecDeque<String>,
    pub(super) failing_routes: usize,
    pub(super) in_turn: bool,
}

/// The statuses with one routing key.
pub(super) struct Route {
    /// The deliveries whose first event has this routing key, isn't in flight and wasn't refused.
    /// Some may have been dropped since.
    pub(super) waiting: VecDeque<DeliveryKey>,
    /// Those whose first event was refused.
    pub(super) refused: VecDeque<DeliveryKey>,
    pub(super) in_flight: usize,
    /// How many may be in flight: grows with each answer of the broker.
    pub(super) window: usize,
    /// How many publishes in a row, the first and the probes, failed. The pause grows with it.
    pub(super) failures: u32,
    /// How many of them the broker refused or didn't confirm, while it confirmed others.
    pub(super) refusals: u32,
    pub(super) parked_until: Option<Instant>,
    /// Whether a status was given up and none was confirmed since. Then none is published twice.
    pub(super) refusing: bool,
    pub(super) is_ready: bool,
}

/// How many events of one tenant may be in flight. RabbitMQ reads no more from a connection on
/// which 32 messages wait for a quorum queue that doesn't answer.
pub(super) const MAX_IN_FLIGHT: usize = 24;
/// How many events of one tenant may be in hand.
const MAX_EVENTS: usize = 12_500;
/// How many events may be in hand of a tenant with a failing routing key.
const MAX_FAILING_EVENTS: usize = 1_000;
/// The pause after the first refusal. It is tripled for each further one in a row.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause.
const MAX_PAUSE: Duration = Duration::from_mins(1);

impl Tenant {
    pub(super) fn capacity(&self) -> usize {
        if self.failing_routes > 0 {
            MAX_FAILING_EVENTS
        } else {
            MAX_EVENTS
        }
    }

    pub(super) fn may_take(&self) -> bool {
        self.in_flight < MAX_IN_FLIGHT && !self.ready.is_empty()
    }

    /// Takes the next event of the next routing key that has one.
    pub(super) fn take(&mut self, deliveries: &mut HashMap<DeliveryKey, InHand>) -> Option<Event> {
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
                && let Some(key) = route.next()
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
    pub(super) fn new() -> Self {
        Self {
            waiting: VecDeque::new(),
            refused: VecDeque::new(),
            in_flight: 0,
            window: MAX_IN_FLIGHT,
            failures: 0,
            refusals: 0,
            parked_until: None,
            refusing: false,
            is_ready: false,
        }
    }

    pub(super) fn may_take(&self) -> bool {
        self.parked_until.is_none() && self.in_flight < self.window && self.has_waiting()
    }

    fn has_waiting(&self) -> bool {
        !self.waiting.is_empty() || !self.refused.is_empty()
    }

    /// The next delivery. A probe is an event that wasn't refused before, if there is one: other
    /// queues have a copy already of one that was.
    fn next(&mut self) -> Option<DeliveryKey> {
        let (first, second) = if self.is_failing() {
            (&mut self.waiting, &mut self.refused)
        } else {
            (&mut self.refused, &mut self.waiting)
        };
        first.pop_front().or_else(|| second.pop_front())
    }

    pub(super) fn is_failing(&self) -> bool {
        self.failures > 0 && !self.refusing
    }

    pub(super) fn is_idle(&self) -> bool {
        !self.has_waiting()
            && self.in_flight == 0
            && self.failures == 0
            && self.parked_until.is_none()
            && !self.refusing
            && !self.is_ready
    }
}

/// The pause after `failures` refused probes and one more.
pub(super) fn pause(failures: u32) -> Duration {
    FIRST_PAUSE
        .saturating_mul(3_u32.saturating_pow(failures))
        .min(MAX_PAUSE)
}
