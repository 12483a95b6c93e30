//! No one waits for a stranger: pauses, circuits, and the bulkhead between accounts.

use std::time::Duration;

use voice_otp::failure::{Class, Fault};
use voice_otp_schemas::TenantId;
use voice_otp_schemas::reason::ReasonCode;

use super::bench::{Bench, steps, words};
use crate::memory::sample::{Ask, account, key, number};
use crate::memory::{Answer, Life};

fn id(tenant: &str) -> TenantId {
    TenantId::parse(tenant).unwrap()
}

#[tokio::test(start_paused = true)]
async fn what_is_paused_waits_and_says_so_and_is_placed_once_resumed() {
    let bench = Bench::new();
    let worker = bench.worker_with_directory("one").await;
    bench.directory.pause(&id("acme"), true);
    worker
        .take(&[Ask::new("acme", "a"), Ask::new("acme", "b").calling(2)])
        .await;
    tokio::time::sleep(Duration::from_mins(1)).await;
    assert!(bench.caller.posts().is_empty());
    let told = bench.told(&key("acme", "a"));
    assert_eq!(words(&told), ["accepted", "deferred"]);
    assert_eq!(told[1].reason.as_ref().unwrap().code, ReasonCode::Paused);
    let resumed = bench.now();
    bench.directory.pause(&id("acme"), false);
    for ask in ["a", "b"] {
        assert_eq!(steps(&bench.ended(ask).await).last(), Some(&"delivered"));
    }
    let waits: Vec<i64> = bench
        .post_times()
        .iter()
        .map(|at| (*at - resumed).num_milliseconds())
        .collect();
    assert!(waits[0] < 1_000 && waits[1] < 2_500, "{waits:?}");
}

#[tokio::test(start_paused = true)]
async fn what_waits_when_a_pause_begins_waits_on_and_ends_in_time_if_nobody_resumes() {
    let bench = Bench::new();
    let worker = bench.worker_with_directory("one").await;
    let asks: Vec<Ask> = (0..4)
        .map(|n| Ask::new("acme", &format!("r{n}")).calling(n))
        .collect();
    worker.take(&asks).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let start = bench.now();
    bench.directory.pause_account(&account(1), true);
    let told = bench.ended("r3").await;
    assert_eq!(words(&told), ["accepted", "deferred", "expired"]);
    assert_eq!(told[1].reason.as_ref().unwrap().code, ReasonCode::Paused);
    assert_eq!(
        told[2].reason.as_ref().unwrap().code,
        ReasonCode::ExpiredWaiting
    );
    // A code of three minutes, less half a minute to ring and be heard.
    let waited = (bench.now() - start).num_seconds();
    assert!((148..=150).contains(&waited), "{waited}");
    assert!(
        bench.caller.posts().is_empty(),
        "its first slot was a second away"
    );
}

#[tokio::test(start_paused = true)]
async fn refused_credentials_end_a_tenants_requests_without_a_post_until_twilio_takes_them_again() {
    let bench = Bench::new();
    bench.tenant("bell", 2, 1.0);
    bench.caller.always(
        &number(1),
        Answer::Fails(Class::Permanent(Fault::Credentials)),
    );
    let worker = bench.worker_with_directory("one").await;
    worker.take(&[Ask::new("acme", "a")]).await;
    assert_eq!(words(&bench.ended("a").await), ["accepted", "failed"]);
    for n in 0..20 {
        let ask = Ask::new("acme", &format!("b{n}")).calling(10 + n);
        worker.take(std::slice::from_ref(&ask)).await;
        let told = bench.ended_of(&ask.key()).await;
        assert_eq!(
            (words(&told), told[0].reason.as_ref().unwrap().code),
            (vec!["failed"], ReasonCode::TenantCredentials)
        );
    }
    assert_eq!(bench.caller.posts().len(), 1, "one was enough to know");
    worker.take(&[Ask::new("bell", "a").calling(90)]).await;
    assert_eq!(
        steps(&bench.ended_of(&key("bell", "a")).await).last(),
        Some(&"delivered")
    );
    assert_eq!(
        worker
            .engine
            .counts()
            .credential_circuits
            .load(std::sync::atomic::Ordering::Relaxed),
        1
    );
    // Twilio lets it look at the list of calls: within a minute and a bit the circuit is closed.
    tokio::time::sleep(Duration::from_secs(70)).await;
    worker.take(&[Ask::new("acme", "c").calling(40)]).await;
    assert_eq!(steps(&bench.ended("c").await).last(), Some(&"delivered"));
}

#[tokio::test(start_paused = true)]
async fn trouble_with_an_account_opens_its_circuit_and_a_call_that_goes_well_closes_it() {
    let mut bench = Bench::new();
    bench.tuning.settle_absent = Duration::from_secs(2);
    bench.tenant("acme", 1, 10.0);
    for n in (0..5).chain(20..25) {
        bench
            .caller
            .answers(&number(n), &[Answer::Fails(Class::Transient)]);
    }
    let (first, second) = (bench.worker("one").await, bench.worker("two").await);
    let asks: Vec<Ask> = (0..40)
        .map(|n| Ask::new("acme", &format!("r{n}")).calling(n))
        .collect();
    first.take(&asks[..20]).await;
    second.take(&asks[20..]).await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    let in_trouble = bench.caller.posts().len();
    assert!(
        (5..=14).contains(&in_trouble),
        "{in_trouble} POSTs until both workers left it alone"
    );
    for ask in &asks {
        assert_eq!(
            steps(&bench.ended_of(&ask.key()).await).last(),
            Some(&"delivered")
        );
    }
    let opened: u64 = [&first, &second]
        .iter()
        .map(|worker| {
            worker
                .engine
                .counts()
                .account_circuits
                .load(std::sync::atomic::Ordering::Relaxed)
        })
        .sum();
    assert!(opened >= 1, "{opened}");
}

#[tokio::test(start_paused = true)]
async fn an_account_that_does_not_answer_leaves_the_others_their_room() {
    let mut bench = Bench::new();
    bench.tuning.placing_permits = 32;
    bench.tenant("slow", 2, 1_000.0);
    bench.tenant("fast", 3, 1_000.0);
    for n in 0..200 {
        bench.caller.always(&number(n), Answer::Loses);
    }
    let worker = bench.worker("one").await;
    let slow: Vec<Ask> = (0..200)
        .map(|n| Ask::new("slow", &format!("s{n}")).calling(n))
        .collect();
    worker.take(&slow).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let start = bench.now();
    let fast: Vec<Ask> = (0..16)
        .map(|n| Ask::new("fast", &format!("f{n}")).calling(1_000 + n))
        .collect();
    worker.take(&fast).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let posts = bench.caller.posts();
    let came = posts
        .iter()
        .filter(|post| post.account == account(3))
        .count();
    assert_eq!(came, 16, "all of them, at once");
    assert!(
        posts
            .iter()
            .filter(|post| post.account == account(2))
            .count()
            <= 16,
        "the slow one fills its half only"
    );
    assert!((bench.now() - start).num_milliseconds() <= 300);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_twilio_would_hold_beyond_the_codes_life_is_cancelled_at_once() {
    let bench = Bench::new();
    let held = Life {
        queued: Duration::from_mins(10),
        ..Life::default()
    };
    bench.caller.answers(&number(1), &[Answer::Takes(held)]);
    let worker = bench.worker("one").await;
    let start = bench.now();
    worker.take(&[Ask::new("acme", "a")]).await;
    let told = bench.ended("a").await;
    assert_eq!(words(&told), ["accepted", "placed", "expired"]);
    assert_eq!(
        told[2].reason.as_ref().unwrap().code,
        ReasonCode::ProviderQueue
    );
    assert!(
        (bench.now() - start).num_seconds() < 5,
        "not only when the code's time is up"
    );
}

#[tokio::test(start_paused = true)]
async fn without_room_the_earliest_deadline_goes_first() {
    let mut bench = Bench::new();
    bench.tuning.placing_permits = 1;
    bench.caller.set_latency(Duration::from_secs(2));
    for (n, tenant) in (1..).zip(["one", "two", "three", "four"]) {
        bench.tenant(tenant, n, 100.0);
    }
    let worker = bench.worker("one").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    worker.take(&[Ask::new("one", "a").calling(1)]).await;
    let lives = [("two", 2, 170), ("three", 3, 80), ("four", 4, 120)];
    for (tenant, n, life) in lives {
        worker
            .take(&[Ask::new(tenant, "a")
                .calling(n)
                .living(Duration::from_secs(life))])
            .await;
    }
    for (tenant, ..) in lives {
        bench.ended_of(&key(tenant, "a")).await;
    }
    let called: Vec<String> = bench
        .caller
        .posts()
        .iter()
        .map(|post| post.to.expose().to_owned())
        .collect();
    assert_eq!(called, [1, 3, 4, 2].map(number));
}
