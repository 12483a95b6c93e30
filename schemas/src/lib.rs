//! The domain types of voice-otp and its event contract.
//!
//! Every value from outside becomes a type of this crate before other code looks at it. A
//! [`TenantId`], [`DeliveryId`], [`PhoneNumber`], [`OtpCode`] or [`Locale`] can only be made by
//! parsing, so code that holds one need not check it again. Secrets don't print: [`OtpCode`] has no
//! `Display`, a redacted `Debug`, and is wiped on drop; [`PhoneNumber`] prints masked.
//!
//! The contract is CloudEvents 1.0 over AMQP 0-9-1:
//!
//! - [`request::read`] parses a message into a [`request::Incoming`], or reports why it can't. Its
//!   errors never quote a value of the message.
//! - [`status`] and [`price`] are the events that workers publish.
//! - [`json_schema`] generates the JSON Schema documents in `schemas/json/`.
//!
//! `schemas/README.md` is the contract in prose, for readers in any language.

pub mod code;
pub mod context;
mod delivery_key;
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
pub use delivery_key::DeliveryKey;
pub use extension::Extension;
pub use ids::{DeliveryId, TenantId, UserRef};
pub use locale::Locale;
pub use phone::PhoneNumber;

/// Why a value is invalid: what it must be. The text completes "FIELD must be". It never contains
/// the value itself, which may be a code or a number.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refused(pub &'static str);

/// A moment in UTC. It comes from a message or from the database's clock, never from a worker's own
/// clock.
pub type Timestamp = chrono::DateTime<chrono::Utc>;
