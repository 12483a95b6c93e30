//! A local file that stores events during an outage of the broker and publishes them, in order,
//! after it.
//!
//! - An event goes to the broker as long as the broker confirms in time.
//! - An event that isn't confirmed goes into the file, and so does every event after it until the
//!   file is empty. So events arrive in the order in which they were sent.
//! - A send returns after the broker has confirmed the event or the file is synced to the disk, and
//!   says which ([`StoredIn`]).
//! - An event that has expired when the broker is back is dropped and counted. A call an hour late
//!   would help no user.
//!
//! Events hold codes and numbers, so the file holds them sealed. Only one process can open a file
//! at a time.

mod file;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use voice_otp_schemas::Timestamp;
use voice_otp_schemas::envelope::Trace;
use voice_otp_schemas::keys::{Keyring, OpenError};
use voice_otp_schemas::request::{Cancelled, Requested, Verified};

use crate::connection;
use crate::message::{Message, PublishError};
use crate::publisher::{Publisher, cancel_message, request_message, verified_message};
use file::{File, Record};

/// The settings of a spool.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The file. It is created if it doesn't exist; its directory must exist.
    pub path: PathBuf,
    /// The keys that seal the file's events, as `voice-otp keys new` prints them. Never the
    /// workers' keys, which open every tenant's credentials.
    pub keys: Keyring,
    /// How long to wait for the broker's confirm before the event goes into the file. Default: 2 s.
    pub confirm_timeout: Duration,
    /// The largest number of events in the file. When it is reached, publishing fails. Default:
    /// 100,000.
    pub max_events: u64,
}

/// Where an event is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoredIn {
    /// In the broker, confirmed.
    Broker,
    /// In the file, synced to the disk. It is published when the broker is back, unless it has
    /// expired by then.
    File,
}

/// Why an event isn't known to be stored, or the file can't be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The event can't be published, now or later.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// The file can't be opened.
    #[error("open the spool {}: {why}", .path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What happened, and what to do.
        why: &'static str,
        /// The error of the embedded database.
        #[source]
        source: Box<redb::Error>,
    },
    /// An event in the file is sealed by a key that isn't in the settings.
    #[error(
        "the spool holds events that can't be opened; add the key that sealed them, or move the \
         file away"
    )]
    Key(#[source] OpenError),
    /// The file can't be read or written.
    #[error("read or write the spool")]
    Store(#[source] Arc<redb::Error>),
    /// The file holds [`max_events`](Settings::max_events) events.
    #[error(
        "the spool is full: the event is stored neither by the broker nor in the file; send it \
         again when the broker is back"
    )]
    Full,
    /// The spool is closed.
    #[error("the spool is closed")]
    Closed,
}

/// A publisher that falls back to a file. Clones share both.
#[derive(Clone)]
pub struct Spool {
    publisher: Publisher,
    file: Arc<File>,
    appends: mpsc::Sender<Append>,
    confirm_timeout: Duration,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// An event to append to the file.
struct Append {
    record: Record,
    /// Receives the result, once the file is synced.
    result: oneshot::Sender<Result<(), Error>>,
}

/// The largest number of events that are written in one transaction, or published at once.
const MAX_BATCH: usize = 64;

impl Settings {
    /// The default settings, for this file and these keys.
    pub fn new(path: impl Into<PathBuf>, keys: Keyring) -> Self {
        Self {
            path: path.into(),
            keys,
            confirm_timeout: Duration::from_secs(2),
            max_events: 100_000,
        }
    }
}

impl Spool {
    /// Opens the file and publishes the events in it.
    ///
    /// # Errors
    /// [`Error`] when the file can't be opened: for example, another process has it open, or it
    /// holds events that another key sealed.
    pub async fn start(publisher: Publisher, settings: Settings) -> Result<Self, Error> {
        let confirm_timeout = settings.confirm_timeout;
        let file = Arc::new(blocking(move || File::open(settings)).await?);
        let (appends, receiver) = mpsc::channel(MAX_BATCH * 4);
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        tasks.spawn(append_all(Arc::clone(&file), receiver, stop.clone()));
        tasks.spawn(drain(Arc::clone(&file), publisher.clone(), stop.clone()));
        tasks.close();
        Ok(Self {
            publisher,
            file,
            appends,
            confirm_timeout,
            stop,
            tasks,
        })
    }

    /// Publishes or spools a request to read a code out.
    ///
    /// # Errors
    /// [`Error`] when the event isn't known to be stored anywhere.
    pub async fn request(&self, request: &Requested) -> Result<StoredIn, Error> {
        let message = request_message(request, self.publisher.source())?;
        self.send(message, &request.trace, Some(request.expires_at))
            .await
    }

    /// Publishes or spools a cancellation. `id` is the id of the cancellation event, not of a
    /// delivery.
    ///
    /// # Errors
    /// As for [`request`](Self::request).
    pub async fn cancel(
        &self,
        id: &str,
        cancelled: &Cancelled,
        trace: &Trace,
    ) -> Result<StoredIn, Error> {
        self.send(
            cancel_message(id, cancelled, self.publisher.source(), trace)?,
            trace,
            None,
        )
        .await
    }

    /// Publishes or spools that a code was entered. `id` is the id of the verification event, not
    /// of a delivery.
    ///
    /// # Errors
    /// As for [`request`](Self::request).
    pub async fn verified(
        &self,
        id: &str,
        verified: &Verified,
        trace: &Trace,
    ) -> Result<StoredIn, Error> {
        self.send(
            verified_message(id, verified, self.publisher.source(), trace)?,
            trace,
            None,
        )
        .await
    }

    /// The number of events in the file.
    pub fn waiting(&self) -> u64 {
        self.file.waiting.load(Ordering::SeqCst)
    }

    /// The number of events dropped since the start, because they had expired or could not be
    /// opened.
    pub fn dropped(&self) -> u64 {
        self.file.dropped.load(Ordering::SeqCst)
    }

    /// Stops the spool, for every clone. The events in the file stay there for the next start. The
    /// publisher stays open.
    pub async fn close(self) {
        let Self { stop, tasks, .. } = self;
        stop.cancel();
        tasks.wait().await;
    }

    async fn send(
        &self,
        message: Message,
        trace: &Trace,
        expires_at: Option<Timestamp>,
    ) -> Result<StoredIn, Error> {
        // A message that can never be published must not block the file.
        message.check()?;
        let record = Record::of(&message, trace, expires_at);
        if self.waiting() == 0 {
            match tokio::time::timeout(self.confirm_timeout, self.publisher.publish(message)).await
            {
                Ok(Ok(())) => return Ok(StoredIn::Broker),
                // The broker may still store it; the one from the file is a duplicate then, which
                // has no effect.
                Err(_)
                | Ok(Err(
                    PublishError::Unconfirmed(_) | PublishError::SilentQueue | PublishError::Nacked,
                )) => {}
                Ok(Err(error)) => return Err(error.into()),
            }
        }
        let (result, written) = oneshot::channel();
        self.appends
            .send(Append { record, result })
            .await
            .map_err(|_| Error::Closed)?;
        written.await.map_err(|_| Error::Closed)??;
        Ok(StoredIn::File)
    }
}

/// Runs file operations on a thread of their own, since they block.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or(Err(Error::Closed))
}

/// Writes events into the file, in batches, until every sender is gone. After `stop` is cancelled
/// it still writes the events that were already sent.
async fn append_all(
    file: Arc<File>,
    mut receiver: mpsc::Receiver<Append>,
    stop: CancellationToken,
) {
    let mut batch = Vec::with_capacity(MAX_BATCH);
    loop {
        // Cancel-safe: `recv_many` removes events only if its arm wins.
        let received = tokio::select! {
            received = receiver.recv_many(&mut batch, MAX_BATCH) => received,
            () = stop.cancelled(), if !receiver.is_closed() => {
                receiver.close();
                continue;
            }
        };
        if received == 0 {
            return;
        }
        let room = usize::try_from(
            file.max_events
                .saturating_sub(file.waiting.load(Ordering::SeqCst)),
        )
        .unwrap_or(usize::MAX);
        for refused in batch.split_off(room.min(batch.len())) {
            drop(refused.result.send(Err(Error::Full)));
        }
        let (records, results): (Vec<Record>, Vec<_>) = batch
            .drain(..)
            .map(|append| (append.record, append.result))
            .unzip();
        if records.is_empty() {
            continue;
        }
        let (writer, count) = (Arc::clone(&file), length(&records));
        // Counted before they are written, so that events sent meanwhile go into the file behind
        // them.
        file.waiting.fetch_add(count, Ordering::SeqCst);
        let written = blocking(move || writer.append(&records)).await;
        if let Err(error) = &written {
            file.waiting.fetch_sub(count, Ordering::SeqCst);
            tracing::error!(
                error = error as &dyn std::error::Error,
                "failed to write the spool"
            );
        }
        for result in results {
            let outcome = match &written {
                Ok(()) => Ok(()),
                Err(Error::Store(source)) => Err(Error::Store(Arc::clone(source))),
                Err(_) => Err(Error::Closed),
            };
            // A caller that no longer waits has dropped the receiver.
            drop(result.send(outcome));
        }
        file.added.notify_one();
    }
}

/// Publishes the events of the file, in order, until `stop` is cancelled.
async fn drain(file: Arc<File>, publisher: Publisher, stop: CancellationToken) {
    let mut failures = 0;
    loop {
        if file.waiting.load(Ordering::SeqCst) == 0 {
            // Cancel-safe: a notification that comes meanwhile is stored.
            tokio::select! {
                () = file.added.notified() => continue,
                () = stop.cancelled() => return,
            }
        }
        // Events expire by the time at which they are sent, so wait until they can be sent.
        tokio::select! {
            () = publisher.ready() => {}
            () = stop.cancelled() => return,
        }
        failures = match drain_batch(&file, &publisher, &stop).await {
            Ok(true) => 0,
            Ok(false) => failures + 1,
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "failed to read the spool; retrying"
                );
                failures + 1
            }
        };
        if failures > 0 {
            tokio::select! {
                () = tokio::time::sleep(connection::reconnect_delay(failures)) => {}
                () = stop.cancelled() => return,
            }
        }
    }
}

/// Publishes the first events of the file. Whether all of them were confirmed.
///
/// Events after an unconfirmed one may be confirmed too. They stay in the file and are published
/// again after it, so that the order holds.
async fn drain_batch(
    file: &Arc<File>,
    publisher: &Publisher,
    stop: &CancellationToken,
) -> Result<bool, Error> {
    let reader = Arc::clone(file);
    let sealed = blocking(move || reader.read_first(MAX_BATCH)).await?;
    if sealed.is_empty() {
        // The events are counted but still being written.
        tokio::select! {
            () = file.added.notified() => {}
            () = stop.cancelled() => {}
        }
        return Ok(true);
    }
    let mut finished = Vec::with_capacity(sealed.len());
    let mut in_flight = Vec::new();
    for (position, bytes) in sealed {
        let message = match file.unseal(position, &bytes) {
            Ok(record) if record.has_expired() => {
                tracing::warn!(
                    message.id = record.message_id,
                    "spooled event expired; dropped"
                );
                None
            }
            Ok(record) => record.message(),
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "spooled event can't be opened; dropped"
                );
                None
            }
        };
        let result = match message {
            Some(message) => Some(publisher.enqueue(message).await),
            None => None,
        };
        in_flight.push((position, result));
    }
    let mut dropped = 0;
    let mut all_confirmed = true;
    for (position, result) in in_flight {
        let done = match result {
            None | Some(Err(PublishError::Invalid(_))) => {
                dropped += 1;
                true
            }
            Some(Ok(confirmed)) => tokio::select! {
                result = confirmed => matches!(result, Ok(Ok(()))),
                // The broker may store it nevertheless. It is published again at the next start.
                () = stop.cancelled() => false,
            },
            Some(Err(_)) => false,
        };
        if !done {
            all_confirmed = false;
            break;
        }
        finished.push(position);
    }
    let (remover, count) = (Arc::clone(file), length(&finished));
    blocking(move || remover.remove(&finished)).await?;
    file.dropped.fetch_add(dropped, Ordering::SeqCst);
    file.waiting.fetch_sub(count, Ordering::SeqCst);
    Ok(all_confirmed)
}

#[expect(clippy::expect_used, reason = "a batch has at most MAX_BATCH items")]
fn length<T>(batch: &[T]) -> u64 {
    u64::try_from(batch.len()).expect("a batch is small")
}
