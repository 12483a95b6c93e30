//! The examples, the JSON Schema documents and the reader say the same.
#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking, its helpers too"
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
    assert!(found.len() > 3, "the examples are there");
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

fn reading(body: &[u8]) -> Result<Incoming, Unreadable> {
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
            "{} is stale: VOICE_OTP_BLESS=1 cargo test -p voice-otp-schemas",
            document.file
        );
    }
}

#[test]
fn every_valid_example_is_accepted_by_the_schema_and_by_the_reader() {
    for (name, body) in examples("valid") {
        let event: Value = serde_json::from_slice(&body).unwrap();
        assert!(schema_accepts(&name, &event), "{name}: schema");
        let read = reading(&body).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(!matches!(read, Incoming::Invalid(_)), "{name}: {read:?}");
    }
}

#[test]
fn every_invalid_example_is_refused_by_the_reader_and_by_the_schema() {
    for (name, body) in examples("invalid") {
        let refused = match reading(&body) {
            Err(_) => true,
            Ok(Incoming::Invalid(invalid)) => {
                let said = format!("{invalid:?}");
                assert!(
                    !said.contains("493027") && !said.contains("4155552671"),
                    "{name} shows what it holds"
                );
                true
            }
            Ok(_) => false,
        };
        assert!(refused, "{name}: reader");
        let event: Value = serde_json::from_slice(&body).unwrap();
        // JSON Schema's `format` is an annotation by default, so a wrong time is the reader's to find.
        assert!(
            name.contains("is_a_word") || !schema_accepts(&name, &event),
            "{name}: schema"
        );
    }
}

#[test]
fn what_a_publisher_writes_the_reader_reads() {
    for (name, body) in examples("valid") {
        let Incoming::Requested(request) = reading(&body).unwrap() else {
            continue;
        };
        let Incoming::Requested(again) = reading(&request.to_json("/test")).unwrap() else {
            panic!("{name}")
        };
        assert_eq!(
            request.identity().expose(),
            again.identity().expose(),
            "{name}"
        );
        assert_eq!(
            (request.time, request.expires_at, &request.context),
            (again.time, again.expires_at, &again.context)
        );
    }
}

#[test]
fn the_same_request_is_told_from_another_by_number_code_and_extension() {
    let (_, body) = examples("valid")
        .into_iter()
        .find(|(name, _)| name == "requested.minimal")
        .unwrap();
    let text = String::from_utf8(body).unwrap();
    let identity = |text: &str| match reading(text.as_bytes()).unwrap() {
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
        assert!(!schema.is_valid(&without), "a status has a sequence");
    }
}
