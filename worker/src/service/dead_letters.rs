//! Dead letters: descriptions of messages that no status can answer, without their content.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lapin::message::Delivery;
use lapin::types::{AMQPValue, ShortString};
use serde_json::json;
use voice_otp_publisher::{Message, PublishError, Publisher, connection, topology};
use voice_otp_schemas::DeliveryKey;
use voice_otp_schemas::envelope::MAX_BODY_BYTES;
use voice_otp_store::Keyring;
use zeroize::Zeroizing;

/// Publishes dead letters.
#[derive(Clone)]
pub(super) struct DeadLetters {
    pub(super) publisher: Publisher,
    /// The first of these keys makes the keyed hash of a body.
    pub(super) keys: Keyring,
}

/// Why a message is dead-lettered.
pub(super) struct Cause {
    /// One of the reasons in `schemas/README.md`.
    pub(super) reason: &'static str,
    /// A sentence for people; it never shows content of the message.
    pub(super) detail: String,
    /// The delivery that the message names, if that could be read.
    pub(super) key: Option<DeliveryKey>,
}

/// What a dead letter says of a body: enough to see whether two dead letters had the same body, and
/// nothing of its content.
pub(super) struct Fingerprint {
    /// The body's length as it was published.
    bytes: u64,
    key_id: String,
    /// A keyed hash of the first 64 KiB, in base64.
    mac: String,
    /// Why headers or properties were removed before the message was read.
    removed: Option<String>,
}

impl DeadLetters {
    pub(super) fn fingerprint(&self, delivery: &Delivery) -> Fingerprint {
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
        let (key_id, mac) = self.keys.hash("dead letter", &STANDARD.encode(beginning));
        Fingerprint {
            bytes: cut.unwrap_or(body.len() as u64),
            key_id,
            mac: STANDARD.encode(mac),
            removed,
        }
    }

    /// Publishes the dead letter of a message. The message may be acknowledged only after this
    /// succeeded.
    pub(super) async fn publish(
        &self,
        delivery: &Delivery,
        body: &Fingerprint,
        cause: &Cause,
    ) -> Result<(), PublishError> {
        let tenant_id = cause.key.as_ref().map(|key| &key.tenant_id);
        let delivery_id = cause.key.as_ref().map(|key| &key.delivery_id);
        tracing::warn!(
            reason = cause.reason,
            detail = cause.detail,
            tenant.id = tenant_id.map(tracing::field::display),
            delivery.id = delivery_id.map(tracing::field::display),
            "message dead-lettered"
        );
        let letter = json!({
            "reason": cause.reason,
            "detail": cause.detail,
            "tenant_id": tenant_id,
            "delivery_id": delivery_id,
            "body_bytes": body.bytes,
            "body_hmac": { "key_id": body.key_id, "sha256": body.mac },
            "user_id": delivery.properties.user_id().as_ref().map(ShortString::as_str),
            "redelivered": delivery.redelivered,
            "removed": body.removed,
        });
        let message = Message {
            exchange: "",
            routing_key: topology::DEAD.to_owned(),
            message_id: uuid::Uuid::new_v4().to_string(),
            kind: "dev.voiceotp.dead-letter.v1",
            content_type: "application/json",
            headers: vec![("x-reason", cause.reason.to_owned())],
            expiration: None,
            body: Zeroizing::new(letter.to_string().into_bytes()),
        };
        self.publisher.publish(message).await
    }
}
