//! Compares what was published with the calls at Twilio and with the published statuses.

use std::collections::{BTreeMap, HashMap};

use voice_otp_schemas::Timestamp;

use crate::twilio::CreatedCall as Call;

/// A request as it was published.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    /// The number, which only this request calls.
    pub(crate) to: String,
    pub(crate) published: Timestamp,
    /// When the broker confirmed it.
    pub(crate) confirmed: Option<Timestamp>,
    /// The last moment at which it may be called.
    pub(crate) deadline: Timestamp,
}

/// A status event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Status {
    /// The event's id.
    pub(crate) id: String,
    pub(crate) name: &'static str,
    pub(crate) is_final: bool,
}

/// The statuses of a delivery by their sequence numbers. A repeated event counts once; two
/// different events with one number are two.
pub(crate) type Statuses = BTreeMap<u32, Vec<Status>>;

/// How many calls a request may make: the tenants' default.
const CALLS_ALLOWED: usize = 1;

/// What came of the requests. Of each kind of failure, the deliveries.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    pub(crate) published: usize,
    pub(crate) confirmed: usize,
    /// Requests with the status `accepted`.
    pub(crate) accepted: usize,
    pub(crate) calls: usize,
    /// Confirmed, without a final status.
    pub(crate) lost: Vec<String>,
    /// Called more often than allowed.
    pub(crate) twice: Vec<String>,
    /// Called after the deadline.
    pub(crate) late: Vec<String>,
    /// With several final statuses.
    pub(crate) several_endings: Vec<String>,
    /// With a sequence number that is missing, or that two events have.
    pub(crate) broken_sequences: Vec<String>,
    /// The final statuses, counted.
    pub(crate) endings: BTreeMap<&'static str, usize>,
}

impl Verdict {
    pub(crate) fn of(
        requests: &HashMap<String, Request>,
        calls: &[Call],
        statuses: &HashMap<String, Statuses>,
    ) -> Self {
        let mut calls_to: HashMap<&str, Vec<&Call>> = HashMap::new();
        for call in calls {
            calls_to.entry(&call.to).or_default().push(call);
        }
        let mut verdict = Self {
            published: requests.len(),
            calls: calls.len(),
            ..Self::default()
        };
        for (delivery, request) in requests {
            verdict.confirmed += usize::from(request.confirmed.is_some());
            let calls = calls_to
                .get(request.to.as_str())
                .map_or(&[][..], Vec::as_slice);
            if calls.len() > CALLS_ALLOWED {
                verdict.twice.push(delivery.clone());
            }
            if calls.iter().any(|call| call.created > request.deadline) {
                verdict.late.push(delivery.clone());
            }
            verdict.add_statuses(delivery, request, statuses.get(delivery));
        }
        verdict
    }

    fn add_statuses(&mut self, delivery: &str, request: &Request, statuses: Option<&Statuses>) {
        let none = Statuses::new();
        let statuses = statuses.unwrap_or(&none);
        let events = || statuses.values().flatten();
        let finals: Vec<_> = events().filter(|event| event.is_final).collect();
        self.accepted += usize::from(events().any(|event| event.name == "accepted"));
        for event in &finals {
            *self.endings.entry(event.name).or_default() += 1;
        }
        if finals.is_empty() && request.confirmed.is_some() {
            self.lost.push(delivery.to_owned());
        }
        if finals.len() > 1 {
            self.several_endings.push(delivery.to_owned());
        }
        let in_order = statuses.keys().copied().eq((1..).take(statuses.len()));
        if !in_order || statuses.values().any(|events| events.len() > 1) {
            self.broken_sequences.push(delivery.to_owned());
        }
    }

    /// The failures by name.
    pub(crate) fn failures(&self) -> [(&'static str, &[String]); 5] {
        [
            ("lost", &self.lost),
            ("twice", &self.twice),
            ("late", &self.late),
            ("several endings", &self.several_endings),
            ("broken sequences", &self.broken_sequences),
        ]
    }

    pub(crate) fn is_good(&self) -> bool {
        self.failures().iter().all(|(_, found)| found.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_timestamp(1_000_000 + second, 0).unwrap()
    }

    fn status(id: &str, name: &'static str) -> Status {
        let is_final = name == "delivered" || name == "expired";
        let id = id.to_owned();
        Status { id, name, is_final }
    }

    /// One confirmed request with a deadline at 90 s, its calls, and its statuses.
    fn check(calls: &[i64], statuses: &[(u32, &str)]) -> Vec<&'static str> {
        let request = Request {
            to: "+12125550100".to_owned(),
            published: at(0),
            confirmed: Some(at(0)),
            deadline: at(90),
        };
        let calls: Vec<_> = calls
            .iter()
            .map(|second| Call {
                to: request.to.clone(),
                created: at(*second),
            })
            .collect();
        let mut by_number = Statuses::new();
        for (id, (number, name)) in ["a", "b", "c"].into_iter().zip(statuses) {
            let name = ["accepted", "delivered", "expired"]
                .into_iter()
                .find(|known| known == name)
                .unwrap();
            by_number.entry(*number).or_default().push(status(id, name));
        }
        let verdict = Verdict::of(
            &HashMap::from([("d".to_owned(), request)]),
            &calls,
            &HashMap::from([("d".to_owned(), by_number)]),
        );
        let failures = verdict.failures();
        let found = failures.iter().filter(|(_, found)| !found.is_empty());
        found.map(|(name, _)| *name).collect()
    }

    #[test]
    fn each_kind_of_failure_is_found() {
        let whole = [(1, "accepted"), (2, "delivered")];
        assert!(check(&[1], &whole).is_empty());
        assert!(check(&[90], &whole).is_empty());
        assert_eq!(check(&[1], &[(1, "accepted")]), ["lost"]);
        assert_eq!(check(&[1], &[]), ["lost"]);
        assert_eq!(check(&[1, 2], &whole), ["twice"]);
        assert_eq!(check(&[91], &whole), ["late"]);
        assert_eq!(
            check(&[1], &[(1, "accepted"), (3, "delivered")]),
            ["broken sequences"]
        );
        assert_eq!(
            check(&[1], &[(1, "accepted"), (2, "delivered"), (3, "expired")]),
            ["several endings"]
        );
        assert_eq!(
            check(&[1], &[(1, "accepted"), (2, "delivered"), (2, "delivered")]),
            ["several endings", "broken sequences"]
        );
    }

    #[test]
    fn an_unconfirmed_request_may_come_to_nothing() {
        let request = Request {
            to: "+12125550100".to_owned(),
            published: at(0),
            confirmed: None,
            deadline: at(90),
        };
        let requests = HashMap::from([("d".to_owned(), request)]);
        assert!(Verdict::of(&requests, &[], &HashMap::new()).is_good());
    }
}
