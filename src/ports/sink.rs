//! The status sink: publishing status events.

use std::future::Future;

use crate::event::Event;

/// Why an event could not be published.
#[derive(Debug, thiserror::Error)]
#[error("publish a status")]
pub struct SinkError(#[source] pub Box<dyn std::error::Error + Send + Sync>);

/// Publishes status events.
pub trait StatusSink: Send + Sync + 'static {
    /// Publishes events in order. Each has a result of its own: confirmed by the broker, or not
    /// known to be published.
    fn publish(&self, events: &[Event]) -> impl Future<Output = Vec<Result<(), SinkError>>> + Send;
}
