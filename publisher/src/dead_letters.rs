//! The dead-letter queue: publishing to it, and counting what is in it.

mod channel;

use std::time::Duration;

use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;
use secrecy::SecretString;

pub use self::channel::{DeadLetterChannel, Refusal};
use crate::{connection, topology};

/// Why the dead letters can't be counted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The connection to the broker failed.
    #[error(transparent)]
    Connect(#[from] connection::Error),
    /// The queue can't be read: no worker has declared it yet, or the user lacks the permission.
    #[error(
        "read the queue {}: start a worker, which declares it, and grant the user read permission",
        topology::DEAD
    )]
    Queue(#[source] lapin::Error),
    /// The broker stopped answering.
    #[error("the broker did not answer within 30 seconds")]
    TimedOut,
}

/// The time limit of a count.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The number of messages in the dead-letter queue. Opens and closes a connection of its own.
///
/// # Errors
/// [`Error`] names the step that failed.
pub async fn count(url: &SecretString) -> Result<u32, Error> {
    tokio::time::timeout(TIMEOUT, count_now(url))
        .await
        .unwrap_or(Err(Error::TimedOut))
}

async fn count_now(url: &SecretString) -> Result<u32, Error> {
    let broker = connection::connect(url, "voice-otp dead letters").await?;
    let channel = broker
        .connection
        .create_channel()
        .await
        .map_err(Error::Queue)?;
    // Passive: reads the queue's length, and fails instead of creating a missing queue. The broker
    // ignores `durable`, `exclusive` and `auto_delete` then. Not `nowait`: the answer has the
    // length.
    let passive = QueueDeclareOptions {
        passive: true,
        durable: true,
        exclusive: false,
        auto_delete: false,
        nowait: false,
    };
    let queue = channel
        .queue_declare(topology::DEAD.into(), passive, FieldTable::default())
        .await
        .map_err(Error::Queue)?;
    let count = queue.message_count();
    broker.close().await;
    Ok(count)
}
