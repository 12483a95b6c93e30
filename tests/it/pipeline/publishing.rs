//! Statuses reach the sink complete and in order, whatever the sink does.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use voice_otp::event::Event;
use voice_otp::settings::Draft;
use voice_otp_schemas::DeliveryKey;
use voice_otp_schemas::status::StatusData;

use super::test_bench::{TestBench, requests, status_names, steps, without_duplicates};
use crate::memory::sample::{Request, draft, key};
use crate::memory::{BrokenQueue, MemorySink};

#[tokio::test(start_paused = true)]
async fn a_sink_that_was_down_gets_every_status_in_order_once_it_is_back() {
    let bench = TestBench::new();
    bench.sink.set_down(true);
    let worker = bench.worker("one").await;
    let requests = requests(3);
    worker.accept(&requests).await;
    tokio::time::sleep(Duration::from_secs(8)).await;
    assert!(bench.sink.events().is_empty());
    assert_eq!(
        bench.telephony.posts().len(),
        3,
        "calls don't wait for the sink"
    );
    bench.sink.set_down(false);
    for request in &requests {
        assert_eq!(
            steps(&bench.until_final_of(&request.key()).await),
            ["accepted", "placed", "ringing", "answered", "delivered"]
        );
    }
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(bench.ledger.outbox_len(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_unreliable_sink_gets_every_status_in_order() {
    let bench = TestBench::new();
    let worker = bench.worker("one").await;
    let requests = requests(10);
    worker.accept(&requests).await;
    for _ in 0..40 {
        bench.sink.set_down(true);
        tokio::time::sleep(Duration::from_millis(700)).await;
        bench.sink.set_down(false);
        tokio::time::sleep(Duration::from_millis(400)).await;
    }
    for request in &requests {
        assert_eq!(
            status_names(&bench.until_final_of(&request.key()).await).last(),
            Some(&"delivered")
        );
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_published_before_a_status_that_the_broker_refused() {
    let bench = TestBench::new();
    bench.sink.set_down(true);
    let worker = bench.worker("one").await;
    worker.accept(&requests(1)).await;
    tokio::time::sleep(Duration::from_secs(8)).await;
    // By now several statuses wait.
    bench.sink.set_down(false);
    bench.until_final("r0").await;
    let published: Vec<u32> = bench.sink.events().iter().map(|e| e.sequence).collect();
    assert_eq!(published, [1, 2, 3, 4, 5]);
}

#[tokio::test(start_paused = true)]
async fn a_long_outage_of_the_sink_does_not_multiply_the_statuses() {
    let bench = TestBench::new();
    bench.sink.set_down(true);
    let worker = bench.worker("one").await;
    let requests = requests(3);
    worker.accept(&requests).await;
    tokio::time::sleep(Duration::from_mins(10)).await;
    bench.sink.set_down(false);
    bench
        .sink
        .until("everything is published", |events| {
            without_duplicates(events).values().flatten().count() == 15
        })
        .await;
    tokio::time::sleep(Duration::from_mins(1)).await;
    let events = bench.sink.events();
    for (key, statuses) in without_duplicates(&events) {
        let sequences: Vec<u32> = statuses.iter().map(|event| event.sequence).collect();
        assert_eq!(sequences, [1, 2, 3, 4, 5], "{key}");
    }
    assert!(
        events.len() <= 2 * 15,
        "at least once, but not once every few seconds: {} events",
        events.len()
    );
    assert_eq!(bench.ledger.outbox_len(), 0);
}

#[tokio::test(start_paused = true)]
async fn more_than_one_batch_of_statuses_is_published_in_order() {
    let bench = TestBench::new();
    bench.directory.save(
        "acme",
        &Draft {
            test_mode: true,
            ..draft(1, 1.0)
        },
    );
    let worker = bench.worker("one").await;
    let requests = requests(300);
    for group in requests.chunks(120) {
        worker.accept(group).await;
    }
    for request in &requests {
        assert_eq!(
            status_names(&bench.until_final_of(&request.key()).await),
            ["accepted", "delivered"]
        );
    }
    assert_eq!(bench.sink.events().len(), 600);
}

#[tokio::test(start_paused = true)]
async fn the_unpublished_statuses_of_a_killed_worker_are_published_by_another() {
    let bench = TestBench::new();
    bench.sink.set_down(true);
    let first = bench.worker("one").await;
    first
        .accept(&[Request::new("ghost", "a"), Request::new("acme", "b")])
        .await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    first.kill().await;
    bench.sink.set_down(false);
    let _second = bench.worker("two").await;
    assert_eq!(
        status_names(&bench.until_final_with_duplicates(&key("ghost", "a")).await),
        ["rejected"]
    );
    let statuses = bench.until_final_with_duplicates(&key("acme", "b")).await;
    assert_eq!(
        steps(&statuses),
        ["accepted", "placed", "ringing", "answered", "delivered"]
    );
    assert_eq!(bench.telephony.posts().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_is_never_idle_still_publishes_a_killed_workers_statuses() {
    let bench = TestBench::new();
    bench.directory.save(
        "busy",
        &Draft {
            test_mode: true,
            ..draft(9, 1.0)
        },
    );
    let broken = MemorySink::new();
    broken.set_down(true);
    let first = bench.worker_with_sink("one", broken).await;
    let second = bench.worker("two").await;
    bench.sink.set_latency(Duration::from_millis(20));
    // A request every few milliseconds, so that a publish is always in progress.
    let load = async |requests: std::ops::Range<u32>| {
        for n in requests {
            second
                .accept(&[Request::new("busy", &format!("r{n}"))])
                .await;
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
    };
    load(0..300).await;
    first.accept(&[Request::new("ghost", "left-behind")]).await;
    first.kill().await;
    load(300..5_000).await;
    assert_eq!(
        status_names(&bench.statuses(&key("ghost", "left-behind"))),
        ["rejected"],
        "published while the load continues"
    );
}

/// How often each status was published, by delivery and sequence.
fn copies(events: &[Event]) -> BTreeMap<(DeliveryKey, u32), usize> {
    let mut copies = BTreeMap::new();
    for event in events {
        *copies
            .entry((event.key.clone(), event.sequence))
            .or_default() += 1;
    }
    copies
}

fn most_copies(events: &[Event]) -> usize {
    copies(events).into_values().max().unwrap_or_default()
}

async fn final_within_a_second(bench: &TestBench, request: &Request) -> Vec<StatusData> {
    let key = request.key();
    tokio::time::timeout(Duration::from_secs(1), bench.until_final_of(&key))
        .await
        .expect("the final status within a second")
}

/// Requests of a tenant in test mode, which have two statuses each.
fn test_requests(bench: &TestBench, tenant: &str, account: u32, count: u32) -> Vec<Request> {
    bench.directory.save(
        tenant,
        &Draft {
            test_mode: true,
            ..draft(account, 1.0)
        },
    );
    (0..count)
        .map(|n| Request::new(tenant, &format!("t{n}")).to(n))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_queue_that_refuses_holds_up_no_other_tenant_and_no_status_is_published_three_times() {
    let bench = TestBench::new();
    let worker = bench.worker("one").await;
    let full = test_requests(&bench, "full", 8, 300);
    let others = test_requests(&bench, "other", 9, 40);
    bench.sink.set_queue("full", Some(BrokenQueue::Refuses));
    for group in full.chunks(100) {
        worker.accept(group).await;
    }
    // For minutes, while others publish.
    for request in &others {
        worker.accept(std::slice::from_ref(request)).await;
        assert_eq!(
            status_names(&final_within_a_second(&bench, request).await),
            ["accepted", "delivered"]
        );
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
    let events = bench.sink.events();
    assert_eq!(most_copies(&events), 2);
    assert_eq!(
        copies(&events).len(),
        2 * (full.len() + others.len()),
        "what is given up is in the status log"
    );
    let given_up = worker.engine.counts().statuses_refused.load(Relaxed);
    assert_eq!(given_up, 600);
    assert_eq!(bench.ledger.outbox_len(), 0);

    // Once the queue takes statuses again, they flow.
    bench.sink.set_queue("full", None);
    let later = Request::new("full", "later").to(9_999);
    worker.accept(std::slice::from_ref(&later)).await;
    assert_eq!(final_within_a_second(&bench, &later).await.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_queue_that_refuses_for_seconds_gets_every_status_in_order() {
    let bench = TestBench::new();
    let worker = bench.worker("one").await;
    let requests = test_requests(&bench, "full", 8, 50);
    bench.sink.set_queue("full", Some(BrokenQueue::Refuses));
    worker.accept(&requests).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    bench.sink.set_queue("full", None);
    for request in &requests {
        let statuses = bench.until_final_with_duplicates(&request.key()).await;
        assert_eq!(
            status_names(&statuses).last(),
            Some(&"delivered"),
            "{statuses:?}"
        );
    }
    tokio::time::sleep(Duration::from_mins(1)).await;
    assert_eq!(bench.ledger.outbox_len(), 0);
    assert!(most_copies(&bench.sink.events()) <= 2);
    let counts = worker.engine.counts();
    assert_eq!(counts.statuses_refused.load(Relaxed), 0, "none is given up");
}

#[tokio::test(start_paused = true)]
async fn a_status_with_a_routing_key_of_its_own_is_published_five_times_at_most() {
    let bench = TestBench::new();
    let worker = bench.worker("one").await;
    let requests = test_requests(&bench, "full", 8, 1);
    bench.sink.set_queue("full", Some(BrokenQueue::Refuses));
    worker.accept(&requests).await;
    tokio::time::sleep(Duration::from_mins(10)).await;
    assert_eq!(most_copies(&bench.sink.events()), 5);
    assert_eq!(bench.ledger.outbox_len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_queue_that_never_confirms_holds_up_no_other_tenant() {
    let bench = TestBench::new();
    let worker = bench.worker("one").await;
    let silent = test_requests(&bench, "silent", 8, 300);
    let others = test_requests(&bench, "other", 9, 100);
    bench.sink.set_queue("silent", Some(BrokenQueue::IsSilent));
    for group in silent.chunks(100) {
        worker.accept(group).await;
    }
    for request in &others {
        worker.accept(std::slice::from_ref(request)).await;
        assert_eq!(final_within_a_second(&bench, request).await.len(), 2);
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
    assert!(most_copies(&bench.sink.events()) <= 5);
    assert!(worker.engine.counts().statuses_unconfirmed.load(Relaxed) > 0);
    bench.sink.set_queue("silent", None);
    for request in &silent {
        bench.until_final_with_duplicates(&request.key()).await;
    }
    tokio::time::sleep(Duration::from_mins(2)).await;
    assert_eq!(bench.ledger.outbox_len(), 0);
}

#[tokio::test(start_paused = true)]
async fn while_nothing_at_all_is_confirmed_no_status_counts_as_published() {
    let bench = TestBench::new();
    let worker = bench.worker("one").await;
    let requests = test_requests(&bench, "silent", 8, 3);
    bench.sink.set_queue("silent", Some(BrokenQueue::IsSilent));
    worker.accept(&requests).await;
    tokio::time::sleep(Duration::from_mins(30)).await;
    assert_eq!(
        bench.ledger.outbox_len(),
        6,
        "perhaps the queue that doesn't confirm is the status log"
    );
    bench.sink.set_queue("silent", None);
    for request in &requests {
        bench.until_final_with_duplicates(&request.key()).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_broker_gets_no_status_twice() {
    let bench = TestBench::new();
    let worker = bench.worker("one").await;
    // Some 24 in flight at a time: the last of them waits for more than a minute.
    bench.sink.set_latency(Duration::from_millis(500));
    let requests = test_requests(&bench, "slow", 8, 2_000);
    for group in requests.chunks(100) {
        worker.accept(group).await;
    }
    bench
        .sink
        .until("everything is published", |events| events.len() >= 4_000)
        .await;
    tokio::time::sleep(Duration::from_mins(1)).await;
    assert_eq!(most_copies(&bench.sink.events()), 1);
    assert_eq!(bench.ledger.outbox_len(), 0);
}

#[tokio::test(start_paused = true)]
async fn one_tenants_backlog_leaves_room_for_the_statuses_of_others() {
    let bench = TestBench::new();
    let worker = bench.worker("one").await;
    let many = test_requests(&bench, "many", 8, 10_000);
    let other = test_requests(&bench, "other", 9, 2);
    bench.sink.set_queue("many", Some(BrokenQueue::Refuses));
    bench.sink.refuse_next(1);
    for group in many.chunks(500) {
        worker.accept(group).await;
    }
    worker.accept(&other).await;
    // More than what the relay takes of one tenant whose statuses are refused.
    assert!(bench.ledger.outbox_len() > 10_000);
    assert_eq!(final_within_a_second(&bench, &other[0]).await.len(), 2);
    // What was left in the outbox comes from there.
    bench.sink.set_queue("many", None);
    bench
        .sink
        .until("everything is published", |events| {
            copies(events).len() == 20_004
        })
        .await;
    assert!(most_copies(&bench.sink.events()) <= 5);
}
