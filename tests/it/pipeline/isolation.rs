//! Isolation between tenants and accounts: pauses, circuits and bulkheads.

use std::time::Duration;

use voice_otp::call::failure::{Class, Fault};
use voice_otp_schemas::TenantId;
use voice_otp_schemas::reason::ReasonCode;

use super::test_bench::{TestBench, status_names, steps};
use crate::memory::sample::{Request, account, key, number};
use crate::memory::{Answer, CallTimeline};

fn id(tenant: &str) -> TenantId {
    TenantId::parse(tenant).unwrap()
}

#[tokio::test(start_paused = true)]
async fn requests_of_a_paused_tenant_are_deferred_and_placed_once_it_is_resumed() {
    let bench = TestBench::new();
    let worker = bench.worker_with_directory("one").await;
    bench.directory.set_tenant_paused(&id("acme"), true);
    worker
        .accept(&[Request::new("acme", "a"), Request::new("acme", "b").to(2)])
        .await;
    tokio::time::sleep(Duration::from_mins(1)).await;
    assert!(bench.telephony.posts().is_empty());
    let statuses = bench.statuses(&key("acme", "a"));
    assert_eq!(status_names(&statuses), ["accepted", "deferred"]);
    assert_eq!(
        statuses[1].reason.as_ref().unwrap().code,
        ReasonCode::Paused
    );
    let resumed = bench.now();
    bench.directory.set_tenant_paused(&id("acme"), false);
    for request in ["a", "b"] {
        assert_eq!(
            steps(&bench.until_final(request).await).last(),
            Some(&"delivered")
        );
    }
    let waits: Vec<i64> = bench
        .post_times()
        .iter()
        .map(|at| (*at - resumed).num_milliseconds())
        .collect();
    assert!(waits[0] < 1_000 && waits[1] < 2_500, "{waits:?}");
}

#[tokio::test(start_paused = true)]
async fn waiting_deliveries_of_a_paused_account_expire_in_time_unless_it_is_resumed() {
    let bench = TestBench::new();
    let worker = bench.worker_with_directory("one").await;
    let requests: Vec<Request> = (0..4)
        .map(|n| Request::new("acme", &format!("r{n}")).to(n))
        .collect();
    worker.accept(&requests).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let start = bench.now();
    bench.directory.set_account_paused(&account(1), true);
    let statuses = bench.until_final("r3").await;
    assert_eq!(status_names(&statuses), ["accepted", "deferred", "expired"]);
    assert_eq!(
        statuses[1].reason.as_ref().unwrap().code,
        ReasonCode::Paused
    );
    assert_eq!(
        statuses[2].reason.as_ref().unwrap().code,
        ReasonCode::ExpiredWaiting
    );
    // The code expires after 3 min, and the latest-start margin is 30 s.
    let waited = (bench.now() - start).num_seconds();
    assert!((148..=150).contains(&waited), "{waited}");
    assert!(
        bench.telephony.posts().is_empty(),
        "the first slot was a second away"
    );
}

#[tokio::test(start_paused = true)]
async fn rejected_credentials_fail_a_tenants_requests_without_a_post_until_twilio_accepts_them() {
    let bench = TestBench::new();
    bench.tenant("bell", 2, 1.0);
    bench.telephony.always(
        &number(1),
        Answer::Fails(Class::Permanent(Fault::Credentials)),
    );
    let worker = bench.worker_with_directory("one").await;
    worker.accept(&[Request::new("acme", "a")]).await;
    assert_eq!(
        status_names(&bench.until_final("a").await),
        ["accepted", "failed"]
    );
    for n in 0..20 {
        let request = Request::new("acme", &format!("b{n}")).to(10 + n);
        worker.accept(std::slice::from_ref(&request)).await;
        let statuses = bench.until_final_of(&request.key()).await;
        assert_eq!(
            (
                status_names(&statuses),
                statuses[0].reason.as_ref().unwrap().code
            ),
            (vec!["failed"], ReasonCode::TenantCredentials)
        );
    }
    assert_eq!(bench.telephony.posts().len(), 1, "one POST was enough");
    worker.accept(&[Request::new("bell", "a").to(90)]).await;
    assert_eq!(
        steps(&bench.until_final_of(&key("bell", "a")).await).last(),
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
    // The probe succeeds, since Twilio answers a query for calls: the circuit closes after about a
    // minute.
    tokio::time::sleep(Duration::from_secs(70)).await;
    worker.accept(&[Request::new("acme", "c").to(40)]).await;
    assert_eq!(
        steps(&bench.until_final("c").await).last(),
        Some(&"delivered")
    );
}

#[tokio::test(start_paused = true)]
async fn failures_of_an_account_open_its_circuit_and_a_successful_call_closes_it() {
    let mut bench = TestBench::new();
    bench.tuning.absence_after = Duration::from_secs(2);
    bench.tenant("acme", 1, 10.0);
    for n in (0..5).chain(20..25) {
        bench
            .telephony
            .answers(&number(n), &[Answer::Fails(Class::Transient)]);
    }
    let (first, second) = (bench.worker("one").await, bench.worker("two").await);
    let requests: Vec<Request> = (0..40)
        .map(|n| Request::new("acme", &format!("r{n}")).to(n))
        .collect();
    first.accept(&requests[..20]).await;
    second.accept(&requests[20..]).await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    let posts = bench.telephony.posts().len();
    assert!(
        (5..=14).contains(&posts),
        "{posts} POSTs until both workers stopped"
    );
    for request in &requests {
        assert_eq!(
            steps(&bench.until_final_of(&request.key()).await).last(),
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
async fn an_account_that_does_not_answer_leaves_permits_for_the_others() {
    let mut bench = TestBench::new();
    bench.tuning.attempt_permits = 32;
    bench.tenant("slow", 2, 1_000.0);
    bench.tenant("fast", 3, 1_000.0);
    for n in 0..200 {
        bench.telephony.always(&number(n), Answer::DropsSilently);
    }
    let worker = bench.worker("one").await;
    let slow: Vec<Request> = (0..200)
        .map(|n| Request::new("slow", &format!("s{n}")).to(n))
        .collect();
    worker.accept(&slow).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let start = bench.now();
    let fast: Vec<Request> = (0..16)
        .map(|n| Request::new("fast", &format!("f{n}")).to(1_000 + n))
        .collect();
    worker.accept(&fast).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let posts = bench.telephony.posts();
    let received = posts
        .iter()
        .filter(|post| post.account == account(3))
        .count();
    assert_eq!(received, 16, "all of them at once");
    assert!(
        posts
            .iter()
            .filter(|post| post.account == account(2))
            .count()
            <= 16,
        "the slow account uses only its half"
    );
    assert!((bench.now() - start).num_milliseconds() <= 300);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_twilio_would_queue_past_the_codes_expiry_is_cancelled_at_once() {
    let bench = TestBench::new();
    let held = CallTimeline {
        queued: Duration::from_mins(10),
        ..CallTimeline::default()
    };
    bench
        .telephony
        .answers(&number(1), &[Answer::Accepts(held)]);
    let worker = bench.worker("one").await;
    let start = bench.now();
    worker.accept(&[Request::new("acme", "a")]).await;
    let statuses = bench.until_final("a").await;
    assert_eq!(status_names(&statuses), ["accepted", "placed", "expired"]);
    assert_eq!(
        statuses[2].reason.as_ref().unwrap().code,
        ReasonCode::ProviderQueue
    );
    assert!(
        (bench.now() - start).num_seconds() < 5,
        "before the code expires"
    );
}

#[tokio::test(start_paused = true)]
async fn when_permits_are_short_the_earliest_deadline_goes_first() {
    let mut bench = TestBench::new();
    bench.tuning.attempt_permits = 1;
    bench.telephony.set_latency(Duration::from_secs(2));
    for (n, tenant) in (1..).zip(["one", "two", "three", "four"]) {
        bench.tenant(tenant, n, 100.0);
    }
    let worker = bench.worker("one").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    worker.accept(&[Request::new("one", "a").to(1)]).await;
    let lives = [("two", 2, 170), ("three", 3, 80), ("four", 4, 120)];
    for (tenant, n, life) in lives {
        worker
            .accept(&[Request::new(tenant, "a")
                .to(n)
                .expires_in(Duration::from_secs(life))])
            .await;
    }
    for (tenant, ..) in lives {
        bench.until_final_of(&key(tenant, "a")).await;
    }
    let called: Vec<String> = bench
        .telephony
        .posts()
        .iter()
        .map(|post| post.to.expose().to_owned())
        .collect();
    assert_eq!(called, [1, 3, 4, 2].map(number));
}
