//! The voicemail policies: who hears the code.

use std::time::Duration;

use serde_json::json;
use voice_otp::settings::policy::Voicemail;

use crate::harness::{System, Worker, number, request};

const LIFE: Duration = Duration::from_mins(3);
const SOON: Duration = Duration::from_secs(40);

/// A system whose tenant has a voicemail policy, and a worker.
pub(super) async fn system_with(policy: Voicemail) -> (System, Worker) {
    let system = System::start(50.0).await;
    system
        .tenant("acme", 50.0, |draft| draft.voicemail = policy)
        .await;
    let worker = system.worker().await;
    (system, worker)
}

#[tokio::test]
async fn with_press_key_the_code_is_read_only_after_the_key_is_pressed() {
    let (system, _worker) = system_with(Voicemail::PressKey).await;
    let mut statuses = system.broker.statuses().await;
    // The numbers' fates: a person, a machine, a callee who presses the key again, one who presses
    // another key, one who presses none, and one who hangs up.
    let calls = [
        ("person", number(1), "delivered", 1),
        ("machine", "+12025550104".to_owned(), "hung_up", 0),
        ("again", "+12025550107".to_owned(), "delivered", 3),
        ("wrong", "+12025550108".to_owned(), "hung_up", 0),
        ("silent", "+12025550109".to_owned(), "hung_up", 0),
        ("hangs-up", "+12025550105".to_owned(), "hung_up", 0),
    ];
    for (id, to, ..) in &calls {
        system.publish_json(&request(id, to, "493027", LIFE)).await;
    }
    statuses.until_finals(calls.len(), SOON).await;
    for (id, to, status, readings) in &calls {
        assert_eq!(statuses.names(id).last(), Some(status), "{id}");
        let call = system
            .simulator
            .calls()
            .into_iter()
            .find(|call| call.to == *to)
            .unwrap();
        assert_eq!(call.readings_heard, *readings, "{id}: {}", call.transcript);
        assert_eq!(
            call.digits_heard,
            if *readings > 0 { "493027" } else { "" },
            "{id}"
        );
        if *readings == 0 {
            assert!(
                !call.transcript.contains("four"),
                "{id}: {}",
                call.transcript
            );
        }
    }
    assert_eq!(statuses.reason("machine"), "no_key");
    let machine = system
        .simulator
        .calls()
        .into_iter()
        .find(|call| call.to == "+12025550104")
        .unwrap();
    assert!(
        machine.transcript.matches("press one").count() == 3
            && machine.transcript.ends_with("Goodbye."),
        "{}",
        machine.transcript
    );
    assert_eq!(system.simulator.stats().asked_in_vain, 0);
    statuses.assert_sound();
    system.stop().await;
}

#[tokio::test]
async fn a_machine_is_hung_up_on_or_hears_the_code_after_its_beep_by_the_tenants_policy() {
    let (system, _worker) = system_with(Voicemail::HangUp).await;
    system
        .tenant("beep", 50.0, |draft| {
            draft.voicemail = Voicemail::WaitForBeep;
        })
        .await;
    let mut statuses = system.broker.statuses().await;
    let of = |tenant: &str, id: &str, to: &str| {
        let mut event = request(id, to, "493027", LIFE);
        event["data"]["tenant_id"] = json!(tenant);
        event
    };
    for event in [
        of("acme", "person", &number(1)),
        of("acme", "machine", "+12025550104"),
        of("beep", "beep-person", &number(2)),
        of("beep", "beep-machine", "+13125550104"),
    ] {
        system.publish_json(&event).await;
    }
    statuses.until_finals(4, SOON).await;
    for (id, to, status, answered_by, readings) in [
        ("person", number(1), "delivered", "human", 3),
        (
            "machine",
            "+12025550104".to_owned(),
            "voicemail",
            "machine_start",
            0,
        ),
        ("beep-person", number(2), "delivered", "human", 3),
        (
            "beep-machine",
            "+13125550104".to_owned(),
            "delivered",
            "machine_end_beep",
            3,
        ),
    ] {
        let last = &statuses.of(id).last().unwrap().data;
        let heard = system
            .simulator
            .calls()
            .into_iter()
            .find(|call| call.to == to)
            .unwrap();
        assert_eq!(
            (last.status.as_str(), last.answered_by.as_deref()),
            (status, Some(answered_by)),
            "{id}: {heard:?}"
        );
        let call = system
            .simulator
            .calls()
            .into_iter()
            .find(|call| call.to == to)
            .unwrap();
        assert_eq!(call.readings_heard, readings, "{id}: {}", call.transcript);
    }
    statuses.assert_sound();
    system.stop().await;
}
