//! Tests of refused requests, and of requests that get no usable answer.

use super::*;

fn code(answer: &Answer) -> (u16, Option<u64>) {
    (answer.status, answer.body["code"].as_u64())
}

#[tokio::test]
async fn errors_have_twilios_form_and_every_answer_has_an_id() {
    let rig = Rig::at(1_000.0, 10.0).await;
    let refused = rig.create("not-a-number", &[]).await.unwrap();
    assert_eq!(code(&refused), (400, Some(21211)));
    assert_eq!(
        refused.text("more_info"),
        "https://www.twilio.com/docs/errors/21211"
    );
    assert_eq!(refused.body["status"].as_u64(), Some(400));
    let created = rig.create(TO, &[]).await.unwrap();
    let ids = [&refused, &created].map(|answer| {
        answer.headers["twilio-request-id"]
            .to_str()
            .unwrap()
            .to_owned()
    });
    assert!(
        ids.iter().all(|id| id.len() == 34 && id.starts_with("RQ")),
        "{ids:?}"
    );
    assert_ne!(ids[0], ids[1]);
    assert_eq!(
        code(&rig.get("/2010-04-01/Nonsense").await),
        (404, Some(20404))
    );
    assert_eq!(
        code(&rig.get(&CALLS.replace(".json", "/CA1.json")).await),
        (404, Some(20404))
    );
}

#[tokio::test]
async fn an_account_is_read_with_its_own_credentials_only() {
    let rig = Rig::at(1_000.0, 10.0).await;
    let balance = format!("{}/2010-04-01/Accounts/{SID}/Balance.json", rig.base);
    let status = async |user: &str, password: &str, url: &str| {
        let answer = rig
            .client
            .get(url)
            .basic_auth(user, Some(password))
            .send()
            .await
            .unwrap();
        answer.status().as_u16()
    };
    assert_eq!(status(SID, TOKEN, &balance).await, 200);
    assert_eq!(status("SK1", "a secret", &balance).await, 200);
    assert_eq!(status(SID, "another token", &balance).await, 401);
    assert_eq!(
        status(
            SID,
            TOKEN,
            &balance.replace(SID, "AC00000000000000000000000000000002")
        )
        .await,
        404
    );
    let json = rig
        .get(&format!("/2010-04-01/Accounts/{SID}/Balance.json"))
        .await;
    assert_eq!(
        (
            json.text("balance").as_str(),
            json.text("currency").as_str()
        ),
        ("100.00", "USD")
    );
}

#[tokio::test]
async fn an_account_can_be_added_and_suspended() {
    let rig = Rig::at(1_000.0, 10.0).await;
    let suspended = format!(r#"{{"sid": "{SID}", "auth_token": "{TOKEN}", "suspended": true}}"#);
    assert_eq!(
        rig.control(Method::POST, "/simulator/accounts", &suspended)
            .await
            .status,
        204
    );
    assert_eq!(
        code(&rig.create(TO, &[]).await.unwrap()),
        (401, Some(20003))
    );
    let invalid = r#"{"sid": "AC1", "auth_token": "t"}"#;
    assert_eq!(
        rig.control(Method::POST, "/simulator/accounts", invalid)
            .await
            .status,
        400
    );
}

#[tokio::test]
async fn the_first_request_may_be_throttled() {
    let rig = Rig::at(1_000.0, 10.0).await;
    for (to, wait) in [("+14155550111", None), ("+14155550112", Some("1"))] {
        let refused = rig.create(to, &[]).await.unwrap();
        assert_eq!(code(&refused), (429, Some(20429)));
        assert_eq!(
            refused
                .headers
                .get("retry-after")
                .map(|value| value.to_str().unwrap()),
            wait
        );
        assert_eq!(rig.create(to, &[]).await.unwrap().status, 201);
    }
    let stats = rig.simulator.stats();
    assert_eq!((stats.create_requests, stats.calls_created), (4, 2));
    assert!(stats.busiest_second[SID] <= 2);
}

#[tokio::test]
async fn a_server_error_does_not_show_whether_the_call_was_created() {
    let rig = Rig::at(1_000.0, 10.0).await;
    for (to, created) in [
        ("+14155550113", 0),
        ("+14155550114", 1),
        ("+14155550118", 0),
    ] {
        assert!(rig.create(to, &[]).await.unwrap().status >= 500, "{to}");
        let calls = rig
            .get(&format!("{CALLS}?To={}", to.replace('+', "%2B")))
            .await;
        assert_eq!(
            calls.body["calls"].as_array().unwrap().len(),
            created,
            "{to}"
        );
    }
}

#[tokio::test]
async fn a_create_request_may_get_no_answer_or_an_unreadable_one() {
    let rig = Rig::at(1_000.0, 10.0).await;
    let cut = rig.create("+14155550117", &[]).await.unwrap_err();
    assert!(!cut.is_timeout() && !cut.is_connect(), "{cut:?}");
    let unreadable = rig.create("+14155550119", &[]).await.unwrap();
    assert_eq!((unreadable.status, &unreadable.body), (201, &Value::Null));
    assert_eq!(rig.create("+14155550116", &[]).await.unwrap().status, 201);
    assert_eq!(rig.simulator.stats().calls_created, 3);
}

#[tokio::test]
async fn a_request_without_an_answer_still_creates_a_call() {
    let rig = Rig::at(1_000.0, 10.0).await;
    let body = form_urlencoded::Serializer::new(String::new())
        .extend_pairs([("To", "+14155550115"), ("From", FROM), ("Twiml", TWIML)])
        .finish();
    let request = rig
        .client
        .post(format!("{}{CALLS}", rig.base))
        .basic_auth(SID, Some(TOKEN));
    let request = request
        .header("content-type", "application/x-www-form-urlencoded")
        .body(body);
    let waited = request
        .timeout(Duration::from_millis(300))
        .send()
        .await
        .unwrap_err();
    assert!(waited.is_timeout(), "{waited:?}");
    assert_eq!(rig.simulator.stats().calls_created, 1);

    let change = r#"{"unanswered_share": 1.0}"#;
    let faults = rig
        .control(Method::PATCH, "/simulator/faults", change)
        .await;
    assert_eq!(faults.body["unanswered_share"].as_f64(), Some(1.0));
}

#[tokio::test]
async fn a_fate_can_be_set_for_any_number() {
    let mut rig = Rig::at(1_000.0, 10.0).await;
    let to = "+4930123456";
    let choice = r#"{"to": "+4930123456", "fate": "busy", "times": 1}"#;
    assert_eq!(
        rig.control(Method::POST, "/simulator/fates", choice)
            .await
            .status,
        204
    );
    rig.call(to, &[]).await;
    assert_eq!(rig.final_callback().await.field("CallStatus"), "busy");
    rig.call(to, &[]).await;
    assert_eq!(rig.final_callback().await.field("CallStatus"), "completed");
    assert_eq!(
        rig.control(
            Method::POST,
            "/simulator/fates",
            r#"{"to": "x", "fate": "busy"}"#
        )
        .await
        .status,
        400
    );

    let reports = rig
        .get("/simulator/calls?to=+4930123456&since=2000-01-01T00:00:00Z")
        .await;
    let fates: Vec<_> = reports
        .body
        .as_array()
        .unwrap()
        .iter()
        .map(|report| report["fate"].clone())
        .collect();
    assert_eq!(fates, ["busy", "answers"]);
    assert_eq!(
        rig.get("/simulator/calls?since=yesterday").await.status,
        400
    );
    assert_eq!(
        rig.get("/simulator/stats").await.body["calls_by_status"]["busy"].as_u64(),
        Some(1)
    );
}
