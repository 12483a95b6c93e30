//! The queues of the lanes: how many there are, and which lanes each of them receives.
//!
//! A publisher puts one of [`LANES`] lanes into the routing key. Lane `n` goes to the queue `n`
//! modulo the number of queues, which is the workers' setting. If that number changes, each lane is
//! bound to its new queue before it is unbound from the old one: a message that reaches two queues
//! is a duplicate, but a message that reaches none is lost. Old queues are consumed for as long as
//! they exist.

use std::fmt;
use std::time::Duration;

use super::declaring::{Declarer, Error};
use super::{LANES, REQUESTS, REQUESTS_QUEUE, lane_queue};

/// The number of queues that the lanes share: a power of two from 1 to [`LANES`]. The more there
/// are, the fewer tenants wait for another tenant's flood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaneCount(u16);

/// The queues of the lanes on a broker, as far as they were found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LaneQueues {
    /// The number of queues that the lanes are bound to: a power of two, or 0 if the shared queue
    /// receives every lane.
    count: u16,
    /// The queues beyond those, of another setting.
    others: Vec<u16>,
}

/// The binding key of [`REQUESTS_QUEUE`] while there are no lanes.
const EVERY_LANE: &str = "otp.#";
/// How long after the removal of its last binding a queue may still receive a message.
const SETTLE_TIME: Duration = Duration::from_secs(1);

impl LaneCount {
    /// `None` if it isn't a power of two from 1 to [`LANES`].
    pub fn new(count: u16) -> Option<Self> {
        (count.is_power_of_two() && count <= LANES).then_some(Self(count))
    }

    /// Every number of queues.
    fn all() -> impl DoubleEndedIterator<Item = u16> {
        (0..=LANES.ilog2()).map(|exponent| 1 << exponent)
    }
}

impl Default for LaneCount {
    fn default() -> Self {
        Self(LANES)
    }
}

impl fmt::Display for LaneCount {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl LaneQueues {
    /// The names of all queues.
    pub fn names(&self) -> Vec<String> {
        let numbers = (0..self.count).chain(self.others.iter().copied());
        numbers.map(lane_queue).collect()
    }

    /// The number of queues that the lanes share. `None`: the shared queue receives every lane.
    pub fn count(&self) -> Option<LaneCount> {
        LaneCount::new(self.count)
    }

    /// The first queue that would exist if there were more.
    pub(super) fn first_unknown(&self) -> Option<u16> {
        (self.count..LANES).find(|number| !self.others.contains(number))
    }
}

/// Declares the queues and binds the lanes to them.
pub(super) async fn declare(
    declarer: &mut Declarer<'_>,
    wanted: LaneCount,
) -> Result<LaneQueues, Error> {
    let (declared, refusal) = declare_queues(declarer, wanted).await?;
    let count = LaneCount::all()
        .rfind(|count| *count <= declared)
        .unwrap_or(0);
    if let Some(error) = refusal {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            lanes.wanted = wanted.0,
            lanes.used = count,
            "the broker has no room for so many queues; using fewer: raise its limit, or set \
             VOICE_OTP_LANES"
        );
    }
    bind(declarer, count).await?;
    if declared > count {
        // The limit of queues is exhausted now, perhaps for other programs too.
        tokio::time::sleep(SETTLE_TIME).await;
        for number in count..declared {
            declarer.delete_if_idle(&lane_queue(number)).await?;
        }
    }
    let others = find_others(declarer, count).await?;
    if !others.is_empty() {
        tracing::info!(
            queues = others.len(),
            "consuming the queues of another number of lanes too"
        );
    }
    Ok(LaneQueues { count, others })
}

/// Declares the queues that were found before, and their bindings.
pub(super) async fn restore_all(
    declarer: &mut Declarer<'_>,
    found: &LaneQueues,
) -> Result<(), Error> {
    let Some(count) = found.count() else {
        return declarer.bind(REQUESTS, REQUESTS, EVERY_LANE).await;
    };
    if let (_, Some(refusal)) = declare_queues(declarer, count).await? {
        return Err(refusal);
    }
    declarer.bind_at_once(REQUESTS, &bindings(count.0)).await
}

/// Declares the queues from 0 on. Returns how many; and if a limit of the broker leaves no room for
/// more, its refusal.
async fn declare_queues(
    declarer: &mut Declarer<'_>,
    wanted: LaneCount,
) -> Result<(u16, Option<Error>), Error> {
    let names: Vec<String> = (0..wanted.0).map(lane_queue).collect();
    if declarer
        .declare_at_once(&names, REQUESTS_QUEUE.arguments)
        .await
        .is_ok()
    {
        return Ok((wanted.0, None));
    }
    // One by one, to see which of them is refused and why.
    for (declared, name) in (0..).zip(&names) {
        match declarer.declare(name, REQUESTS_QUEUE.arguments).await {
            Ok(()) => {}
            Err(error) if error.is_queue_limit() => return Ok((declared, Some(error))),
            Err(error) => return Err(error),
        }
    }
    Ok((wanted.0, None))
}

/// Binds each lane to its queue, and unbinds it from the queues of other settings.
async fn bind(declarer: &mut Declarer<'_>, count: u16) -> Result<(), Error> {
    let every_lane = [(REQUESTS.to_owned(), EVERY_LANE.to_owned())];
    let right = bindings(count);
    let mut wrong: Vec<_> = (0..LANES)
        .flat_map(|lane| LaneCount::all().filter_map(move |other| binding(lane, other)))
        .filter(|binding| !right.contains(binding))
        .collect();
    wrong.sort();
    wrong.dedup();
    if count == 0 {
        declarer.bind_at_once(REQUESTS, &every_lane).await?;
    } else {
        declarer.bind_at_once(REQUESTS, &right).await?;
        declarer.unbind_at_once(REQUESTS, &every_lane).await?;
    }
    declarer.unbind_at_once(REQUESTS, &wrong).await?;
    // Again: a worker with another setting may have unbound them in the meantime, as this one did.
    declarer.bind_at_once(REQUESTS, &right).await
}

/// Every lane's binding to one of so many queues.
fn bindings(count: u16) -> Vec<(String, String)> {
    (0..LANES).filter_map(|lane| binding(lane, count)).collect()
}

/// The queue of a lane among so many, and the binding key.
fn binding(lane: u16, count: u16) -> Option<(String, String)> {
    let queue = lane_queue(lane.checked_rem(count)?);
    Some((queue, format!("otp.*.{lane:03}")))
}

/// Whether a message with this routing key can be in a queue, whatever the number of queues that
/// the lanes share, now or when it was published. `None` if the key leads to no queue of requests.
pub fn leads_to(routing_key: &str, queue: &str) -> Option<bool> {
    let mut words = routing_key.split('.');
    let ("otp", Some(_), lane, None) = (words.next()?, words.next(), words.next(), words.next())
    else {
        return None;
    };
    let Some(lane) = lane else {
        return Some(queue == REQUESTS);
    };
    let number: u16 = lane.parse().ok().filter(|number| *number < LANES)?;
    if lane.len() != 3 {
        return None;
    }
    // The shared queue receives every lane until a worker has declared their queues.
    let mut queues = LaneCount::all().map(|count| lane_queue(number % count));
    Some(queue == REQUESTS || queues.any(|of_lane| of_lane == queue))
}

/// The queues from this number on that exist: up to the first gap, and all if the last one of any
/// other setting exists.
async fn find_others(declarer: &mut Declarer<'_>, count: u16) -> Result<Vec<u16>, Error> {
    let mut others = Vec::new();
    let mut end = count;
    for other in LaneCount::all().filter(|other| *other > count) {
        if declarer.exists(&lane_queue(other - 1)).await? {
            end = other;
        }
    }
    for number in count..LANES {
        if declarer.exists(&lane_queue(number)).await? {
            others.push(number);
        } else if number >= end {
            break;
        }
    }
    Ok(others)
}

/// Declares a queue again that was deleted. Returns false if it is one of another setting.
pub(super) async fn restore(
    declarer: &mut Declarer<'_>,
    name: &str,
    queues: &LaneQueues,
) -> Result<bool, Error> {
    let mut bindings = bindings(queues.count);
    bindings.retain(|(queue, _)| queue == name);
    if bindings.is_empty() {
        return declarer.exists(name).await;
    }
    declarer.declare(name, REQUESTS_QUEUE.arguments).await?;
    declarer.bind_at_once(REQUESTS, &bindings).await?;
    Ok(true)
}

/// For a publisher that comes before the first worker, and doesn't know how many queues the lanes
/// will have.
pub(super) async fn bind_all_to_the_shared_queue_unless_there_are_lanes(
    declarer: &mut Declarer<'_>,
) -> Result<(), Error> {
    let first = lane_queue(0);
    if declarer.exists(&first).await? {
        return Ok(());
    }
    declarer.bind(REQUESTS, REQUESTS, EVERY_LANE).await?;
    // A worker may have declared the lanes in the meantime, and removed this binding before it was
    // made.
    if declarer.exists(&first).await? {
        let every_lane = [(REQUESTS.to_owned(), EVERY_LANE.to_owned())];
        declarer.unbind_at_once(REQUESTS, &every_lane).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_lane_has_one_queue_whatever_their_number() {
        for count in LaneCount::all() {
            let mut lanes_of = vec![0; usize::from(count)];
            for lane in 0..LANES {
                let (queue, key) = binding(lane, count).unwrap();
                assert_eq!(key, format!("otp.*.{lane:03}"));
                let number: usize = queue.rsplit('.').next().unwrap().parse().unwrap();
                lanes_of[number] += 1;
            }
            assert!(lanes_of.iter().all(|lanes| *lanes == LANES / count));
        }
        assert_eq!(binding(5, 0), None);
    }

    #[test]
    fn the_number_of_queues_is_a_power_of_two() {
        let all: Vec<u16> = (0..300).filter(|n| LaneCount::new(*n).is_some()).collect();
        assert_eq!(all, [1, 2, 4, 8, 16, 32, 64, 128]);
        assert_eq!(all, LaneCount::all().collect::<Vec<_>>());
    }

    #[test]
    fn a_queue_of_another_setting_is_looked_for_behind_those_that_are_known() {
        let unknown = |count, others: &[u16]| {
            let others = others.to_vec();
            LaneQueues { count, others }.first_unknown()
        };
        assert_eq!(unknown(128, &[]), None);
        assert_eq!(unknown(16, &[]), Some(16));
        assert_eq!(unknown(16, &[16, 17]), Some(18));
        assert_eq!(unknown(0, &[]), Some(0));
    }
}
