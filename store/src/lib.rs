//! Postgres for voice-otp: migrations, voice settings, deliveries, rate limits, the outbox, access
//! tokens, and the sealing of secrets.
//!
//! Postgres owns deliveries. Every write is one statement with a `lock_timeout`, so that a locked
//! row delays its own deliveries only. The time is always the database's, read after the locks.
//! Numbers, codes and Twilio's secrets are sealed before they get here ([`keys`]) and compared by
//! keyed hashes.
//!
//! The SQL is in `store/migrations` (tables), `store/sql/functions` and `store/sql/statements`;
//! `store/sql/README.md` has the rules for changing it.

pub mod access;
pub mod accounts;
pub mod audit;
pub mod connect;
pub mod directory;
mod error;
pub mod grants;
mod health;
pub mod history;
pub mod ledger;
pub mod migrate;
pub mod pool;
pub mod pooler;
mod query;
pub mod server_checks;
pub mod settings;
mod sqlstate;
pub mod test_calls;
mod timeline;
mod tls;
pub mod url;
pub mod workers;

pub use directory::Directory;
pub use error::Error;
pub use health::Health;
pub use ledger::PgLedger;
pub use pool::{Pool, connect, connect_worker};
pub use url::DatabaseUrl;
pub use voice_otp_schemas::keys::{self, Keyring};
