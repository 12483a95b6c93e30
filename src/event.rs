//! Status events, rendered once: what is stored in the outbox is what is published, byte for byte.

use voice_otp_schemas::Timestamp;
use voice_otp_schemas::envelope::Trace;
use voice_otp_schemas::price::{PRICE, PriceData, PriceEvent};
use voice_otp_schemas::request::rfc3339;
use voice_otp_schemas::status::{STATUS, Status, StatusData, StatusEvent};

use crate::delivery::Key;

/// An event, ready to be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The delivery it is about.
    pub key: Key,
    /// Its place among the delivery's statuses, from 1; of a price, which placement of a call it is for.
    pub sequence: u32,
    /// The status; none of a price.
    pub status: Option<Status>,
    /// The routing key.
    pub routing_key: String,
    /// The event in structured mode.
    pub body: String,
    /// The trace context to publish it with.
    pub trace: Trace,
}

impl Event {
    /// Renders an event.
    pub fn new(now: Timestamp, data: StatusData, trace: &Trace) -> Self {
        let key = Key {
            tenant_id: data.tenant_id.clone(),
            delivery_id: data.delivery_id.clone(),
        };
        let (sequence, status) = (data.sequence, data.status);
        let event = StatusEvent::new(rfc3339(now), data);
        Self {
            key,
            sequence,
            status: Some(status),
            routing_key: event.routing_key(),
            // A struct of strings and numbers always has a JSON form.
            body: serde_json::to_string(&event).unwrap_or_default(),
            trace: trace.clone(),
        }
    }

    /// Renders what a call cost.
    pub fn price(now: Timestamp, data: PriceData) -> Self {
        let key = Key {
            tenant_id: data.tenant_id.clone(),
            delivery_id: data.delivery_id.clone(),
        };
        let sequence = data.attempt;
        let event = PriceEvent::new(rfc3339(now), data);
        Self {
            key,
            sequence,
            status: None,
            routing_key: event.routing_key(),
            body: serde_json::to_string(&event).unwrap_or_default(),
            trace: Trace::default(),
        }
    }

    /// The message id: unique, and the same when the event is published again.
    pub fn message_id(&self) -> String {
        match self.status {
            Some(_) => format!("{}/{}", self.key, self.sequence),
            None => format!("{}/price/{}", self.key, self.sequence),
        }
    }

    /// The event's type.
    pub fn kind(&self) -> &'static str {
        if self.status.is_some() { STATUS } else { PRICE }
    }

    /// Whether it is the delivery's final status.
    pub fn is_final(&self) -> bool {
        self.status.is_some_and(Status::is_final)
    }

    /// Fills in what only the ledger's admission knows.
    #[must_use]
    pub fn filled(mut self, due_at: Timestamp, wait_ms: i64) -> Self {
        self.body = fill(&self.body, due_at, wait_ms);
        self
    }
}

/// Where the slot's time goes: with its quotes no string of a request can hold it, since a control character and a
/// quote are escaped otherwise there.
pub const DUE_AT: &str = "\u{1}due_at";
/// Where the wait in milliseconds goes: with its member's name no string can hold it.
pub const WAIT_MS: i64 = i64::MIN + 1;

/// The ledger does the same to what it stores.
fn fill(body: &str, due_at: Timestamp, wait_ms: i64) -> String {
    body.replace(r#""\u0001due_at""#, &format!("\"{}\"", rfc3339(due_at)))
        .replace(
            &format!("\"estimated_wait_ms\":{WAIT_MS}"),
            &format!("\"estimated_wait_ms\":{wait_ms}"),
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_marks_are_filled_in_and_cannot_be_forged() {
        let forged = format!(r#"\u0001due_at "\u0001due_at" "estimated_wait_ms":{WAIT_MS}"#);
        let body = serde_json::json!({ "due_at": DUE_AT, "estimated_wait_ms": WAIT_MS, "context": forged }).to_string();
        let due_at = chrono::DateTime::from_timestamp_millis(1_769_860_800_123).unwrap();
        let filled: serde_json::Value = serde_json::from_str(&fill(&body, due_at, 42)).unwrap();
        let wanted = serde_json::json!({ "due_at": "2026-01-31T12:00:00.123Z", "estimated_wait_ms": 42, "context": forged });
        assert_eq!(filled, wanted);
    }
}
