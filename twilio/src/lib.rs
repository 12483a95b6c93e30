//! Twilio's side of voice-otp.
//!
//! - [`client`]: the part of Twilio's REST API (2010-04-01) that placing and following calls needs.
//! - [`account`]: what Twilio says of an account.
//! - [`check`]: whether a tenant's settings can work.
//! - [`catalogue`]: what Twilio's error codes mean for us, and what to tell the tenant and the operator.
//! - [`twiml`]: what is said in a call, as `TwiML`.
//! - [`signature`]: whether a callback is Twilio's.
//! - [`callback`]: what a status callback says.
//! - [`simulator`]: Twilio's HTTP surface for this job, to develop and test against.

pub mod account;
pub mod callback;
pub mod catalogue;
pub mod check;
pub mod client;
pub mod signature;
pub mod simulator;
pub mod twiml;
