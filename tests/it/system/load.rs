//! 200 requests per second through one worker: all are delivered, each once.

use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime};

use crate::harness::{System, number, request};

/// The length of the test: `VOICE_OTP_LOAD_SECONDS`, or 10.
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
            drop(system.publisher.enqueue(message).await.unwrap());
        }
    };
    let longest = Duration::from_secs(60 + seconds() as u64);
    tokio::join!(publishing, statuses.until_finals(total, longest));
    statuses.collect_for(Duration::from_millis(500)).await;
    statuses.assert_sound();
    let delivered = statuses
        .seen
        .iter()
        .filter(|(_, event)| event.data.status.as_str() == "delivered")
        .count();
    assert_eq!(delivered, total);
    let calls = system.simulator.calls();
    assert_eq!(calls.len(), total, "each was called once");
    // The simulator records the arrival of a POST to the millisecond, by the clock of the
    // publisher.
    let post_waits = calls.iter().map(|call| {
        let arrived: SystemTime = chrono::DateTime::parse_from_rfc3339(&call.created)
            .unwrap()
            .into();
        let wait = arrived
            .duration_since(published[&call.to])
            .unwrap_or_default();
        i64::try_from(wait.as_millis()).unwrap()
    });
    let placed = statuses
        .seen
        .iter()
        .filter(|(_, event)| event.data.status.as_str() == "placed");
    eprintln!("{total} requests at {RATE}/s:");
    report("publish to POST received", post_waits.collect());
    report(
        "publish to `placed` committed",
        placed
            .filter_map(|(_, event)| event.data.timings.placed_ms)
            .collect(),
    );
    assert!(worker.terminate().await.success());
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_is_placed_at_full_speed_and_each_number_is_called_once() {
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
            drop(system.publisher.enqueue(message).await.unwrap());
        }
    };
    tokio::join!(
        publishing,
        statuses.until_count("placed", total, Duration::from_mins(2))
    );
    let elapsed = start.elapsed();
    eprintln!(
        "{total} requests placed in {elapsed:?}: {:.0}/s, publishing, Twilio and \
         callbacks on the same cores",
        total as f64 / elapsed.as_secs_f64()
    );
    statuses.until_finals(total, Duration::from_mins(2)).await;
    statuses.assert_sound();
    assert_eq!(
        system.simulator.calls().len(),
        total,
        "each was called once"
    );
    system.stop().await;
}

fn report(what: &str, mut waits_ms: Vec<i64>) {
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
