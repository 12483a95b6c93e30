//! Prices: events without an order among others, which aren't in the outbox. They are published
//! beside the statuses, so that neither waits for the other.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::future::join_all;
use tokio::sync::oneshot;

use super::queue::MAX_PUBLISHES;
use crate::event::Event;
use crate::ports::{SinkError, StatusSink};

/// The price events of one tenant, and where to report which of them are published.
pub(super) type Batch = (Vec<Event>, oneshot::Sender<Vec<bool>>);

/// A batch whose publishing has ended.
pub(super) struct Published {
    /// The number of events in the batch.
    pub(super) count: usize,
    results: Vec<(Event, Result<(), SinkError>)>,
    answer: oneshot::Sender<Vec<bool>>,
}

/// How many prices of a batch are in flight: few, so that the statuses of their tenant have room on
/// the channel.
const MAX_IN_FLIGHT: usize = 4;
/// How many refused prices are remembered. Beyond it their counts begin again.
const MAX_REMEMBERED: usize = 10_000;

/// Publishes a batch. Stops when a price has no answer: then the others are not published.
pub(super) async fn publish<S: StatusSink>(sink: Arc<S>, (events, answer): Batch) -> Published {
    let count = events.len();
    let mut results = Vec::with_capacity(count);
    for chunk in events.chunks(MAX_IN_FLIGHT) {
        let published = join_all(chunk.iter().map(|event| sink.publish(event))).await;
        let is_answered =
            |result: &Result<(), SinkError>| matches!(result, Ok(()) | Err(SinkError::Refused(_)));
        let all_answered = published.iter().all(is_answered);
        results.extend(chunk.iter().cloned().zip(published));
        if !all_answered {
            break;
        }
    }
    Published {
        count,
        results,
        answer,
    }
}

impl Published {
    /// Reports which events are published. One that was refused too often counts as published.
    pub(super) fn answer(self, refusals: &mut HashMap<String, u32>) {
        let mut published = vec![false; self.count];
        for ((event, result), is_published) in self.results.into_iter().zip(&mut published) {
            let id = event.message_id();
            *is_published = match result {
                Ok(()) => true,
                Err(SinkError::Unavailable(_)) => false,
                Err(SinkError::Refused(_) | SinkError::Unconfirmed(_)) => {
                    if refusals.len() >= MAX_REMEMBERED {
                        refusals.clear();
                    }
                    let refused = refusals.entry(id.clone()).or_default();
                    *refused += 1;
                    *refused >= MAX_PUBLISHES
                }
            };
            if *is_published {
                refusals.remove(&id);
            }
        }
        if self.answer.send(published).is_err() {
            tracing::debug!("receiver dropped");
        }
    }
}
