//! Redials of calls that reached no one.

use std::time::Duration;

use voice_otp::settings::policy::{RedialOutcome, RedialRule};

use crate::harness::{System, number, request};

const LIFE: Duration = Duration::from_mins(3);
const SOON: Duration = Duration::from_secs(40);

#[tokio::test]
async fn a_busy_line_is_redialled_and_late_callbacks_change_nothing() {
    let system = System::start(50.0).await;
    system
        .tenant("acme", 50.0, |draft| {
            for outcome in [RedialOutcome::Busy, RedialOutcome::NoAnswer] {
                draft.redial.set(
                    outcome,
                    RedialRule {
                        times: 1,
                        after_s: 5,
                    },
                );
            }
        })
        .await;
    let worker = system.worker().await;
    let mut statuses = system.broker.statuses().await;
    system
        .simulator
        .set_fate(&number(1), voice_otp_simulator::Fate::Busy, Some(1));
    system
        .publish_json(&request("busy-once", &number(1), "493027", LIFE))
        .await;
    system
        .publish_json(&request("busy-twice", "+12025550101", "493027", LIFE))
        .await;
    statuses.until_finals(2, SOON).await;
    assert_eq!(
        statuses.names("busy-once"),
        [
            "accepted",
            "placed",
            "deferred",
            "placed",
            "ringing",
            "answered",
            "delivered"
        ]
    );
    assert_eq!(
        statuses.names("busy-twice"),
        ["accepted", "placed", "deferred", "placed", "busy"]
    );
    let last = &statuses.of("busy-twice").last().unwrap().data;
    assert_eq!((last.attempt, last.sip_code), (2, Some(486)));
    assert_eq!(system.calls_to("+12025550101"), 2);
    statuses.assert_sound();
    let metrics = reqwest::get(format!("http://{}/metrics", worker.address))
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    assert!(
        metrics.contains("voice_otp_orphaned_calls_total 0")
            && metrics.contains("voice_otp_redials_total 2"),
        "{metrics}"
    );
    system.stop().await;
}
