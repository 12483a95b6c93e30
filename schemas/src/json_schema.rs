//! The JSON Schema (2020-12) of each event, generated from the types.
//!
//! The documents stand in `schemas/json/`; a test holds them current. To write them anew after a change:
//! `VOICE_OTP_BLESS=1 cargo test -p voice-otp-schemas`.

use schemars::{JsonSchema, generate::SchemaSettings};
use serde_json::{Value, json};

use crate::price::{PRICE, PriceEvent};
use crate::request::{CANCELLED, REQUESTED, VERIFIED};
use crate::status::{STATUS, StatusEvent};
use crate::{Context, DeliveryId, Extension, Locale, OtpCode, PhoneNumber, TenantId, UserRef};

/// One event's document.
pub struct Document {
    /// The file's name in `schemas/json/`.
    pub file: &'static str,
    /// The document.
    pub schema: Value,
}

/// The documents of all events.
pub fn documents() -> Vec<Document> {
    let one_of = |names: [&str; 2]| json!([{ "required": [names[0]] }, { "required": [names[1]] }]);
    let mut requested = event::<RequestedEvent>(REQUESTED);
    within(
        &mut requested,
        "/$defs/RequestedData",
        "oneOf",
        one_of(["code", "sealed_code"]),
    );
    let mut cancelled = event::<CancelledEvent>(CANCELLED);
    within(
        &mut cancelled,
        "/$defs/CancelledData",
        "oneOf",
        one_of(["delivery_id", "user_ref"]),
    );
    vec![
        Document {
            file: "delivery.requested.v1.json",
            schema: requested,
        },
        Document {
            file: "delivery.cancelled.v1.json",
            schema: cancelled,
        },
        Document {
            file: "delivery.verified.v1.json",
            schema: event::<VerifiedEvent>(VERIFIED),
        },
        Document {
            file: "delivery.status.v1.json",
            schema: event::<StatusEvent>(STATUS),
        },
        Document {
            file: "delivery.price.v1.json",
            schema: event::<PriceEvent>(PRICE),
        },
    ]
}

fn event<E: JsonSchema>(kind: &str) -> Value {
    let schema = SchemaSettings::draft2020_12()
        .into_generator()
        .into_root_schema_for::<E>();
    let mut value = schema.to_value();
    within(
        &mut value,
        "",
        "$id",
        json!(format!(
            "https://voiceotp.dev/schemas/{}.json",
            kind.trim_start_matches("dev.voiceotp.")
        )),
    );
    within(&mut value, "", "title", json!(kind));
    within(
        &mut value,
        "/properties",
        "specversion",
        json!({ "const": "1.0" }),
    );
    within(&mut value, "/properties", "type", json!({ "const": kind }));
    value
}

/// Puts a member into the object at a place.
fn within(schema: &mut Value, place: &str, name: &str, member: Value) {
    if let Some(object) = schema.pointer_mut(place).and_then(Value::as_object_mut) {
        object.insert(name.to_owned(), member);
    }
}

macro_rules! request_event {
    ($event:ident, $id:ty, $data:ty, $doc:literal) => {
        #[doc = $doc]
        #[derive(JsonSchema)]
        #[expect(dead_code, reason = "only its shape is used, for the schema")]
        struct $event {
            /// Always `1.0`.
            specversion: String,
            /// The event's id. Of a request it is the delivery id.
            id: $id,
            /// Who publishes: a URI reference.
            #[schemars(length(min = 1, max = 256))]
            source: String,
            /// The event's type.
            r#type: String,
            /// When it happened, RFC 3339. Timings in statuses count from it.
            #[schemars(extend("format" = "date-time"))]
            time: Option<String>,
            /// `application/json`, if given.
            datacontenttype: Option<String>,
            /// What it says.
            data: $data,
        }
    };
}

request_event!(
    RequestedEvent,
    DeliveryId,
    RequestedData,
    "Read this code to this number."
);
request_event!(
    CancelledEvent,
    EventId,
    CancelledData,
    "Take back what has not been heard yet."
);
request_event!(
    VerifiedEvent,
    EventId,
    VerifiedData,
    "The code was entered."
);

/// The id of an event that isn't a delivery's.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "only its shape is used, for the schema")]
struct EventId(#[schemars(length(min = 1, max = 256))] String);

#[derive(JsonSchema)]
#[expect(dead_code, reason = "only its shape is used, for the schema")]
struct RequestedData {
    tenant_id: TenantId,
    to: PhoneNumber,
    code: Option<OtpCode>,
    /// A libsodium sealed box, so that the broker never holds a code. Rejected with `sealed_code_unsupported` so far.
    sealed_code: Option<SealedCode>,
    /// When the code is worth nothing any more: RFC 3339, at most one hour ahead.
    #[schemars(extend("format" = "date-time"))]
    expires_at: String,
    locale: Option<Locale>,
    user_ref: Option<UserRef>,
    extension: Option<Extension>,
    context: Option<Context>,
}

#[derive(JsonSchema)]
#[expect(dead_code, reason = "only its shape is used, for the schema")]
struct SealedCode {
    /// Which key sealed it.
    key_id: String,
    /// The box, base64.
    #[schemars(rename = "box")]
    sealed: String,
}

#[derive(JsonSchema)]
#[expect(dead_code, reason = "only its shape is used, for the schema")]
struct CancelledData {
    tenant_id: TenantId,
    delivery_id: Option<DeliveryId>,
    user_ref: Option<UserRef>,
}

#[derive(JsonSchema)]
#[expect(dead_code, reason = "only its shape is used, for the schema")]
struct VerifiedData {
    tenant_id: TenantId,
    delivery_id: DeliveryId,
}
