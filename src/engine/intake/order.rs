//! The order of a group: which of its messages are processed together.
//!
//! Order matters only between messages about the same delivery or the same user. So a group is not
//! processed one message after the other, but in waves: all requests, then all verifications, then
//! all cancellations. A message goes to a later wave only if an earlier one about the same delivery
//! or user would otherwise come after it.

use std::collections::HashMap;

use voice_otp_schemas::request::{Incoming, Target};
use voice_otp_schemas::{DeliveryId, TenantId, UserRef};

use super::Message;

/// Messages that are processed together, by their positions in the group; the steps in this order.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Wave {
    pub(super) requests: Vec<usize>,
    pub(super) verifications: Vec<usize>,
    pub(super) cancellations: Vec<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Requests,
    Verifications,
    Cancellations,
}

/// What messages are about.
#[derive(PartialEq, Eq, Hash)]
enum Subject<'a> {
    Delivery(&'a TenantId, &'a DeliveryId),
    User(&'a TenantId, &'a UserRef),
}

/// Divides a group into waves.
pub(super) fn waves<'a>(group: impl IntoIterator<Item = &'a Message>) -> Vec<Wave> {
    let mut waves: Vec<Wave> = Vec::new();
    // The wave and the step of each subject's last message.
    let mut last: HashMap<Subject<'a>, (usize, Step)> = HashMap::new();
    for (position, message) in group.into_iter().enumerate() {
        let (step, subjects) = subjects(&message.incoming);
        let after = |(wave, earlier): &(usize, Step)| wave + usize::from(*earlier > step);
        let number = subjects
            .iter()
            .flatten()
            .filter_map(|subject| last.get(subject));
        let number = number.map(after).max().unwrap_or(0);
        for subject in subjects.into_iter().flatten() {
            last.insert(subject, (number, step));
        }
        if waves.len() <= number {
            waves.resize_with(number + 1, Wave::default);
        }
        if let Some(wave) = waves.get_mut(number) {
            match step {
                Step::Requests => wave.requests.push(position),
                Step::Verifications => wave.verifications.push(position),
                Step::Cancellations => wave.cancellations.push(position),
            }
        }
    }
    waves
}

fn subjects(incoming: &Incoming) -> (Step, [Option<Subject<'_>>; 2]) {
    let (step, tenant, delivery, user) = match incoming {
        Incoming::Requested(request) => (
            Step::Requests,
            &request.tenant_id,
            Some(&request.delivery_id),
            request.user_ref.as_ref(),
        ),
        Incoming::Invalid(invalid) => (
            Step::Requests,
            &invalid.tenant_id,
            Some(&invalid.delivery_id),
            None,
        ),
        Incoming::Verified(verified) => (
            Step::Verifications,
            &verified.tenant_id,
            Some(&verified.delivery_id),
            None,
        ),
        Incoming::Cancelled(cancelled) => {
            let (delivery, user) = match &cancelled.target {
                Target::Delivery(delivery) => (Some(delivery), None),
                Target::User(user) => (None, Some(user)),
            };
            (Step::Cancellations, &cancelled.tenant_id, delivery, user)
        }
    };
    let delivery = delivery.map(|delivery| Subject::Delivery(tenant, delivery));
    let user = user.map(|user| Subject::User(tenant, user));
    (step, [delivery, user])
}

#[cfg(test)]
mod tests {
    use voice_otp_schemas::envelope::{self, STRUCTURED};
    use voice_otp_schemas::request::{CANCELLED, REQUESTED, VERIFIED, read};

    use super::*;

    /// Events as `kind:delivery` or `kind:delivery/user`.
    fn group(events: &[&str]) -> Vec<Message> {
        let message = |event: &&str| {
            let (kind, subject) = event.split_once(':').unwrap();
            let (id, user) = subject.split_once('/').unwrap_or((subject, ""));
            let (kind, fields) = match kind {
                "r" => (
                    REQUESTED,
                    r#""to":"+14155550001","code":"493027","expires_at":"2026-01-01T00:00:00Z""#,
                ),
                "v" => (VERIFIED, r#""x":1"#),
                _ => (CANCELLED, r#""x":1"#),
            };
            let delivery = if kind == REQUESTED || id.is_empty() {
                String::new()
            } else {
                format!(r#","delivery_id":"{id}""#)
            };
            let user = if user.is_empty() {
                String::new()
            } else {
                format!(r#","user_ref":"{user}""#)
            };
            let event_id = if id.is_empty() { "an-event" } else { id };
            let body = format!(
                r#"{{"specversion":"1.0","id":"{event_id}","source":"/t","type":"{kind}",
                "data":{{"tenant_id":"acme",{fields}{delivery}{user}}}}}"#
            );
            let incoming = read(envelope::Message {
                content_type: Some(STRUCTURED),
                headers: &[],
                body: body.as_bytes(),
            });
            Message::from(incoming.unwrap())
        };
        events.iter().map(message).collect()
    }

    fn divided(events: &[&str]) -> Vec<[Vec<usize>; 3]> {
        let waves = waves(&group(events));
        waves
            .into_iter()
            .map(|wave| [wave.requests, wave.verifications, wave.cancellations])
            .collect()
    }

    #[test]
    fn requests_each_followed_by_its_verification_are_one_wave() {
        assert_eq!(
            divided(&["r:a", "v:a", "r:b", "v:b", "c:a"]),
            [[vec![0, 2], vec![1, 3], vec![4]]]
        );
    }

    #[test]
    fn a_cancellation_before_its_request_stays_before_it() {
        assert_eq!(
            divided(&["r:a", "c:b", "r:b", "r:c"]),
            [[vec![0, 3], vec![], vec![1]], [vec![2], vec![], vec![]]]
        );
    }

    #[test]
    fn a_users_cancellation_stays_between_the_users_requests() {
        assert_eq!(
            divided(&["r:a/jane", "c:/jane", "r:b/jane", "r:c/june", "c:/june"]),
            [[vec![0, 3], vec![], vec![1, 4]], [vec![2], vec![], vec![]]]
        );
    }
}
