//! The account's rate limit, which holds over all workers and concerns no other account.

use std::collections::BTreeSet;
use std::time::Duration;

use voice_otp::call::failure::Class;
use voice_otp_schemas::reason::ReasonCode;
use voice_otp_schemas::status::Status;

use super::test_bench::{TestBench, data, status_names, steps};
use crate::memory::Answer;
use crate::memory::sample::{Request, key, number};

/// The shortest interval between two POSTs.
fn shortest_gap(bench: &TestBench) -> Duration {
    let times = bench.post_times();
    times
        .windows(2)
        .map(|pair| (pair[1] - pair[0]).to_std().unwrap())
        .min()
        .expect("there are two POSTs")
}

#[tokio::test(start_paused = true)]
async fn requests_that_cannot_meet_their_deadline_are_refused_at_once() {
    let bench = TestBench::new();
    let worker = bench.worker("one").await;
    let start = bench.now();
    let requests: Vec<Request> = (0..100)
        .map(|n| {
            Request::new("acme", &format!("r{n}"))
                .to(n)
                .expires_in(Duration::from_millis(90_500))
        })
        .collect();
    worker.accept(&requests).await;
    bench
        .sink
        .until("every request is answered", |events| events.len() >= 100)
        .await;
    assert!(
        bench.now() < start + Duration::from_secs(1),
        "refused requests can use another channel at once"
    );
    let events = bench.sink.events();
    let refused: Vec<_> = events
        .iter()
        .filter(|event| event.status == Some(Status::Expired))
        .map(data)
        .collect();
    assert_eq!(refused.len(), 40, "there are 60 slots within a minute");
    for data in refused {
        let reason = data.reason.expect("the status has a reason");
        assert_eq!(
            (data.sequence, reason.code),
            (1, ReasonCode::AccountBacklog)
        );
        assert!(reason.estimated_wait_ms.unwrap() > 60_000);
    }
    let finals =
        |events: &[voice_otp::event::Event]| events.iter().filter(|event| event.is_final()).count();
    bench
        .sink
        .until("every delivery is final", |events| finals(events) == 100)
        .await;
    let posts = bench.telephony.posts();
    assert_eq!(posts.len(), 60);
    assert_eq!(
        posts
            .iter()
            .map(|post| post.to.expose().to_owned())
            .collect::<BTreeSet<_>>()
            .len(),
        60,
        "no number is called twice"
    );
    assert!(
        shortest_gap(&bench) > Duration::from_millis(950),
        "{:?}",
        shortest_gap(&bench)
    );
    assert!(
        posts[59].at < start + Duration::from_secs(61),
        "no slot is wasted"
    );
    for request in &requests {
        let statuses = bench.until_final_of(&request.key()).await;
        assert!(
            matches!(
                status_names(&statuses).as_slice(),
                ["expired"] | ["accepted", "placed", "ringing", "answered", "delivered"]
            ),
            "{statuses:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn two_workers_and_two_tenants_share_one_accounts_rate_limit() {
    let bench = TestBench::new();
    bench.tenant("acme", 1, 2.0);
    bench.tenant("bell", 1, 2.0);
    let (first, second) = (bench.worker("one").await, bench.worker("two").await);
    let requests = |tenant: &str, from: u32| -> Vec<Request> {
        (0..10)
            .map(|n| Request::new(tenant, &format!("r{n}")).to(from + n))
            .collect()
    };
    let (acme, bell) = (requests("acme", 0), requests("bell", 100));
    tokio::join!(first.accept(&acme), second.accept(&bell));
    for request in acme.iter().chain(&bell) {
        assert_eq!(
            steps(&bench.until_final_of(&request.key()).await).last(),
            Some(&"delivered")
        );
    }
    assert_eq!(bench.telephony.posts().len(), 20);
    assert!(
        shortest_gap(&bench) > Duration::from_millis(450),
        "{:?}",
        shortest_gap(&bench)
    );
}

#[tokio::test(start_paused = true)]
async fn a_throttled_account_delays_all_its_calls_and_no_other_accounts() {
    let bench = TestBench::new();
    bench.tenant("bell", 2, 1.0);
    bench.telephony.answers(
        &number(1),
        &[Answer::Fails(Class::Throttled(Some(Duration::from_secs(
            20,
        ))))],
    );
    let worker = bench.worker("one").await;
    let start = bench.now();
    worker
        .accept(&[Request::new("acme", "a"), Request::new("acme", "b").to(2)])
        .await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    worker
        .accept(&[
            Request::new("acme", "c").to(3),
            Request::new("bell", "a").to(4),
        ])
        .await;
    for request in ["a", "b", "c"] {
        assert_eq!(
            steps(&bench.until_final(request).await).last(),
            Some(&"delivered")
        );
    }
    bench.until_final_of(&key("bell", "a")).await;
    for post in &bench.telephony.posts()[1..] {
        let waited = post.at - start >= chrono::TimeDelta::seconds(20);
        assert_eq!(waited, post.to.expose() != number(4), "{}", post.at - start);
    }
    let deferred = bench.statuses(&key("acme", "b"));
    assert_eq!(
        status_names(&deferred)[..2],
        ["accepted", "deferred"],
        "a due time later than announced is published"
    );
    assert_eq!(deferred[1].reason.as_ref().unwrap().code, ReasonCode::Pace);
}

#[tokio::test(start_paused = true)]
async fn two_calls_on_one_line_are_placed_one_after_the_other() {
    let bench = TestBench::new();
    bench.tenant("acme", 1, 100.0);
    bench.telephony.set_latency(Duration::from_secs(3));
    let worker = bench.worker("one").await;
    worker
        .accept(&[
            Request::new("acme", "a"),
            Request::new("acme", "b"),
            Request::new("acme", "c").to(2),
        ])
        .await;
    for id in ["a", "b", "c"] {
        assert_eq!(
            steps(&bench.until_final(id).await).last(),
            Some(&"delivered")
        );
    }
    let posts = bench.telephony.posts();
    let same: Vec<_> = posts
        .iter()
        .filter(|post| post.to.expose() == number(1))
        .map(|post| post.at)
        .collect();
    assert_eq!((posts.len(), same.len()), (3, 2));
    assert!(
        same[1] - same[0] >= chrono::TimeDelta::seconds(3),
        "the second waits for the answer to the first"
    );
    let other = posts
        .iter()
        .find(|post| post.to.expose() == number(2))
        .unwrap();
    assert!(
        other.at - same[0] < chrono::TimeDelta::seconds(1),
        "another line doesn't wait"
    );
}
