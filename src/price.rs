//! The price of a call.

/// What a call cost, as Twilio reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Price {
    /// A decimal fraction, negative because Twilio charges it: `-0.01350`.
    pub amount: String,
    /// The currency, ISO 4217.
    pub unit: String,
}
