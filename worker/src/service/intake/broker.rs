//! What is sent back to the broker for each message, and what is read of it.

use std::time::Duration;

use lapin::Acker;
use lapin::options::{BasicAckOptions, BasicNackOptions};
use lapin::types::{AMQPValue, FieldTable};

use super::batches::Readable;

/// Why consuming failed.
pub(super) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The timeout of each request to the broker.
pub(super) const BROKER_TIMEOUT: Duration = Duration::from_secs(10);
/// The pause before a message is requeued that no worker can process now: the broker may deliver it
/// here again at once.
const REQUEUE_PAUSE: Duration = Duration::from_secs(1);

pub(in crate::service) async fn acknowledge(acker: &Acker) {
    // Not `multiple`: the batches of one channel finish in any order.
    let acking = acker.ack(BasicAckOptions { multiple: false });
    let acked = tokio::time::timeout(BROKER_TIMEOUT, acking).await;
    if !matches!(acked, Ok(Ok(true))) {
        // The message is redelivered, and recognised as a duplicate.
        tracing::debug!("an acknowledgement was lost with its channel");
    }
}

/// Requeues messages after a pause.
pub(super) async fn requeue_later(messages: &[Readable]) {
    if !messages.is_empty() {
        tokio::time::sleep(REQUEUE_PAUSE).await;
    }
    for one in messages {
        requeue(&one.message.acker).await;
    }
}

pub(super) async fn requeue(acker: &Acker) {
    refuse(acker, true).await;
}

/// Has the broker dead-letter a message, to the queue of returned messages.
pub(super) async fn give_back(acker: &Acker) {
    refuse(acker, false).await;
}

async fn refuse(acker: &Acker, requeue: bool) {
    let options = BasicNackOptions {
        multiple: false,
        requeue,
    };
    let nacked = tokio::time::timeout(BROKER_TIMEOUT, acker.nack(options)).await;
    if !matches!(nacked, Ok(Ok(true))) {
        tracing::debug!("failed to requeue a message; the broker does when the connection closes");
    }
}

/// The headers that the contract names, as text.
pub(super) fn text_headers(headers: Option<&FieldTable>) -> Vec<(String, String)> {
    let Some(headers) = headers else {
        return Vec::new();
    };
    let is_known = |name: &str| {
        name.starts_with("cloudEvents") || name == "traceparent" || name == "tracestate"
    };
    let text = |value: &AMQPValue| match value {
        AMQPValue::LongString(text) => String::from_utf8(text.as_bytes().to_vec()).ok(),
        AMQPValue::ShortString(text) => Some(text.as_str().to_owned()),
        AMQPValue::ByteArray(bytes) => String::from_utf8(bytes.as_slice().to_vec()).ok(),
        _ => None,
    };
    let known = headers
        .inner()
        .iter()
        .filter(|(name, _)| is_known(name.as_str()));
    known
        .filter_map(|(name, value)| Some((name.as_str().to_owned(), text(value)?)))
        .collect()
}
