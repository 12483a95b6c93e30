//! The `CloudEvents` 1.0 envelope, in structured and in binary content mode.
//!
//! The AMQP binding of `CloudEvents` covers AMQP 1.0 only. This module applies its rules to AMQP
//! 0-9-1 as other implementations do: in structured mode the content type is
//! `application/cloudevents+json`; in binary mode the attributes are headers prefixed
//! `cloudEvents_` or `cloudEvents:`, and the data is the body.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, Utc};
use serde_json::{Map, Value};

use crate::Timestamp;

/// The content type of an event in structured mode.
pub const STRUCTURED: &str = "application/cloudevents+json";

/// The size limit of a body, in bytes. `CloudEvents` requires every consumer to accept 64 KiB.
pub const MAX_BODY_BYTES: usize = 64 * 1024;

/// A message as received, before it is parsed.
#[derive(Clone, Copy)]
pub struct Message<'a> {
    /// The AMQP `content_type` property.
    pub content_type: Option<&'a str>,
    /// The headers with text values, in any order.
    pub headers: &'a [(String, String)],
    /// The body: the event in structured mode, its data in binary mode.
    pub body: &'a [u8],
}

/// The attributes and the data of an event.
pub(crate) struct Envelope {
    pub(crate) id: String,
    pub(crate) kind: String,
    pub(crate) time: Option<Timestamp>,
    pub(crate) trace: Trace,
    /// The first invalid attribute among those that a status can still report: `datacontenttype`,
    /// `source` and `time`.
    pub(crate) invalid_attribute: Option<&'static str>,
    pub(crate) data: Map<String, Value>,
}

/// The W3C trace context of a message. The events that a message causes carry it too. Malformed
/// parts are dropped; a message is never rejected because of them.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct Trace {
    /// A well-formed `traceparent`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// The `tracestate`. Present only together with a `traceparent`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tracestate: Option<String>,
}

/// Why a message can't be read, so that no status can report it. The texts say what the publisher
/// must change and never quote the message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// The body is longer than [`MAX_BODY_BYTES`].
    #[error("the body is longer than 65536 bytes")]
    TooLong,
    /// The message is in neither of the two content modes.
    #[error(
        "the content type must be application/cloudevents+json, or application/json with \
         cloudEvents_ headers"
    )]
    ContentType,
    /// The body isn't a JSON object.
    #[error("the body must be a JSON object in UTF-8")]
    NotJson,
    /// The named attribute is missing or invalid.
    #[error("the attribute {0} is missing or not valid by CloudEvents 1.0")]
    Attribute(&'static str),
    /// The event's type isn't part of this contract.
    #[error("the type must be dev.voiceotp.delivery.requested.v1, .cancelled.v1 or .verified.v1")]
    UnknownType,
    /// The named field, the tenant or the delivery, is missing or invalid, so that no status can be
    /// published.
    #[error("{0} is missing or invalid, so no status can report the problem")]
    Nameless(&'static str),
    /// The data of a `cancelled` or `verified` event names no delivery and no user.
    #[error("data must have tenant_id and {0}")]
    Data(&'static str),
}

impl Unreadable {
    /// The reason as a dead letter's header and a metric's label spell it.
    pub fn as_str(&self) -> &'static str {
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

/// Parses the envelope in either content mode.
pub(crate) fn open(message: Message<'_>) -> Result<Envelope, Unreadable> {
    if message.body.len() > MAX_BODY_BYTES {
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
    // The headers describe the publishing of this message; the attributes may be older, from the
    // creation of the event. So the headers win.
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

/// The trace context from one source. Parent and state are never mixed from two sources, since a
/// state belongs to its parent.
fn trace_of<'a>(text: impl Fn(&str) -> Option<&'a str>) -> Option<Trace> {
    let parent = text("traceparent")?;
    Some(Trace::new(
        Some(parent.to_owned()),
        text("tracestate").map(str::to_owned),
    ))
}

/// An attribute as received: absent, a string, or another JSON value.
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
    let is_valid =
        |text: &&str| !text.is_empty() && text.len() <= 256 && !text.chars().any(char::is_control);
    let required = |name: &'static str| {
        text(name)
            .filter(is_valid)
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
    let source = text("source").filter(is_valid);
    let invalid = [
        (!json).then_some("datacontenttype"),
        source.is_none().then_some("source"),
        time.err(),
    ];
    Ok(Envelope {
        id: required("id")?,
        kind: required("type")?,
        time: time.unwrap_or_default(),
        trace,
        invalid_attribute: invalid.into_iter().flatten().next(),
        data,
    })
}

fn object(bytes: &[u8]) -> Result<Map<String, Value>, Unreadable> {
    match serde_json::from_slice(bytes) {
        Ok(Value::Object(map)) => Ok(map),
        _ => Err(Unreadable::NotJson),
    }
}

/// Parses an RFC 3339 time from 1970 to 9999, the years that every database can store, into UTC.
pub fn parse_time(text: &str) -> Option<Timestamp> {
    let time = DateTime::parse_from_rfc3339(text).ok()?.with_timezone(&Utc);
    let years = DateTime::UNIX_EPOCH..DateTime::from_timestamp(253_402_300_799, 0)?;
    years.contains(&time).then_some(time)
}

impl Trace {
    /// Keeps the parts that are well-formed by W3C Trace Context.
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
    fn a_message_that_is_not_an_event_is_refused_with_its_reason() {
        let too_long = vec![b' '; MAX_BODY_BYTES + 1];
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
    fn a_malformed_trace_is_dropped() {
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
