//! The statuses that a test receives.

use std::time::Duration;

use tokio::sync::mpsc;
use voice_otp_schemas::status::StatusEvent;

/// The statuses, as they are published.
pub(crate) struct Statuses {
    pub(super) receiver: mpsc::UnboundedReceiver<(String, StatusEvent)>,
    /// All statuses received so far, as JSON and parsed.
    pub(crate) seen: Vec<(String, StatusEvent)>,
}

impl Statuses {
    /// Waits until the received statuses satisfy `holds`, which `what` describes.
    pub(crate) async fn until(
        &mut self,
        what: &str,
        longest: Duration,
        holds: impl Fn(&[(String, StatusEvent)]) -> bool,
    ) {
        let waiting = async {
            while !holds(&self.seen) {
                self.seen.push(self.receiver.recv().await.unwrap());
            }
        };
        let in_time = tokio::time::timeout(longest, waiting).await;
        assert!(
            in_time.is_ok(),
            "{what}: not within {longest:?}; received: {:#?}",
            self.summary()
        );
    }

    /// Waits until this many final statuses have arrived.
    pub(crate) async fn until_finals(&mut self, wanted: usize, longest: Duration) {
        let mut ended = 0;
        let waiting = async {
            ended = self
                .seen
                .iter()
                .filter(|(_, event)| event.data.is_final)
                .count();
            while ended < wanted {
                let next = self.receiver.recv().await.unwrap();
                ended += usize::from(next.1.data.is_final);
                self.seen.push(next);
            }
        };
        let in_time = tokio::time::timeout(longest, waiting).await;
        assert!(
            in_time.is_ok(),
            "{ended} of {wanted} finished in {longest:?}; received: {:#?}",
            self.summary()
        );
    }

    /// Receives statuses for this long.
    pub(crate) async fn collect_for(&mut self, time: Duration) {
        let until = tokio::time::Instant::now() + time;
        while let Ok(Some(next)) = tokio::time::timeout_at(until, self.receiver.recv()).await {
            self.seen.push(next);
        }
    }

    /// The names of a delivery's statuses, in the order of their arrival.
    pub(crate) fn names(&self, id: &str) -> Vec<&'static str> {
        self.of(id)
            .iter()
            .map(|event| event.data.status.as_str())
            .collect()
    }

    /// The events of a delivery.
    pub(crate) fn of(&self, id: &str) -> Vec<&StatusEvent> {
        self.seen
            .iter()
            .map(|(_, event)| event)
            .filter(|event| event.data.delivery_id.as_str() == id)
            .collect()
    }

    /// The reason of a delivery's last event.
    pub(crate) fn reason(&self, id: &str) -> String {
        let last = self
            .of(id)
            .last()
            .and_then(|event| event.data.reason.as_ref().map(|reason| reason.code));
        last.map(|code| code.as_str().to_owned())
            .unwrap_or_default()
    }

    fn summary(&self) -> Vec<String> {
        self.seen
            .iter()
            .rev()
            .take(40)
            .map(|(_, event)| {
                format!(
                    "{} {} {}",
                    event.id, event.data.status, event.data.tenant_id
                )
            })
            .collect()
    }

    /// Asserts that every delivery ended once, with its statuses in order and without gaps.
    pub(crate) fn assert_sound(&self) {
        let mut deliveries: std::collections::HashMap<(&str, &str), Vec<&StatusEvent>> =
            std::collections::HashMap::new();
        for (_, event) in &self.seen {
            deliveries
                .entry((&event.source, &event.subject))
                .or_default()
                .push(event);
        }
        for (id, events) in deliveries {
            let sequences: Vec<u32> = events.iter().map(|event| event.data.sequence).collect();
            let wanted: Vec<u32> = (1..).take(events.len()).collect();
            assert_eq!(sequences, wanted, "{id:?}");
            assert_eq!(
                events.iter().filter(|event| event.data.is_final).count(),
                1,
                "{id:?}"
            );
            assert!(events.last().unwrap().data.is_final, "{id:?}");
        }
    }

    /// Waits until this many statuses with this name have arrived.
    pub(crate) async fn until_count(&mut self, name: &str, wanted: usize, longest: Duration) {
        let mut seen = self
            .seen
            .iter()
            .filter(|(_, event)| event.data.status.as_str() == name)
            .count();
        let waiting = async {
            while seen < wanted {
                let next = self.receiver.recv().await.unwrap();
                seen += usize::from(next.1.data.status.as_str() == name);
                self.seen.push(next);
            }
        };
        let in_time = tokio::time::timeout(longest, waiting).await;
        assert!(in_time.is_ok(), "{seen} of {wanted} {name} in {longest:?}");
    }
}
