//! Streams of statuses to many viewers.

use std::time::Duration;

use futures_util::StreamExt as _;
use reqwest::{Method, StatusCode};
use serde_json::Value;

use super::client::{TIMEOUT, VALIDITY, create_token, send};
use crate::harness::{Console, System, number, request};

/// A small version of `./dev bench viewers`: two hundred pages are open while calls are placed.
#[tokio::test]
async fn two_hundred_viewers_receive_every_status_or_how_many_they_missed() {
    let system = System::start(500.0).await;
    let console = Console::start(&system).await;
    let _worker = system.worker().await;
    let mut statuses = system.broker.statuses().await;
    let mut viewers = Vec::new();
    let mut admin = String::new();
    for n in 0..200 {
        // A token has no more streams.
        if n % 20 == 0 {
            admin = create_token(&system, "tenant-admin", Some("acme")).await;
        }
        let stream = send(
            &console,
            &admin,
            Method::GET,
            "/api/v1/tenants/acme/events",
            None,
        )
        .await;
        assert_eq!(stream.status(), StatusCode::OK);
        viewers.push(tokio::spawn(async move {
            let (mut stream, mut text, mut received) =
                (stream.bytes_stream(), String::new(), 0_u64);
            while let Ok(Some(Ok(bytes))) =
                tokio::time::timeout(Duration::from_secs(6), stream.next()).await
            {
                text.push_str(&String::from_utf8_lossy(&bytes));
                while let Some((text_event, rest)) = text.split_once("\n\n") {
                    if let Some(data) = text_event
                        .lines()
                        .find_map(|line| line.strip_prefix("data: "))
                    {
                        let event: Value = serde_json::from_str(data).unwrap();
                        received += event["statuses"].as_array().unwrap().len() as u64
                            + event["missed"].as_u64().unwrap();
                    }
                    text = rest.to_owned();
                }
            }
            received
        }));
    }
    let calls = 300;
    let bodies: Vec<String> = (0..calls)
        .map(|n| request(&format!("v{n}"), &number(100 + n), "493027", VALIDITY).to_string())
        .collect();
    system.broker.publish_all(&bodies).await;
    statuses.until_finals(calls, TIMEOUT).await;
    statuses.collect_for(Duration::from_millis(500)).await;
    let published = statuses.seen.len() as u64;
    for viewer in viewers {
        assert_eq!(
            viewer.await.unwrap(),
            published,
            "each viewer received each status, or learned that it was missed"
        );
    }
    console.stop().await;
    system.stop().await;
}
