//! The frames that the broker sends, and what lapin gets of them.

use std::collections::HashMap;

use super::budget::Budget;
use super::cursor::Cursor;
use super::frame::{self, HEADER_BYTES, Head};
use super::properties::{self, Checked};

/// Reads the stream of frames that the broker sends, in pieces of any size, and writes the stream
/// of frames that lapin gets.
pub(super) struct Filter {
    /// The bytes of a frame that pass unchanged,
    pass: u64,
    /// then those that are dropped,
    drop: u64,
    /// and then those that pass again.
    pass_after: u64,
    /// Bytes that replace a frame, and how many of them are written.
    replacement: Vec<u8>,
    replaced: usize,
    /// The bodies that are too long, by channel.
    cuts: HashMap<u16, Cut>,
    /// The tag of the last message that was delivered, by channel, until its size is known.
    tags: HashMap<u16, u64>,
    /// The limit of unacknowledged messages, if there is one.
    pub(super) budget: Option<Budget>,
}

/// A body that is too long.
struct Cut {
    /// What may still pass.
    pass: u64,
    /// What is still to come, that included.
    left: u64,
}

/// What a call has done.
#[derive(Debug, PartialEq)]
pub(super) struct Progress {
    /// The bytes of the input that it has used.
    pub(super) read: usize,
    /// The bytes of the output that it has written.
    pub(super) written: usize,
    /// Why it has stopped.
    pub(super) stop: Stop,
}

#[derive(Debug, PartialEq)]
pub(super) enum Stop {
    /// There is no room in the output.
    OutputFull,
    /// The rest of the input must grow to this many bytes.
    NeedsInput(usize),
    /// A message follows that must wait for the acknowledgement of others.
    Exhausted,
}

/// What to do at the beginning of a frame.
enum Begin {
    /// This many bytes of the input are used; what happens to others is in the filter.
    Begun(usize),
    Stop(Stop),
}

/// A frame that no broker sends.
#[derive(Debug, thiserror::Error)]
#[error("the broker sent a frame of {0} bytes")]
pub(super) struct TooLarge(u64);

/// The longest body that reaches lapin: one byte more than is allowed, so that it is seen to be too
/// long.
pub(super) const MAX_BODY_BYTES: u64 = voice_otp_schemas::envelope::MAX_BODY_BYTES as u64 + 1;
/// The limit of a frame that must be read as a whole: RabbitMQ's limit, 128 KiB, many times over.
const MAX_WHOLE_FRAME_BYTES: u64 = 16 << 20;
/// The memory that lapin needs for a message, besides its properties and its body.
const MESSAGE_COST: u64 = 512;
/// The memory that lapin needs for a value in the headers, besides its text.
const VALUE_COST: u64 = 128;

const BASIC: u16 = 60;
const BASIC_RETURN: u16 = 50;
const BASIC_DELIVER: u16 = 60;
const BASIC_GET_OK: u16 = 71;

impl Filter {
    pub(super) fn new(budget: Option<Budget>) -> Self {
        Self {
            pass: 0,
            drop: 0,
            pass_after: 0,
            replacement: Vec::new(),
            replaced: 0,
            cuts: HashMap::new(),
            tags: HashMap::new(),
            budget,
        }
    }

    /// Reads and writes as much as it can.
    ///
    /// # Errors
    /// [`TooLarge`]: the stream isn't one of AMQP frames.
    pub(super) fn run(&mut self, input: &[u8], output: &mut [u8]) -> Result<Progress, TooLarge> {
        let (mut read, mut written) = (0, 0);
        let stop = loop {
            let input = input.get(read..).unwrap_or_default();
            let output = output.get_mut(written..).unwrap_or_default();
            let replacing = self.replacement.get(self.replaced..).unwrap_or_default();
            if !replacing.is_empty() {
                let copied = copy(replacing, output);
                if copied == 0 {
                    break Stop::OutputFull;
                }
                self.replaced += copied;
                written += copied;
            } else if self.pass > 0 {
                let copied = copy(up_to(self.pass, input), output);
                if copied == 0 {
                    break if output.is_empty() {
                        Stop::OutputFull
                    } else {
                        Stop::NeedsInput(1)
                    };
                }
                self.pass -= copied as u64;
                read += copied;
                written += copied;
            } else if self.drop > 0 {
                let dropped = up_to(self.drop, input).len();
                if dropped == 0 {
                    break Stop::NeedsInput(1);
                }
                self.drop -= dropped as u64;
                read += dropped;
            } else if self.pass_after > 0 {
                self.pass = std::mem::take(&mut self.pass_after);
            } else {
                match self.begin(input)? {
                    Begin::Begun(used) => read += used,
                    Begin::Stop(stop) => break stop,
                }
            }
        };
        Ok(Progress {
            read,
            written,
            stop,
        })
    }

    /// Decides about the frame at the beginning of the input.
    fn begin(&mut self, input: &[u8]) -> Result<Begin, TooLarge> {
        let Some(head) = frame::head(input) else {
            return Ok(Begin::Stop(Stop::NeedsInput(HEADER_BYTES)));
        };
        match head.kind {
            frame::METHOD => self.begin_method(head, input),
            frame::HEADER => self.begin_header(head, input),
            frame::BODY => Ok(self.begin_body(head)),
            frame::HEARTBEAT => Ok(self.pass_frame(head)),
            // Another protocol, which lapin refuses: everything passes.
            _ => {
                self.pass = u64::MAX;
                Ok(Begin::Begun(0))
            }
        }
    }

    fn pass_frame(&mut self, head: Head) -> Begin {
        self.pass = head.frame_bytes();
        Begin::Begun(0)
    }

    fn replace_frame(&mut self, head: Head, payload: &[u8]) -> Begin {
        self.replacement = frame::write(head.kind, head.channel, payload);
        self.replaced = 0;
        Begin::Begun(HEADER_BYTES + head.size as usize + 1)
    }

    /// Methods pass, apart from texts of a publisher's that aren't UTF-8: its exchange and routing
    /// key.
    fn begin_method(&mut self, head: Head, input: &[u8]) -> Result<Begin, TooLarge> {
        let mut cursor = Cursor(input.get(HEADER_BYTES..).unwrap_or_default());
        let wanted = HEADER_BYTES + 4.min(head.size as usize);
        if input.len() < wanted {
            return Ok(Begin::Stop(Stop::NeedsInput(wanted)));
        }
        let (Some(BASIC), Some(method @ (BASIC_RETURN | BASIC_DELIVER | BASIC_GET_OK))) =
            (cursor.u16(), cursor.u16())
        else {
            return Ok(self.pass_frame(head));
        };
        if self.budget.as_ref().is_some_and(Budget::is_exhausted) && method == BASIC_DELIVER {
            return Ok(Begin::Stop(Stop::Exhausted));
        }
        let payload = match payload(head, input)? {
            Ok(payload) => payload,
            Err(needs) => return Ok(Begin::Stop(needs)),
        };
        let Some(announcement) = announcement(payload, method) else {
            return Ok(self.pass_frame(head));
        };
        if let (Some(tag), Some(_)) = (announcement.tag, &self.budget) {
            self.tags.insert(head.channel, tag);
        }
        Ok(match announcement.repaired {
            Some(repaired) => self.replace_frame(head, &repaired),
            None => self.pass_frame(head),
        })
    }

    fn begin_header(&mut self, head: Head, input: &[u8]) -> Result<Begin, TooLarge> {
        let payload = match payload(head, input)? {
            Ok(payload) => payload,
            Err(needs) => return Ok(Begin::Stop(needs)),
        };
        self.cuts.remove(&head.channel);
        let mut cursor = Cursor(payload);
        let (Some(class), Some(weight), Some(body)) = (cursor.u16(), cursor.u16(), cursor.u64())
        else {
            return Ok(self.pass_frame(head));
        };
        let is_cut = body > MAX_BODY_BYTES;
        let passed = body.min(MAX_BODY_BYTES);
        let checked = properties::check(cursor.0, is_cut.then_some(body));
        let (Checked::Safe(values) | Checked::Rewritten(_, values)) = checked;
        if let (Some(tag), Some(budget)) = (self.tags.remove(&head.channel), &mut self.budget) {
            let properties = u64::from(head.size) + values as u64 * VALUE_COST;
            budget.delivered(head.channel, tag, MESSAGE_COST + properties + passed);
        }
        let Checked::Rewritten(list, _) = checked else {
            return Ok(self.pass_frame(head));
        };
        if is_cut {
            let cut = Cut {
                pass: passed,
                left: body,
            };
            self.cuts.insert(head.channel, cut);
        }
        let mut payload = [class.to_be_bytes(), weight.to_be_bytes()].concat();
        payload.extend(passed.to_be_bytes());
        payload.extend(list);
        Ok(self.replace_frame(head, &payload))
    }

    /// The beginning of a long body passes; frames without any of it are dropped.
    fn begin_body(&mut self, head: Head) -> Begin {
        if self.cuts.is_empty() {
            return self.pass_frame(head);
        }
        let Some(cut) = self.cuts.get_mut(&head.channel) else {
            return self.pass_frame(head);
        };
        let size = u64::from(head.size);
        let pass = size.min(cut.pass);
        cut.pass -= pass;
        cut.left = cut.left.saturating_sub(size);
        if cut.left == 0 {
            self.cuts.remove(&head.channel);
        }
        if pass == size {
            return self.pass_frame(head);
        }
        if pass == 0 {
            self.drop = head.frame_bytes();
            return Begin::Begun(0);
        }
        let shorter = Head {
            size: u32::try_from(pass).unwrap_or(head.size),
            ..head
        };
        self.replacement = shorter.bytes().to_vec();
        self.replaced = 0;
        self.pass = pass;
        self.drop = size - pass;
        self.pass_after = 1;
        Begin::Begun(HEADER_BYTES)
    }
}

/// At most so many of the bytes.
fn up_to(limit: u64, bytes: &[u8]) -> &[u8] {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    bytes.get(..limit).unwrap_or(bytes)
}

/// Copies what fits, and returns how many bytes that are.
fn copy(bytes: &[u8], output: &mut [u8]) -> usize {
    let bytes = up_to(output.len() as u64, bytes);
    if let Some(place) = output.get_mut(..bytes.len()) {
        place.copy_from_slice(bytes);
    }
    bytes.len()
}

/// The payload of the frame at the beginning of the input, if all of it is there.
fn payload(head: Head, input: &[u8]) -> Result<Result<&[u8], Stop>, TooLarge> {
    let bytes = head.frame_bytes();
    let whole = match usize::try_from(bytes) {
        Ok(whole) if bytes <= MAX_WHOLE_FRAME_BYTES => whole,
        _ => return Err(TooLarge(bytes)),
    };
    Ok(input
        .get(HEADER_BYTES..whole - 1)
        .filter(|_| input.len() >= whole)
        .ok_or(Stop::NeedsInput(whole)))
}

/// A method that precedes a message.
struct Announcement {
    /// The delivery tag, if it has one.
    tag: Option<u64>,
    /// The payload with readable texts, if one isn't UTF-8.
    repaired: Option<Vec<u8>>,
}

/// Reads the payload of such a method. `None` if it can't be read.
fn announcement(payload: &[u8], method: u16) -> Option<Announcement> {
    let mut cursor = Cursor(payload);
    cursor.take(4)?;
    let mut texts = Vec::new();
    let mut text = |cursor: &mut Cursor<'_>| {
        let text = cursor.short_string()?;
        if std::str::from_utf8(text).is_err() {
            let end = payload.len() - cursor.0.len();
            texts.push(end - text.len()..end);
        }
        Some(())
    };
    let mut tag = None;
    match method {
        // The reply code and the reply text.
        BASIC_RETURN => {
            cursor.take(2)?;
            text(&mut cursor)?;
        }
        // The consumer's tag, the delivery tag, and whether it is redelivered.
        BASIC_DELIVER => {
            text(&mut cursor)?;
            tag = Some(cursor.u64()?);
            cursor.take(1)?;
        }
        // The delivery tag, and whether it is redelivered.
        _ => {
            tag = Some(cursor.u64()?);
            cursor.take(1)?;
        }
    }
    // The exchange and the routing key.
    text(&mut cursor)?;
    text(&mut cursor)?;
    let repaired = (!texts.is_empty()).then(|| {
        let mut repaired = payload.to_vec();
        for byte in texts.into_iter().flatten() {
            if let Some(byte) = repaired.get_mut(byte).filter(|byte| !byte.is_ascii()) {
                *byte = b'?';
            }
        }
        repaired
    });
    Some(Announcement { tag, repaired })
}
