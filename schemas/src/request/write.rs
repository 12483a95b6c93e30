//! The events as JSON, as publishers send them.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::{CANCELLED, Cancelled, REQUESTED, Requested, Target, VERIFIED, Verified};
use crate::Timestamp;

impl Requested {
    /// The event in structured mode, as publishers send it. `source` is a URI reference that names
    /// the publisher.
    pub fn to_json(&self, source: &str) -> Zeroizing<Vec<u8>> {
        let mut data = json!({
            "tenant_id": self.tenant_id,
            "to": self.to.expose(),
            "code": self.code.expose(),
            "expires_at": rfc3339(self.expires_at),
        });
        if let Some(map) = data.as_object_mut() {
            let mut put = |name: &str, value: Option<Value>| {
                value.map(|value| map.insert(name.to_owned(), value))
            };
            put("locale", self.locale.as_ref().map(|locale| json!(locale)));
            put("user_ref", self.user_ref.as_ref().map(|user| json!(user)));
            put(
                "extension",
                self.extension
                    .as_ref()
                    .map(|extension| json!(extension.expose())),
            );
            put(
                "context",
                (!self.context.is_empty()).then(|| json!(self.context)),
            );
        }
        event_json(
            REQUESTED,
            self.delivery_id.as_str(),
            source,
            self.time,
            &data,
        )
    }
}

impl Cancelled {
    /// The event in structured mode. `id` is the id of this event, not of a delivery.
    pub fn to_json(&self, id: &str, source: &str) -> Zeroizing<Vec<u8>> {
        let data = match &self.target {
            Target::Delivery(delivery) => {
                json!({ "tenant_id": self.tenant_id, "delivery_id": delivery })
            }
            Target::User(user) => json!({ "tenant_id": self.tenant_id, "user_ref": user }),
        };
        event_json(CANCELLED, id, source, self.time, &data)
    }
}

impl Verified {
    /// The event in structured mode. `id` is the id of this event, not of a delivery.
    pub fn to_json(&self, id: &str, source: &str, time: Option<Timestamp>) -> Zeroizing<Vec<u8>> {
        let data = json!({ "tenant_id": self.tenant_id, "delivery_id": self.delivery_id });
        event_json(VERIFIED, id, source, time, &data)
    }
}

fn event_json(
    kind: &str,
    id: &str,
    source: &str,
    time: Option<Timestamp>,
    data: &Value,
) -> Zeroizing<Vec<u8>> {
    let mut event = BTreeMap::from([
        ("specversion", json!("1.0")),
        ("id", json!(id)),
        ("source", json!(source)),
        ("type", json!(kind)),
        ("datacontenttype", json!("application/json")),
        ("data", data.clone()),
    ]);
    if let Some(time) = time {
        event.insert("time", json!(rfc3339(time)));
    }
    #[expect(
        clippy::expect_used,
        reason = "serialising a map of strings and JSON values can't fail"
    )]
    let json = serde_json::to_vec(&event).expect("an event has a JSON form");
    Zeroizing::new(json)
}

/// Formats a time as events carry it: RFC 3339 in UTC with milliseconds.
pub fn rfc3339(time: Timestamp) -> String {
    time.to_rfc3339_opts(chrono::SecondsFormat::Millis, true)
}
