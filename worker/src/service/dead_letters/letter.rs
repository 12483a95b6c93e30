//! A dead letter: the description of a message, without its content.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lapin::message::Delivery;
use lapin::types::AMQPValue;
use serde_json::json;
use voice_otp_publisher::{Message, connection, topology};
use voice_otp_schemas::DeliveryKey;
use voice_otp_schemas::envelope::MAX_BODY_BYTES;
use voice_otp_store::Keyring;
use zeroize::Zeroizing;

use super::Unacknowledged;

/// Why a message is dead-lettered.
pub(in crate::service) struct Cause {
    /// One of the reasons in `schemas/README.md`.
    pub(in crate::service) reason: &'static str,
    /// A sentence for people; it never shows content of the message.
    pub(in crate::service) detail: String,
    /// The delivery that the message names, if that could be read.
    pub(in crate::service) key: Option<DeliveryKey>,
}

/// What a dead letter says of a body: enough to see whether two dead letters had the same body, and
/// nothing of its content.
pub(in crate::service) struct Fingerprint {
    /// The body's length as it was published.
    bytes: u64,
    key_id: String,
    /// A keyed hash of the first 64 KiB, in base64.
    mac: String,
    /// Why headers or properties were removed before the message was read.
    removed: Option<String>,
}

impl Fingerprint {
    /// The first of the keys makes the keyed hash.
    pub(super) fn of(delivery: &Delivery, keys: &Keyring) -> Self {
        let headers = delivery.properties.headers().as_ref();
        let header = |name: &str| headers.and_then(|headers| headers.inner().get(name));
        let cut = match header(connection::BODY_BYTES_HEADER) {
            Some(AMQPValue::LongLongInt(bytes)) => u64::try_from(*bytes).ok(),
            _ => None,
        };
        let removed = match header(connection::REMOVED_HEADER) {
            Some(AMQPValue::LongString(reason)) => Some(reason.to_string()),
            _ => None,
        };
        let body = &delivery.data;
        let beginning = body.get(..MAX_BODY_BYTES).unwrap_or(body);
        let (key_id, mac) = keys.hash("dead letter", &STANDARD.encode(beginning));
        Self {
            bytes: cut.unwrap_or(body.len() as u64),
            key_id,
            mac: STANDARD.encode(mac),
            removed,
        }
    }
}

/// The dead letter of a message.
pub(super) fn letter(message: &Unacknowledged, body: &Fingerprint, cause: &Cause) -> Message {
    let letter = json!({
        "reason": cause.reason,
        "detail": cause.detail,
        "tenant_id": cause.key.as_ref().map(|key| &key.tenant_id),
        "delivery_id": cause.key.as_ref().map(|key| &key.delivery_id),
        "body_bytes": body.bytes,
        "body_hmac": { "key_id": body.key_id, "sha256": body.mac },
        "user_id": message.user,
        "redelivered": message.redelivered,
        "removed": body.removed,
    });
    Message {
        exchange: "",
        routing_key: topology::DEAD.to_owned(),
        message_id: uuid::Uuid::new_v4().to_string(),
        kind: "dev.voiceotp.dead-letter.v1",
        content_type: "application/json",
        headers: vec![("x-reason", cause.reason.to_owned())],
        expiration: None,
        body: Zeroizing::new(letter.to_string().into_bytes()),
    }
}
