//! Header tables, of which each value may be a table or an array of values again.

use super::cursor::Cursor;
use super::properties::{OWN_PREFIX, length};

/// A header table that is safe for lapin.
#[derive(Default)]
pub(super) struct Table {
    /// Its entries, without the length before them.
    pub(super) bytes: Vec<u8>,
    /// The number of its values, nested ones included.
    pub(super) values: usize,
    /// Why it has less than the table that the publisher sent.
    pub(super) removed: Option<&'static str>,
}

/// What a table or an array consists of.
#[derive(Clone, Copy, PartialEq)]
enum Nest {
    Table,
    Array,
}

/// A value that is no table and no array has depth 0, the headers themselves have depth 1. The
/// broker's own `x-death` needs 3. lapin's parser calls itself for each level: 1,000 levels
/// overflow its thread's stack.
const MAX_DEPTH: usize = 8;
/// The limit of a header table, in bytes. What the contract names needs one tenth of it.
const MAX_BYTES: usize = 16 * 1024;
/// The limit of the values in a header table, nested ones included. Each needs more than 100 bytes
/// of memory in lapin, and 2 to 4 bytes in a message.
const MAX_VALUES: usize = 256;

const TOO_LARGE: &str = "the headers have more than 16384 bytes or 256 values";
const TOO_DEEP: &str = "a header nests deeper than 8 levels";
const UNKNOWN_TYPE: &str = "a header has a type that is not known, or is malformed";
const NOT_UTF8: &str = "a header's name is not UTF-8";
const RESERVED: &str = "a header's name begins with x-voice-otp-";

/// The number of values in a header table, nested ones included, if it is safe as it is.
pub(super) fn values_if_safe(table: &[u8]) -> Option<usize> {
    if table.len() > MAX_BYTES {
        return None;
    }
    let mut values = 0;
    is_safe(table, Nest::Table, 1, &mut values).then_some(values)
}

fn is_safe(bytes: &[u8], nest: Nest, depth: usize, values: &mut usize) -> bool {
    let mut cursor = Cursor(bytes);
    while !cursor.0.is_empty() {
        *values += 1;
        if *values > MAX_VALUES {
            return false;
        }
        if nest == Nest::Table {
            let Some(name) = cursor.short_string() else {
                return false;
            };
            if std::str::from_utf8(name).is_err() || (depth == 1 && name.starts_with(OWN_PREFIX)) {
                return false;
            }
        }
        match value(&mut cursor) {
            Some(Value::Plain(_)) => {}
            Some(Value::Nested(_, inner, bytes)) => {
                if depth == MAX_DEPTH || !is_safe(bytes, inner, depth + 1, values) {
                    return false;
                }
            }
            None => return false,
        }
    }
    true
}

/// Builds a table from what is safe of another one. One that is too large becomes empty.
pub(super) fn rewrite(table: &[u8]) -> Table {
    let mut safe = Table::default();
    if table.len() > MAX_BYTES || safe.copy(table, Nest::Table, 1).is_err() {
        safe = Table {
            removed: Some(TOO_LARGE),
            ..Table::default()
        };
    }
    safe
}

/// There are too many values.
struct TooMany;

impl Table {
    /// Copies what is safe of a table or an array.
    fn copy(&mut self, bytes: &[u8], nest: Nest, depth: usize) -> Result<(), TooMany> {
        let mut cursor = Cursor(bytes);
        while !cursor.0.is_empty() {
            self.values += 1;
            if self.values > MAX_VALUES {
                return Err(TooMany);
            }
            let name = match nest {
                Nest::Table => cursor.short_string(),
                Nest::Array => Some([].as_slice()),
            };
            let (Some(name), Some(value)) = (name, value(&mut cursor)) else {
                // Where the next value begins isn't known, so the rest of this table is lost.
                self.removed = Some(UNKNOWN_TYPE);
                return Ok(());
            };
            if std::str::from_utf8(name).is_err() {
                self.removed = Some(NOT_UTF8);
                continue;
            }
            if depth == 1 && name.starts_with(OWN_PREFIX) {
                self.removed = Some(RESERVED);
                continue;
            }
            if nest == Nest::Table {
                self.bytes.push(u8::try_from(name.len()).unwrap_or(0));
                self.bytes.extend(name);
            }
            match value {
                Value::Plain(bytes) => self.bytes.extend(bytes),
                Value::Nested(..) if depth == MAX_DEPTH => {
                    self.bytes.push(b'V');
                    self.removed = Some(TOO_DEEP);
                }
                Value::Nested(tag, inner, bytes) => {
                    self.bytes.push(tag);
                    let at = self.bytes.len();
                    self.bytes.extend([0; 4]);
                    self.copy(bytes, inner, depth + 1)?;
                    let written = length(self.bytes.len() - at - 4);
                    if let Some(place) = self.bytes.get_mut(at..at + 4) {
                        place.copy_from_slice(&written);
                    }
                }
            }
        }
        Ok(())
    }

    /// Adds a header with a text.
    pub(super) fn add_text(&mut self, name: &str, text: &str) {
        self.add(name, b'S');
        self.bytes.extend(length(text.len()));
        self.bytes.extend(text.as_bytes());
    }

    /// Adds a header with a number.
    pub(super) fn add_number(&mut self, name: &str, number: u64) {
        self.add(name, b'l');
        self.bytes.extend(number.to_be_bytes());
    }

    fn add(&mut self, name: &str, tag: u8) {
        self.bytes.push(u8::try_from(name.len()).unwrap_or(0));
        self.bytes.extend(name.as_bytes());
        self.bytes.push(tag);
    }
}

enum Value<'a> {
    /// With its type.
    Plain(&'a [u8]),
    /// A table or an array: its type, and its content without the length.
    Nested(u8, Nest, &'a [u8]),
}

/// Reads a value of a type that lapin knows.
fn value<'a>(cursor: &mut Cursor<'a>) -> Option<Value<'a>> {
    let whole = cursor.0;
    let tag = cursor.u8()?;
    match tag {
        b'V' => Some([].as_slice()),
        b't' | b'b' | b'B' => cursor.take(1),
        b's' | b'U' | b'u' => cursor.take(2),
        b'I' | b'i' | b'f' => cursor.take(4),
        b'D' => cursor.take(5),
        b'l' | b'L' | b'd' | b'T' => cursor.take(8),
        b'S' | b'x' => cursor.long_string(),
        b'F' => return Some(Value::Nested(tag, Nest::Table, cursor.long_string()?)),
        b'A' => return Some(Value::Nested(tag, Nest::Array, cursor.long_string()?)),
        _ => None,
    }?;
    let rest = cursor.0.len();
    Some(Value::Plain(whole.get(..whole.len() - rest)?))
}
