//! The core of voice-otp: what a delivery is, and what happens to it next.
//!
//! No broker, no database, no HTTP client and no clock of its own: the outside is reached through the few traits of
//! [`ports`], so the whole pipeline runs as well on in-memory ports under a paused clock. Cargo is the firewall: this
//! package's dependencies hold none of those clients, and `./dev check` says so.
//!
//! How it hangs together:
//!
//! - [`plan`] looks at a request and the tenant's [`settings`] and says what admission should do with it.
//! - [`delivery`] is what we owe; every change of it is computed here, as a new value and the status [`event`]s that
//!   go with it, and saved by the ledger in one statement, on condition that nobody has changed it meanwhile (its
//!   `revision`). A change that lost the race is computed again on the newer value.
//! - [`failure`] classifies what went wrong with a placement and decides, in one match, what is [`failure::Next`].
//! - [`progress`] turns news of a call into the delivery's next state.
//! - [`engine`] runs it: intake in groups, placing by the [`agenda`], settling, following up, publishing statuses.

pub mod account;
pub mod agenda;
pub mod answer;
pub mod batch;
pub mod bulkhead;
pub mod circuit;
pub mod clock;
pub mod delivery;
pub mod dice;
pub mod due;
pub mod engine;
pub mod event;
pub mod failure;
pub mod gate;
pub mod plan;
pub mod policy;
pub mod ports;
pub mod progress;
pub mod settings;
pub mod spacing;
pub mod speech;
pub mod tuning;

pub use tuning::Tuning;
