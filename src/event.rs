//! Events, rendered once: the ledger stores in its outbox what is published, byte for byte.

use voice_otp_schemas::envelope::Trace;
use voice_otp_schemas::price::{PRICE, PriceData, PriceEvent};
use voice_otp_schemas::request::rfc3339;
use voice_otp_schemas::status::{STATUS, Status, StatusData, StatusEvent};
use voice_otp_schemas::{DeliveryKey, Timestamp};

/// A status event or a price event, ready to be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The delivery that the event belongs to.
    pub key: DeliveryKey,
    /// Of a status: its number among the delivery's statuses, from 1. Of a price: the number of the
    /// attempt whose call it is for, from 1.
    pub sequence: u32,
    /// The status; `None` for a price.
    pub status: Option<Status>,
    /// The routing key.
    pub routing_key: String,
    /// The event as JSON, in the structured mode of CloudEvents. Until [`Event::filled`] it may
    /// contain [`DUE_AT_MARK`] and [`WAIT_MS_MARK`].
    pub body: String,
    /// The trace context that is published with the event.
    pub trace: Trace,
}

impl Event {
    /// Renders a status event.
    pub fn new(now: Timestamp, data: StatusData, trace: &Trace) -> Self {
        let key = DeliveryKey {
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
            body: to_json(&event),
            trace: trace.clone(),
        }
    }

    /// Renders a price event. It has no trace context: the price arrives long after the request.
    pub fn price(now: Timestamp, data: PriceData) -> Self {
        let key = DeliveryKey {
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
            body: to_json(&event),
            trace: Trace::default(),
        }
    }

    /// The message id: unique, and equal whenever the event is published again, so that consumers
    /// can deduplicate.
    pub fn message_id(&self) -> String {
        match self.status {
            Some(_) => format!("{}/{}", self.key, self.sequence),
            None => format!("{}/price/{}", self.key, self.sequence),
        }
    }

    /// The CloudEvents `type`.
    pub fn kind(&self) -> &'static str {
        if self.status.is_some() { STATUS } else { PRICE }
    }

    /// Whether this is the delivery's final status.
    pub fn is_final(&self) -> bool {
        self.status.is_some_and(Status::is_final)
    }

    /// Replaces the marks in the body with the slot that the ledger reserved and the wait that it
    /// computed. The ledger does the same in SQL to the copy that it stores: `admit()` in
    /// `store/sql/functions/admit.sql`.
    #[must_use]
    pub fn filled(mut self, due_at: Timestamp, wait_ms: i64) -> Self {
        self.body = fill(&self.body, due_at, wait_ms);
        self
    }
}

/// The mark for `due_at` in an event that is rendered before the ledger has reserved a slot.
///
/// In JSON it reads `"\u0001due_at"`; the ledger replaces it, quotes included, with a quoted RFC
/// 3339 time. No text of a request can forge it: JSON escapes quotes and backslashes within a
/// string, and no field of a request may contain a control character.
pub const DUE_AT_MARK: &str = "\u{1}due_at";

/// The mark for `estimated_wait_ms` in an event that is rendered before the ledger has computed the
/// wait.
///
/// It is replaced together with the name of its member, `"estimated_wait_ms":-9223372036854775807`,
/// which no string can contain, since its quotes would be escaped.
pub const WAIT_MS_MARK: i64 = i64::MIN + 1;

/// Replaces both marks. The SQL in `admit()` must do exactly this.
fn fill(body: &str, due_at: Timestamp, wait_ms: i64) -> String {
    body.replace(r#""\u0001due_at""#, &format!("\"{}\"", rfc3339(due_at)))
        .replace(
            &format!("\"estimated_wait_ms\":{WAIT_MS_MARK}"),
            &format!("\"estimated_wait_ms\":{wait_ms}"),
        )
}

#[expect(
    clippy::expect_used,
    reason = "structs of strings and numbers always have a JSON form, and an empty body must never \
              reach the outbox"
)]
fn to_json(event: &impl serde::Serialize) -> String {
    serde_json::to_string(event).expect("an event has a JSON form")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_marks_are_filled_in_and_cannot_be_forged() {
        let forged = format!(r#"\u0001due_at "\u0001due_at" "estimated_wait_ms":{WAIT_MS_MARK}"#);
        let body = serde_json::json!({
            "due_at": DUE_AT_MARK,
            "estimated_wait_ms": WAIT_MS_MARK,
            "context": forged,
        });
        let due_at = chrono::DateTime::from_timestamp_millis(1_769_860_800_123).unwrap();
        let filled: serde_json::Value =
            serde_json::from_str(&fill(&body.to_string(), due_at, 42)).unwrap();
        let expected = serde_json::json!({
            "due_at": "2026-01-31T12:00:00.123Z",
            "estimated_wait_ms": 42,
            "context": forged,
        });
        assert_eq!(filled, expected);
    }
}
