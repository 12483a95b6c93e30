//! What becomes of calls that tell nothing by themselves, and what they cost.

use std::time::Duration;

use voice_otp_schemas::price::PriceEvent;

use super::bench::Bench;
use crate::memory::sample::{Ask, key};

#[tokio::test(start_paused = true)]
async fn calls_of_a_tenant_that_have_gone_quiet_are_asked_for_together() {
    let bench = Bench::new();
    bench.tenant("acme", 1, 100.0);
    let worker = bench.worker("one").await;
    let asks: Vec<Ask> = (0..200)
        .map(|n| Ask::new("acme", &format!("a{n}")).calling(n))
        .collect();
    worker.take(&asks).await;
    for ask in &asks {
        assert_eq!(
            bench
                .ended_of(&ask.key())
                .await
                .last()
                .unwrap()
                .status
                .as_str(),
            "delivered"
        );
    }
    let (alone, together) = bench.caller.looks();
    // 200 calls that each live for 36 seconds, asked for every few seconds.
    assert!(
        alone < 40 && together < 80,
        "{alone} alone, {together} together"
    );
}

#[tokio::test(start_paused = true)]
async fn what_a_call_cost_is_told_once_when_twilio_knows() {
    let bench = Bench::new();
    let worker = bench.worker("one").await;
    worker.take(&[Ask::new("acme", "a")]).await;
    let told = bench.ended("a").await;
    assert_eq!(told.last().unwrap().price, None);
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
        told.last().unwrap().call_sid.as_ref()
    );
    assert_eq!(event.data.context.entries()["flow"], "login");
    assert_eq!(prices[0].message_id(), "acme/a/price/1");
}

#[tokio::test(start_paused = true)]
async fn a_price_that_could_not_be_published_is_told_later() {
    let bench = Bench::new();
    let worker = bench.worker("one").await;
    worker.take(&[Ask::new("acme", "a")]).await;
    bench.ended("a").await;
    bench.sink.set_down(true);
    tokio::time::sleep(Duration::from_mins(2)).await;
    bench.sink.set_down(false);
    tokio::time::sleep(Duration::from_hours(1)).await;
    assert_eq!(bench.sink.prices().len(), 1);
}
