//! Twilio's side of voice-otp: it places and follows calls over Twilio's REST API, reads Twilio's
//! callbacks, and renders `TwiML`.
//!
//! - [`client`]: the client of the REST API (2010-04-01), the
//!   [`Telephony`](voice_otp::ports::Telephony) port.
//! - [`account`]: what Twilio reports about an account.
//! - [`check`]: checks whether a tenant's settings can work.
//! - [`catalogue`]: Twilio's error codes: the class of each, and the texts for tenant and operator.
//! - [`twiml`]: renders scripts and instructions as `TwiML`.
//! - [`signature`]: verifies that a request comes from Twilio.
//! - [`callback`]: reads status callbacks and requests for instructions.

pub mod account;
pub mod callback;
pub mod catalogue;
pub mod check;
pub mod client;
pub mod signature;
pub mod twiml;
