//! The tables at the end.

use std::collections::HashMap;
use std::time::Duration;

use voice_otp_schemas::Timestamp;

use super::faults::InjectedFault;
use super::stall;
use super::verdict::{Request, Statuses, Verdict};
use crate::twilio::CreatedCall as Call;

/// How many deliveries of each kind of failure are shown.
const EXAMPLES: usize = 3;
/// A shorter stall is none.
const NO_STALL: Duration = Duration::from_secs(1);

/// Prints for each fault the longest stalls between its beginning and the next one's.
pub(crate) fn print_faults(
    injected: &[InjectedFault],
    requests: &HashMap<String, Request>,
    calls: &[Call],
) {
    let mut placed: Vec<_> = calls.iter().map(|call| call.created).collect();
    let mut confirmed: Vec<_> = requests.values().filter_map(|one| one.confirmed).collect();
    placed.sort_unstable();
    confirmed.sort_unstable();
    let mut waits = waits(requests, calls);
    waits.sort_unstable();
    println!(
        "\n{:<22} {:>10} {:>14} {:>14} {:>14} {:>14}",
        "fault", "recovered", "no placement", "placed again", "no confirm", "slowest call"
    );
    for (n, one) in injected.iter().enumerate() {
        let end = injected.get(n + 1).map_or_else(
            || one.recovered + Duration::from_secs(10),
            |next| next.began,
        );
        let placing = stall::longest(&placed, one.began, end);
        let confirming = stall::longest(&confirmed, one.began, end);
        let again = if placing.length < NO_STALL {
            "at once".to_owned()
        } else {
            format!("after {}", seconds(since(one.began, placing.end)))
        };
        let slowest = waits
            .iter()
            .filter(|(published, _)| (one.began..end).contains(published))
            .map(|(_, wait)| *wait)
            .max();
        println!(
            "{:<22} {:>10} {:>14} {again:>14} {:>14} {:>14}",
            one.what,
            seconds(since(one.began, one.recovered)),
            seconds(placing.length),
            seconds(confirming.length),
            slowest.map_or_else(|| "none".to_owned(), seconds),
        );
    }
}

/// For every request that was called, when it was published and how long it waited for its first
/// call.
fn waits(requests: &HashMap<String, Request>, calls: &[Call]) -> Vec<(Timestamp, Duration)> {
    let mut first: HashMap<&str, Timestamp> = HashMap::new();
    for call in calls {
        let at = first.entry(&call.to).or_insert(call.created);
        *at = call.created.min(*at);
    }
    requests
        .values()
        .filter_map(|request| {
            let placed = first.get(request.to.as_str())?;
            Some((request.published, since(request.published, *placed)))
        })
        .collect()
}

pub(crate) fn print_verdict(
    verdict: &Verdict,
    received: usize,
    only_in_log: usize,
    fencing: &[String],
) {
    println!();
    for (name, count) in [
        ("published", verdict.published),
        ("confirmed", verdict.confirmed),
        ("accepted", verdict.accepted),
        ("calls", verdict.calls),
        ("statuses, with repeats", received),
        ("statuses, in the log only", only_in_log),
    ] {
        println!("{name:<25} {count:>10}");
    }
    for (name, found) in verdict.failures() {
        println!("{name:<25} {:>10}", found.len());
    }
    let endings: Vec<_> = verdict
        .endings
        .iter()
        .map(|(status, count)| format!("{status} {count}"))
        .collect();
    println!("endings: {}", endings.join(", "));
    for line in fencing {
        println!("fencing: {line}");
    }
}

/// Prints some of the deliveries that failed, with all that is known of them.
pub(crate) fn print_examples(
    verdict: &Verdict,
    requests: &HashMap<String, Request>,
    calls: &[Call],
    statuses: &HashMap<String, Statuses>,
) {
    for (name, found) in verdict.failures() {
        for delivery in found.iter().take(EXAMPLES) {
            let request = requests.get(delivery);
            let placed: Vec<_> = calls
                .iter()
                .filter(|call| request.is_some_and(|request| request.to == call.to))
                .map(|call| call.created.to_string())
                .collect();
            let seen: Vec<_> = statuses
                .get(delivery)
                .into_iter()
                .flatten()
                .flat_map(|(number, events)| {
                    events
                        .iter()
                        .map(move |event| format!("{number} {}", event.name))
                })
                .collect();
            println!(
                "{name}: {delivery}, published {}, called {placed:?}, statuses {seen:?}",
                request.map_or_else(String::new, |request| request.published.to_string()),
            );
        }
    }
}

fn since(from: Timestamp, to: Timestamp) -> Duration {
    (to - from).to_std().unwrap_or_default()
}

fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}
