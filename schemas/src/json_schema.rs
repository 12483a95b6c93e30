//! The JSON Schema (2020-12) document of each event, generated from the types.
//!
//! `schemas/json/` has the documents, and a test compares them. To update them after a change:
//! `VOICE_OTP_BLESS=1 cargo test -p voice-otp-schemas`.

use schemars::{JsonSchema, generate::SchemaSettings};
use serde_json::{Value, json};

use crate::price::{PRICE, PriceEvent};
use crate::request::{CANCELLED, REQUESTED, VERIFIED};
use crate::status::{STATUS, StatusEvent};
use crate::{Context, DeliveryId, Extension, Locale, OtpCode, PhoneNumber, TenantId, UserRef};

/// The document of one event.
pub struct Document {
    /// The name of its file in `schemas/json/`.
    pub file: &'static str,
    /// The JSON Schema.
    pub schema: Value,
}

/// The documents of all events.
pub fn documents() -> Vec<Document> {
    let one_of = |names: [&str; 2]| json!([{ "required": [names[0]] }, { "required": [names[1]] }]);
    let mut requested = event::<RequestedEvent>(REQUESTED);
    insert(
        &mut requested,
        "/$defs/RequestedData",
        "oneOf",
        one_of(["code", "sealed_code"]),
    );
    let mut cancelled = event::<CancelledEvent>(CANCELLED);
    insert(
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
    join_description_lines(&mut value);
    insert(
        &mut value,
        "",
        "$id",
        json!(format!(
            "https://voiceotp.dev/schemas/{}.json",
            kind.trim_start_matches("dev.voiceotp.")
        )),
    );
    insert(&mut value, "", "title", json!(kind));
    insert(
        &mut value,
        "/properties",
        "specversion",
        json!({ "const": "1.0" }),
    );
    insert(&mut value, "/properties", "type", json!({ "const": kind }));
    value
}

/// Joins the lines of each description: they are the lines of a doc comment, wrapped for the
/// source.
fn join_description_lines(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            for (name, member) in object {
                match member {
                    Value::String(text) if name == "description" => *text = text.replace('\n', " "),
                    _ => join_description_lines(member),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(join_description_lines),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Inserts a member into the object that a JSON pointer names.
fn insert(schema: &mut Value, pointer: &str, name: &str, member: Value) {
    if let Some(object) = schema.pointer_mut(pointer).and_then(Value::as_object_mut) {
        object.insert(name.to_owned(), member);
    }
}

macro_rules! request_event {
    ($event:ident, $id:ty, $data:ty, $doc:literal) => {
        #[doc = $doc]
        #[derive(JsonSchema)]
        #[expect(dead_code, reason = "only the schema is generated from it")]
        struct $event {
            /// Always `1.0`.
            specversion: String,
            /// The event's id. The id of a request is the delivery id.
            id: $id,
            /// The publisher: a URI reference.
            #[schemars(length(min = 1, max = 256))]
            source: String,
            /// The type of the event, with its version.
            r#type: String,
            /// When the event happened, RFC 3339. The `timings` of statuses count from it.
            #[schemars(extend("format" = "date-time"))]
            time: Option<String>,
            /// If present: `application/json`.
            datacontenttype: Option<String>,
            /// The content of the event.
            data: $data,
        }
    };
}

request_event!(
    RequestedEvent,
    DeliveryId,
    RequestedData,
    "A request to read a code to a telephone number."
);
request_event!(
    CancelledEvent,
    EventId,
    CancelledData,
    "Cancels deliveries that have not been answered yet."
);
request_event!(
    VerifiedEvent,
    EventId,
    VerifiedData,
    "The code of a delivery was entered."
);

/// The id of an event that isn't a request.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "only the schema is generated from it")]
struct EventId(#[schemars(length(min = 1, max = 256))] String);

#[derive(JsonSchema)]
#[expect(dead_code, reason = "only the schema is generated from it")]
struct RequestedData {
    tenant_id: TenantId,
    to: PhoneNumber,
    code: Option<OtpCode>,
    /// A libsodium sealed box with the code, so that the broker never holds the code in clear. Not
    /// supported yet: rejected with `sealed_code_unsupported`.
    sealed_code: Option<SealedCode>,
    /// When the code expires: RFC 3339, at most one hour ahead.
    #[schemars(extend("format" = "date-time"))]
    expires_at: String,
    locale: Option<Locale>,
    user_ref: Option<UserRef>,
    extension: Option<Extension>,
    context: Option<Context>,
}

#[derive(JsonSchema)]
#[expect(dead_code, reason = "only the schema is generated from it")]
struct SealedCode {
    /// The id of the key that sealed the code.
    key_id: String,
    /// The sealed box, base64.
    #[schemars(rename = "box")]
    sealed: String,
}

#[derive(JsonSchema)]
#[expect(dead_code, reason = "only the schema is generated from it")]
struct CancelledData {
    tenant_id: TenantId,
    delivery_id: Option<DeliveryId>,
    user_ref: Option<UserRef>,
}

#[derive(JsonSchema)]
#[expect(dead_code, reason = "only the schema is generated from it")]
struct VerifiedData {
    tenant_id: TenantId,
    delivery_id: DeliveryId,
}
