//! Statuses to RabbitMQ.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use voice_otp::event::Event;
use voice_otp::ports::{SinkError, StatusSink};
use voice_otp_publisher::publisher::trace_headers;
use voice_otp_publisher::{Message, PublishError, Publisher, topology};
use voice_otp_schemas::envelope::STRUCTURED;
use zeroize::Zeroizing;

/// Publishes statuses, confirmed.
#[derive(Clone)]
pub struct Sink {
    publisher: Publisher,
    unbound: Arc<AtomicU64>,
}

impl Sink {
    /// A sink over a publisher, which keeps the connection.
    pub fn new(publisher: Publisher) -> Self {
        Self {
            publisher,
            unbound: Arc::default(),
        }
    }
}

impl StatusSink for Sink {
    async fn publish(&self, events: &[Event]) -> Vec<Result<(), SinkError>> {
        let mut posted = Vec::with_capacity(events.len());
        for event in events {
            posted.push(self.publisher.post(message(event)).await);
        }
        let mut results = Vec::with_capacity(events.len());
        for one in posted {
            let result = match one {
                Ok(answered) => answered.await.unwrap_or(Err(PublishError::Closed)),
                Err(error) => Err(error),
            };
            results.push(match result {
                // Nobody has bound this status, which is the dashboards' affair.
                Err(PublishError::Unroutable(_)) => {
                    self.unbound.fetch_add(1, Ordering::Relaxed);
                    Ok(())
                }
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
