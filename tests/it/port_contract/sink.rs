//! The status sink: RabbitMQ, and the sink in memory.

use std::time::Duration;

use futures_util::future::join_all;
use secrecy::ExposeSecret as _;
use voice_otp::event::Event;
use voice_otp::ports::{SinkError, StatusSink};
use voice_otp_publisher::{Publisher, Settings, topology};
use voice_otp_schemas::Context;
use voice_otp_schemas::envelope::Trace;
use voice_otp_schemas::status::{Status, StatusData, Timings};
use voice_otp_worker::service::sink::Sink;

use crate::harness::{Broker, Proxy, Statuses};
use crate::memory::MemorySink;
use crate::memory::clock::start_time;
use crate::memory::sample::key;

/// A sink under test, and the events that come out of it.
trait Stage {
    type Sink: StatusSink;

    fn sink(&self) -> &Self::Sink;

    /// Makes the sink unavailable, or available again.
    fn set_down(&self, down: bool);

    /// Waits until this many events have come out, and returns the bodies of all so far, in order.
    async fn published(&mut self, wanted: usize) -> Vec<String>;
}

struct MemoryStage {
    sink: MemorySink,
}

impl MemoryStage {
    fn new() -> Self {
        Self {
            sink: MemorySink::new(),
        }
    }
}

impl Stage for MemoryStage {
    type Sink = MemorySink;

    fn sink(&self) -> &MemorySink {
        &self.sink
    }

    fn set_down(&self, down: bool) {
        self.sink.set_down(down);
    }

    async fn published(&mut self, wanted: usize) -> Vec<String> {
        let events = self.sink.events();
        assert_eq!(events.len(), wanted);
        events.into_iter().map(|event| event.body).collect()
    }
}

/// The worker's sink, on a real broker behind a proxy that can be shut.
struct RabbitStage {
    broker: Broker,
    proxy: Proxy,
    publisher: Publisher,
    sink: Sink,
    statuses: Statuses,
}

/// How long the publisher waits for the broker's confirms.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(2);

impl RabbitStage {
    async fn new() -> Self {
        let broker = Broker::fresh().await;
        let statuses = broker.statuses().await;
        let proxy = Proxy::to(broker.address()).await;
        let url = proxy.in_place_of(broker.url.expose_secret());
        let settings = Settings {
            timeout: CONFIRM_TIMEOUT,
            ..Settings::new(url.into(), "/test")
        };
        let publisher = Publisher::start(settings).unwrap();
        Self {
            sink: Sink::new(publisher.clone()),
            broker,
            proxy,
            publisher,
            statuses,
        }
    }

    async fn close(self) {
        self.publisher.close().await;
        self.broker.delete().await;
    }
}

impl Stage for RabbitStage {
    type Sink = Sink;

    fn sink(&self) -> &Sink {
        &self.sink
    }

    fn set_down(&self, down: bool) {
        if down {
            self.proxy.close();
        } else {
            self.proxy.open();
        }
    }

    async fn published(&mut self, wanted: usize) -> Vec<String> {
        self.statuses
            .until("the events come out", Duration::from_secs(20), |seen| {
                seen.len() >= wanted
            })
            .await;
        self.statuses.collect_for(Duration::from_millis(200)).await;
        assert_eq!(self.statuses.seen.len(), wanted, "no further events");
        self.statuses
            .seen
            .iter()
            .map(|(text, _)| text.clone())
            .collect()
    }
}

on_both!(super::MemoryStage, super::RabbitStage:
    events_come_out_byte_for_byte,
    what_is_published_after_a_confirm_comes_out_later,
    an_event_that_is_published_again_stays_the_same,
    while_the_sink_is_down_each_event_fails_and_afterwards_each_is_accepted,
);

fn event(id: &str, sequence: u32) -> Event {
    let key = key("acme", id);
    let data = StatusData {
        delivery_id: key.delivery_id.clone(),
        tenant_id: key.tenant_id.clone(),
        status: Status::Ringing,
        is_final: false,
        sequence,
        attempt: 1,
        to_masked: Some("+1415*****71".to_owned()),
        call_sid: None,
        due_at: None,
        reason: None,
        timings: Timings::default(),
        answered_by: None,
        call_duration_s: None,
        sip_code: None,
        price: None,
        price_unit: None,
        test: false,
        context: Context::default(),
    };
    Event::new(start_time(), data, &Trace::default())
}

fn bodies(events: &[Event]) -> Vec<String> {
    events.iter().map(|event| event.body.clone()).collect()
}

/// Publishes events at once. Their order is that in which the futures are made.
async fn publish<S: Stage>(stage: &S, events: &[Event]) {
    let results = join_all(events.iter().map(|event| stage.sink().publish(event))).await;
    assert!(results.iter().all(Result::is_ok), "{results:?}");
}

async fn events_come_out_byte_for_byte<S: Stage>(stage: &mut S) {
    let events: Vec<Event> = (0..300)
        .map(|n| event(&format!("d{}", n % 7), n + 1))
        .collect();
    for window in events.chunks(100) {
        publish(stage, window).await;
    }
    let mut published = stage.published(300).await;
    let mut expected = bodies(&events);
    published.sort();
    expected.sort();
    assert_eq!(published, expected);
}

async fn what_is_published_after_a_confirm_comes_out_later<S: Stage>(stage: &mut S) {
    let events: Vec<Event> = (0..30).map(|n| event("one", n + 1)).collect();
    for event in &events {
        publish(stage, std::slice::from_ref(event)).await;
    }
    assert_eq!(stage.published(30).await, bodies(&events));
}

async fn an_event_that_is_published_again_stays_the_same<S: Stage>(stage: &mut S) {
    let events = [event("twice", 1), event("twice", 1)];
    publish(stage, &events).await;
    assert_eq!(
        stage.published(2).await,
        bodies(&events),
        "deduplicating is the consumer's job"
    );
}

async fn while_the_sink_is_down_each_event_fails_and_afterwards_each_is_accepted<S: Stage>(
    stage: &mut S,
) {
    publish(stage, &[event("before", 1)]).await;
    stage.set_down(true);
    let events = [event("meanwhile", 1), event("meanwhile", 2)];
    let publishing = join_all(events.iter().map(|event| stage.sink().publish(event)));
    let results = tokio::time::timeout(Duration::from_secs(30), publishing).await;
    let results = results.expect("an unavailable broker is noticed in bounded time");
    let unavailable = |result: &Result<(), _>| matches!(result, Err(SinkError::Unavailable(_)));
    assert!(results.iter().all(unavailable), "{results:?}");
    stage.set_down(false);
    for event in &events {
        publish(stage, std::slice::from_ref(event)).await;
    }
    let published = stage.published(3).await;
    assert_eq!(
        published,
        bodies(&[
            event("before", 1),
            event("meanwhile", 1),
            event("meanwhile", 2)
        ])
    );
}

#[tokio::test]
async fn a_status_that_no_queue_is_bound_for_counts_as_published() {
    let broker = Broker::fresh().await;
    // The status log takes every status. Without it no queue takes any.
    broker.delete_queue(topology::STATUS_LOG).await;
    let publisher = Publisher::start(Settings::new(broker.url.clone(), "/test")).unwrap();
    let sink = Sink::new(publisher.clone());
    for sequence in [1, 2] {
        let result = sink.publish(&event("unrouted", sequence)).await;
        assert!(result.is_ok(), "{result:?}");
    }
    publisher.close().await;
    broker.delete().await;
}
