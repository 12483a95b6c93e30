//! An event that somebody else wrote, checked and published as it is.

use voice_otp_schemas::envelope::{Message as Raw, STRUCTURED, Trace, Unreadable};
use voice_otp_schemas::request::{CANCELLED, Incoming, REQUESTED, VERIFIED, read};
use zeroize::Zeroizing;

use crate::message::{Message, PublishError};
use crate::publisher;
use crate::topology::{CANCELLED_KEY, REQUESTED_KEY, VERIFIED_KEY, lane_key};

/// Why an event was not published, or isn't known to be.
#[derive(Debug, thiserror::Error)]
pub enum EventError {
    /// It can't be read.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    /// It would be rejected.
    #[error("{0}")]
    Invalid(String),
    /// The broker hasn't confirmed it.
    #[error(transparent)]
    Publish(#[from] PublishError),
}

/// Makes a message of a structured `CloudEvent`.
///
/// # Errors
/// [`EventError`] says what is wrong with the event, never what it holds.
pub fn message(json: Zeroizing<Vec<u8>>) -> Result<Message, EventError> {
    let incoming = read(Raw {
        content_type: Some(STRUCTURED),
        headers: &[],
        body: &json,
    })?;
    let (routing_key, kind, message_id) = match &incoming {
        Incoming::Requested(request) => {
            let message_id = format!("{}/{}", request.tenant_id, request.delivery_id);
            (
                lane_key(REQUESTED_KEY, &request.tenant_id),
                REQUESTED,
                message_id,
            )
        }
        Incoming::Invalid(invalid) => {
            let clauses: Vec<String> = invalid.problems.iter().map(ToString::to_string).collect();
            let sealed = "sealed_code is not supported yet: send code".to_owned();
            return Err(EventError::Invalid(if clauses.is_empty() {
                sealed
            } else {
                clauses.join("; ")
            }));
        }
        // Their ids are their own; a fresh one does as well.
        Incoming::Cancelled(cancelled) => {
            let message_id = format!("{}/{}", cancelled.tenant_id, uuid::Uuid::new_v4());
            (
                lane_key(CANCELLED_KEY, &cancelled.tenant_id),
                CANCELLED,
                message_id,
            )
        }
        Incoming::Verified(verified) => {
            let message_id = format!("{}/{}", verified.tenant_id, uuid::Uuid::new_v4());
            (
                lane_key(VERIFIED_KEY, &verified.tenant_id),
                VERIFIED,
                message_id,
            )
        }
    };
    Ok(publisher::event(
        routing_key,
        kind,
        message_id,
        json,
        &Trace::default(),
    )?)
}
