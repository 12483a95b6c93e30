//! A deadline for the body of a request.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::body::{Body, BodyDataStream};
use futures_util::{StreamExt as _, stream};
use hyper::body::{Body as _, Incoming};
use tokio::time::Instant;

/// Whether the body of a request was not received in time. Clones share it.
#[derive(Clone, Default)]
pub(super) struct Missed(Arc<AtomicBool>);

impl Missed {
    pub(super) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A client has not sent the body of its request in time.
#[derive(Debug, thiserror::Error)]
#[error("the body of the request was not received in time")]
struct TooSlow;

/// The same body, which fails at the deadline and then sets `missed`.
pub(super) fn apply(body: Incoming, deadline: Instant, missed: &Missed) -> Body {
    if body.is_end_stream() {
        return Body::empty();
    }
    let missed = missed.clone();
    let read = move |mut body: BodyDataStream| {
        let missed = missed.clone();
        async move {
            match tokio::time::timeout_at(deadline, body.next()).await {
                Ok(Some(data)) => Ok(Some((data?, body))),
                Ok(None) => Ok(None),
                Err(_) => {
                    missed.0.store(true, Ordering::Relaxed);
                    Err(axum::Error::new(TooSlow))
                }
            }
        }
    };
    Body::from_stream(stream::try_unfold(Body::new(body).into_data_stream(), read))
}
