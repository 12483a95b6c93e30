//! The file: events by their place, each sealed and bound to it, in an embedded database.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use redb::{
    Database, ReadableDatabase as _, ReadableTable as _, ReadableTableMetadata as _,
    TableDefinition,
};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use voice_otp_schemas::Timestamp;
use voice_otp_schemas::envelope::Trace;
use voice_otp_schemas::keys::{Keyring, OpenError};
use zeroize::Zeroizing;

use super::{Error, Settings};
use crate::message::Message;
use crate::publisher::{event, kind_of};

/// The file, and what is known of it without reading.
pub(super) struct File {
    database: Database,
    keys: Keyring,
    pub(super) most: u64,
    /// Events in the file.
    pub(super) waiting: AtomicU64,
    /// Events that expired in it, or could not be opened any more.
    pub(super) dropped: AtomicU64,
    pub(super) added: Notify,
}

/// An event as the file has it.
#[derive(Serialize, Deserialize)]
pub(super) struct Record {
    routing_key: String,
    pub(super) message_id: String,
    traceparent: Option<String>,
    tracestate: Option<String>,
    /// Milliseconds since 1970; none: it never expires.
    expires_at_ms: Option<i64>,
    body: Zeroizing<String>,
}

const EVENTS: TableDefinition<'static, u64, &[u8]> = TableDefinition::new("events");
impl Record {
    pub(super) fn of(message: &Message, trace: &Trace, expires_at: Option<Timestamp>) -> Self {
        Self {
            routing_key: message.routing_key.clone(),
            message_id: message.message_id.clone(),
            traceparent: trace.traceparent.clone(),
            tracestate: trace.tracestate.clone(),
            expires_at_ms: expires_at.map(|at| at.timestamp_millis()),
            // Events are JSON, so nothing is lost.
            body: Zeroizing::new(String::from_utf8_lossy(&message.body).into_owned()),
        }
    }

    /// The event as it was going to be published. None for one that this program doesn't know.
    pub(super) fn message(self) -> Option<Message> {
        let kind = kind_of(&self.routing_key)?;
        let trace = Trace {
            traceparent: self.traceparent,
            tracestate: self.tracestate,
        };
        event(
            self.routing_key.clone(),
            kind,
            self.message_id,
            Zeroizing::new(self.body.as_bytes().to_vec()),
            &trace,
        )
        .ok()
    }

    pub(super) fn has_expired(&self) -> bool {
        self.expires_at_ms
            .is_some_and(|at| at <= now().timestamp_millis())
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a publisher's clock is its machine's"
)]
fn now() -> Timestamp {
    std::time::SystemTime::now().into()
}

impl File {
    pub(super) fn open(settings: Settings) -> Result<Self, Error> {
        let database = make(&settings.path)?;
        let creating = || -> Result<u64, redb::Error> {
            let write = database.begin_write()?;
            let count = write.open_table(EVENTS)?.len()?;
            write.commit()?;
            Ok(count)
        };
        let waiting = creating().map_err(store)?;
        let file = Self {
            keys: settings.keys,
            most: settings.most_events,
            waiting: AtomicU64::new(waiting),
            dropped: AtomicU64::new(0),
            added: Notify::new(),
            database,
        };
        // Better now than when the broker is back and nobody looks.
        for (place, bytes) in file.first(usize::MAX)? {
            if let Err(error @ OpenError::UnknownKey(_)) = file.unseal(place, &bytes) {
                return Err(Error::Key(error));
            }
        }
        Ok(file)
    }

    /// Writes a group in one transaction, synced to the disk.
    pub(super) fn append(&self, records: &[Record]) -> Result<(), Error> {
        let writing = || -> Result<(), redb::Error> {
            let write = self.database.begin_write()?;
            {
                let mut table = write.open_table(EVENTS)?;
                let mut place = table.last()?.map_or(0, |(place, _)| place.value());
                for record in records {
                    place += 1;
                    table.insert(place, self.seal(place, record).as_slice())?;
                }
            }
            write.commit()?;
            Ok(())
        };
        writing().map_err(store)
    }

    /// The first events and their places, still sealed.
    pub(super) fn first(&self, most: usize) -> Result<Vec<(u64, Vec<u8>)>, Error> {
        let reading = || -> Result<Vec<(u64, Vec<u8>)>, redb::Error> {
            let table = self.database.begin_read()?.open_table(EVENTS)?;
            table
                .iter()?
                .take(most)
                .map(|entry| entry.map(|(place, bytes)| (place.value(), bytes.value().to_vec())))
                .map(|entry| entry.map_err(redb::Error::from))
                .collect()
        };
        reading().map_err(store)
    }

    pub(super) fn remove(&self, places: &[u64]) -> Result<(), Error> {
        let removing = || -> Result<(), redb::Error> {
            let write = self.database.begin_write()?;
            {
                let mut table = write.open_table(EVENTS)?;
                for place in places {
                    table.remove(place)?;
                }
            }
            write.commit()?;
            Ok(())
        };
        removing().map_err(store)
    }

    /// The key's id, its length before it, then the sealed record.
    fn seal(&self, place: u64, record: &Record) -> Vec<u8> {
        // A struct of strings and numbers always has a JSON form.
        let text = Zeroizing::new(serde_json::to_vec(record).unwrap_or_default());
        let sealed = self.keys.seal(&belongs_to(place), &text);
        // A key's id has 32 bytes at most.
        let length = u8::try_from(sealed.key_id.len()).unwrap_or_default();
        [&[length], sealed.key_id.as_bytes(), &sealed.sealed].concat()
    }

    pub(super) fn unseal(&self, place: u64, bytes: &[u8]) -> Result<Record, OpenError> {
        let broken = || OpenError::Broken("?".to_owned());
        let (length, rest) = bytes.split_first().ok_or_else(broken)?;
        let (key_id, sealed) = rest
            .split_at_checked(usize::from(*length))
            .ok_or_else(broken)?;
        let key_id = std::str::from_utf8(key_id).map_err(|_| broken())?;
        let text = self.keys.open(&belongs_to(place), key_id, sealed)?;
        serde_json::from_slice(&text).map_err(|_| broken())
    }
}

/// A record opens only in its own place, so that nobody shuffles the file.
fn belongs_to(place: u64) -> String {
    format!("spool/{place}")
}

fn make(path: &Path) -> Result<Database, Error> {
    let failed = |error: redb::DatabaseError| {
        let why = match &error {
            redb::DatabaseError::DatabaseAlreadyOpen => {
                "another process has it; give each process a file of its own"
            }
            redb::DatabaseError::Storage(redb::StorageError::Io(_)) => {
                "is the directory there, and may this process write in it?"
            }
            _ => "it is damaged, or not a spool",
        };
        Error::Open {
            path: path.to_owned(),
            why,
            source: Box::new(error.into()),
        }
    };
    Database::create(path).map_err(failed)
}

fn store(error: redb::Error) -> Error {
    Error::Store(Arc::new(error))
}
