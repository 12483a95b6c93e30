//! The status sink of one worker.

use voice_otp::event::Event;
use voice_otp::ports::{SinkError, StatusSink};

use crate::memory::MemorySink;
use crate::simulation::bug::Bug;
use crate::simulation::fault_injector::FaultInjector;
use crate::simulation::plan::CALL_TIMEOUT;

#[derive(Clone)]
pub(in crate::simulation) struct SimSink {
    pub(in crate::simulation) sink: MemorySink,
    pub(in crate::simulation) faults: FaultInjector,
    pub(in crate::simulation) bug: Option<Bug>,
}

impl StatusSink for SimSink {
    /// Like the sink on RabbitMQ, it sends all statuses before the first is confirmed, so that what
    /// follows a refused one is published.
    async fn publish(&self, events: &[Event]) -> Vec<Result<(), SinkError>> {
        let refused: Vec<bool> = events
            .iter()
            .map(|_| self.faults.happens(|odds| odds.refused))
            .collect();
        let (sink, bug) = (self.sink.clone(), self.bug);
        let sent: Vec<(Event, bool)> = events.iter().cloned().zip(refused.clone()).collect();
        let published = self.faults.perform(async move {
            let (again, accepted): (Vec<_>, Vec<_>) =
                sent.into_iter().partition(|(_, refused)| *refused);
            let accepted: Vec<Event> = accepted.into_iter().map(|(event, _)| event).collect();
            drop(sink.publish(&accepted).await);
            if bug == Some(Bug::PublishRefusedLater) {
                let again: Vec<Event> = again.into_iter().map(|(event, _)| event).collect();
                drop(tokio::task::spawn(async move {
                    tokio::time::sleep(CALL_TIMEOUT).await;
                    sink.publish(&again).await
                }));
            }
        });
        let reached = published.await.is_ok();
        let confirmed =
            |refused: bool| reached && (!refused || self.bug == Some(Bug::PublishRefusedLater));
        let result = |refused: bool| {
            confirmed(refused)
                .then_some(())
                .ok_or_else(|| SinkError("refused, or no confirm".into()))
        };
        refused.into_iter().map(result).collect()
    }
}
