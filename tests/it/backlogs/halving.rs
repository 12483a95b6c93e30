//! A row on which the database gives up delays no other, and gets no verdict from it.

use std::time::{Duration, Instant};

use futures_util::future::join_all;

use crate::harness::{System, number, request};

/// Longer than the statement timeout.
const SLOW_ROW: &str = "create function be_slow() returns trigger language plpgsql as \
    $$ begin perform pg_sleep(11); return new; end $$; \
    create trigger be_slow before insert on deliveries for each row \
      when (new.delivery_id = 'slow') execute function be_slow()";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_times_out_delays_no_other_and_is_retried_alone() {
    let system = System::start(100.0).await;
    let mut statuses = system.broker.statuses().await;
    // The slow row holds the lock on its account's rate limit; this tenant needs none.
    system
        .tenant("other", 100.0, |draft| draft.test_mode = true)
        .await;
    let client = system.database.pool.get().await.unwrap();
    client.batch_execute(SLOW_ROW).await.unwrap();
    let mut worker = system.worker().await;
    let ids = ["a", "b", "c", "slow", "d", "e", "f", "g"];
    let requests: Vec<_> = (10..)
        .zip(ids)
        .map(|(n, id)| request(id, &number(n), "493027", Duration::from_mins(5)))
        .collect();
    join_all(requests.iter().map(|json| system.publish_json(json))).await;
    let began = Instant::now();
    statuses
        .until_finals(ids.len() - 1, Duration::from_mins(1))
        .await;
    eprintln!("the others of its batch: {:?}", began.elapsed());
    let began = Instant::now();
    for n in 100..120 {
        let later = format!("later-{n}");
        let mut json = request(&later, &number(n), "493027", Duration::from_mins(5));
        json["data"]["tenant_id"] = "other".into();
        system.publish_json(&json).await;
    }
    statuses
        .until_finals(ids.len() - 1 + 20, Duration::from_mins(1))
        .await;
    let took = began.elapsed();
    eprintln!("later requests: {took:?}");
    assert!(
        took < Duration::from_secs(8),
        "they wait for no timeout: {took:?}"
    );
    client
        .batch_execute(
            "set lock_timeout = 0; set statement_timeout = 0; drop trigger be_slow on deliveries",
        )
        .await
        .unwrap();
    statuses
        .until_finals(ids.len() + 20, Duration::from_mins(2))
        .await;
    statuses.assert_sound();
    assert!(worker.terminate().await.success());
    drop(client);
    system.stop().await;
}
