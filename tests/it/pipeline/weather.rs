//! Everything at once, by chance: workers are killed, the ledger and the sink come and go, answers are lost, Twilio is
//! in trouble. What is promised holds all the same.

use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::task::JoinHandle;
use voice_otp::engine::Disposition;
use voice_otp::failure::{Class, Fault};
use voice_otp::progress::CallStatus;
use voice_otp_schemas::Timestamp;

use super::bench::{Bench, Worker, first_appearances};
use crate::memory::sample::{Ask, account, number};
use crate::memory::{Answer, Life, Then, Trouble};

/// How many days of bad weather.
const SEEDS: u64 = 10;
const REQUESTS: usize = 40;
/// Tenant, account, calls a second of the account.
const TENANTS: [(&str, u32, f64); 3] = [("acme", 1, 2.0), ("bell", 1, 2.0), ("coop", 2, 1.0)];

/// A request, when it was published, and the last moment for its POST.
struct Published {
    ask: Ask,
    to: String,
    at: Timestamp,
    place_by: Timestamp,
}

#[tokio::test(start_paused = true)]
async fn in_any_weather_every_request_ends_once_and_nobody_is_called_twice() {
    for seed in 0..SEEDS {
        storm(seed).await;
    }
}

async fn storm(seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let bench = Bench::new();
    for (name, account, pace) in TENANTS {
        bench.tenant(name, account, pace);
    }
    let mut workers = vec![
        bench.worker("worker 0").await,
        bench.worker("worker 1").await,
    ];
    let (mut published, mut taking) = (Vec::new(), Vec::new());
    let mut born = 2;
    while published.len() < REQUESTS {
        let group: Vec<Published> = (0..rng.random_range(1..5))
            .map(|n| publish(&bench, &mut rng, published.len() + n))
            .collect();
        taking.push(take(&workers[rng.random_range(0..workers.len())], &group));
        published.extend(group);
        tokio::time::sleep(Duration::from_millis(rng.random_range(0..4_000))).await;
        match rng.random_range(0..8) {
            0 => bench.sink.set_down(true),
            1 | 2 => bench.sink.set_down(false),
            3 => {
                bench.ledger.meet(Trouble::Away);
                tokio::time::sleep(Duration::from_millis(rng.random_range(0..8_000))).await;
                bench.ledger.meet(Trouble::None);
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
                workers.push(bench.worker(&format!("worker {born}")).await);
                born += 1;
            }
            _ => {}
        }
    }
    bench.ledger.lose_every(0);
    bench.sink.set_down(false);
    for taken in taking {
        taken.await.expect("taking in doesn't panic");
    }
    // A broker gives what was not acknowledged to another worker; here simply everything again.
    let last = bench.worker("the last").await;
    for one in &published {
        assert_eq!(
            last.take_in(&[one.ask.incoming(one.at)]).await,
            [Disposition::Done],
            "seed {seed}"
        );
    }
    for one in &published {
        bench.ended_with_repeats(&one.ask.key()).await;
    }
    // Time for a second ending or a late call, should there be one.
    tokio::time::sleep(Duration::from_mins(10)).await;
    check(&bench, seed, &published);
    for worker in workers.into_iter().chain([last]) {
        worker.stop().await;
    }
}

fn check(bench: &Bench, seed: u64, published: &[Published]) {
    let told = first_appearances(&bench.sink.events());
    assert_eq!(told.len(), published.len(), "seed {seed}");
    for one in published {
        let key = one.ask.key();
        let sequences: Vec<u32> = told[&key].iter().map(|event| event.sequence).collect();
        assert_eq!(
            sequences,
            (1..).take(sequences.len()).collect::<Vec<u32>>(),
            "seed {seed}, {key}: in order, no gap"
        );
        let finals = told[&key].iter().filter(|event| event.is_final()).count();
        assert_eq!(finals, 1, "seed {seed}, {key}: one ending");
        assert!(
            bench.caller.calls_to(&one.to) <= 1,
            "seed {seed}, {key}: nobody is called twice"
        );
    }
    // An event that is published again is the same, byte for byte.
    for event in bench.sink.events() {
        let first = told[&event.key]
            .iter()
            .find(|first| first.sequence == event.sequence);
        assert_eq!(first, Some(&event), "seed {seed}");
    }
    for post in bench.caller.posts() {
        let one = published
            .iter()
            .find(|one| one.to == post.to.expose())
            .expect("it was asked for");
        assert!(
            post.at <= one.place_by + Duration::from_millis(10),
            "seed {seed}: a POST after its last moment"
        );
    }
    for (n, pace) in [(1, 2.0), (2, 1.0)] {
        let posts = bench.caller.posts();
        let mut times: Vec<Timestamp> = posts
            .iter()
            .filter(|post| post.account == account(n))
            .map(|post| post.at)
            .collect();
        times.sort();
        // A slot may be used up to a fifth of a second late.
        let least = Duration::from_secs_f64(1.0 / pace)
            .checked_sub(Duration::from_millis(220))
            .unwrap();
        let shortest = times
            .windows(2)
            .map(|pair| (pair[1] - pair[0]).to_std().unwrap())
            .min();
        assert!(
            shortest.is_none_or(|shortest| shortest >= least),
            "seed {seed}: account {n} was called after {shortest:?}"
        );
    }
    assert_eq!(
        bench.ledger.outbox_len(),
        0,
        "seed {seed}: all is published and forgotten"
    );
}

fn publish(bench: &Bench, rng: &mut StdRng, n: usize) -> Published {
    let n = u32::try_from(n).unwrap();
    let (tenant, ..) = TENANTS[rng.random_range(0..TENANTS.len())];
    let life = Duration::from_secs(rng.random_range(40..300));
    for _ in 0..rng.random_range(0..3) {
        bench.caller.answers(&number(n), &[trouble(rng)]);
    }
    bench
        .caller
        .answers(&number(n), &[Answer::Takes(some_life(rng))]);
    let at = bench.now();
    let place_by = at + life - Duration::from_secs(30);
    Published {
        ask: Ask::new(tenant, &format!("r{n}")).calling(n).living(life),
        to: number(n),
        at,
        place_by,
    }
}

/// Has a worker take requests in, for as long as that takes.
fn take(worker: &Worker, group: &[Published]) -> JoinHandle<Vec<Disposition>> {
    let engine = Arc::clone(&worker.engine);
    let group: Vec<_> = group
        .iter()
        .map(|one| one.ask.incoming(one.at).into())
        .collect();
    tokio::task::spawn(async move { engine.take_in(&group).await })
}

fn trouble(rng: &mut StdRng) -> Answer {
    match rng.random_range(0..12) {
        0..4 => Answer::Fails(Class::Transient),
        4 => Answer::Fails(Class::Congested),
        5 => Answer::Fails(Class::Throttled(None)),
        6 => Answer::Fails(Class::Throttled(Some(Duration::from_secs(
            rng.random_range(1..4),
        )))),
        7 => Answer::Fails(Class::Permanent(Fault::Destination)),
        8..10 => Answer::TakesUnheard(some_life(rng)),
        _ => Answer::Loses,
    }
}

fn some_life(rng: &mut StdRng) -> Life {
    let then = match rng.random_range(0..6) {
        0 => Then::Ends(CallStatus::Busy),
        1 => Then::Ends(CallStatus::NoAnswer),
        _ => Then::Talks(Duration::from_secs(rng.random_range(1..60))),
    };
    Life {
        queued: Duration::from_millis(rng.random_range(0..3_000)),
        rings: Duration::from_secs(rng.random_range(0..20)),
        then,
    }
}
