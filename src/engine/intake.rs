//! Intake: what the ledger makes of a group of messages.

mod admitting;
mod cancelling;
mod suspects;

use std::sync::Arc;

use voice_otp_schemas::TenantId;
use voice_otp_schemas::request::Incoming;

use super::Engine;
use crate::ports::Ports;

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
    /// The account's rate-limit row is locked, or the database gave up on the message's batch.
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

impl<P: Ports> Engine<P> {
    /// Processes a group of messages: one disposition each, in order. Returns once the ledger has
    /// them; waits for an unavailable database.
    pub async fn process(self: &Arc<Self>, group: &[Message]) -> Vec<Disposition> {
        let mut dispositions = Vec::with_capacity(group.len());
        // Requests in batches. A cancellation is processed alone, after the messages before it and
        // before those after it.
        for part in group.chunk_by(|one, next| is_request(one) && is_request(next)) {
            match part {
                [
                    Message {
                        incoming: Incoming::Cancelled(cancelled),
                        user,
                    },
                ] => {
                    let allowed = self.authorize(user.as_deref(), &cancelled.tenant_id).await;
                    dispositions.push(match allowed {
                        Ok(()) => self.cancel(cancelled).await,
                        Err(disposition) => disposition,
                    });
                }
                [
                    Message {
                        incoming: Incoming::Verified(verified),
                        user,
                    },
                ] => {
                    let allowed = self.authorize(user.as_deref(), &verified.tenant_id).await;
                    dispositions.push(match allowed {
                        Ok(()) => self.mark_verified(verified).await,
                        Err(disposition) => disposition,
                    });
                }
                requests => dispositions.extend(self.admit_all(requests).await),
            }
        }
        dispositions
    }

    /// Whether a publisher may publish for a tenant; else what to do with the message. Any
    /// publisher may for a tenant that doesn't exist: the request is rejected by a status.
    async fn authorize(&self, user: Option<&str>, tenant: &TenantId) -> Result<(), Disposition> {
        // A dead letter is final, so a cached refusal is checked against the database first.
        for cached in [true, false] {
            match self.settings.of(tenant).await {
                Some(Ok(settings)) if settings.may_publish(user) => return Ok(()),
                Some(Ok(_)) if cached => self.settings.invalidate(tenant),
                Some(Ok(_)) => break,
                Some(Err(_)) => return Err(Disposition::Requeue),
                None if self.shutdown.hard.is_cancelled() => return Err(Disposition::Requeue),
                None => return Ok(()),
            }
        }
        // The dead letter's line in the log names both, and is limited.
        tracing::debug!(
            tenant.id = %tenant,
            user = user.unwrap_or("-"),
            "publisher not allowed for the tenant; voice-otp tenant set --publisher allows it"
        );
        Err(Disposition::DeadLetter(
            DeadLetterReason::PublisherNotAllowed,
        ))
    }
}

fn is_request(message: &Message) -> bool {
    matches!(
        message.incoming,
        Incoming::Requested(_) | Incoming::Invalid(_)
    )
}
