//! A newer request of a user takes the older one's place.

use std::time::Duration;

use voice_otp_schemas::reason::ReasonCode;
use voice_otp_schemas::status::StatusData;

use super::bench::{Bench, steps, words};
use crate::memory::sample::{Ask, key, number};
use crate::memory::{Answer, Life};

fn of_jane(id: &str, to: u32) -> Ask {
    Ask::new("acme", id).calling(to).of_user("jane")
}

fn check_superseded(told: &[StatusData]) {
    let last = told.last().unwrap();
    assert_eq!(
        (
            last.status.as_str(),
            last.reason.as_ref().map(|reason| reason.code)
        ),
        ("cancelled", Some(ReasonCode::Superseded))
    );
}

#[tokio::test(start_paused = true)]
async fn what_waits_is_superseded_at_once_and_never_placed() {
    let bench = Bench::new();
    let worker = bench.worker("one").await;
    // The first takes the slot, so that the older one of jane's waits.
    worker
        .take(&[Ask::new("acme", "a"), of_jane("older", 2)])
        .await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    worker.take(&[of_jane("newer", 3)]).await;
    let told = bench.ended("older").await;
    assert_eq!(words(&told), ["accepted", "cancelled"]);
    check_superseded(&told);
    assert_eq!(
        steps(&bench.ended("newer").await).last(),
        Some(&"delivered")
    );
    assert_eq!(
        (
            bench.caller.calls_to(&number(2)),
            bench.caller.calls_to(&number(3))
        ),
        (0, 1)
    );
}

#[tokio::test(start_paused = true)]
async fn a_ringing_call_is_hung_up_and_the_newer_one_comes_after_it() {
    let bench = Bench::new();
    let (first, second) = (bench.worker("one").await, bench.worker("two").await);
    first.take(&[of_jane("older", 2)]).await;
    bench.until_told("older", "ringing").await;
    // By another worker, which has nothing of the older one in its hands.
    second.take(&[of_jane("newer", 2)]).await;
    check_superseded(&bench.ended("older").await);
    assert_eq!(
        steps(&bench.ended("newer").await),
        ["accepted", "placed", "ringing", "answered", "delivered"]
    );
    let calls = bench.caller.calls();
    assert_eq!(calls.len(), 2);
    assert!(calls[0].status.is_over() && bench.post_times().len() == 2);
}

#[tokio::test(start_paused = true)]
async fn an_answered_call_is_left_alone_and_the_newer_one_waits_for_its_end() {
    let bench = Bench::new();
    let worker = bench.worker("one").await;
    worker.take(&[of_jane("older", 2)]).await;
    bench.until_told("older", "answered").await;
    worker.take(&[of_jane("newer", 2)]).await;
    let older = bench.ended("older").await;
    assert_eq!(steps(&older).last(), Some(&"delivered"));
    let over_at = bench.now();
    let newer = bench.ended("newer").await;
    assert_eq!(steps(&newer).last(), Some(&"delivered"));
    assert!(
        bench.post_times()[1] >= over_at - Duration::from_secs(4),
        "not while the older one goes on"
    );
    let waited = newer
        .iter()
        .filter_map(|data| data.reason.as_ref())
        .map(|reason| reason.code)
        .collect::<Vec<_>>();
    assert!(waited.contains(&ReasonCode::LineBusy), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn an_older_request_that_arrives_later_is_superseded_at_once() {
    let bench = Bench::new();
    let worker = bench.worker("one").await;
    worker.take(&[of_jane("newer", 2)]).await;
    bench.ended("newer").await;
    worker
        .take(&[of_jane("older", 3).asked_ago(Duration::from_secs(90))])
        .await;
    let told = bench.ended("older").await;
    assert_eq!(words(&told), ["cancelled"]);
    check_superseded(&told);
    assert_eq!(bench.caller.calls_to(&number(3)), 0);
}

#[tokio::test(start_paused = true)]
async fn of_two_in_one_group_the_older_is_superseded_and_other_users_are_left_alone() {
    let bench = Bench::new();
    let worker = bench.worker("one").await;
    let older = of_jane("older", 2).asked_ago(Duration::from_secs(1));
    worker
        .take(&[
            of_jane("newer", 3),
            older,
            Ask::new("acme", "june").calling(4).of_user("june"),
        ])
        .await;
    check_superseded(&bench.ended("older").await);
    for id in ["newer", "june"] {
        assert_eq!(
            steps(&bench.ended(id).await).last(),
            Some(&"delivered"),
            "{id}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn two_workers_at_one_moment_make_one_call_at_a_time() {
    for round in 0..20_u64 {
        let bench = Bench::new();
        bench.tenant("acme", 1, 100.0);
        let (first, second) = (bench.worker("one").await, bench.worker("two").await);
        let asks = (
            [of_jane("x", 2)],
            [of_jane("y", 2).asked_ago(Duration::from_millis(round % 3))],
        );
        tokio::join!(first.take(&asks.0), async {
            tokio::time::sleep(Duration::from_micros(round * 150)).await;
            second.take(&asks.1).await;
        });
        let told = [bench.ended("x").await, bench.ended("y").await];
        let ends: Vec<&str> = told
            .iter()
            .map(|told| told.last().unwrap().status.as_str())
            .collect();
        assert!(ends.contains(&"delivered"), "round {round}: {ends:?}");
        // Never two calls at once: whatever was placed for the older was over when the newer was placed.
        let cancelled = ends.iter().filter(|end| **end == "cancelled").count();
        assert_eq!(cancelled, 1, "round {round}: {ends:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_older_placement_of_unknown_outcome_is_settled_before_the_newer_one_is_placed() {
    let bench = Bench::new();
    bench
        .caller
        .answers(&number(2), &[Answer::TakesUnheard(Life::default())]);
    let worker = bench.worker("one").await;
    worker.take(&[of_jane("older", 2)]).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    worker.take(&[of_jane("newer", 2)]).await;
    bench.ended("older").await;
    assert_eq!(
        steps(&bench.ended("newer").await).last(),
        Some(&"delivered")
    );
    assert_eq!(
        bench
            .told(&key("acme", "older"))
            .iter()
            .filter(|data| data.is_final)
            .count(),
        1
    );
    let calls = bench.caller.calls();
    assert_eq!(calls.len(), 2, "one each");
    assert!(calls[0].status.is_over());
}
