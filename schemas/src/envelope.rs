//! The `CloudEvents` 1.0 envelope, in structured and in binary content mode.
//!
//! The AMQP binding of `CloudEvents` covers AMQP 1.0 only; its rules are carried over as practice has it: structured
//! mode is content type `application/cloudevents+json`; binary mode has the attributes in headers prefixed
//! `cloudEvents_` or `cloudEvents:` and the data as the body.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, Utc};
use serde_json::{Map, Value};

use crate::Timestamp;

/// The content type of an event in structured mode.
pub const STRUCTURED: &str = "application/cloudevents+json";

/// The longest body that is read at all, in bytes: `CloudEvents` asks every consumer to take 64 KiB.
pub const LONGEST_BODY_BYTES: usize = 64 * 1024;

/// A message as it came, before anything is known of it.
#[derive(Clone, Copy)]
pub struct Message<'a> {
    /// The AMQP `content_type` property.
    pub content_type: Option<&'a str>,
    /// The headers that are text, in any order.
    pub headers: &'a [(String, String)],
    /// The body.
    pub body: &'a [u8],
}

/// The attributes of an event and its data.
pub(crate) struct Envelope {
    pub(crate) id: String,
    pub(crate) kind: String,
    pub(crate) time: Option<Timestamp>,
    pub(crate) trace: Trace,
    /// An attribute that isn't what it must be, but keeps nobody from being answered.
    pub(crate) wrong: Option<&'static str>,
    pub(crate) data: Map<String, Value>,
}

/// The W3C trace context that came with a message and goes out with what it causes. What is malformed is left out:
/// a message never fails for it.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct Trace {
    /// `traceparent`, well-formed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// `tracestate`, only beside a `traceparent`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tracestate: Option<String>,
}

/// Why a message can't be read, so that no status can answer it. Says what to do, never what it held.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// Longer than [`LONGEST_BODY_BYTES`].
    #[error("the body is longer than 65536 bytes")]
    TooLong,
    /// Neither of the two content modes.
    #[error(
        "the content type must be application/cloudevents+json, or application/json with cloudEvents_ headers"
    )]
    ContentType,
    /// The body isn't a JSON object.
    #[error("the body must be a JSON object in UTF-8")]
    NotJson,
    /// An attribute is missing or not what it must be.
    #[error("the attribute {0} is missing or not what CloudEvents 1.0 says")]
    Attribute(&'static str),
    /// A type that isn't of this contract.
    #[error(
        "the type is none of dev.voiceotp.delivery.requested.v1, .cancelled.v1 and .verified.v1"
    )]
    UnknownType,
    /// The tenant or the delivery can't be told, so nobody could be answered.
    #[error("{0} is missing or not what it must be, so no status can answer")]
    Nameless(&'static str),
    /// A cancelled or verified event that says nothing usable.
    #[error("data must have tenant_id and {0}")]
    Data(&'static str),
}

impl Unreadable {
    /// A constant word for a dead letter's header and a metric's label.
    pub fn word(&self) -> &'static str {
        match self {
            Self::TooLong => "too_long",
            Self::ContentType => "content_type",
            Self::NotJson => "not_json",
            Self::Attribute(_) => "attribute",
            Self::UnknownType => "unknown_type",
            Self::Nameless(_) => "nameless",
            Self::Data(_) => "data",
        }
    }
}

impl Message<'_> {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    fn attribute_header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(key, _)| {
                let rest = key
                    .strip_prefix("cloudEvents_")
                    .or_else(|| key.strip_prefix("cloudEvents:"));
                rest == Some(name)
            })
            .map(|(_, value)| value.as_str())
    }
}

/// Reads the envelope in either content mode.
pub(crate) fn open(message: Message<'_>) -> Result<Envelope, Unreadable> {
    if message.body.len() > LONGEST_BODY_BYTES {
        return Err(Unreadable::TooLong);
    }
    let media_type = message.content_type.map(|text| {
        text.split(';')
            .next()
            .unwrap_or_default()
            .trim()
            .to_ascii_lowercase()
    });
    match media_type.as_deref() {
        Some(STRUCTURED) => structured(message),
        Some("application/json") | None if message.attribute_header("specversion").is_some() => {
            binary(message)
        }
        _ => Err(Unreadable::ContentType),
    }
}

fn structured(message: Message<'_>) -> Result<Envelope, Unreadable> {
    let mut event = object(message.body)?;
    let data = match (event.remove("data"), event.remove("data_base64")) {
        (Some(Value::Object(data)), None) => data,
        (None, Some(Value::String(text))) => {
            let bytes = STANDARD
                .decode(text)
                .map_err(|_| Unreadable::Attribute("data_base64"))?;
            object(&bytes)?
        }
        _ => return Err(Unreadable::Attribute("data")),
    };
    let text = |name: &str| match event.get(name) {
        None | Some(Value::Null) => Attribute::Absent,
        Some(Value::String(text)) => Attribute::Text(text),
        Some(_) => Attribute::Other,
    };
    // The trace context of the message itself is nearer than the one the event was made with.
    let trace = trace_of(|name| message.header(name)).unwrap_or_else(|| {
        trace_of(|name| event.get(name).and_then(Value::as_str)).unwrap_or_default()
    });
    envelope(text, trace, data)
}

fn binary(message: Message<'_>) -> Result<Envelope, Unreadable> {
    let data = object(message.body)?;
    let text = |name: &str| {
        message
            .attribute_header(name)
            .map_or(Attribute::Absent, Attribute::Text)
    };
    let trace = trace_of(|name| message.header(name))
        .unwrap_or_else(|| trace_of(|name| message.attribute_header(name)).unwrap_or_default());
    envelope(text, trace, data)
}

/// Parent and state from one place: another event's state says nothing about this one's parent.
fn trace_of<'a>(text: impl Fn(&str) -> Option<&'a str>) -> Option<Trace> {
    let parent = text("traceparent")?;
    Some(Trace::new(
        Some(parent.to_owned()),
        text("tracestate").map(str::to_owned),
    ))
}

/// An attribute as it came.
enum Attribute<'a> {
    Absent,
    Text(&'a str),
    Other,
}

fn envelope<'a>(
    attribute: impl Fn(&str) -> Attribute<'a>,
    trace: Trace,
    data: Map<String, Value>,
) -> Result<Envelope, Unreadable> {
    let text = |name: &str| match attribute(name) {
        Attribute::Text(text) => Some(text),
        Attribute::Absent | Attribute::Other => None,
    };
    let clean =
        |text: &&str| !text.is_empty() && text.len() <= 256 && !text.chars().any(char::is_control);
    let required = |name: &'static str| {
        text(name)
            .filter(clean)
            .map(str::to_owned)
            .ok_or(Unreadable::Attribute(name))
    };
    if text("specversion") != Some("1.0") {
        return Err(Unreadable::Attribute("specversion"));
    }
    let json = match attribute("datacontenttype") {
        Attribute::Absent => true,
        Attribute::Text(kind) => kind.to_ascii_lowercase().starts_with("application/json"),
        Attribute::Other => false,
    };
    let time = match attribute("time") {
        Attribute::Absent => Ok(None),
        Attribute::Text(text) => parse_time(text).map(Some).ok_or("time"),
        Attribute::Other => Err("time"),
    };
    let source = text("source").filter(clean);
    let wrong = [
        (!json).then_some("datacontenttype"),
        source.is_none().then_some("source"),
        time.err(),
    ];
    Ok(Envelope {
        id: required("id")?,
        kind: required("type")?,
        time: time.unwrap_or_default(),
        trace,
        wrong: wrong.into_iter().flatten().next(),
        data,
    })
}

fn object(bytes: &[u8]) -> Result<Map<String, Value>, Unreadable> {
    match serde_json::from_slice(bytes) {
        Ok(Value::Object(map)) => Ok(map),
        _ => Err(Unreadable::NotJson),
    }
}

/// An RFC 3339 time, in UTC, of a year that fits every store.
pub(crate) fn parse_time(text: &str) -> Option<Timestamp> {
    let time = DateTime::parse_from_rfc3339(text).ok()?.with_timezone(&Utc);
    let years = DateTime::UNIX_EPOCH..DateTime::from_timestamp(253_402_300_799, 0)?;
    years.contains(&time).then_some(time)
}

impl Trace {
    /// Keeps what is well-formed by W3C Trace Context.
    pub fn new(traceparent: Option<String>, tracestate: Option<String>) -> Self {
        let traceparent = traceparent.filter(|text| is_traceparent(text));
        let printable =
            |text: &String| text.len() <= 512 && text.bytes().all(|b| (0x20..0x7f).contains(&b));
        let tracestate = tracestate.filter(|text| traceparent.is_some() && printable(text));
        Self {
            traceparent,
            tracestate,
        }
    }
}

fn is_traceparent(text: &str) -> bool {
    let hex = |part: &str, length: usize| {
        part.len() == length
            && part
                .bytes()
                .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    let parts: Vec<&str> = text.split('-').collect();
    match parts.as_slice() {
        [version, trace, parent, flags] => {
            hex(version, 2)
                && *version != "ff"
                && hex(trace, 32)
                && hex(parent, 16)
                && hex(flags, 2)
                && [trace, parent]
                    .iter()
                    .all(|id| id.bytes().any(|b| b != b'0'))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &[u8] =
        br#"{"specversion":"1.0","id":"a","source":"/x","type":"t","data":{"k":1}}"#;

    fn header(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    #[test]
    fn both_modes_and_both_header_prefixes_are_read() {
        let event = open(Message {
            content_type: Some("application/cloudevents+json; charset=utf-8"),
            headers: &[],
            body: BODY,
        });
        assert_eq!(event.ok().unwrap().id, "a");
        for prefix in ["cloudEvents_", "cloudEvents:"] {
            let headers: Vec<_> = [
                ("specversion", "1.0"),
                ("id", "a"),
                ("source", "/x"),
                ("type", "t"),
            ]
            .map(|(name, value)| header(&format!("{prefix}{name}"), value))
            .into();
            let message = Message {
                content_type: Some("application/json"),
                headers: &headers,
                body: br#"{"k":1}"#,
            };
            assert_eq!(open(message).ok().unwrap().data.len(), 1);
        }
    }

    #[test]
    fn what_is_not_an_event_says_why() {
        let too_long = vec![b' '; LONGEST_BODY_BYTES + 1];
        let check = |content_type, body, why| {
            assert_eq!(
                open(Message {
                    content_type,
                    headers: &[],
                    body
                })
                .err()
                .unwrap(),
                why
            );
        };
        check(Some("text/plain"), BODY, Unreadable::ContentType);
        check(None, BODY, Unreadable::ContentType);
        check(Some(STRUCTURED), b"[]", Unreadable::NotJson);
        check(Some(STRUCTURED), b"{", Unreadable::NotJson);
        check(Some(STRUCTURED), &too_long, Unreadable::TooLong);
        check(
            Some(STRUCTURED),
            br#"{"specversion":"0.3","data":{}}"#,
            Unreadable::Attribute("specversion"),
        );
        check(
            Some(STRUCTURED),
            br#"{"specversion":"1.0"}"#,
            Unreadable::Attribute("data"),
        );
        let controls =
            br#"{"specversion":"1.0","id":"a\u0001","source":"/x","type":"t","data":{}}"#;
        check(Some(STRUCTURED), controls, Unreadable::Attribute("id"));
    }

    #[test]
    fn a_malformed_trace_is_left_out() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert_eq!(
            Trace::new(Some(good.to_owned()), None)
                .traceparent
                .as_deref(),
            Some(good)
        );
        for bad in [
            "",
            "00-0-0-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            &good.to_uppercase(),
        ] {
            assert_eq!(
                Trace::new(Some(bad.to_owned()), Some("a=b".to_owned())),
                Trace::default()
            );
        }
    }
}
