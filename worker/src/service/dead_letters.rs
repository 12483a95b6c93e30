//! Dead letters: descriptions of messages that no status can answer, without their content.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lapin::message::Delivery;
use lapin::types::ShortString;
use serde_json::json;
use voice_otp_publisher::{Message, PublishError, Publisher, topology};
use voice_otp_schemas::DeliveryKey;
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
    bytes: usize,
    key_id: String,
    /// A keyed hash, in base64.
    mac: String,
}

impl DeadLetters {
    pub(super) fn fingerprint(&self, body: &[u8]) -> Fingerprint {
        let (key_id, mac) = self.keys.hash("dead letter", &STANDARD.encode(body));
        Fingerprint {
            bytes: body.len(),
            key_id,
            mac: STANDARD.encode(mac),
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
