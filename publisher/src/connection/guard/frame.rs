//! AMQP's frames.

use super::cursor::Cursor;

/// The header of a frame.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Head {
    pub(super) kind: u8,
    pub(super) channel: u16,
    /// The bytes of the payload.
    pub(super) size: u32,
}

pub(super) const METHOD: u8 = 1;
pub(super) const HEADER: u8 = 2;
pub(super) const BODY: u8 = 3;
pub(super) const HEARTBEAT: u8 = 8;

/// The bytes of a frame's header: kind, channel, size.
pub(super) const HEADER_BYTES: usize = 7;
/// The byte after the payload.
pub(super) const END: u8 = 0xce;

impl Head {
    /// The bytes of the whole frame.
    pub(super) fn frame_bytes(self) -> u64 {
        HEADER_BYTES as u64 + u64::from(self.size) + 1
    }

    pub(super) fn bytes(self) -> [u8; HEADER_BYTES] {
        let [high, low] = self.channel.to_be_bytes();
        let [a, b, c, d] = self.size.to_be_bytes();
        [self.kind, high, low, a, b, c, d]
    }
}

/// The header at the beginning of these bytes, if they are enough.
pub(super) fn head(bytes: &[u8]) -> Option<Head> {
    let mut cursor = Cursor(bytes);
    Some(Head {
        kind: cursor.u8()?,
        channel: cursor.u16()?,
        size: cursor.u32()?,
    })
}

/// A whole frame. Its payload fits one.
pub(super) fn write(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    let size = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    let head = Head {
        kind,
        channel,
        size,
    };
    [head.bytes().as_slice(), payload, &[END]].concat()
}
