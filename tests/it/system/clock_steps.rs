//! The database's clock is set forward and back under running workers.

use std::time::Duration;

use crate::database::Database;
use crate::harness::{Broker, System, number, request};

/// A minute and a half, in which every lease and every short code would have ended.
const STEP_S: i32 = 90;
/// What a worker logs.
const AHEAD: &str = "the database's clock went forward";
const BACK: &str = "the database's clock went back";

async fn system() -> System {
    let (database, broker) = (Database::with_stepping_clock().await, Broker::fresh().await);
    System::start_on(database, broker, 50.0, |_| async {})
        .await
        .0
}

#[tokio::test]
async fn after_a_clock_was_ahead_and_set_back_a_code_of_a_minute_is_read_out() {
    let system = system().await;
    let mut statuses = system.broker.statuses().await;
    let mut worker = system.worker().await;
    let deliver = async |id: &str, n: usize| {
        let event = request(id, &number(n), "493027", Duration::from_mins(1));
        system.publish_json(&event).await;
    };
    deliver("before", 1).await;
    statuses.until_finals(1, Duration::from_secs(20)).await;

    system.database.set_ahead(STEP_S).await;
    worker.until_log(AHEAD, 1).await;
    // Its slot is a minute and a half ahead of the true time.
    let long = request("ahead", &number(2), "493027", Duration::from_mins(5));
    system.publish_json(&long).await;
    statuses.until_finals(2, Duration::from_secs(20)).await;

    system.database.set_ahead(0).await;
    worker.until_log(BACK, 1).await;
    deliver("after", 3).await;
    statuses.until_finals(3, Duration::from_secs(20)).await;
    for (id, n) in [("before", 1), ("ahead", 2), ("after", 3)] {
        assert_eq!(statuses.names(id).last(), Some(&"delivered"), "{id}");
        assert_eq!(system.calls_to(&number(n)), 1, "{id}");
    }
    statuses.assert_sound();
    assert!(worker.terminate().await.success());
    system.stop().await;
}

#[tokio::test]
async fn a_clock_that_was_set_back_makes_no_code_live_longer() {
    let system = system().await;
    let mut statuses = system.broker.statuses().await;
    let mut worker = system.worker().await;
    system.set_paused(true).await;
    let life = Duration::from_secs(45);
    let published = tokio::time::Instant::now();
    let event = request("waits", &number(1), "493027", life);
    system.publish_json(&event).await;
    statuses
        .until_count("deferred", 1, Duration::from_secs(20))
        .await;
    system.database.set_ahead(-STEP_S).await;
    worker.until_log(BACK, 1).await;
    // The last moment for a call is half a minute before the code's end.
    tokio::time::sleep_until(published + life - Duration::from_secs(25)).await;
    system.set_paused(false).await;
    statuses.until_finals(1, Duration::from_mins(3)).await;
    assert_eq!(statuses.names("waits").last(), Some(&"expired"));
    assert_eq!(system.calls_to(&number(1)), 0);
    assert!(worker.terminate().await.success());
    system.stop().await;
}
