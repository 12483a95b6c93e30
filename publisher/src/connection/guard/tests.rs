mod bodies;
mod headers;

use super::filter::{Filter, Stop};
use super::frame;

/// A short string.
fn short(text: &[u8]) -> Vec<u8> {
    [&[u8::try_from(text.len()).unwrap()], text].concat()
}

/// A long string, a table or an array.
fn long(bytes: &[u8]) -> Vec<u8> {
    [&u32::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
}

/// The frame of `basic.deliver`.
fn deliver(channel: u16, tag: u64, routing_key: &[u8]) -> Vec<u8> {
    let payload = [
        vec![0, 60, 0, 60],
        short(b"amq.ctag-1"),
        tag.to_be_bytes().to_vec(),
        vec![0],
        short(b"voice-otp.requests"),
        short(routing_key),
    ];
    frame::write(frame::METHOD, channel, &payload.concat())
}

/// The frame of a content header.
fn content(channel: u16, body_bytes: u64, properties: &[u8]) -> Vec<u8> {
    let payload = [
        [0, 60, 0, 0].as_slice(),
        &body_bytes.to_be_bytes(),
        properties,
    ];
    frame::write(frame::HEADER, channel, &payload.concat())
}

/// A property list with headers only.
fn with_headers(table: &[u8]) -> Vec<u8> {
    [[0x20, 0].as_slice(), &long(table)].concat()
}

/// What a reader with room for `room` bytes gets of a stream that comes in pieces of `piece` bytes,
/// and why it gets no more.
fn filtered(filter: &mut Filter, stream: &[u8], piece: usize, room: usize) -> (Vec<u8>, Stop) {
    let (mut read, mut arrived, mut output) = (0, 0, Vec::new());
    loop {
        let mut space = vec![0; room];
        let progress = filter.run(&stream[read..arrived], &mut space).unwrap();
        read += progress.read;
        output.extend(&space[..progress.written]);
        match progress.stop {
            Stop::OutputFull => {}
            Stop::NeedsInput(_) if arrived < stream.len() => {
                arrived = (arrived + piece).min(stream.len());
            }
            stop => return (output, stop),
        }
    }
}
