//! Bodies that are too long, methods, and the limit of unacknowledged bytes.

use super::super::budget::Budget;
use super::super::filter::{Filter, MAX_BODY_BYTES, Stop};
use super::super::frame;
use super::super::properties::BODY_BYTES;
use super::{content, deliver, filtered, with_headers};

/// The frames of a body.
fn body(channel: u16, bytes: &[u8], frame_bytes: usize) -> Vec<u8> {
    let frames = bytes.chunks(frame_bytes);
    frames
        .flat_map(|part| frame::write(frame::BODY, channel, part))
        .collect()
}

#[test]
fn what_is_allowed_passes_byte_for_byte_however_the_stream_is_cut() {
    let longest = vec![b'x'; usize::try_from(MAX_BODY_BYTES).unwrap() - 1];
    let stream = [
        // Methods of other classes.
        frame::write(frame::METHOD, 0, &[0, 10, 0, 30, 0, 1, 2, 3]),
        frame::write(frame::METHOD, 7, &[0, 90, 0, 11]),
        frame::write(frame::HEARTBEAT, 0, b""),
        deliver(1, 1, b"otp.requested"),
        content(1, 5, b"\0\0"),
        body(1, b"hello", 2),
        deliver(2, 1, b"otp.requested"),
        content(
            2,
            longest.len() as u64,
            &with_headers(b"\x03keyS\0\0\0\x01v"),
        ),
        body(2, &longest, 4_000),
        frame::write(frame::HEARTBEAT, 0, b""),
    ]
    .concat();
    for (piece, room) in [
        (1, 7),
        (7, 1),
        (3, 1_000),
        (1_000, 3),
        (8_192, 9_000),
        (1 << 20, 1 << 20),
    ] {
        let (output, stop) = filtered(&mut Filter::new(None), &stream, piece, room);
        assert_eq!(stop, Stop::NeedsInput(frame_header()), "{piece} {room}");
        assert!(output == stream, "{piece} {room}");
    }
}

fn frame_header() -> usize {
    super::super::frame::HEADER_BYTES
}

#[test]
fn a_body_that_is_too_long_is_cut_and_the_next_message_is_whole() {
    let limit = usize::try_from(MAX_BODY_BYTES).unwrap();
    for (length, frame_bytes) in [
        (limit + 1, 131_064),
        (limit + 1, limit),
        (limit + 5, limit + 1),
        (limit * 3, 1_000),
        (5_000_000, 131_064),
    ] {
        let long: Vec<u8> = (0..=250).cycle().take(length).collect();
        let next = [
            deliver(1, 2, b"next"),
            content(1, 3, b"\0\0"),
            body(1, b"abc", 9),
        ]
        .concat();
        // Another channel's frames come between those of the long body.
        let other = [
            deliver(2, 1, b"other"),
            content(2, 3, b"\0\0"),
            body(2, b"xyz", 9),
        ]
        .concat();
        let (first, last) = long.split_at(frame_bytes.min(length));
        let stream = [
            deliver(1, 1, b"long"),
            content(1, length as u64, b"\x80\0\x04text"),
            body(1, first, frame_bytes),
            other.clone(),
            body(1, last, frame_bytes),
            next.clone(),
        ]
        .concat();
        let marker = [
            &[u8::try_from(BODY_BYTES.len()).unwrap()],
            BODY_BYTES.as_bytes(),
            b"l",
            &(length as u64).to_be_bytes(),
        ]
        .concat();
        let properties = [b"\xa0\0\x04text".as_slice(), &super::long(&marker)].concat();
        let cut_first = &first[..first.len().min(limit)];
        let cut_last = &last[..limit - cut_first.len()];
        let wanted = [
            deliver(1, 1, b"long"),
            content(1, MAX_BODY_BYTES, &properties),
            body(1, cut_first, frame_bytes),
            other,
            body(1, cut_last, frame_bytes),
            next,
        ]
        .concat();
        for (piece, room) in [(1, 100_000), (4_096, 100), (131_072, 131_072)] {
            let (output, _) = filtered(&mut Filter::new(None), &stream, piece, room);
            assert!(output == wanted, "{length} {frame_bytes} {piece} {room}");
        }
    }
}

#[test]
fn a_routing_key_that_is_not_utf8_is_repaired() {
    let stream = deliver(1, 1, b"a\xffb\xc3\xa4\xc3");
    let (output, _) = filtered(&mut Filter::new(None), &stream, 5, 5);
    assert_eq!(output, deliver(1, 1, b"a?b???"));
    let payload = &output[frame_header()..output.len() - 1];
    let (rest, _) = lapin::protocol::parse_class(payload).unwrap();
    assert!(rest.is_empty());
    assert!(lapin::protocol::parse_class(&stream[frame_header()..stream.len() - 1]).is_err());
}

#[test]
fn a_message_waits_while_too_many_bytes_are_unacknowledged_and_answers_do_not() {
    let message = |tag| {
        [
            deliver(1, tag, b"key"),
            content(1, 3, b"\0\0"),
            body(1, b"abc", 9),
        ]
        .concat()
    };
    let answer = frame::write(frame::METHOD, 1, &[0, 60, 0, 11]);
    let stream = [message(1), answer.clone(), message(2), answer, message(3)].concat();
    let mut filter = Filter::new(Some(Budget::new(600)));
    let waiting = message(3).len();
    let (output, stop) = filtered(&mut filter, &stream, 10, 10);
    assert_eq!(stop, Stop::Exhausted);
    assert_eq!(output, stream[..stream.len() - waiting]);
    let (output, stop) = filtered(&mut filter, &message(3), 10, 10);
    assert_eq!((output.len(), stop), (0, Stop::Exhausted));
    let budget = filter.budget.as_mut().unwrap();
    budget.sent(b"AMQP\0\0\x09\x01");
    let ack = [[0, 60, 0, 80].as_slice(), &1_u64.to_be_bytes(), &[0]].concat();
    budget.sent(&frame::write(frame::METHOD, 1, &ack));
    let (output, _) = filtered(&mut filter, &message(3), 10, 10);
    assert_eq!(output, message(3));
}

#[test]
fn headers_count_by_the_memory_that_they_need() {
    let message = |tag, headers: &[u8]| {
        let list = with_headers(headers);
        [deliver(1, tag, b"key"), content(1, 0, &list)].concat()
    };
    let values = b"\x01aV".repeat(250);
    let text = [
        b"\x01aS".as_slice(),
        &super::long(&b"x".repeat(values.len() - 7)),
    ]
    .concat();
    // Of the second one something is removed.
    for (headers, waits) in [
        (values.clone(), true),
        ([values.as_slice(), b"\x01\xffV"].concat(), true),
        (text, false),
    ] {
        let mut filter = Filter::new(Some(Budget::new(30_000)));
        let stream = [message(1, &headers), message(2, b"")].concat();
        let (_, stop) = filtered(&mut filter, &stream, 1_000, 1_000);
        assert_eq!(stop == Stop::Exhausted, waits);
    }
}
