//! Two hundred requests a second through one worker: all delivered, each once.

use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime};

use crate::harness::{System, number, request};

/// Ten seconds here; `VOICE_OTP_LOAD_SECONDS` makes it longer.
fn seconds() -> usize {
    std::env::var("VOICE_OTP_LOAD_SECONDS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(10)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_requests_a_second_are_all_delivered_once() {
    const RATE: usize = 200;
    let system = System::start(250.0).await;
    let mut statuses = system.broker.statuses().await;
    let mut worker = system
        .worker_with(&[("VOICE_OTP_LOG", "warn".to_owned())])
        .await;
    let total = RATE * seconds();
    let mut published: HashMap<String, SystemTime> = HashMap::with_capacity(total);
    let start = Instant::now();
    let publishing = async {
        for n in 0..total {
            let due = Duration::from_secs_f64(n as f64 / RATE as f64);
            tokio::time::sleep(due.saturating_sub(start.elapsed())).await;
            let to = number(1000 + n);
            let event = request(&format!("load-{n}"), &to, "493027", Duration::from_mins(3));
            published.insert(to, SystemTime::now());
            let bytes = zeroize_bytes(event.to_string());
            let message = voice_otp_publisher::event::message(bytes).unwrap();
            drop(system.publisher.post(message).await.unwrap());
        }
    };
    let longest = Duration::from_secs(60 + seconds() as u64);
    tokio::join!(publishing, statuses.finals(total, longest));
    statuses.linger(Duration::from_millis(500)).await;
    statuses.assert_sound();
    let delivered = statuses
        .seen
        .iter()
        .filter(|(_, event)| event.data.status.as_str() == "delivered")
        .count();
    assert_eq!(delivered, total);
    let calls = system.simulator.calls();
    assert_eq!(calls.len(), total, "each was called once");
    // The simulator notes when a POST came, to the millisecond, by the clock that the requests were published by.
    let post_waits = calls.iter().map(|call| {
        let came: SystemTime = chrono::DateTime::parse_from_rfc3339(&call.created)
            .unwrap()
            .into();
        let wait = came.duration_since(published[&call.to]).unwrap_or_default();
        i64::try_from(wait.as_millis()).unwrap()
    });
    let placed = statuses
        .seen
        .iter()
        .filter(|(_, event)| event.data.status.as_str() == "placed");
    eprintln!("{total} requests at {RATE}/s:");
    tell("publish to POST received", post_waits.collect());
    tell(
        "publish to `placed` committed",
        placed
            .filter_map(|(_, event)| event.data.timings.placed_ms)
            .collect(),
    );
    assert!(worker.terminate().await.success());
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_goes_through_as_fast_as_it_can_and_each_is_called_once() {
    let total = 300 * seconds();
    let system = System::start(10_000.0).await;
    let mut statuses = system.broker.statuses().await;
    let _worker = system
        .worker_with(&[("VOICE_OTP_LOG", "warn".to_owned())])
        .await;
    let start = Instant::now();
    let publishing = async {
        for n in 0..total {
            let event = request(
                &format!("burst-{n}"),
                &number(100_000 + n),
                "493027",
                Duration::from_mins(3),
            );
            let message =
                voice_otp_publisher::event::message(zeroize_bytes(event.to_string())).unwrap();
            drop(system.publisher.post(message).await.unwrap());
        }
    };
    tokio::join!(
        publishing,
        statuses.count("placed", total, Duration::from_mins(2))
    );
    let taken = start.elapsed();
    eprintln!(
        "{total} requests placed in {taken:?}: {:.0}/s, publishing, Twilio and callbacks on the same cores",
        total as f64 / taken.as_secs_f64()
    );
    statuses.finals(total, Duration::from_mins(2)).await;
    statuses.assert_sound();
    assert_eq!(
        system.simulator.calls().len(),
        total,
        "each was called once"
    );
    system.stop().await;
}

fn tell(what: &str, mut waits_ms: Vec<i64>) {
    waits_ms.sort_unstable();
    let share = |per_mille: usize| waits_ms[(waits_ms.len() - 1) * per_mille / 1000];
    eprintln!(
        "  {what}: p50 {} ms, p99 {} ms, max {} ms",
        share(500),
        share(990),
        share(1000)
    );
}

fn zeroize_bytes(text: String) -> zeroize::Zeroizing<Vec<u8>> {
    zeroize::Zeroizing::new(text.into_bytes())
}
