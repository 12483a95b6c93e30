//! The spool's file: an embedded database of events, ordered by position. Each event is sealed for
//! its position.

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
use crate::clock;
use crate::message::Message;
use crate::publisher::{event_message, kind_of};

/// The open file, with counters that are kept in memory.
pub(super) struct File {
    database: Database,
    keys: Keyring,
    /// The limit of `waiting`.
    pub(super) max_events: u64,
    /// The number of events in the file, including a batch that is being written.
    pub(super) waiting: AtomicU64,
    /// The number of events dropped since the start: expired, or impossible to open.
    pub(super) dropped: AtomicU64,
    /// Notified after each batch that is written.
    pub(super) added: Notify,
}

/// An event and its position.
pub(super) type SealedEvent = (u64, Vec<u8>);

/// An event as the file stores it, before sealing.
#[derive(Serialize, Deserialize)]
pub(super) struct Record {
    routing_key: String,
    pub(super) message_id: String,
    traceparent: Option<String>,
    tracestate: Option<String>,
    /// Milliseconds since 1970. `None`: the event never expires.
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
            // Events are JSON, which is UTF-8, so the conversion loses nothing.
            body: Zeroizing::new(String::from_utf8_lossy(&message.body).into_owned()),
        }
    }

    /// The message to publish. `None` for a type of event that this version doesn't know.
    pub(super) fn message(self) -> Option<Message> {
        let kind = kind_of(&self.routing_key)?;
        let trace = Trace {
            traceparent: self.traceparent,
            tracestate: self.tracestate,
        };
        event_message(
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
            .is_some_and(|at| at <= clock::now().timestamp_millis())
    }
}

impl File {
    /// Opens the file, or creates it, and checks that every event in it can be opened.
    pub(super) fn open(settings: Settings) -> Result<Self, Error> {
        let database = open_database(&settings.path)?;
        let count_events = || -> Result<u64, redb::Error> {
            let write = database.begin_write()?;
            let count = write.open_table(EVENTS)?.len()?;
            write.commit()?;
            Ok(count)
        };
        let waiting = count_events().map_err(store_error)?;
        let file = Self {
            keys: settings.keys,
            max_events: settings.max_events,
            waiting: AtomicU64::new(waiting),
            dropped: AtomicU64::new(0),
            added: Notify::new(),
            database,
        };
        // A missing key fails the start, when an operator is watching, and not later, when the
        // broker is back and the events would be dropped.
        for (position, bytes) in file.read_first(usize::MAX)? {
            if let Err(error @ OpenError::UnknownKey(_)) = file.unseal(position, &bytes) {
                return Err(Error::Key(error));
            }
        }
        Ok(file)
    }

    /// Appends events in one transaction, synced to the disk.
    pub(super) fn append(&self, records: &[Record]) -> Result<(), Error> {
        let write_all = || -> Result<(), redb::Error> {
            let write = self.database.begin_write()?;
            {
                let mut table = write.open_table(EVENTS)?;
                let mut position = table.last()?.map_or(0, |(position, _)| position.value());
                for record in records {
                    position += 1;
                    table.insert(position, self.seal(position, record).as_slice())?;
                }
            }
            write.commit()?;
            Ok(())
        };
        write_all().map_err(store_error)
    }

    /// The first events, at most `limit`, still sealed.
    pub(super) fn read_first(&self, limit: usize) -> Result<Vec<SealedEvent>, Error> {
        let read = || -> Result<Vec<SealedEvent>, redb::Error> {
            let table = self.database.begin_read()?.open_table(EVENTS)?;
            table
                .iter()?
                .take(limit)
                .map(|entry| {
                    entry.map(|(position, bytes)| (position.value(), bytes.value().to_vec()))
                })
                .map(|entry| entry.map_err(redb::Error::from))
                .collect()
        };
        read().map_err(store_error)
    }

    /// Removes the events at these positions, in one transaction.
    pub(super) fn remove(&self, positions: &[u64]) -> Result<(), Error> {
        let remove_all = || -> Result<(), redb::Error> {
            let write = self.database.begin_write()?;
            {
                let mut table = write.open_table(EVENTS)?;
                for position in positions {
                    table.remove(position)?;
                }
            }
            write.commit()?;
            Ok(())
        };
        remove_all().map_err(store_error)
    }

    /// One byte with the length of the key's id, the id, then the sealed record.
    #[expect(
        clippy::expect_used,
        reason = "a struct of strings and numbers has a JSON form, and a key's id at most 32 bytes"
    )]
    fn seal(&self, position: u64, record: &Record) -> Vec<u8> {
        let json = serde_json::to_vec(record).expect("a record has a JSON form");
        let sealed = self.keys.seal(&seal_place(position), &Zeroizing::new(json));
        let length = u8::try_from(sealed.key_id.len()).expect("a key id has at most 32 bytes");
        [&[length], sealed.key_id.as_bytes(), &sealed.sealed].concat()
    }

    /// The inverse of [`seal`](Self::seal).
    pub(super) fn unseal(&self, position: u64, bytes: &[u8]) -> Result<Record, OpenError> {
        let malformed = || OpenError::Unauthentic("?".to_owned());
        let (length, rest) = bytes.split_first().ok_or_else(malformed)?;
        let (key_id, sealed) = rest
            .split_at_checked(usize::from(*length))
            .ok_or_else(malformed)?;
        let key_id = std::str::from_utf8(key_id).map_err(|_| malformed())?;
        let text = self.keys.open(&seal_place(position), key_id, sealed)?;
        serde_json::from_slice(&text).map_err(|_| malformed())
    }
}

/// The place that a record is sealed for. A record opens only at its own position, so records can't
/// be reordered by changing the file.
fn seal_place(position: u64) -> String {
    format!("spool/{position}")
}

fn open_database(path: &Path) -> Result<Database, Error> {
    let failed = |error: redb::DatabaseError| {
        let why = match &error {
            redb::DatabaseError::DatabaseAlreadyOpen => {
                "another process has it open; give each process a file of its own"
            }
            redb::DatabaseError::Storage(redb::StorageError::Io(_)) => {
                "create its directory, and let this process write in it"
            }
            _ => "it is damaged or not a spool; move it away to start with an empty one",
        };
        Error::Open {
            path: path.to_owned(),
            why,
            source: Box::new(error.into()),
        }
    };
    Database::create(path).map_err(failed)
}

fn store_error(error: redb::Error) -> Error {
    Error::Store(Arc::new(error))
}
