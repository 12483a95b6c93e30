//! The bytes of the messages that were delivered on a connection and not acknowledged.
//!
//! AMQP has a limit of them, the `prefetch_size` of `basic.qos`, which RabbitMQ doesn't implement.

use std::collections::BTreeMap;

use super::cursor::Cursor;
use super::frame::{self, HEADER_BYTES, Head};

/// The unacknowledged messages of a connection, and their limit.
pub(super) struct Budget {
    limit: u64,
    used: u64,
    /// The cost of each unacknowledged message, by channel and delivery tag.
    costs: BTreeMap<(u16, u64), u64>,
    sent: Sent,
}

/// The place in the stream of frames that the client sends.
#[derive(Default)]
struct Sent {
    /// The bytes to skip before the next frame.
    skip: u64,
    /// The beginning of a frame.
    head: Vec<u8>,
}

/// The part of a method frame that is looked at: the frame's header, the method, and the arguments
/// of `basic.nack`.
const METHOD_BYTES: usize = HEADER_BYTES + 4 + 9;
/// The client begins with this instead of a frame.
const PROTOCOL_HEADER_BYTES: u64 = 8;

const CHANNEL_CLOSE: (u16, u16) = (20, 40);
const CHANNEL_CLOSE_OK: (u16, u16) = (20, 41);
const BASIC_ACK: (u16, u16) = (60, 80);
const BASIC_REJECT: (u16, u16) = (60, 90);
const BASIC_NACK: (u16, u16) = (60, 120);

impl Budget {
    pub(super) fn new(limit: u64) -> Self {
        Self {
            limit,
            used: 0,
            costs: BTreeMap::new(),
            sent: Sent {
                skip: PROTOCOL_HEADER_BYTES,
                head: Vec::new(),
            },
        }
    }

    /// Whether the next message must wait for an acknowledgement. A single message always fits.
    pub(super) fn is_exhausted(&self) -> bool {
        self.used >= self.limit && !self.costs.is_empty()
    }

    /// A message was delivered.
    pub(super) fn delivered(&mut self, channel: u16, tag: u64, cost: u64) {
        self.used += cost;
        let replaced = self.costs.insert((channel, tag), cost);
        self.settle(replaced);
    }

    /// The client has sent these bytes. Finds the acknowledgements in them.
    pub(super) fn sent(&mut self, mut bytes: &[u8]) {
        loop {
            let skipped = usize::try_from(self.sent.skip).unwrap_or(usize::MAX);
            let skipped = skipped.min(bytes.len());
            self.sent.skip -= skipped as u64;
            bytes = bytes.get(skipped..).unwrap_or_default();
            if bytes.is_empty() {
                return;
            }
            let wanted = match frame::head(&self.sent.head) {
                None => HEADER_BYTES,
                Some(head) => METHOD_BYTES.min(HEADER_BYTES + head.size as usize),
            };
            let missing = wanted.saturating_sub(self.sent.head.len()).min(bytes.len());
            let (more, rest) = bytes.split_at(missing);
            self.sent.head.extend(more);
            bytes = rest;
            let Some(head) = frame::head(&self.sent.head) else {
                continue;
            };
            let has_method =
                self.sent.head.len() >= METHOD_BYTES.min(HEADER_BYTES + head.size as usize);
            if head.kind == frame::METHOD && !has_method {
                continue;
            }
            let beginning = std::mem::take(&mut self.sent.head);
            self.sent.skip = head.frame_bytes() - beginning.len() as u64;
            if head.kind == frame::METHOD {
                self.settle_by(head, beginning.get(HEADER_BYTES..).unwrap_or_default());
            }
        }
    }

    /// The client has sent this method.
    fn settle_by(&mut self, head: Head, payload: &[u8]) {
        let mut cursor = Cursor(payload);
        let (Some(class), Some(method)) = (cursor.u16(), cursor.u16()) else {
            return;
        };
        let channel = head.channel;
        match (class, method) {
            CHANNEL_CLOSE | CHANNEL_CLOSE_OK => self.settle_all((channel, 0), (channel, u64::MAX)),
            BASIC_ACK | BASIC_REJECT | BASIC_NACK => {
                let (Some(tag), Some(bits)) = (cursor.u64(), cursor.u8()) else {
                    return;
                };
                let is_multiple = (class, method) != BASIC_REJECT && bits & 1 != 0;
                if is_multiple {
                    // Tag 0 is every message of the channel.
                    let last = if tag == 0 { u64::MAX } else { tag };
                    self.settle_all((channel, 0), (channel, last));
                } else {
                    let settled = self.costs.remove(&(channel, tag));
                    self.settle(settled);
                }
            }
            _ => {}
        }
    }

    fn settle_all(&mut self, first: (u16, u64), last: (u16, u64)) {
        let settled: Vec<_> = self
            .costs
            .range(first..=last)
            .map(|(key, _)| *key)
            .collect();
        for key in settled {
            let settled = self.costs.remove(&key);
            self.settle(settled);
        }
    }

    fn settle(&mut self, cost: Option<u64>) {
        self.used = self.used.saturating_sub(cost.unwrap_or(0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(class: u16, method: u16, channel: u16, arguments: &[u8]) -> Vec<u8> {
        let mut payload = [class.to_be_bytes(), method.to_be_bytes()].concat();
        payload.extend(arguments);
        frame::write(frame::METHOD, channel, &payload)
    }

    fn settling(tag: u64, bits: u8) -> Vec<u8> {
        [tag.to_be_bytes().as_slice(), &[bits]].concat()
    }

    #[test]
    fn each_way_of_settling_gives_the_bytes_back_however_the_stream_is_cut() {
        let stream = [
            b"AMQP\0\0\x09\x01".to_vec(),
            sent(
                10,
                11,
                0,
                b"a method with longer arguments than an acknowledgement",
            ),
            frame::write(frame::HEARTBEAT, 0, b""),
            sent(60, 80, 1, &settling(3, 0)),
            frame::write(frame::BODY, 1, &sent(60, 80, 1, &settling(9, 0))),
            sent(20, 10, 1, b"\0"),
            sent(60, 90, 1, &settling(4, 1)),
            sent(60, 120, 1, &settling(5, 0b10)),
            sent(60, 120, 2, &settling(2, 0b11)),
            sent(20, 40, 3, b"\0\xc8\x04done\0\0\0\0"),
        ]
        .concat();
        for cut in 1..stream.len() {
            let mut budget = Budget::new(200);
            for (channel, tag) in [
                (1, 3),
                (1, 4),
                (1, 5),
                (1, 9),
                (2, 1),
                (2, 2),
                (2, 3),
                (3, 1),
            ] {
                budget.delivered(channel, tag, 100);
            }
            assert!(budget.is_exhausted());
            for part in stream.chunks(cut) {
                budget.sent(part);
            }
            let left: Vec<_> = budget.costs.keys().copied().collect();
            assert_eq!((left, budget.used), (vec![(1, 9), (2, 3)], 200), "{cut}");
        }
    }
}
