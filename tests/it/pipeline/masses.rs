//! Groups of requests, verifications and cancellations: processed together, in the order that
//! matters to each delivery and each user.

use std::time::Duration;

use voice_otp::engine::Disposition;
use voice_otp_schemas::request::Incoming;

use super::test_bench::{TestBench, status_names};
use crate::memory::sample::{Request, cancelled, cancelled_user, key, number, verified};

const DONE: Disposition = Disposition::Acknowledge;

#[tokio::test(start_paused = true)]
async fn many_requests_verifications_and_cancellations_are_few_statements() {
    let bench = TestBench::new();
    let worker = bench.worker("one").await;
    // Waits behind the others, so that nothing is placed meanwhile.
    bench
        .directory
        .set_tenant_paused(&key("acme", "any").tenant_id, true);
    let now = bench.now();
    let mut group: Vec<Incoming> = Vec::new();
    for n in 0..100 {
        let (id, user) = (format!("r{n}"), format!("user-{n}"));
        group.push(Request::new("acme", &id).to(n).of_user(&user).incoming(now));
        group.push(verified("acme", &id, now));
        group.push(if n % 2 == 0 {
            cancelled("acme", &id, now)
        } else {
            cancelled_user("acme", &user, now)
        });
    }
    let before = bench.ledger.statements();
    let dispositions = worker.process(&group).await;
    let statements = bench.ledger.statements() - before;
    assert_eq!(dispositions, vec![DONE; group.len()]);
    // Besides them, a worker sends heartbeats and deletes published events.
    assert!(
        statements <= 20,
        "{statements} statements for {} messages",
        group.len()
    );
    for n in 0..100 {
        let statuses = bench.until_final(&format!("r{n}")).await;
        assert_eq!(status_names(&statuses).last(), Some(&"cancelled"));
    }
    assert_eq!(bench.telephony.posts().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn within_a_group_a_cancellation_cancels_what_was_before_it_and_nothing_after_it() {
    let bench = TestBench::new();
    let worker = bench.worker("one").await;
    let now = bench.now();
    let ago = |milliseconds| now - Duration::from_millis(milliseconds);
    let of_jane = |id, n, at| Request::new("acme", id).to(n).of_user("jane").incoming(at);
    let group = [
        cancelled("acme", "early", now),
        Request::new("acme", "early").to(1).incoming(now),
        of_jane("before", 2, ago(30)),
        cancelled_user("acme", "jane", ago(20)),
        of_jane("after", 3, ago(10)),
        Request::new("acme", "other").to(4).incoming(now),
    ];
    assert_eq!(worker.process(&group).await, [DONE; 6]);
    for (id, n, last) in [
        ("early", 1, "cancelled"),
        ("before", 2, "cancelled"),
        ("after", 3, "delivered"),
        ("other", 4, "delivered"),
    ] {
        let statuses = bench.until_final(id).await;
        assert_eq!(status_names(&statuses).last(), Some(&last), "{id}");
        if id == "early" {
            assert_eq!(bench.telephony.calls_to(&number(n)), 0);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_cancellation_by_user_that_overtakes_its_request_cancels_it() {
    let bench = TestBench::new();
    let (one, two) = (bench.worker("one").await, bench.worker("two").await);
    let published = bench.now();
    tokio::time::sleep(Duration::from_millis(5)).await;
    let cancellation = cancelled_user("acme", "jane", bench.now());
    assert_eq!(one.process(&[cancellation]).await, [DONE]);
    let request = Request::new("acme", "a")
        .of_user("jane")
        .incoming(published);
    assert_eq!(two.process(&[request]).await, [DONE]);
    assert_eq!(status_names(&bench.until_final("a").await), ["cancelled"]);
    tokio::time::sleep(Duration::from_secs(1)).await;
    two.accept(&[Request::new("acme", "b").of_user("jane")])
        .await;
    assert_eq!(
        status_names(&bench.until_final("b").await).last(),
        Some(&"delivered"),
        "a newer request is placed"
    );
    assert_eq!(bench.telephony.posts().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_alternation_without_end_is_retried_soon_and_holds_nothing_up() {
    let bench = TestBench::new();
    let worker = bench.worker("one").await;
    let now = bench.now();
    let mut group = Vec::new();
    for n in 0..50 {
        group.push(cancelled_user("acme", "jane", now));
        group.push(
            Request::new("acme", &format!("r{n}"))
                .of_user("jane")
                .incoming(now),
        );
    }
    group.push(Request::new("acme", "other").to(2).incoming(now));
    let dispositions = worker.process(&group).await;
    assert_eq!(dispositions.last(), Some(&DONE));
    let later = dispositions
        .iter()
        .filter(|one| **one == Disposition::RetrySoon);
    assert!(later.count() > 50, "{dispositions:?}");
}
