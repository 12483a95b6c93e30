//! An event that was written elsewhere as JSON: validated, then published unchanged.

use voice_otp_schemas::envelope::{Message as ReceivedMessage, STRUCTURED, Trace, Unreadable};
use voice_otp_schemas::request::{CANCELLED, Incoming, REQUESTED, VERIFIED, read};
use zeroize::Zeroizing;

use crate::message::{Message, PublishError};
use crate::publisher;
use crate::topology::{CANCELLED_KEY, REQUESTED_KEY, VERIFIED_KEY, lane_key};

/// Why an event was not published, or isn't known to be.
#[derive(Debug, thiserror::Error)]
pub enum EventError {
    /// The event can't be read, so workers would dead-letter it.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    /// The request has invalid fields, so workers would reject it. The text names each field.
    #[error("{0}")]
    Invalid(String),
    /// The broker has not confirmed the event.
    #[error(transparent)]
    Publish(#[from] PublishError),
}

/// A message with this event, given as a `CloudEvent` in structured mode.
///
/// # Errors
/// [`EventError`] says what is wrong with the event. It never quotes the event.
pub fn message(json: Zeroizing<Vec<u8>>) -> Result<Message, EventError> {
    let incoming = read(ReceivedMessage {
        content_type: Some(STRUCTURED),
        headers: &[],
        body: &json,
    })?;
    let (key, kind, tenant_id, message_id) = match &incoming {
        Incoming::Requested(request) => (
            REQUESTED_KEY,
            REQUESTED,
            &request.tenant_id,
            request.key().to_string(),
        ),
        Incoming::Invalid(invalid) => {
            let clauses: Vec<String> = invalid.problems.iter().map(ToString::to_string).collect();
            let sealed = "sealed_code is not supported yet: send code".to_owned();
            return Err(EventError::Invalid(if clauses.is_empty() {
                sealed
            } else {
                clauses.join("; ")
            }));
        }
        // Workers don't deduplicate these by their id, so a generated message id is enough.
        Incoming::Cancelled(cancelled) => (
            CANCELLED_KEY,
            CANCELLED,
            &cancelled.tenant_id,
            format!("{}/{}", cancelled.tenant_id, uuid::Uuid::new_v4()),
        ),
        Incoming::Verified(verified) => (
            VERIFIED_KEY,
            VERIFIED,
            &verified.tenant_id,
            format!("{}/{}", verified.tenant_id, uuid::Uuid::new_v4()),
        ),
    };
    Ok(publisher::event_message(
        lane_key(key, tenant_id),
        kind,
        message_id,
        json,
        &Trace::default(),
    )?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example(name: &str) -> Zeroizing<Vec<u8>> {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../schemas/examples");
        Zeroizing::new(std::fs::read(format!("{folder}/{name}.json")).unwrap())
    }

    #[test]
    fn an_event_is_published_unchanged_by_its_tenants_lane() {
        for (name, key, kind) in [
            ("valid/requested.minimal", "otp.requested.062", REQUESTED),
            ("valid/cancelled.user", "otp.cancelled.062", CANCELLED),
            ("valid/verified", "otp.verified.062", VERIFIED),
        ] {
            let message = message(example(name)).unwrap();
            assert_eq!((message.routing_key.as_str(), message.kind), (key, kind));
            assert!(message.message_id.starts_with("acme/"));
            assert_eq!(message.body, example(name));
        }
    }

    #[test]
    fn an_invalid_event_is_refused_before_it_is_published() {
        let refused = |name| message(example(name)).unwrap_err();
        let error = refused("invalid/requested.code_is_missing");
        assert_eq!(error.to_string(), "code must be present");
        let error = refused("invalid/cancelled.names_nothing");
        assert!(matches!(error, EventError::Unreadable(_)), "{error}");
    }
}
