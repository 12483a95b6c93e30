//! The vocabulary of voice-otp and its event contract.
//!
//! Everything that comes from outside becomes a type of this crate before anything else looks at it:
//! a [`TenantId`], [`DeliveryId`], [`PhoneNumber`], [`OtpCode`], [`Locale`] can only be made by parsing, so
//! code that holds one need not check it again. The secret ones don't print: [`OtpCode`] has no `Display`, a
//! redacted `Debug` and is wiped on drop, and [`PhoneNumber`] prints masked.
//!
//! The contract is CloudEvents 1.0 over AMQP 0-9-1. [`request::read`] turns a message into a
//! [`request::Incoming`] or says why it can't, without ever quoting a value of the message; [`status`] holds the
//! events that the workers emit; [`json_schema`] generates the JSON Schema documents that stand in this folder.
//! `schemas/README.md` is the contract in prose, for a reader in any language.

pub mod code;
pub mod context;
pub mod envelope;
pub mod extension;
pub mod ids;
pub mod json_schema;
#[cfg(feature = "keys")]
pub mod keys;
pub mod locale;
pub mod phone;
pub mod price;
pub mod reason;
pub mod request;
pub mod status;

pub use code::OtpCode;
pub use context::Context;
pub use extension::Extension;
pub use ids::{DeliveryId, TenantId, UserRef};
pub use locale::Locale;
pub use phone::PhoneNumber;

/// Why a value isn't what it should be. Never contains the value itself: it may be a code or a number.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refused(pub &'static str);

/// A timestamp in UTC. Comes from a message or from the database's clock, never from a worker's own.
pub type Timestamp = chrono::DateTime<chrono::Utc>;
