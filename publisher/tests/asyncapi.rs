//! `schemas/asyncapi.json`: the contract as an AsyncAPI 3.0 document, generated from the types'
//! schemas, the committed examples and the topology as declared. To update it after a change:
//! `VOICE_OTP_BLESS=1 cargo test -p voice-otp-publisher`.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use voice_otp_publisher::topology::{
    self, Argument, CANCELLED_KEY, DEAD_QUEUE, LEADER_LOCATOR, Queue, REQUESTED_KEY, REQUESTS,
    REQUESTS_QUEUE, RETURNED_QUEUE, STATUS, STATUS_LOG_QUEUE, VERIFIED_KEY,
};
use voice_otp_schemas::envelope::STRUCTURED;
use voice_otp_schemas::json_schema::documents;
use voice_otp_schemas::request::{CANCELLED, REQUESTED, VERIFIED};
use voice_otp_schemas::{price, status};

/// The events: name in this document, type, routing key, schema document, example.
const EVENTS: [(&str, &str, &str, &str, &str); 5] = [
    (
        "requested",
        REQUESTED,
        REQUESTED_KEY,
        "delivery.requested.v1.json",
        "valid/requested.full.json",
    ),
    (
        "cancelled",
        CANCELLED,
        CANCELLED_KEY,
        "delivery.cancelled.v1.json",
        "valid/cancelled.delivery.json",
    ),
    (
        "verified",
        VERIFIED,
        VERIFIED_KEY,
        "delivery.verified.v1.json",
        "valid/verified.json",
    ),
    (
        "price",
        price::PRICE,
        "price.{tenant_id}",
        "delivery.price.v1.json",
        "price/price.json",
    ),
    (
        "status",
        status::STATUS,
        "status.{status}.{tenant_id}",
        "delivery.status.v1.json",
        "status/delivered.json",
    ),
];

fn schemas_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../schemas")
}

#[test]
fn the_committed_asyncapi_document_is_current() {
    let path = schemas_folder().join("asyncapi.json");
    let now = format!("{}\n", serde_json::to_string_pretty(&document()).unwrap());
    if std::env::var_os("VOICE_OTP_BLESS").is_some() {
        std::fs::write(&path, &now).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == now,
        "asyncapi.json is stale; run VOICE_OTP_BLESS=1 cargo test -p voice-otp-publisher"
    );
}

#[test]
fn every_reference_in_the_document_resolves() {
    let document = document();
    let mut references = Vec::new();
    walk(&document, &mut |object| {
        references.extend(
            object
                .get("$ref")
                .and_then(Value::as_str)
                .map(str::to_owned),
        );
    });
    assert!(references.len() > 30, "{}", references.len());
    for reference in references {
        assert!(
            document
                .pointer(reference.trim_start_matches('#'))
                .is_some(),
            "{reference}"
        );
    }
}

fn document() -> Value {
    let mut schemas = Map::new();
    let mut messages = Map::new();
    let mut channels = Map::new();
    let mut operations = Map::new();
    for (name, kind, key, file, example) in EVENTS {
        let payload = add_schemas(&mut schemas, name, file);
        let example =
            std::fs::read_to_string(schemas_folder().join("examples").join(example)).unwrap();
        messages.insert(
            name.to_owned(),
            message(
                name,
                kind,
                &payload,
                &serde_json::from_str(&example).unwrap(),
            ),
        );
        let published_by_workers = matches!(name, "status" | "price");
        channels.insert(
            name.to_owned(),
            channel(
                name,
                key,
                if published_by_workers {
                    STATUS
                } else {
                    REQUESTS
                },
            ),
        );
        let operation_name = match name {
            "status" => "publishStatus",
            "price" => "publishPrice",
            name => name,
        };
        operations.insert(
            operation_name.to_owned(),
            operation(name, published_by_workers),
        );
    }
    channels.insert("statusLog".to_owned(), log_channel());
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "voice-otp",
            "version": "1.0.0",
            "description": "One-time passwords by telephone call. Auth services publish requests; \
                workers place the calls and publish a status for each step. `schemas/README.md` \
                documents this contract in prose, and what to do on each status.",
            "license": { "name": "MIT OR Apache-2.0" }
        },
        "defaultContentType": STRUCTURED,
        "servers": { "broker": {
            "host": "rabbitmq.example.com:5671",
            "protocol": "amqps",
            "protocolVersion": "0-9-1",
            "description": "RabbitMQ 3.10 or newer"
        } },
        "channels": channels,
        "operations": operations,
        "components": { "messages": messages, "schemas": schemas },
        "x-rabbitmq": {
            "description": "Settings that the AMQP binding can't express. Workers declare all \
                queues; a publisher may declare the first two.",
            "queues": [
                queue(&RETURNED_QUEUE),
                queue(&REQUESTS_QUEUE),
                queue(&DEAD_QUEUE),
                queue(&STATUS_LOG_QUEUE)
            ],
            "publishing": "persistent, mandatory, with publisher confirms and a message_id"
        }
    })
}

fn message(name: &str, kind: &str, payload: &str, example: &Value) -> Value {
    json!({
        "name": kind,
        "title": format!("{name}, a CloudEvent 1.0 in structured mode"),
        "contentType": STRUCTURED,
        "headers": {
            "type": "object",
            "properties": {
                "traceparent": {
                    "type": "string",
                    "description": "W3C Trace Context, copied from a request to its statuses."
                },
                "tracestate": { "type": "string" }
            }
        },
        "payload": { "$ref": format!("#/components/schemas/{payload}") },
        "bindings": { "amqp": { "messageType": kind, "bindingVersion": "0.3.0" } },
        "examples": [{ "name": name, "payload": example }]
    })
}

fn channel(name: &str, key: &str, exchange: &str) -> Value {
    let mut channel = json!({
        "address": key,
        "messages": { name: { "$ref": format!("#/components/messages/{name}") } },
        "bindings": { "amqp": {
            "is": "routingKey",
            "exchange": {
                "name": exchange,
                "type": "topic",
                "durable": true,
                "autoDelete": false,
                "vhost": "/"
            },
            "bindingVersion": "0.3.0"
        } }
    });
    if name == "status" {
        channel["parameters"] = json!({
            "status": {
                "description": "The status.",
                "enum": status::Status::ALL.map(status::Status::as_str)
            },
            "tenant_id": { "description": "The tenant, without dots." }
        });
    } else if name == "price" {
        channel["parameters"] =
            json!({ "tenant_id": { "description": "The tenant, without dots." } });
    }
    channel
}

/// The log of all statuses and prices, for replay.
fn log_channel() -> Value {
    json!({
        "address": topology::STATUS_LOG,
        "description": "A stream of every status and price, for replay. Consume it with \
            x-stream-offset. Not every broker has it.",
        "messages": {
            "status": { "$ref": "#/components/messages/status" },
            "price": { "$ref": "#/components/messages/price" }
        },
        "bindings": { "amqp": {
            "is": "queue",
            "queue": {
                "name": topology::STATUS_LOG,
                "durable": true,
                "exclusive": false,
                "autoDelete": false,
                "vhost": "/"
            },
            "bindingVersion": "0.3.0"
        } }
    })
}

/// An operation of the workers: AsyncAPI 3 describes operations from the side of the application.
fn operation(name: &str, sends: bool) -> Value {
    let amqp = if sends {
        json!({ "deliveryMode": 2, "mandatory": true, "bindingVersion": "0.3.0" })
    } else {
        json!({ "ack": true, "bindingVersion": "0.3.0" })
    };
    json!({
        "action": if sends { "send" } else { "receive" },
        "channel": { "$ref": format!("#/channels/{name}") },
        "messages": [{ "$ref": format!("#/channels/{name}/messages/{name}") }],
        "bindings": { "amqp": amqp }
    })
}

fn queue(queue: &Queue) -> Value {
    let arguments: Map<String, Value> = queue
        .arguments
        .iter()
        .map(|(name, value)| {
            let value = match value {
                Argument::Text(text) => json!(text),
                Argument::Number(number) => json!(number),
            };
            ((*name).to_owned(), value)
        })
        .chain([(LEADER_LOCATOR.0.to_owned(), json!(LEADER_LOCATOR.1))])
        .collect();
    let binding = queue
        .binding
        .map(|(exchange, key)| json!({ "exchange": exchange, "routingKey": key }));
    json!({ "name": queue.name, "arguments": arguments, "binding": binding })
}

/// Adds the schema of an event and the schemas that it refers to, in AsyncAPI's own schema format:
/// JSON Schema draft 7, which ignores everything beside a `$ref`. Returns the name of the event's
/// schema.
fn add_schemas(schemas: &mut Map<String, Value>, name: &str, file: &str) -> String {
    let mut document = documents()
        .into_iter()
        .find(|document| document.file == file)
        .unwrap()
        .schema;
    let object = document.as_object_mut().unwrap();
    let definitions = object.remove("$defs").unwrap_or_default();
    for key in ["$schema", "$id", "title"] {
        object.remove(key);
    }
    let event = format!("{name}_event");
    let definitions = definitions.as_object().cloned().unwrap_or_default();
    for (name, schema) in definitions.into_iter().chain([(event.clone(), document)]) {
        let schema = draft_7(schema);
        let before = schemas.insert(name.clone(), schema.clone());
        assert!(
            before.is_none_or(|before| before == schema),
            "two schemas have the name {name}"
        );
    }
    event
}

fn draft_7(schema: Value) -> Value {
    match schema {
        Value::Object(mut object) => {
            if let Some(Value::String(reference)) = object.remove("$ref") {
                let reference =
                    json!({ "$ref": reference.replace("#/$defs/", "#/components/schemas/") });
                if object.is_empty() {
                    return reference;
                }
                assert!(
                    !object.contains_key("allOf"),
                    "$ref and allOf in one schema"
                );
                object.insert("allOf".to_owned(), json!([reference]));
            }
            for keyword in [
                "prefixItems",
                "unevaluatedProperties",
                "dependentSchemas",
                "dependentRequired",
                "$dynamicRef",
            ] {
                assert!(!object.contains_key(keyword), "draft 7 has no {keyword}");
            }
            Value::Object(
                object
                    .into_iter()
                    .map(|(key, value)| {
                        // The values of these keywords are data, not schemas.
                        let is_data = matches!(
                            key.as_str(),
                            "enum" | "const" | "default" | "examples" | "required"
                        );
                        let value = if is_data { value } else { draft_7(value) };
                        (key, value)
                    })
                    .collect(),
            )
        }
        Value::Array(items) => Value::Array(items.into_iter().map(draft_7).collect()),
        other => other,
    }
}

fn walk(value: &Value, visit: &mut impl FnMut(&Map<String, Value>)) {
    match value {
        Value::Object(object) => {
            visit(object);
            object.values().for_each(|value| walk(value, visit));
        }
        Value::Array(items) => items.iter().for_each(|item| walk(item, visit)),
        _ => {}
    }
}
