//! Tests of calls from their creation to their end.

use super::*;

#[tokio::test]
async fn each_step_of_a_call_sends_a_callback() {
    let mut rig = Rig::at(1_000.0, 10.0).await;
    let sid = rig.call(TO, &[]).await;
    let mut callbacks = Vec::new();
    for _ in 0..4 {
        let callback = rig.next_callback().await;
        assert_eq!(
            (
                callback.field("CallSid"),
                callback.field("To"),
                callback.path.as_str()
            ),
            (sid.as_str(), TO, "/calls/attempt-1")
        );
        callbacks.push((
            callback.field("SequenceNumber").to_owned(),
            callback.field("CallStatus").to_owned(),
        ));
    }
    // Callbacks are separate requests, so they may overtake one another.
    callbacks.sort();
    let callbacks: Vec<_> = callbacks
        .iter()
        .map(|(number, status)| (number.as_str(), status.as_str()))
        .collect();
    assert_eq!(
        callbacks,
        [
            ("0", "initiated"),
            ("1", "ringing"),
            ("2", "in-progress"),
            ("3", "completed")
        ]
    );

    let report = rig.report(&sid);
    assert_eq!(report.transcript, "Your code is: 4 9 2 1 Again: 4 9 2 1");
    assert_eq!(
        (report.digits_heard.as_str(), report.readings_heard),
        ("4921", 2)
    );
    assert_eq!(
        (report.status.as_str(), report.picked_up_by.as_deref()),
        ("completed", Some("human"))
    );
    assert_eq!(report.sequence_numbers, [0, 1, 2, 3]);
    assert_eq!(report.callback_path.as_deref(), Some("/calls/attempt-1"));

    let resource = rig
        .get(&CALLS.replace(".json", &format!("/{sid}.json")))
        .await;
    assert_eq!(resource.status, 200);
    assert_eq!(resource.text("status"), "completed");
    assert_eq!(resource.text("to_formatted"), "(415) 555-0199");
    assert_eq!(
        resource.text("duration"),
        report.duration_s.unwrap().to_string()
    );
    assert!(resource.body["start_time"].is_string() && resource.body["end_time"].is_string());
    assert_eq!(rig.simulator.stats().callbacks_failed, 0);
}

#[tokio::test]
async fn the_final_callback_reports_how_the_call_ended() {
    let mut rig = Rig::at(1_000.0, 1_000.0).await;
    for (to, status, sip_response) in [
        ("+14155550101", "busy", "486"),
        ("+14155550102", "no-answer", "487"),
        ("+14155550103", "failed", "404"),
        ("+14155550105", "completed", "200"),
        ("+14155550106", "no-answer", "603"),
    ] {
        let sid = rig.call(to, &[]).await;
        let end = rig.final_callback().await;
        assert_eq!(
            (end.field("CallSid"), end.field("CallStatus")),
            (sid.as_str(), status),
            "{to}"
        );
        assert_eq!(end.field("SipResponseCode"), sip_response, "{to}");
        let answered = status == "completed";
        assert_eq!(
            end.field("CallDuration"),
            if answered { "1" } else { "0" },
            "{to}"
        );
        assert_eq!(
            end.field("Duration"),
            if answered { "1" } else { "" },
            "{to}"
        );
        assert_eq!(rig.report(&sid).digits_heard, "", "{to}");
    }
}

#[tokio::test]
async fn a_short_timeout_ends_the_ringing() {
    let mut rig = Rig::at(1_000.0, 10.0).await;
    rig.call(TO, &[("Timeout", "1")]).await;
    let end = rig.final_callback().await;
    assert_eq!(
        (end.field("CallStatus"), end.field("SipResponseCode")),
        ("no-answer", "487")
    );
}

#[tokio::test]
async fn only_a_requested_detection_reports_a_machine() {
    let mut rig = Rig::at(1_000.0, 1_000.0).await;
    let without_detection = rig.call("+14155550104", &[]).await;
    assert_eq!(rig.final_callback().await.field("AnsweredBy"), "");
    assert_eq!(
        rig.report(&without_detection).picked_up_by.as_deref(),
        Some("machine")
    );
    rig.call("+14155550104", &[("MachineDetection", "Enable")])
        .await;
    assert_eq!(
        rig.final_callback().await.field("AnsweredBy"),
        "machine_start"
    );
    rig.call(TO, &[("MachineDetection", "DetectMessageEnd")])
        .await;
    assert_eq!(rig.final_callback().await.field("AnsweredBy"), "human");
}

#[tokio::test]
async fn a_detection_in_the_background_has_its_own_callback() {
    let mut rig = Rig::at(1_000.0, 10.0).await;
    let url = rig.callback_url.replace("attempt-1", "detection");
    let sid = rig
        .create(
            TO,
            &[
                ("MachineDetection", "Enable"),
                ("AsyncAmd", "true"),
                ("AsyncAmdStatusCallback", url.as_str()),
            ],
        )
        .await
        .unwrap()
        .text("sid");
    let found = rig.next_callback().await;
    assert_eq!(found.path, "/calls/detection");
    assert_eq!(
        (found.field("CallSid"), found.field("AnsweredBy")),
        (sid.as_str(), "human")
    );
    assert!(
        found
            .field("MachineDetectionDuration")
            .parse::<u32>()
            .unwrap()
            >= 1_500
    );
}

#[tokio::test]
async fn a_call_cancelled_in_the_queue_sends_no_callback() {
    let rig = Rig::at(1_000.0, 0.001).await;
    rig.create(TO, &[]).await.unwrap();
    let waiting = rig.call(TO, &[]).await;
    let of_waiting = CALLS.replace(".json", &format!("/{waiting}.json"));
    let resource = rig.get(&of_waiting).await;
    assert_eq!(resource.text("status"), "queued");
    assert!(resource.text("queue_time").parse::<u64>().unwrap() > 900_000);
    assert!(resource.body["start_time"].is_null());

    let queued = rig
        .get(&format!("{CALLS}?To=%2B14155550199&Status=queued"))
        .await;
    let found = queued.body["calls"].as_array().unwrap();
    assert!(
        found.iter().any(|call| call["sid"] == waiting.as_str()),
        "{queued:?}"
    );
    let by_start = rig
        .get(&format!("{CALLS}?StartTime%3E=2000-01-01&Status=queued"))
        .await;
    assert!(
        by_start.body["calls"]
            .as_array()
            .unwrap()
            .iter()
            .all(|call| call["sid"] != waiting.as_str())
    );

    let cancelled = rig
        .post(&of_waiting, &[("Status", "canceled")])
        .await
        .unwrap();
    assert_eq!(
        (cancelled.status, cancelled.text("status").as_str()),
        (200, "canceled")
    );
    assert!(rig.report(&waiting).sequence_numbers.is_empty());
    let again = rig
        .post(&of_waiting, &[("Status", "canceled")])
        .await
        .unwrap();
    assert_eq!(
        (again.status, again.body["code"].as_u64()),
        (400, Some(21220))
    );
}

#[tokio::test]
async fn a_call_that_is_hung_up_sends_a_callback_and_is_not_heard_to_its_end() {
    let mut rig = Rig::at(20.0, 10.0).await;
    let long = format!(
        "<Response><Say>{}4 9 2 1</Say></Response>",
        "word ".repeat(300)
    );
    let pairs = [
        ("To", TO),
        ("From", FROM),
        ("Twiml", long.as_str()),
        ("StatusCallback", rig.callback_url.as_str()),
        ("StatusCallbackEvent", "answered"),
        ("StatusCallbackEvent", "completed"),
    ];
    let sid = rig.post(CALLS, &pairs).await.unwrap().text("sid");
    assert_eq!(rig.next_callback().await.field("CallStatus"), "in-progress");

    let of_call = CALLS.replace(".json", &format!("/{sid}.json"));
    let refused = rig.post(&of_call, &[("Status", "canceled")]).await.unwrap();
    assert_eq!(refused.body["code"].as_u64(), Some(21220));
    let hung_up = rig
        .post(&of_call, &[("Status", "completed")])
        .await
        .unwrap();
    assert_eq!(hung_up.text("status"), "completed");
    let end = rig.next_callback().await;
    assert_eq!(
        (end.field("CallStatus"), end.field("SequenceNumber")),
        ("completed", "1")
    );
    assert_eq!(rig.report(&sid).digits_heard, "");
    let transcript = rig.simulator.transcript(&sid).unwrap();
    assert_eq!(transcript.spoken.len(), 5);
}

#[tokio::test]
async fn lists_are_paged_from_the_newest_call() {
    let rig = Rig::at(1_000.0, 1_000.0).await;
    let mut sids = Vec::new();
    for to in ["+14155550198", TO, TO, TO] {
        sids.push(rig.create(to, &[]).await.unwrap().text("sid"));
    }
    let first = rig
        .get(&format!("{CALLS}?To=%2B14155550199&PageSize=2"))
        .await;
    let on = |page: &Answer| -> Vec<String> {
        page.body["calls"]
            .as_array()
            .unwrap()
            .iter()
            .map(|call| call["sid"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(on(&first), [sids[3].clone(), sids[2].clone()]);
    // A call that is created between the requests for two pages doesn't shift the second page.
    rig.create(TO, &[]).await.unwrap();
    let second = rig.get(&first.text("next_page_uri")).await;
    assert_eq!(on(&second), [sids[1].clone()]);
    assert!(second.body["next_page_uri"].is_null());
    assert_eq!(second.body["page"].as_u64(), Some(1));
    let others = rig.get(&format!("{CALLS}?To=%2B14155550111")).await;
    assert!(on(&others).is_empty());
}

#[tokio::test]
async fn the_price_comes_after_the_end() {
    let mut rig = Rig::at(1_000.0, 10.0).await;
    let sid = rig.call(TO, &[]).await;
    rig.final_callback().await;
    let of_call = CALLS.replace(".json", &format!("/{sid}.json"));
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while rig.get(&of_call).await.body["price"].is_null() {
        assert!(
            tokio::time::Instant::now() < deadline,
            "no price before the deadline"
        );
    }
    assert_eq!(rig.get(&of_call).await.text("price"), "-0.01400");
}

#[tokio::test]
async fn faults_lose_and_duplicate_callbacks() {
    let mut rig = Rig::at(1_000.0, 1_000.0).await;
    rig.control(
        Method::PATCH,
        "/simulator/faults",
        r#"{"callback_duplicate_share": 1.0}"#,
    )
    .await;
    rig.create(TO, &[("StatusCallback", rig.callback_url.as_str())])
        .await
        .unwrap();
    for _ in 0..2 {
        assert_eq!(rig.next_callback().await.field("SequenceNumber"), "0");
    }
    rig.control(
        Method::PATCH,
        "/simulator/faults",
        r#"{"callback_loss_share": 1.0}"#,
    )
    .await;
    let sid = rig
        .create(TO, &[("StatusCallback", rig.callback_url.as_str())])
        .await
        .unwrap()
        .text("sid");
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while rig.simulator.stats().callbacks_lost == 0 {
        assert!(
            tokio::time::Instant::now() < deadline,
            "no lost callback before the deadline"
        );
        tokio::task::yield_now().await;
    }
    assert_eq!(rig.report(&sid).sequence_numbers, [0]);
}
