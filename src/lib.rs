//! The core of voice-otp: what a delivery is, and what happens to it next.
//!
//! The core has no broker client, no database client, no HTTP client and no clock of its own. It
//! reaches the outside through the traits in [`ports`], so that the whole pipeline also runs on
//! in-memory ports under a paused clock. `./dev check` fails if this crate's dependencies contain
//! one of those clients.
//!
//! - [`admission`] plans what to do with a request, from the request and the tenant's [`settings`].
//! - [`delivery`] is what we owe for a request. Every change is computed here, as a new value and
//!   the status [`event`]s that belong to it. The ledger saves it in one statement, provided that
//!   the delivery still has the `revision` that the change was computed from. Otherwise the change
//!   is computed again on the newer value.
//! - [`call`] is Twilio's side: [`call::progress`] turns an update of a call into the delivery's
//!   next state, and [`call::failure`] classifies a failed request and decides what is
//!   [`next`](call::failure::Next).
//! - [`speech`] writes the scripts that calls play, in every supported language.
//! - [`engine`] runs the pipeline: intake, placing, settling, following, publishing.

pub mod account;
pub mod admission;
pub mod call;
pub mod delivery;
pub mod engine;
pub mod event;
pub mod ports;
pub mod price;
pub mod settings;
pub mod speech;
pub mod tuning;

pub use tuning::Tuning;
