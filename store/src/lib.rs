//! Postgres' side of voice-otp: migrations, voice settings, deliveries, pacing, outbox, sealing of secrets.
//!
//! Postgres owns deliveries. Every write here is one statement, with `lock_timeout`, so a locked row stops nobody for
//! long, and the time is always the database's, read after the locks. Numbers, codes and Twilio's secrets are sealed
//! before they get here ([`keys`]), and compared by keyed hashes.

pub mod access;
pub mod accounts;
pub mod audit;
pub mod directory;
pub mod history;
pub mod ledger;
pub mod migrate;
pub mod pool;
pub mod settings;
pub mod test_calls;

pub use directory::Directory;
pub use ledger::PgLedger;
pub use pool::{Pool, connect, connect_worker};
pub use voice_otp_schemas::keys::{self, Keyring};
