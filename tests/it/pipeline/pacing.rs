//! The account's pace, over all workers together, and nobody else's.

use std::collections::BTreeSet;
use std::time::Duration;

use voice_otp::failure::Class;
use voice_otp_schemas::reason::ReasonCode;
use voice_otp_schemas::status::Status;

use super::bench::{Bench, data, steps, words};
use crate::memory::Answer;
use crate::memory::sample::{Ask, key, number};

/// The shortest pause between two POSTs.
fn shortest_gap(bench: &Bench) -> Duration {
    let times = bench.post_times();
    times
        .windows(2)
        .map(|pair| (pair[1] - pair[0]).to_std().unwrap())
        .min()
        .expect("there are two POSTs")
}

#[tokio::test(start_paused = true)]
async fn of_a_hundred_at_one_a_second_the_hopeless_are_refused_at_once() {
    let bench = Bench::new();
    let worker = bench.worker("one").await;
    let start = bench.now();
    let asks: Vec<Ask> = (0..100)
        .map(|n| {
            Ask::new("acme", &format!("r{n}"))
                .calling(n)
                .living(Duration::from_millis(90_500))
        })
        .collect();
    worker.take(&asks).await;
    bench
        .sink
        .until("everybody is answered", |events| events.len() >= 100)
        .await;
    assert!(
        bench.now() < start + Duration::from_secs(1),
        "whoever is refused can turn to another channel at once"
    );
    let events = bench.sink.events();
    let refused: Vec<_> = events
        .iter()
        .filter(|event| event.status == Some(Status::Expired))
        .map(data)
        .collect();
    assert_eq!(
        refused.len(),
        40,
        "there are 60 slots from a second ahead to a minute ahead"
    );
    for data in refused {
        let reason = data.reason.expect("it says why");
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
        .until("everybody has an ending", |events| finals(events) == 100)
        .await;
    let posts = bench.caller.posts();
    assert_eq!(posts.len(), 60);
    assert_eq!(
        posts
            .iter()
            .map(|post| post.to.expose().to_owned())
            .collect::<BTreeSet<_>>()
            .len(),
        60,
        "nobody twice"
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
    for ask in &asks {
        let told = bench.ended_of(&ask.key()).await;
        assert!(
            matches!(
                words(&told).as_slice(),
                ["expired"] | ["accepted", "placed", "ringing", "answered", "delivered"]
            ),
            "{told:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn two_workers_and_two_tenants_keep_one_accounts_pace() {
    let bench = Bench::new();
    bench.tenant("acme", 1, 2.0);
    bench.tenant("bell", 1, 2.0);
    let (first, second) = (bench.worker("one").await, bench.worker("two").await);
    let asks = |tenant: &str, from: u32| -> Vec<Ask> {
        (0..10)
            .map(|n| Ask::new(tenant, &format!("r{n}")).calling(from + n))
            .collect()
    };
    let (acme, bell) = (asks("acme", 0), asks("bell", 100));
    tokio::join!(first.take(&acme), second.take(&bell));
    for ask in acme.iter().chain(&bell) {
        assert_eq!(
            steps(&bench.ended_of(&ask.key()).await).last(),
            Some(&"delivered")
        );
    }
    assert_eq!(bench.caller.posts().len(), 20);
    assert!(
        shortest_gap(&bench) > Duration::from_millis(450),
        "{:?}",
        shortest_gap(&bench)
    );
}

#[tokio::test(start_paused = true)]
async fn a_hold_counts_for_all_of_the_account_and_for_nobody_else() {
    let bench = Bench::new();
    bench.tenant("bell", 2, 1.0);
    bench.caller.answers(
        &number(1),
        &[Answer::Fails(Class::Throttled(Some(Duration::from_secs(
            20,
        ))))],
    );
    let worker = bench.worker("one").await;
    let start = bench.now();
    worker
        .take(&[Ask::new("acme", "a"), Ask::new("acme", "b").calling(2)])
        .await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    worker
        .take(&[
            Ask::new("acme", "c").calling(3),
            Ask::new("bell", "a").calling(4),
        ])
        .await;
    for ask in ["a", "b", "c"] {
        assert_eq!(steps(&bench.ended(ask).await).last(), Some(&"delivered"));
    }
    bench.ended_of(&key("bell", "a")).await;
    for post in &bench.caller.posts()[1..] {
        let waited = post.at - start >= chrono::TimeDelta::seconds(20);
        assert_eq!(waited, post.to.expose() != number(4), "{}", post.at - start);
    }
    let deferred = bench.told(&key("acme", "b"));
    assert_eq!(
        words(&deferred)[..2],
        ["accepted", "deferred"],
        "who waits longer than was said is told"
    );
    assert_eq!(deferred[1].reason.as_ref().unwrap().code, ReasonCode::Pace);
}

#[tokio::test(start_paused = true)]
async fn two_calls_on_one_line_are_placed_one_after_the_other() {
    let bench = Bench::new();
    bench.tenant("acme", 1, 100.0);
    bench.caller.set_latency(Duration::from_secs(3));
    let worker = bench.worker("one").await;
    worker
        .take(&[
            Ask::new("acme", "a"),
            Ask::new("acme", "b"),
            Ask::new("acme", "c").calling(2),
        ])
        .await;
    for id in ["a", "b", "c"] {
        assert_eq!(steps(&bench.ended(id).await).last(), Some(&"delivered"));
    }
    let posts = bench.caller.posts();
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
