//! Random faults, all at once: workers are killed, the ledger and the sink become unreachable,
//! answers are lost, and Twilio fails. Every guarantee holds.

use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::task::JoinHandle;
use voice_otp::call::CallStatus;
use voice_otp::call::failure::{Class, Fault};
use voice_otp::engine::Disposition;
use voice_otp_schemas::Timestamp;

use super::test_bench::{TestBench, Worker, without_duplicates};
use crate::memory::sample::{Request, account, number};
use crate::memory::{Answer, CallEnd, CallTimeline, Outage};

/// The number of runs.
const SEEDS: u64 = 10;
const REQUESTS: usize = 40;
/// Tenant, account, and the account's calls per second.
const TENANTS: [(&str, u32, f64); 3] = [("acme", 1, 2.0), ("bell", 1, 2.0), ("coop", 2, 1.0)];

/// A request, when it was published, and its deadline.
struct Published {
    request: Request,
    to: String,
    at: Timestamp,
    place_by: Timestamp,
}

#[tokio::test(start_paused = true)]
async fn under_random_faults_every_request_finishes_once_and_no_user_is_called_twice() {
    for seed in 0..SEEDS {
        run_with_faults(seed).await;
    }
}

async fn run_with_faults(seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let bench = TestBench::new();
    for (name, account, pace) in TENANTS {
        bench.tenant(name, account, pace);
    }
    let mut workers = vec![
        bench.worker("worker 0").await,
        bench.worker("worker 1").await,
    ];
    let (mut published, mut processing) = (Vec::new(), Vec::new());
    let mut started = 2;
    while published.len() < REQUESTS {
        let group: Vec<Published> = (0..rng.random_range(1..5))
            .map(|n| publish(&bench, &mut rng, published.len() + n))
            .collect();
        processing.push(process(
            &workers[rng.random_range(0..workers.len())],
            &group,
        ));
        published.extend(group);
        tokio::time::sleep(Duration::from_millis(rng.random_range(0..4_000))).await;
        match rng.random_range(0..8) {
            0 => bench.sink.set_down(true),
            1 | 2 => bench.sink.set_down(false),
            3 => {
                bench.ledger.set_outage(Outage::Unreachable);
                tokio::time::sleep(Duration::from_millis(rng.random_range(0..8_000))).await;
                bench.ledger.set_outage(Outage::None);
            }
            4 => bench.ledger.lose_every(rng.random_range(5..30)),
            5 => bench.ledger.lose_every(0),
            6 => {
                bench.ledger.lose_every(0);
                let (end, killed) = (rng.random_bool(0.5), workers.remove(0));
                if end {
                    killed.kill().await;
                } else {
                    killed.stop_within(Duration::from_secs(20)).await;
                }
                workers.push(bench.worker(&format!("worker {started}")).await);
                started += 1;
            }
            _ => {}
        }
    }
    bench.ledger.lose_every(0);
    bench.sink.set_down(false);
    for task in processing {
        task.await.expect("processing doesn't panic");
    }
    // A broker redelivers unacknowledged messages; this test redelivers all of them.
    let last = bench.worker("the last").await;
    for one in &published {
        assert_eq!(
            last.process(&[one.request.incoming(one.at)]).await,
            [Disposition::Acknowledge],
            "seed {seed}"
        );
    }
    for one in &published {
        bench.until_final_with_duplicates(&one.request.key()).await;
    }
    // Time for a second final status or a late call to appear.
    tokio::time::sleep(Duration::from_mins(10)).await;
    check(&bench, seed, &published);
    for worker in workers.into_iter().chain([last]) {
        worker.stop().await;
    }
}

fn check(bench: &TestBench, seed: u64, published: &[Published]) {
    let statuses = without_duplicates(&bench.sink.events());
    assert_eq!(statuses.len(), published.len(), "seed {seed}");
    for one in published {
        let key = one.request.key();
        let sequences: Vec<u32> = statuses[&key].iter().map(|event| event.sequence).collect();
        assert_eq!(
            sequences,
            (1..).take(sequences.len()).collect::<Vec<u32>>(),
            "seed {seed}, {key}: in order, without a gap"
        );
        let finals = statuses[&key]
            .iter()
            .filter(|event| event.is_final())
            .count();
        assert_eq!(finals, 1, "seed {seed}, {key}: one final status");
        assert!(
            bench.telephony.calls_to(&one.to) <= 1,
            "seed {seed}, {key}: no user is called twice"
        );
    }
    // An event that is published again is the same, byte for byte.
    for event in bench.sink.events() {
        let first = statuses[&event.key]
            .iter()
            .find(|first| first.sequence == event.sequence);
        assert_eq!(first, Some(&event), "seed {seed}");
    }
    for post in bench.telephony.posts() {
        let one = published
            .iter()
            .find(|one| one.to == post.to.expose())
            .expect("the number was requested");
        assert!(
            post.at <= one.place_by + Duration::from_millis(10),
            "seed {seed}: a POST after its deadline"
        );
    }
    for (n, pace) in [(1, 2.0), (2, 1.0)] {
        let posts = bench.telephony.posts();
        let mut times: Vec<Timestamp> = posts
            .iter()
            .filter(|post| post.account == account(n))
            .map(|post| post.at)
            .collect();
        times.sort();
        // A slot may be used up to 200 ms late.
        let least = Duration::from_secs_f64(1.0 / pace)
            .checked_sub(Duration::from_millis(220))
            .unwrap();
        let shortest = times
            .windows(2)
            .map(|pair| (pair[1] - pair[0]).to_std().unwrap())
            .min();
        assert!(
            shortest.is_none_or(|shortest| shortest >= least),
            "seed {seed}: account {n} placed two calls within {shortest:?}"
        );
    }
    assert_eq!(
        bench.ledger.outbox_len(),
        0,
        "seed {seed}: the outbox is empty"
    );
}

fn publish(bench: &TestBench, rng: &mut StdRng, n: usize) -> Published {
    let n = u32::try_from(n).unwrap();
    let (tenant, ..) = TENANTS[rng.random_range(0..TENANTS.len())];
    let life = Duration::from_secs(rng.random_range(40..300));
    for _ in 0..rng.random_range(0..3) {
        bench.telephony.answers(&number(n), &[random_failure(rng)]);
    }
    bench
        .telephony
        .answers(&number(n), &[Answer::Accepts(random_timeline(rng))]);
    let at = bench.now();
    let place_by = at + life - Duration::from_secs(30);
    Published {
        request: Request::new(tenant, &format!("r{n}"))
            .to(n)
            .expires_in(life),
        to: number(n),
        at,
        place_by,
    }
}

/// Starts a task in which a worker processes requests.
fn process(worker: &Worker, group: &[Published]) -> JoinHandle<Vec<Disposition>> {
    let engine = Arc::clone(&worker.engine);
    let group: Vec<_> = group
        .iter()
        .map(|one| one.request.incoming(one.at).into())
        .collect();
    tokio::task::spawn(async move { engine.process(&group).await })
}

fn random_failure(rng: &mut StdRng) -> Answer {
    match rng.random_range(0..12) {
        0..4 => Answer::Fails(Class::Transient),
        4 => Answer::Fails(Class::Congested),
        5 => Answer::Fails(Class::Throttled(None)),
        6 => Answer::Fails(Class::Throttled(Some(Duration::from_secs(
            rng.random_range(1..4),
        )))),
        7 => Answer::Fails(Class::Permanent(Fault::Destination)),
        8..10 => Answer::AcceptsSilently(random_timeline(rng)),
        _ => Answer::DropsSilently,
    }
}

fn random_timeline(rng: &mut StdRng) -> CallTimeline {
    let end = match rng.random_range(0..6) {
        0 => CallEnd::Unanswered(CallStatus::Busy),
        1 => CallEnd::Unanswered(CallStatus::NoAnswer),
        _ => CallEnd::Answered(Duration::from_secs(rng.random_range(1..60))),
    };
    CallTimeline {
        queued: Duration::from_millis(rng.random_range(0..3_000)),
        ringing: Duration::from_secs(rng.random_range(0..20)),
        end,
    }
}
