//! A local file that keeps events through an outage of the broker, and sends them after it, in order.
//!
//! An event goes to the broker while that confirms in time. One that isn't confirmed goes into the file, and so does
//! everything after it until the file is empty again: so what was sent first arrives first. Nothing is reported before
//! it is either confirmed by the broker or synced to the disk, and the answer says which ([`Kept`]). What has expired
//! by the time the broker is back is dropped and counted: nobody wants a call that rings an hour late.
//!
//! Events hold codes and numbers, so the file holds them sealed. One process has a file at a time.

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

use crate::link;
use crate::message::{Message, PublishError};
use crate::publisher::{Publisher, cancel_message, request_message, verified_message};
use file::{File, Record};

/// How to spool.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The file; made where there is none.
    pub path: PathBuf,
    /// What seals the file's events: `id:base64 of 32 bytes`, as `voice-otp keys new` prints it. Not the workers' keys.
    pub keys: Keyring,
    /// How long a confirm is waited for before an event goes into the file; 2 s by default.
    pub patience: Duration,
    /// The most events in the file; 100,000 by default. Beyond, publishing fails.
    pub most_events: u64,
}

/// Where an event is safe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// With the broker, confirmed.
    Broker,
    /// In the file, synced to the disk: it is sent once the broker is back, unless it expires before.
    File,
}

/// Why an event is not known to be safe, or the file can't be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It can't be published, now or later.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// The file can't be opened.
    #[error("open the spool {}: {why}", .path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What to look for.
        why: &'static str,
        /// What the store says.
        #[source]
        source: Box<redb::Error>,
    },
    /// An event in the file was sealed by a key that isn't here.
    #[error(
        "the spool holds events that can't be opened: give the key they were sealed with, or take the file away"
    )]
    Key(#[source] OpenError),
    /// The file can't be read or written.
    #[error("use the spool")]
    Store(#[source] Arc<redb::Error>),
    /// The file holds as many events as it may.
    #[error("the spool is full: the event is neither with the broker nor in the file")]
    Full,
    /// The spool has been closed.
    #[error("the spool has been closed")]
    Closed,
}

/// A publisher with a file behind it. Clones share both.
#[derive(Clone)]
pub struct Spool {
    publisher: Publisher,
    file: Arc<File>,
    appends: mpsc::Sender<Append>,
    patience: Duration,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// An event on its way into the file, and whom to answer.
struct Append {
    record: Record,
    answer: oneshot::Sender<Result<(), Error>>,
}

/// The most events that are written, or sent, at once.
const GROUP: usize = 64;

impl Settings {
    /// Settings with defaults.
    pub fn new(path: impl Into<PathBuf>, keys: Keyring) -> Self {
        Self {
            path: path.into(),
            keys,
            patience: Duration::from_secs(2),
            most_events: 100_000,
        }
    }
}

impl Spool {
    /// Opens the file and sends what it still holds.
    ///
    /// # Errors
    /// [`Error`] when the file can't be opened: another process has it, or it holds events of another key.
    pub async fn start(publisher: Publisher, settings: Settings) -> Result<Self, Error> {
        let patience = settings.patience;
        let file = Arc::new(blocking(move || File::open(settings)).await?);
        let (appends, receiver) = mpsc::channel(GROUP * 4);
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        tasks.spawn(append_all(Arc::clone(&file), receiver, stop.clone()));
        tasks.spawn(drain(Arc::clone(&file), publisher.clone(), stop.clone()));
        tasks.close();
        Ok(Self {
            publisher,
            file,
            appends,
            patience,
            stop,
            tasks,
        })
    }

    /// Publishes or keeps a request to read a code out.
    ///
    /// # Errors
    /// [`Error`]: it is nowhere, or not known to be anywhere.
    pub async fn request(&self, request: &Requested) -> Result<Kept, Error> {
        let message = request_message(request, self.publisher.source())?;
        self.send(message, &request.trace, Some(request.expires_at))
            .await
    }

    /// Publishes or keeps the taking back of requests. `id` is the event's own.
    ///
    /// # Errors
    /// As for [`request`](Self::request).
    pub async fn cancel(
        &self,
        id: &str,
        cancelled: &Cancelled,
        trace: &Trace,
    ) -> Result<Kept, Error> {
        self.send(
            cancel_message(id, cancelled, self.publisher.source(), trace)?,
            trace,
            None,
        )
        .await
    }

    /// Publishes or keeps that a code was entered. `id` is the event's own.
    ///
    /// # Errors
    /// As for [`request`](Self::request).
    pub async fn verified(
        &self,
        id: &str,
        verified: &Verified,
        trace: &Trace,
    ) -> Result<Kept, Error> {
        self.send(
            verified_message(id, verified, self.publisher.source(), trace)?,
            trace,
            None,
        )
        .await
    }

    /// How many events wait in the file.
    pub fn waiting(&self) -> u64 {
        self.file.waiting.load(Ordering::SeqCst)
    }

    /// How many events were dropped since the start, because they had expired or couldn't be opened any more.
    pub fn dropped(&self) -> u64 {
        self.file.dropped.load(Ordering::SeqCst)
    }

    /// Stops sending, for every clone. What waits stays in the file for the next start. The publisher is left open.
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
    ) -> Result<Kept, Error> {
        // What the broker could never take must not stand in front of what it could.
        message.check()?;
        let record = Record::of(&message, trace, expires_at);
        if self.waiting() == 0 {
            match tokio::time::timeout(self.patience, self.publisher.publish(message)).await {
                Ok(Ok(())) => return Ok(Kept::Broker),
                // It may still arrive by itself; then the one from the file is a repeat, which does no harm.
                Err(_) | Ok(Err(PublishError::Unconfirmed(_) | PublishError::Refused)) => {}
                Ok(Err(error)) => return Err(error.into()),
            }
        }
        let (answer, answered) = oneshot::channel();
        self.appends
            .send(Append { record, answer })
            .await
            .map_err(|_| Error::Closed)?;
        answered.await.map_err(|_| Error::Closed)??;
        Ok(Kept::File)
    }
}

/// The file is read and written off the runtime's threads.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or(Err(Error::Closed))
}

/// Writes events into the file, a group at a time, until there will be none, or told to stop: then what has come is still written.
async fn append_all(
    file: Arc<File>,
    mut receiver: mpsc::Receiver<Append>,
    stop: CancellationToken,
) {
    let mut group = Vec::with_capacity(GROUP);
    loop {
        // Cancel-safe: events are only taken by the arm that wins.
        let got = tokio::select! {
            got = receiver.recv_many(&mut group, GROUP) => got,
            () = stop.cancelled(), if !receiver.is_closed() => {
                receiver.close();
                continue;
            }
        };
        if got == 0 {
            return;
        }
        let room = usize::try_from(
            file.most
                .saturating_sub(file.waiting.load(Ordering::SeqCst)),
        )
        .unwrap_or(usize::MAX);
        for refused in group.split_off(room.min(group.len())) {
            drop(refused.answer.send(Err(Error::Full)));
        }
        let (records, answers): (Vec<Record>, Vec<_>) = group
            .drain(..)
            .map(|append| (append.record, append.answer))
            .unzip();
        if records.is_empty() {
            continue;
        }
        let (writer, count) = (Arc::clone(&file), records.len());
        // Before the writing: whoever asks meanwhile must queue behind these.
        file.waiting
            .fetch_add(u64::try_from(count).unwrap_or(0), Ordering::SeqCst);
        let written = blocking(move || writer.append(&records)).await;
        if let Err(error) = &written {
            file.waiting
                .fetch_sub(u64::try_from(count).unwrap_or(0), Ordering::SeqCst);
            tracing::error!(
                error = error as &dyn std::error::Error,
                "can't write the spool"
            );
        }
        for answer in answers {
            let told = match &written {
                Ok(()) => Ok(()),
                Err(Error::Store(source)) => Err(Error::Store(Arc::clone(source))),
                Err(_) => Err(Error::Closed),
            };
            // Who no longer waits needs no answer.
            drop(answer.send(told));
        }
        file.added.notify_one();
    }
}

/// Sends what the file holds, in order, until told to stop.
async fn drain(file: Arc<File>, publisher: Publisher, stop: CancellationToken) {
    let mut tries = 0;
    loop {
        if file.waiting.load(Ordering::SeqCst) == 0 {
            // Cancel-safe: what is added meanwhile leaves its permit.
            tokio::select! {
                () = file.added.notified() => continue,
                () = stop.cancelled() => return,
            }
        }
        // Judged by the time they are sent, not by the time they might be.
        tokio::select! {
            () = publisher.ready() => {}
            () = stop.cancelled() => return,
        }
        let sent = drain_some(&file, &publisher, &stop).await;
        tries = match sent {
            Ok(true) => 0,
            Ok(false) => tries + 1,
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "can't read the spool, trying again"
                );
                tries + 1
            }
        };
        if tries > 0 {
            tokio::select! {
                () = tokio::time::sleep(link::pause(tries)) => {}
                () = stop.cancelled() => return,
            }
        }
    }
}

/// Sends the first events; whether all of them went. Of those after one that didn't go, some may have: they are sent
/// again after it, so that the order holds.
async fn drain_some(
    file: &Arc<File>,
    publisher: &Publisher,
    stop: &CancellationToken,
) -> Result<bool, Error> {
    let reader = Arc::clone(file);
    let sealed = blocking(move || reader.first(GROUP)).await?;
    if sealed.is_empty() {
        // Counted, and just being written.
        tokio::select! {
            () = file.added.notified() => {}
            () = stop.cancelled() => {}
        }
        return Ok(true);
    }
    let mut over = Vec::with_capacity(sealed.len());
    let mut under_way = Vec::new();
    for (place, bytes) in sealed {
        let record = file.unseal(place, &bytes);
        let message = match record {
            Ok(record) if record.has_expired() => {
                tracing::warn!(
                    message.id = record.message_id,
                    "an event expired in the spool and is dropped"
                );
                None
            }
            Ok(record) => record.message(),
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "an event in the spool can't be opened and is dropped"
                );
                None
            }
        };
        let answer = match message {
            Some(message) => Some(publisher.post(message).await),
            None => None,
        };
        under_way.push((place, answer));
    }
    let mut dropped = 0;
    let mut all = true;
    for (place, answer) in under_way {
        let went = match answer {
            None | Some(Err(PublishError::Invalid(_))) => {
                dropped += 1;
                true
            }
            Some(Ok(answered)) => tokio::select! {
                answer = answered => matches!(answer, Ok(Ok(()))),
                // It may arrive all the same, and is sent again at the next start.
                () = stop.cancelled() => false,
            },
            Some(Err(_)) => false,
        };
        if !went {
            all = false;
            break;
        }
        over.push(place);
    }
    let (remover, count) = (Arc::clone(file), u64::try_from(over.len()).unwrap_or(0));
    blocking(move || remover.remove(&over)).await?;
    file.dropped.fetch_add(dropped, Ordering::SeqCst);
    file.waiting.fetch_sub(count, Ordering::SeqCst);
    Ok(all)
}
