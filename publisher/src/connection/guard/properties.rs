//! The properties of a message: which of them lapin can be given, and what it is given instead.
//!
//! The publisher of a message chooses its properties, and RabbitMQ passes on what lapin's parser
//! refuses, which ends the connection, or can't stand: tables inside tables overflow its stack.

use super::cursor::Cursor;
use super::table::{self, Table};

/// Says how long the body was that the guard has cut.
pub(super) const BODY_BYTES: &str = "x-voice-otp-body-bytes";
/// Says why the guard has removed headers or properties.
pub(super) const REMOVED: &str = "x-voice-otp-removed";
/// The prefix of the guard's own headers. Publishers' headers with it are removed.
pub(super) const OWN_PREFIX: &[u8] = b"x-voice-otp-";

/// What was found in the properties of a message.
#[derive(Debug, PartialEq)]
pub(super) enum Checked {
    /// lapin can be given them as they are. Their headers have this many values, nested ones
    /// included.
    Safe(usize),
    /// lapin must be given these instead, with so many values.
    Rewritten(Vec<u8>, usize),
}

/// A kind of property.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    ShortString,
    Table,
    Octet,
    Timestamp,
}

/// The properties of a message of class `basic`, in the order of their flags, from the highest bit
/// on: content type, content encoding, headers, delivery mode, priority, correlation id, reply to,
/// expiration, message id, timestamp, type, user id, app id, cluster id.
const KINDS: [Kind; 14] = [
    Kind::ShortString,
    Kind::ShortString,
    Kind::Table,
    Kind::Octet,
    Kind::Octet,
    Kind::ShortString,
    Kind::ShortString,
    Kind::ShortString,
    Kind::ShortString,
    Kind::Timestamp,
    Kind::ShortString,
    Kind::ShortString,
    Kind::ShortString,
    Kind::ShortString,
];
/// The flags of [`KINDS`].
const KNOWN_FLAGS: u16 = !0b11;

/// Checks a property list: the flags, and the properties. `cut_body` is the length of a body that
/// is cut, which is then added.
pub(super) fn check(list: &[u8], cut_body: Option<u64>) -> Checked {
    match values_if_safe(list) {
        Some(values) if cut_body.is_none() => Checked::Safe(values),
        _ => {
            let (list, values) = rewrite(list, cut_body);
            Checked::Rewritten(list, values)
        }
    }
}

/// The number of values in the headers, if everything is safe.
fn values_if_safe(list: &[u8]) -> Option<usize> {
    let mut cursor = Cursor(list);
    let flags = cursor.u16()?;
    if flags & !KNOWN_FLAGS != 0 {
        return None;
    }
    let mut values = 0;
    for kind in present(flags).flatten() {
        match kind {
            Kind::ShortString => {
                std::str::from_utf8(cursor.short_string()?).ok()?;
            }
            Kind::Table => values = table::values_if_safe(cursor.long_string()?)?,
            Kind::Octet => {
                cursor.take(1)?;
            }
            Kind::Timestamp => {
                cursor.take(8)?;
            }
        }
    }
    cursor.0.is_empty().then_some(values)
}

/// For each known flag, its kind if it is set.
fn present(flags: u16) -> impl Iterator<Item = Option<Kind>> {
    KINDS
        .into_iter()
        .zip(0..)
        .map(move |(kind, at)| (flags & (1 << (15 - at)) != 0).then_some(kind))
}

/// Builds a property list from what is safe of another one. With the number of values in its
/// headers.
fn rewrite(list: &[u8], cut_body: Option<u64>) -> (Vec<u8>, usize) {
    let mut cursor = Cursor(list);
    let flags = cursor.u16().unwrap_or(0);
    let mut kept = Vec::with_capacity(KINDS.len());
    let mut removed = (flags & !KNOWN_FLAGS != 0).then_some("a property is not one of AMQP 0-9-1");
    let mut headers = None;
    let mut is_readable = true;
    for kind in present(flags) {
        let property = kind.filter(|_| is_readable).map(|kind| match kind {
            Kind::ShortString => cursor.short_string(),
            Kind::Table => cursor.long_string(),
            Kind::Octet => cursor.take(1),
            Kind::Timestamp => cursor.take(8),
        });
        // Nothing that follows can be read either.
        is_readable &= !matches!(property, Some(None));
        kept.push(match property.flatten() {
            Some(text) if kind == Some(Kind::ShortString) && std::str::from_utf8(text).is_err() => {
                removed = Some("a property is not UTF-8");
                None
            }
            Some(bytes) if kind == Some(Kind::Table) => {
                headers = Some(table::rewrite(bytes));
                None
            }
            property => property,
        });
    }
    if !is_readable || !cursor.0.is_empty() {
        removed = Some("the properties can't be read to their end");
    }
    let mut headers = headers.unwrap_or_default();
    if let Some(why) = removed.or(headers.removed) {
        headers.add_text(REMOVED, why);
    }
    if let Some(bytes) = cut_body {
        headers.add_number(BODY_BYTES, bytes);
    }
    (write(&kept, &headers), headers.values)
}

/// Writes a property list: properties without those that are `None`, and headers if there are any.
fn write(properties: &[Option<&[u8]>], headers: &Table) -> Vec<u8> {
    let mut flags = 0_u16;
    let mut bytes = Vec::new();
    for ((kind, property), at) in KINDS.into_iter().zip(properties).zip(0..) {
        match (kind, property) {
            (Kind::Table, _) if !headers.bytes.is_empty() => {
                bytes.extend(length(headers.bytes.len()));
                bytes.extend(&headers.bytes);
            }
            (Kind::ShortString, Some(text)) => {
                bytes.push(u8::try_from(text.len()).unwrap_or(0));
                bytes.extend(*text);
            }
            (Kind::Octet | Kind::Timestamp, Some(property)) => bytes.extend(*property),
            (_, None) | (Kind::Table, _) => continue,
        }
        flags |= 1 << (15 - at);
    }
    let mut list = flags.to_be_bytes().to_vec();
    list.extend(bytes);
    list
}

/// A length as AMQP writes it before a long string or a table. What is written here is short.
pub(super) fn length(bytes: usize) -> [u8; 4] {
    u32::try_from(bytes).unwrap_or(u32::MAX).to_be_bytes()
}
