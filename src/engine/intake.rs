//! Intake: what the ledger makes of a group of messages.

mod admitting;
mod cancelling;
mod order;
mod suspects;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use voice_otp_schemas::request::Incoming;
use voice_otp_schemas::{DeliveryKey, TenantId};

use super::Engine;
use super::batch::{BatchError, work_on};
use crate::delivery::Delivery;
use crate::ports::{Ledger as _, LedgerError, Ports};

pub(super) use suspects::Suspects;

/// A message that could be read.
#[derive(Debug)]
pub struct Message {
    /// The event.
    pub incoming: Incoming,
    /// The broker's user that published it, if the message says so. The broker vouches for the
    /// name.
    pub user: Option<String>,
}

impl From<Incoming> for Message {
    /// A message without a user.
    fn from(incoming: Incoming) -> Self {
        Self {
            incoming,
            user: None,
        }
    }
}

/// What to do with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disposition {
    /// The event is stored, or was known: acknowledge the message.
    Acknowledge,
    /// No status can answer it: dead-letter the message, then acknowledge it.
    DeadLetter(DeadLetterReason),
    /// A row that the message concerns is locked, or the database gave up on the message's batch.
    /// Retry shortly, without blocking other messages.
    RetrySoon,
    /// This worker can't process it now: give it back to the broker.
    Requeue,
}

/// Why a readable message is dead-lettered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeadLetterReason {
    /// The delivery id was used before, with different content.
    ConflictingDuplicate,
    /// The publisher is not on the tenant's list.
    PublisherNotAllowed,
    /// The database rejects its data.
    RefusedByDatabase,
}

impl DeadLetterReason {
    /// The word in the dead letter's headers and in the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ConflictingDuplicate => "conflicting_duplicate",
            Self::PublisherNotAllowed => "publisher_not_allowed",
            Self::RefusedByDatabase => "refused_by_database",
        }
    }
}

/// A publisher that alternates requests and cancellations of one user or delivery makes a wave of
/// each. What is left after this many is retried soon, so that it doesn't hold up the others.
const MAX_WAVES: usize = 8;

impl<P: Ports> Engine<P> {
    /// Processes a group of messages: one disposition each, in order. Returns once the ledger has
    /// them; waits for an unavailable database, and for no lock.
    pub async fn process(self: &Arc<Self>, group: &[Message]) -> Vec<Disposition> {
        let mut dispositions = vec![Disposition::RetrySoon; group.len()];
        for wave in order::waves(group).into_iter().take(MAX_WAVES) {
            let admitted = self.admit_all(&pick(group, &wave.requests)).await;
            set_all(&mut dispositions, &wave.requests, admitted);
            let verified = self.verify_all(&pick(group, &wave.verifications)).await;
            set_all(&mut dispositions, &wave.verifications, verified);
            let cancelled = self.cancel_all(&pick(group, &wave.cancellations)).await;
            set_all(&mut dispositions, &wave.cancellations, cancelled);
        }
        dispositions
    }

    /// Asks the ledger for an answer to each item, until it has them; see [`work_on`].
    async fn ask<I, O, W, F>(
        &self,
        items: Vec<I>,
        work: &W,
        operation: &'static str,
    ) -> Vec<Result<O, BatchError>>
    where
        I: Send,
        O: Send,
        W: Fn(Vec<I>) -> F + Sync,
        F: Future<Output = (Vec<I>, Result<Vec<O>, LedgerError>)> + Send,
    {
        if items.is_empty() {
            return Vec::new();
        }
        let closed = || Err(BatchError::Closed);
        let count = items.len();
        // Cancel-safe: what is asked of the ledger may be asked again.
        tokio::select! {
            answers = work_on(items, work, operation) => answers,
            () = self.shutdown.hard.cancelled() => {
                std::iter::repeat_with(closed).take(count).collect()
            }
        }
    }

    /// Reads deliveries: one answer for each key, in order; `None` if it doesn't exist.
    async fn find_each(&self, keys: Vec<DeliveryKey>) -> Vec<Result<Option<Delivery>, BatchError>> {
        let work = |keys: Vec<DeliveryKey>| async move {
            let found = self.ledger.find_all(&keys).await;
            let found = found.map(|found| in_order(&keys, found));
            (keys, found)
        };
        self.ask(keys, &work, "find deliveries").await
    }

    /// Whether each message's publisher may publish for its tenant; else what to do with the
    /// message. Any publisher may for a tenant that doesn't exist: the request is rejected by a
    /// status.
    async fn authorize_all(&self, messages: &[&Message]) -> Vec<Result<(), Disposition>> {
        let mut answers = vec![Err(Disposition::Requeue); messages.len()];
        let mut open: Vec<usize> = (0..messages.len()).collect();
        // A dead letter is final, so a cached refusal is checked against the database first.
        for cached in [true, false] {
            let of = |position: &usize| messages.get(*position).map(|message| tenant_of(message));
            let tenants: HashSet<&TenantId> = open.iter().filter_map(of).collect();
            if tenants.is_empty() {
                break;
            }
            let tenants: Vec<TenantId> = tenants.into_iter().cloned().collect();
            let Some(settings) = self.settings.all(&tenants).await else {
                break;
            };
            let mut refused = Vec::new();
            for position in open {
                let Some(message) = messages.get(position) else {
                    continue;
                };
                let (tenant, user) = (tenant_of(message), message.user.as_deref());
                let answer = match settings.get(tenant) {
                    None => Ok(()),
                    Some(Ok(settings)) if settings.may_publish(user) => Ok(()),
                    Some(Ok(_)) if cached => {
                        self.settings.invalidate(tenant);
                        refused.push(position);
                        continue;
                    }
                    Some(Ok(_)) => Err(refuse(user, tenant)),
                    Some(Err(_)) => Err(Disposition::Requeue),
                };
                if let Some(place) = answers.get_mut(position) {
                    *place = answer;
                }
            }
            open = refused;
        }
        answers
    }
}

/// Refuses a publisher.
fn refuse(user: Option<&str>, tenant: &TenantId) -> Disposition {
    // The dead letter's line in the log names both, and is limited.
    tracing::debug!(
        tenant.id = %tenant,
        user = user.unwrap_or("-"),
        "publisher not allowed for the tenant; voice-otp tenant set --publisher allows it"
    );
    Disposition::DeadLetter(DeadLetterReason::PublisherNotAllowed)
}

fn pick<'a>(group: &'a [Message], positions: &[usize]) -> Vec<&'a Message> {
    positions
        .iter()
        .filter_map(|position| group.get(*position))
        .collect()
}

fn set_all(dispositions: &mut [Disposition], positions: &[usize], answers: Vec<Disposition>) {
    for (position, answer) in positions.iter().zip(answers) {
        set(dispositions, *position, answer);
    }
}

fn set(dispositions: &mut [Disposition], position: usize, disposition: Disposition) {
    if let Some(place) = dispositions.get_mut(position) {
        *place = disposition;
    }
}

fn tenant_of(message: &Message) -> &TenantId {
    match &message.incoming {
        Incoming::Requested(request) => &request.tenant_id,
        Incoming::Invalid(invalid) => &invalid.tenant_id,
        Incoming::Cancelled(cancelled) => &cancelled.tenant_id,
        Incoming::Verified(verified) => &verified.tenant_id,
    }
}

/// Deliveries in the order of these keys; `None` for those that were not found.
fn in_order(keys: &[DeliveryKey], found: Vec<Delivery>) -> Vec<Option<Delivery>> {
    let mut found: HashMap<DeliveryKey, Delivery> = found
        .into_iter()
        .map(|one| (one.key.clone(), one))
        .collect();
    keys.iter().map(|key| found.remove(key)).collect()
}

/// What a failure makes of a message. What the database gave up on is retried without the batch's
/// permit, in a batch of its own.
fn disposition_of(error: &BatchError) -> Disposition {
    match error {
        BatchError::Refused(_) => Disposition::DeadLetter(DeadLetterReason::RefusedByDatabase),
        BatchError::GaveUp => Disposition::RetrySoon,
        BatchError::Closed => Disposition::Requeue,
    }
}
