//! A worker says what doesn't work, and works again by itself.

use std::time::Duration;

use crate::harness::{System, number, request};

const LIFE: Duration = Duration::from_mins(2);

#[tokio::test]
async fn what_fails_for_five_seconds_is_said_in_words_and_so_is_the_recovery() {
    let system = System::start(50.0).await;
    let mut statuses = system.broker.statuses().await;
    let mut worker = system.worker().await;
    let client = system.database.pool.get().await.unwrap();
    client
        .batch_execute("alter table outbox rename to outbox_gone")
        .await
        .unwrap();
    let text = worker.readiness(false).await;
    assert!(
        text.contains("sweeping the outbox fails for")
            && text.contains("relation \"outbox\" does not exist (42P01)"),
        "{text}"
    );
    // The next sweep says so in the log.
    tokio::time::sleep(Duration::from_secs(2)).await;
    client
        .batch_execute("alter table outbox_gone rename to outbox")
        .await
        .unwrap();
    worker.ready().await;
    system
        .publish_json(&request("after", &number(501), "493027", LIFE))
        .await;
    statuses.until_finals(1, Duration::from_secs(30)).await;
    assert_eq!(statuses.names("after").last(), Some(&"delivered"));
    let log = worker.log();
    for line in [
        "sweeping the outbox fails",
        "sweeping the outbox works again",
    ] {
        assert_eq!(log.matches(line).count(), 1, "{line}, once:\n{log}");
    }
    assert!(worker.terminate().await.success());
    system.stop().await;
}
