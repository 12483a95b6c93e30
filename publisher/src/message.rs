//! A message to publish, and what may become of it.

use std::time::Duration;

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable};
use zeroize::Zeroizing;

/// A message to publish: persistent and mandatory.
#[derive(Clone)]
pub struct Message {
    /// Where to.
    pub exchange: &'static str,
    /// Which way.
    pub routing_key: String,
    /// Unique, and the same when it is published again.
    pub message_id: String,
    /// The AMQP `type`: the event's type.
    pub kind: &'static str,
    /// The AMQP `content_type`.
    pub content_type: &'static str,
    /// Text headers.
    pub headers: Vec<(&'static str, String)>,
    /// After how long the broker gives up on it.
    pub expiration: Option<Duration>,
    /// The body; wiped when dropped.
    pub body: Zeroizing<Vec<u8>>,
}

/// Why a message isn't known to be safe with the broker.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// The broker has no queue for it. It is not stored.
    #[error("the broker has no queue for {0}: is the topology declared?")]
    Unroutable(String),
    /// The broker refused it: its queue is full. It is not stored.
    #[error("the broker refused the message: its queue is full")]
    Refused,
    /// The time ran out while the broker took no messages, or could not be reached. It may be stored nevertheless:
    /// publishing it again with the same id does no harm.
    #[error(
        "not confirmed in time ({0}); it may be stored all the same, so publish it again with the same id"
    )]
    Unconfirmed(&'static str),
    /// The message is not one that the broker could take.
    #[error("the message can't be sent: {0}")]
    Invalid(&'static str),
    /// The publisher has been closed.
    #[error("the publisher has been closed")]
    Closed,
}

/// An AMQP short string holds this many bytes.
const SHORT_STRING: usize = 255;

impl Message {
    /// Checks what lapin would not.
    pub(crate) fn check(&self) -> Result<(), PublishError> {
        if self.routing_key.len() > SHORT_STRING || self.message_id.len() > SHORT_STRING {
            return Err(PublishError::Invalid(
                "a routing key or message id of more than 255 bytes",
            ));
        }
        Ok(())
    }

    /// `user_id` is the connection's own user: RabbitMQ refuses a message that says another.
    pub(crate) fn properties(&self, user_id: Option<&str>) -> BasicProperties {
        let mut headers = FieldTable::default();
        for (name, value) in &self.headers {
            headers.insert((*name).into(), AMQPValue::LongString(value.as_str().into()));
        }
        let properties = BasicProperties::default()
            // Persistent: a quorum queue keeps it on disk either way, another queue only so.
            .with_delivery_mode(2)
            .with_message_id(self.message_id.as_str().into())
            .with_content_type(self.content_type.into())
            .with_type(self.kind.into())
            .with_app_id("voice-otp".into())
            .with_headers(headers);
        let properties = match user_id {
            Some(user_id) => properties.with_user_id(user_id.into()),
            None => properties,
        };
        match self.expiration {
            Some(expiration) => {
                properties.with_expiration(expiration.as_millis().to_string().as_str().into())
            }
            None => properties,
        }
    }
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Message")
            .field("routing_key", &self.routing_key)
            .field("message_id", &self.message_id)
            .finish_non_exhaustive()
    }
}
