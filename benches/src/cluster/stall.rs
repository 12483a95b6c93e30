//! The longest time in which something that should happen all the time did not happen.

use std::time::Duration;

use voice_otp_schemas::Timestamp;

/// A time without an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stall {
    pub(crate) length: Duration,
    pub(crate) end: Timestamp,
}

/// The longest time without an event that begins between two moments. `events` are in order.
pub(crate) fn longest(events: &[Timestamp], from: Timestamp, to: Timestamp) -> Stall {
    let mut longest = Stall {
        length: Duration::ZERO,
        end: from,
    };
    let mut since = from;
    let later = events.get(events.partition_point(|event| *event <= from)..);
    // The last one may be the first event after the time.
    for event in later.unwrap_or_default().iter().copied().chain([to]) {
        let length = (event - since).to_std().unwrap_or_default();
        if length > longest.length {
            longest = Stall { length, end: event };
        }
        since = since.max(event);
        if since >= to {
            break;
        }
    }
    longest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_timestamp(1_000_000 + second, 0).unwrap()
    }

    #[test]
    fn the_longest_stall_may_be_first_inside_or_last() {
        let check = |events: &[i64], length: u64, end: i64| {
            let events: Vec<_> = events.iter().map(|second| at(*second)).collect();
            let expected = Stall {
                length: Duration::from_secs(length),
                end: at(end),
            };
            assert_eq!(longest(&events, at(10), at(20)), expected, "{events:?}");
        };
        check(&[1, 9, 15, 18, 20], 5, 15);
        check(&[11, 12, 18, 19], 6, 18);
        check(&[11, 12, 13, 30], 17, 30);
        check(&[11, 12, 13], 7, 20);
        check(&[], 10, 20);
    }
}
