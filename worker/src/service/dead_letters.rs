//! Dead letters: what no status can answer, described without what it held.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lapin::message::Delivery;
use serde_json::json;
use voice_otp::delivery::Key;
use voice_otp_publisher::{Message, PublishError, Publisher, topology};
use voice_otp_store::Keyring;
use zeroize::Zeroizing;

/// Where dead letters go.
#[derive(Clone)]
pub(crate) struct DeadLetters {
    pub(crate) publisher: Publisher,
    pub(crate) keys: Keyring,
}

/// Why a message is dead.
pub(crate) struct Cause {
    /// A constant word.
    pub(crate) reason: &'static str,
    /// A sentence for people; never shows what the message held.
    pub(crate) detail: String,
    /// Whose it was, where that could be read.
    pub(crate) key: Option<Key>,
}

/// What is told of a body.
pub(crate) struct Fingerprint {
    bytes: usize,
    key_id: String,
    mac: String,
}

impl DeadLetters {
    /// A body's length and keyed hash: to find out whether two dead letters are one message, and nothing else.
    pub(crate) fn fingerprint(&self, body: &[u8]) -> Fingerprint {
        let (key_id, mac) = self.keys.hash("dead letter", &STANDARD.encode(body));
        Fingerprint {
            bytes: body.len(),
            key_id,
            mac: STANDARD.encode(mac),
        }
    }

    /// Puts a message with the dead letters. Only when this is confirmed may it be acknowledged.
    pub(crate) async fn bury(
        &self,
        delivery: &Delivery,
        body: &Fingerprint,
        cause: &Cause,
    ) -> Result<(), PublishError> {
        tracing::warn!(
            reason = cause.reason,
            detail = cause.detail,
            tenant.id = cause
                .key
                .as_ref()
                .map(|key| tracing::field::display(&key.tenant_id)),
            delivery.id = cause
                .key
                .as_ref()
                .map(|key| tracing::field::display(&key.delivery_id)),
            "a message goes to the dead letters"
        );
        let letter = json!({
            "reason": cause.reason,
            "detail": cause.detail,
            "tenant_id": cause.key.as_ref().map(|key| key.tenant_id.as_str()),
            "delivery_id": cause.key.as_ref().map(|key| key.delivery_id.as_str()),
            "body_bytes": body.bytes,
            "body_hmac": { "key_id": body.key_id, "sha256": body.mac },
            "user_id": delivery.properties.user_id().as_ref().map(lapin::types::ShortString::as_str),
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
