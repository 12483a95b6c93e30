//! Polls of calls that send no callbacks, and price queries.

use std::time::Duration;

use voice_otp_schemas::price::PriceEvent;

use super::test_bench::TestBench;
use crate::memory::sample::{Request, key};

#[tokio::test(start_paused = true)]
async fn calls_of_a_tenant_without_callbacks_are_polled_together() {
    let bench = TestBench::new();
    bench.tenant("acme", 1, 100.0);
    let worker = bench.worker("one").await;
    let requests: Vec<Request> = (0..200)
        .map(|n| Request::new("acme", &format!("a{n}")).to(n))
        .collect();
    worker.accept(&requests).await;
    for request in &requests {
        assert_eq!(
            bench
                .until_final_of(&request.key())
                .await
                .last()
                .unwrap()
                .status
                .as_str(),
            "delivered"
        );
    }
    let (alone, together) = bench.telephony.queries();
    // 200 calls of 36 s each, polled every few seconds.
    assert!(
        alone < 40 && together < 80,
        "{alone} polls of one call, {together} polls of several"
    );
}

#[tokio::test(start_paused = true)]
async fn the_price_of_a_call_is_published_once_twilio_reports_it() {
    let bench = TestBench::new();
    let worker = bench.worker("one").await;
    worker.accept(&[Request::new("acme", "a")]).await;
    let statuses = bench.until_final("a").await;
    assert_eq!(statuses.last().unwrap().price, None);
    tokio::time::sleep(Duration::from_mins(5)).await;
    let prices = bench.sink.prices();
    assert_eq!(prices.len(), 1);
    assert_eq!(
        (prices[0].key.clone(), prices[0].routing_key.as_str()),
        (key("acme", "a"), "price.acme")
    );
    let event: PriceEvent = serde_json::from_str(&prices[0].body).unwrap();
    assert_eq!(
        (
            event.data.price.as_str(),
            event.data.price_unit.as_str(),
            event.data.attempt
        ),
        ("-0.01400", "USD", 1)
    );
    assert_eq!(
        Some(&event.data.call_sid),
        statuses.last().unwrap().call_sid.as_ref()
    );
    assert_eq!(event.data.context.entries()["flow"], "login");
    assert_eq!(prices[0].message_id(), "acme/a/price/1");
}

#[tokio::test(start_paused = true)]
async fn a_price_that_could_not_be_published_is_published_later() {
    let bench = TestBench::new();
    let worker = bench.worker("one").await;
    worker.accept(&[Request::new("acme", "a")]).await;
    bench.until_final("a").await;
    bench.sink.set_down(true);
    tokio::time::sleep(Duration::from_mins(2)).await;
    bench.sink.set_down(false);
    tokio::time::sleep(Duration::from_hours(1)).await;
    assert_eq!(bench.sink.prices().len(), 1);
}
