//! Where statuses go: RabbitMQ, and the sink in memory.

use std::time::Duration;

use secrecy::ExposeSecret as _;
use voice_otp::event::Event;
use voice_otp::ports::StatusSink;
use voice_otp_publisher::{Publisher, Settings, topology};
use voice_otp_schemas::Context;
use voice_otp_schemas::envelope::Trace;
use voice_otp_schemas::status::{Status, StatusData, Timings};
use voice_otp_worker::sink::Sink;

use crate::harness::{Broker, Proxy, Statuses};
use crate::memory::MemorySink;
use crate::memory::clock::beginning;
use crate::memory::sample::key;

/// A sink under test, and what comes out of it.
trait Stage {
    type Sink: StatusSink;

    fn sink(&self) -> &Self::Sink;

    /// Lets it take nothing, or everything again.
    fn set_down(&self, down: bool);

    /// Waits for this many events to come out, and gives all of them so far: the bodies, in order.
    async fn out(&mut self, wanted: usize) -> Vec<String>;
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

    async fn out(&mut self, wanted: usize) -> Vec<String> {
        let events = self.sink.events();
        assert_eq!(events.len(), wanted);
        events.into_iter().map(|event| event.body).collect()
    }
}

/// The worker's sink, on a real broker behind a door.
struct RabbitStage {
    broker: Broker,
    proxy: Proxy,
    publisher: Publisher,
    sink: Sink,
    statuses: Statuses,
}

/// How long the broker's confirms are waited for.
const PATIENCE: Duration = Duration::from_secs(2);

impl RabbitStage {
    async fn new() -> Self {
        let broker = Broker::fresh().await;
        let statuses = broker.statuses().await;
        let proxy = Proxy::to(broker.address()).await;
        let url = proxy.in_place_of(broker.url.expose_secret());
        let settings = Settings {
            timeout: PATIENCE,
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
            self.proxy.shut()
        } else {
            self.proxy.open()
        }
    }

    async fn out(&mut self, wanted: usize) -> Vec<String> {
        self.statuses
            .until("they come out", Duration::from_secs(20), |seen| {
                seen.len() >= wanted
            })
            .await;
        self.statuses.linger(Duration::from_millis(200)).await;
        assert_eq!(self.statuses.seen.len(), wanted, "no more than those");
        self.statuses
            .seen
            .iter()
            .map(|(text, _)| text.clone())
            .collect()
    }
}

on_both!(super::MemoryStage, super::RabbitStage:
    events_come_out_in_order_byte_for_byte,
    what_is_published_again_is_the_same_event,
    an_empty_window_is_nothing,
    while_it_is_down_each_event_is_told_so_and_afterwards_it_takes_them,
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
    Event::new(beginning(), data, &Trace::default())
}

fn bodies(events: &[Event]) -> Vec<String> {
    events.iter().map(|event| event.body.clone()).collect()
}

async fn publish<S: Stage>(stage: &S, events: &[Event]) {
    let results = stage.sink().publish(events).await;
    assert_eq!(results.len(), events.len(), "an answer for each");
    assert!(results.iter().all(Result::is_ok), "{results:?}");
}

async fn events_come_out_in_order_byte_for_byte<S: Stage>(stage: &mut S) {
    let events: Vec<Event> = (0..300)
        .map(|n| event(&format!("d{}", n % 7), n + 1))
        .collect();
    for window in events.chunks(100) {
        publish(stage, window).await;
    }
    assert_eq!(stage.out(300).await, bodies(&events));
}

async fn what_is_published_again_is_the_same_event<S: Stage>(stage: &mut S) {
    let events = [event("twice", 1), event("twice", 1)];
    publish(stage, &events).await;
    assert_eq!(
        stage.out(2).await,
        bodies(&events),
        "dropping repeats is the consumer's affair"
    );
}

async fn an_empty_window_is_nothing<S: Stage>(stage: &mut S) {
    assert!(stage.sink().publish(&[]).await.is_empty());
    assert!(stage.out(0).await.is_empty());
}

async fn while_it_is_down_each_event_is_told_so_and_afterwards_it_takes_them<S: Stage>(
    stage: &mut S,
) {
    publish(stage, &[event("before", 1)]).await;
    stage.set_down(true);
    let events = [event("meanwhile", 1), event("meanwhile", 2)];
    let results =
        tokio::time::timeout(Duration::from_secs(30), stage.sink().publish(&events)).await;
    let results = results.expect("a broker that is away is noticed in bounded time");
    assert_eq!(results.len(), 2, "an answer for each");
    assert!(results.iter().all(Result::is_err), "{results:?}");
    stage.set_down(false);
    publish(stage, &events).await;
    let out = stage.out(3).await;
    assert_eq!(
        out,
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
    // The log takes every status, so without it nobody does.
    broker.delete_queue(topology::STATUS_LOG).await;
    let publisher = Publisher::start(Settings::new(broker.url.clone(), "/test")).unwrap();
    let results = Sink::new(publisher.clone())
        .publish(&[event("unheard", 1), event("unheard", 2)])
        .await;
    assert!(
        results.len() == 2 && results.iter().all(Result::is_ok),
        "{results:?}"
    );
    publisher.close().await;
    broker.delete().await;
}
