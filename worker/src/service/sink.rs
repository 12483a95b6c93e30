//! Statuses to RabbitMQ.

use voice_otp::event::Event;
use voice_otp::ports::{SinkError, StatusSink};
use voice_otp_publisher::publisher::trace_headers;
use voice_otp_publisher::{Message, PublishError, Publisher, topology};
use voice_otp_schemas::envelope::STRUCTURED;
use zeroize::Zeroizing;

/// Publishes statuses with publisher confirms.
#[derive(Clone)]
pub struct Sink {
    publisher: Publisher,
}

impl Sink {
    /// A sink over a publisher, which keeps the connection.
    pub fn new(publisher: Publisher) -> Self {
        Self { publisher }
    }
}

impl StatusSink for Sink {
    async fn publish(&self, event: &Event) -> Result<(), SinkError> {
        let Err(error) = self.publisher.publish(message(event)).await else {
            return Ok(());
        };
        Err(match error {
            // No queue is bound for this status: consumers choose what they receive.
            PublishError::Unroutable(_) => return Ok(()),
            PublishError::Nacked | PublishError::Invalid(_) => SinkError::Refused(error.into()),
            PublishError::SilentQueue => SinkError::Unconfirmed(error.into()),
            PublishError::Unconfirmed(_) | PublishError::Closed => {
                SinkError::Unavailable(error.into())
            }
        })
    }
}

fn message(event: &Event) -> Message {
    Message {
        exchange: topology::STATUS,
        routing_key: event.routing_key.clone(),
        message_id: event.message_id(),
        kind: event.kind(),
        content_type: STRUCTURED,
        headers: trace_headers(&event.trace),
        expiration: None,
        body: Zeroizing::new(event.body.clone().into_bytes()),
    }
}
