//! The status sink: publishing status events.

use std::error::Error;
use std::future::Future;

use crate::event::Event;

/// Why an event is not known to be published.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// The broker refused the event because one of the queues that are bound for it did. The other
    /// queues may have it.
    #[error("the broker refused a status")]
    Refused(#[source] Box<dyn Error + Send + Sync>),
    /// The broker has the event and answers others, but one of the queues that are bound for it
    /// doesn't confirm. The other queues may have it.
    #[error("the broker did not confirm a status")]
    Unconfirmed(#[source] Box<dyn Error + Send + Sync>),
    /// The broker is away, or blocks publishers. It says nothing about this event.
    #[error("the broker is unavailable")]
    Unavailable(#[source] Box<dyn Error + Send + Sync>),
}

/// Publishes events.
pub trait StatusSink: Send + Sync + 'static {
    /// Publishes an event. Resolves when the broker has confirmed it, or it is known that the
    /// broker won't. No event waits for the answer to another.
    fn publish(&self, event: &Event) -> impl Future<Output = Result<(), SinkError>> + Send;
}
