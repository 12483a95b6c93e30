//! A failover or a restoration that lost commits: what may have been placed before is settled at
//! Twilio before anything is placed again.

use std::time::Duration;

use secrecy::ExposeSecret as _;

use crate::harness::{ACCOUNT, AUTH_TOKEN, FROM, Proxy, System, number, request};

const LIFE: Duration = Duration::from_mins(3);

#[tokio::test]
async fn a_call_that_the_database_has_lost_is_found_and_not_placed_again() {
    let system = System::start(50.0).await;
    let mut statuses = system.broker.statuses().await;
    let proxy = Proxy::to(system.database.address()).await;
    let url = proxy.in_place_of(system.database.url.expose_secret());
    let mut worker = system.worker_with(&[("VOICE_OTP_DATABASE_URL", url)]).await;
    // Waiting, so that their rows are what a lost commit would leave.
    system.set_paused(true).await;
    for (id, n) in [("placed-before", 601), ("never-placed", 602)] {
        system
            .publish_json(&request(id, &number(n), "493027", LIFE))
            .await;
    }
    statuses
        .until("both wait", Duration::from_secs(20), |seen| {
            let waits = |id: &str| {
                seen.iter().any(|(_, event)| {
                    event.data.delivery_id.as_str() == id
                        && event.data.status.as_str() == "deferred"
                })
            };
            waits("placed-before") && waits("never-placed")
        })
        .await;
    // The call that a worker has placed, and whose commit is lost.
    place_call(&system, &number(601)).await;
    become_another_server(&system, &proxy).await;
    system.set_paused(false).await;
    statuses.until_finals(2, Duration::from_mins(1)).await;
    for (id, n) in [("placed-before", 601), ("never-placed", 602)] {
        let log = worker.log();
        assert_eq!(system.calls_to(&number(n)), 1, "{id}: one call\n{log}");
        assert_eq!(
            statuses.names(id).last(),
            Some(&"delivered"),
            "{id}: {}\n{log}",
            statuses.reason(id)
        );
    }
    // What is admitted from now on is placed at once.
    system
        .publish_json(&request("after", &number(603), "493027", LIFE))
        .await;
    statuses.until_finals(3, Duration::from_secs(30)).await;
    assert_eq!(
        statuses.names("after"),
        ["accepted", "placed", "ringing", "answered", "delivered"],
        "without a look at Twilio's call list"
    );
    assert!(worker.terminate().await.success());
    system.stop().await;
}

/// Makes the schema look as after the promotion of an asynchronous standby: the timeline is another
/// one, and the workers lose their connections.
async fn become_another_server(system: &System, proxy: &Proxy) {
    proxy.close();
    let client = system.database.pool.get().await.unwrap();
    client
        .batch_execute("update database_state set timeline = 0, synchronous = false")
        .await
        .unwrap();
    proxy.open();
}

async fn place_call(system: &System, to: &str) {
    let url = format!(
        "{}/2010-04-01/Accounts/{ACCOUNT}/Calls.json",
        system.twilio_url
    );
    let reading = "<Say>Hello. Your verification code is: 4, 9, 3, 0, 2, 7.</Say>";
    let twiml = format!("<Response>{}</Response>", reading.repeat(4));
    let answer = reqwest::Client::new()
        .post(url)
        .basic_auth(ACCOUNT, Some(AUTH_TOKEN))
        .form(&[("To", to), ("From", FROM), ("Twiml", &twiml)])
        .send()
        .await
        .unwrap();
    assert!(
        answer.status().is_success(),
        "{}",
        answer.text().await.unwrap()
    );
}
