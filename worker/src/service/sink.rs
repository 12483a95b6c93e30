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
    async fn publish(&self, events: &[Event]) -> Vec<Result<(), SinkError>> {
        // All are sent before the first confirm is awaited.
        let mut queued = Vec::with_capacity(events.len());
        for event in events {
            queued.push(self.publisher.enqueue(message(event)).await);
        }
        let mut results = Vec::with_capacity(events.len());
        for confirm in queued {
            let result = match confirm {
                Ok(confirmed) => confirmed.await.unwrap_or(Err(PublishError::Closed)),
                Err(error) => Err(error),
            };
            results.push(match result {
                // No queue is bound for this status: consumers choose what they receive.
                Err(PublishError::Unroutable(_)) => Ok(()),
                result => result.map_err(|error| SinkError(Box::new(error))),
            });
        }
        results
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
