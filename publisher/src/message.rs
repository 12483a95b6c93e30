//! A message to publish, and the errors of publishing it.

use std::time::Duration;

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable};
use zeroize::Zeroizing;

/// A message to publish: persistent and mandatory.
#[derive(Clone)]
pub struct Message {
    /// The exchange to publish to.
    pub exchange: &'static str,
    /// The routing key.
    pub routing_key: String,
    /// The AMQP `message_id`: unique, and unchanged when the message is published again. Returned
    /// messages are matched by it.
    pub message_id: String,
    /// The AMQP `type`: the event's type.
    pub kind: &'static str,
    /// The AMQP `content_type`.
    pub content_type: &'static str,
    /// The headers; their values are AMQP long strings.
    pub headers: Vec<(&'static str, String)>,
    /// How long the message may wait in a queue before the broker expires it. `None`: without
    /// limit.
    pub expiration: Option<Duration>,
    /// The body. Wiped from memory on drop, since it may hold a code.
    pub body: Zeroizing<Vec<u8>>,
}

/// Why a message isn't known to be stored by the broker.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// No queue is bound for this routing key. The message is not stored.
    #[error(
        "the broker has no queue for {0}; start a worker, which declares the topology, and publish \
         again"
    )]
    Unroutable(String),
    /// The broker refused the message (`basic.nack`), usually because its queue is full. The
    /// message is not stored.
    #[error("the broker refused the message: its queue is full; publish again later")]
    Nacked,
    /// The broker did not confirm the message in time, for the reason in the text. The message may
    /// be stored nevertheless; publishing it again with the same id is safe.
    #[error(
        "not confirmed in time ({0}); the message may be stored, so publish it again with the same \
         id"
    )]
    Unconfirmed(&'static str),
    /// The broker has the message and answers other publishes, but a queue that the message goes to
    /// does not confirm it, for example a quorum queue without a majority. The message may be
    /// stored nevertheless; publishing it again with the same id is safe.
    #[error(
        "a queue that the message goes to does not confirm it; the message may be stored, so \
         publish it again later with the same id"
    )]
    SilentQueue,
    /// The message breaks a limit of AMQP or of the contract. It was not sent.
    #[error("the message can't be sent: {0}")]
    Invalid(&'static str),
    /// The publisher is closed.
    #[error("the publisher is closed")]
    Closed,
}

/// The size limit of an AMQP short string.
const MAX_SHORT_STRING_BYTES: usize = 255;

impl Message {
    /// Checks the limits that lapin doesn't check.
    pub(crate) fn check(&self) -> Result<(), PublishError> {
        if self.routing_key.len() > MAX_SHORT_STRING_BYTES
            || self.message_id.len() > MAX_SHORT_STRING_BYTES
        {
            return Err(PublishError::Invalid(
                "its routing key or message id has more than 255 bytes",
            ));
        }
        Ok(())
    }

    /// The AMQP properties. `user_id` must be the user of the connection: RabbitMQ refuses a
    /// message with another one and closes the channel.
    pub(crate) fn properties(&self, user_id: Option<&str>) -> BasicProperties {
        let mut headers = FieldTable::default();
        for (name, value) in &self.headers {
            headers.insert((*name).into(), AMQPValue::LongString(value.as_str().into()));
        }
        let properties = BasicProperties::default()
            // Persistent (2): a quorum queue stores every message on disk, another queue only
            // these.
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
