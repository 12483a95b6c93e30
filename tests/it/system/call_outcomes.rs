//! Every call has its correct outcome, once, however badly its callbacks arrive, and without any.

use std::collections::HashMap;
use std::time::Duration;

use voice_otp_simulator::Fate;

use crate::harness::{System, Worker, request};

/// The number of calls: `VOICE_OTP_FOLLOWED_CALLS`, or 2,000.
fn calls() -> usize {
    std::env::var("VOICE_OTP_FOLLOWED_CALLS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(2_000)
}

fn number(n: usize) -> String {
    format!("+1415{:07}", 2_000_000 + n)
}

/// The fate of the `n`th call, and its delivery's final status.
fn fate(n: usize) -> (Fate, &'static str) {
    match n % 10 {
        0 => (Fate::Busy, "busy"),
        1 => (Fate::NoAnswer, "no_answer"),
        2 => (Fate::Failed, "failed"),
        3 => (Fate::HangsUp, "hung_up"),
        4 => (Fate::Rejected, "no_answer"),
        5 => (Fate::Machine, "delivered"),
        _ => (Fate::Answers, "delivered"),
    }
}

async fn follow(callbacks: bool) {
    let system = System::start(1_000.0).await;
    let faults = voice_otp_simulator::Faults {
        callback_loss_share: 0.2,
        callback_duplicate_share: 0.2,
        callback_delay_share: 0.2,
        ..Default::default()
    };
    system.simulator.set_faults(faults);
    let worker = Worker::start(
        system.environment(),
        callbacks,
        &[("VOICE_OTP_LOG", "warn".to_owned())],
    )
    .await;
    worker.ready().await;
    let mut statuses = system.broker.statuses().await;
    let calls = calls();
    let bodies: Vec<String> = (0..calls)
        .map(|n| {
            system.simulator.set_fate(&number(n), fate(n).0, None);
            request(
                &format!("f{n}"),
                &number(n),
                "493027",
                Duration::from_mins(10),
            )
            .to_string()
        })
        .collect();
    system.broker.publish_all(&bodies).await;
    statuses.until_finals(calls, Duration::from_mins(8)).await;
    statuses.collect_for(Duration::from_secs(2)).await;
    statuses.assert_sound();
    let mut wrong: HashMap<(&str, &str, String), usize> = HashMap::new();
    for n in 0..calls {
        let (_, wanted) = fate(n);
        let last = statuses
            .names(&format!("f{n}"))
            .last()
            .copied()
            .unwrap_or("nothing");
        if last != wanted {
            *wrong
                .entry((wanted, last, statuses.reason(&format!("f{n}"))))
                .or_default() += 1;
        }
    }
    assert!(
        wrong.is_empty(),
        "(expected, got, reason) and count: {wrong:?}"
    );
    let mut called: HashMap<String, usize> = HashMap::new();
    for call in system.simulator.calls() {
        *called.entry(call.to).or_default() += 1;
    }
    assert!(
        called.len() == calls && called.values().all(|times| *times == 1),
        "some number was called twice, or not at all"
    );
    let stats = system.simulator.stats();
    eprintln!(
        "{calls} calls: {} callbacks sent, {} lost, {} requests to Twilio",
        stats.callbacks_sent, stats.callbacks_lost, stats.requests
    );
    assert_eq!(callbacks, stats.callbacks_lost > 0);
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_callbacks_lost_doubled_and_out_of_order_each_call_has_its_correct_outcome_once() {
    follow(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_any_callbacks_each_call_has_its_correct_outcome_once() {
    follow(false).await;
}
