//! The examples, the JSON Schema documents and the parser agree.
#![expect(
    clippy::unwrap_used,
    reason = "tests and their helpers fail by panicking"
)]

use std::path::Path;

use serde_json::Value;
use voice_otp_schemas::envelope::{Message, STRUCTURED, Unreadable};
use voice_otp_schemas::json_schema::documents;
use voice_otp_schemas::price::PriceEvent;
use voice_otp_schemas::request::{Incoming, read};
use voice_otp_schemas::status::StatusEvent;

fn folder(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn examples(kind: &str) -> Vec<(String, Vec<u8>)> {
    let mut found: Vec<_> = std::fs::read_dir(folder("examples").join(kind))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| {
            (
                path.file_stem().unwrap().to_string_lossy().into_owned(),
                std::fs::read(&path).unwrap(),
            )
        })
        .collect();
    found.sort();
    assert!(found.len() > 3, "examples are missing");
    found
}

fn schema_accepts(name: &str, event: &Value) -> bool {
    let event_name = name.split('.').next().unwrap();
    let document = documents()
        .into_iter()
        .find(|document| document.file.contains(event_name))
        .unwrap();
    jsonschema::draft202012::new(&document.schema)
        .unwrap()
        .is_valid(event)
}

fn parse(body: &[u8]) -> Result<Incoming, Unreadable> {
    read(Message {
        content_type: Some(STRUCTURED),
        headers: &[],
        body,
    })
}

#[test]
fn the_committed_documents_are_current() {
    for document in documents() {
        let path = folder("json").join(document.file);
        let now = format!(
            "{}\n",
            serde_json::to_string_pretty(&document.schema).unwrap()
        );
        if std::env::var_os("VOICE_OTP_BLESS").is_some() {
            std::fs::write(&path, &now).unwrap();
        }
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            committed == now,
            "{} is stale; run VOICE_OTP_BLESS=1 cargo test -p voice-otp-schemas",
            document.file
        );
    }
}

#[test]
fn every_valid_example_is_accepted_by_the_schema_and_by_the_parser() {
    for (name, body) in examples("valid") {
        let event: Value = serde_json::from_slice(&body).unwrap();
        assert!(schema_accepts(&name, &event), "{name}: schema");
        let incoming = parse(&body).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(
            !matches!(incoming, Incoming::Invalid(_)),
            "{name}: {incoming:?}"
        );
    }
}

#[test]
fn every_invalid_example_is_refused_by_the_parser_and_by_the_schema() {
    for (name, body) in examples("invalid") {
        let refused = match parse(&body) {
            Err(_) => true,
            Ok(Incoming::Invalid(invalid)) => {
                let text = format!("{invalid:?}");
                assert!(
                    !text.contains("493027") && !text.contains("4155552671"),
                    "{name}: the error shows a code or a number"
                );
                true
            }
            Ok(_) => false,
        };
        assert!(refused, "{name}: parser");
        let event: Value = serde_json::from_slice(&body).unwrap();
        // JSON Schema's `format` is an annotation by default, so only the parser finds an invalid
        // time.
        assert!(
            name.contains("is_a_word") || !schema_accepts(&name, &event),
            "{name}: schema"
        );
    }
}

#[test]
fn the_parser_reads_what_a_publisher_writes() {
    for (name, body) in examples("valid") {
        let Incoming::Requested(request) = parse(&body).unwrap() else {
            continue;
        };
        let Incoming::Requested(reparsed) = parse(&request.to_json("/test")).unwrap() else {
            panic!("{name}")
        };
        assert_eq!(
            request.identity().expose(),
            reparsed.identity().expose(),
            "{name}"
        );
        assert_eq!(
            (request.time, request.expires_at, &request.context),
            (reparsed.time, reparsed.expires_at, &reparsed.context)
        );
    }
}

#[test]
fn a_duplicate_is_recognised_by_number_code_and_extension() {
    let (_, body) = examples("valid")
        .into_iter()
        .find(|(name, _)| name == "requested.minimal")
        .unwrap();
    let text = String::from_utf8(body).unwrap();
    let identity = |text: &str| match parse(text.as_bytes()).unwrap() {
        Incoming::Requested(request) => request.identity().expose().to_owned(),
        other => panic!("{other:?}"),
    };
    assert_eq!(
        identity(&text),
        identity(&text.replace("12:03:00", "12:04:00"))
    );
    assert_ne!(identity(&text), identity(&text.replace("493027", "493028")));
    assert_ne!(identity(&text), identity(&text.replace("2671", "2672")));
}

#[test]
fn every_event_but_a_cancellation_names_its_delivery() {
    for (name, body) in examples("valid") {
        let incoming = parse(&body).unwrap();
        let key = incoming.key().map(|key| key.to_string());
        match incoming {
            Incoming::Cancelled(_) => assert_eq!(key, None, "{name}"),
            _ => assert_eq!(key.as_deref(), Some("acme/7f9c-login-1"), "{name}"),
        }
    }
    let (_, body) = examples("invalid")
        .into_iter()
        .find(|(name, _)| name == "requested.code_is_missing")
        .unwrap();
    let key = parse(&body).unwrap().key().unwrap();
    assert_eq!(key.to_string(), "acme/7f9c-login-1");
}

#[test]
fn the_price_example_is_what_workers_write() {
    let document = documents()
        .into_iter()
        .find(|document| document.file.contains("price"))
        .unwrap();
    let text = std::fs::read(folder("examples/price/price.json")).unwrap();
    let event: Value = serde_json::from_slice(&text).unwrap();
    assert!(
        jsonschema::draft202012::new(&document.schema)
            .unwrap()
            .is_valid(&event)
    );
    let read: PriceEvent = serde_json::from_slice(&text).unwrap();
    assert_eq!(
        serde_json::to_value(PriceEvent::new(read.time.clone(), read.data)).unwrap(),
        event
    );
    assert_eq!(read.id, "7f9c-login-1/price/1");
}

#[test]
fn the_status_examples_are_what_workers_write() {
    let document = documents()
        .into_iter()
        .find(|document| document.file.contains("status"))
        .unwrap();
    let schema = jsonschema::draft202012::new(&document.schema).unwrap();
    for entry in std::fs::read_dir(folder("examples/status")).unwrap() {
        let path = entry.unwrap().path();
        let example: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        assert!(schema.is_valid(&example), "{}", path.display());
        let event: StatusEvent = serde_json::from_value(example.clone()).unwrap();
        assert_eq!(
            serde_json::to_value(&event).unwrap(),
            example,
            "{}",
            path.display()
        );
        assert_eq!(
            event.data.reason.as_ref().map(|reason| reason.class),
            event.data.reason.as_ref().map(|reason| reason.code.class())
        );
        let mut without = example;
        without["data"].as_object_mut().unwrap().remove("sequence");
        assert!(!schema.is_valid(&without), "the schema requires a sequence");
    }
}
