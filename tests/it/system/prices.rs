//! Price events, and statuses that are read again from the log.

use std::time::Duration;

use voice_otp_schemas::price::PriceEvent;

use crate::harness::{Program, System, number, request};

const LIFE: Duration = Duration::from_mins(3);
const SOON: Duration = Duration::from_secs(40);

#[tokio::test]
async fn the_price_of_a_call_is_a_separate_event_and_earlier_statuses_can_be_read_again() {
    let system = System::start(50.0).await;
    let mut statuses = system.broker.statuses().await;
    let mut prices = system.broker.prices().await;
    let _worker = system.worker().await;
    system
        .publish_json(&request("paid", &number(1), "493027", LIFE))
        .await;
    statuses.until_finals(1, SOON).await;
    let text = tokio::time::timeout(Duration::from_mins(1), prices.recv())
        .await
        .expect("a price is published")
        .unwrap();
    let price: PriceEvent = serde_json::from_str(&text).unwrap();
    let call = system.simulator.calls().pop().unwrap();
    assert_eq!(
        (price.data.call_sid.as_str(), price.data.price.as_str()),
        (call.sid.as_str(), "-0.01400")
    );
    assert_eq!(
        (
            price.data.price_unit.as_str(),
            price.data.delivery_id.as_str()
        ),
        ("USD", "paid")
    );
    // The console's sum includes the price once.
    let client = system.database.pool.get().await.unwrap();
    let spent = async || {
        let rows = client
            .query(
                "select amount, calls from spend where tenant_id = 'acme' and unit = 'USD'",
                &[],
            )
            .await
            .unwrap();
        rows.first()
            .map(|row| (row.get::<_, f64>(0), row.get::<_, i64>(1)))
    };
    let counted = async {
        while spent().await.is_none() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(SOON, counted)
        .await
        .expect("the price is added");
    assert_eq!(spent().await, Some((0.014, 1)));
    assert!(!text.contains("493027") && !text.contains(&number(1)));
    // A dashboard that connects later can read the earlier statuses.
    let mut watch = Program::start(
        &system.environment(),
        &["watch", "--since", "10m", "--tenant", "acme"],
    );
    let mut lines = {
        use tokio::io::AsyncBufReadExt as _;
        tokio::io::BufReader::new(watch.stdout.take().unwrap()).lines()
    };
    let mut printed = Vec::new();
    let reading = async {
        while printed.len() < 6 {
            printed.push(
                lines
                    .next_line()
                    .await
                    .unwrap()
                    .expect("the output continues"),
            );
        }
    };
    assert!(
        tokio::time::timeout(SOON, reading).await.is_ok(),
        "{printed:#?}"
    );
    for (line, name) in printed.iter().zip([
        "accepted",
        "placed",
        "ringing",
        "answered",
        "delivered",
        "price",
    ]) {
        assert!(line.contains(name), "{name} in {line}");
    }
    watch.kill().await.unwrap();
    let output = Program::run(&system.environment(), &["watch", "--since", "soon"]).await;
    assert_eq!(output.status.code(), Some(2));
    system.stop().await;
}
