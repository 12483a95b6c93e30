//! A backlog of 300,000 deliveries: what changes an account's pace writes one row.

use std::time::{Duration, Instant};

use voice_otp::ports::Ledger as _;
use voice_otp_store::accounts;

use super::{Bench, account, median};

/// The most that a change may take.
const AT_ONCE: Duration = Duration::from_secs(1);
const BACKLOG: u32 = 300_000;

/// How many transactions wrote the deliveries.
const WRITERS: &str = "select count(distinct xmin::text) from deliveries where tenant_id = 'acme'";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_pace_takes_effect_at_once_and_rewrites_no_delivery() {
    let bench = Bench::new().await;
    let acme = bench.tenant("acme", 1, 90.0).await;
    let other = bench.tenant("other", 2, 1000.0).await;
    let (ledger, pool) = (&bench.ledger, &bench.pool);
    // Everything is planned while the tables are empty.
    bench.admit(&other, 0..20).await;
    assert!(ledger.claim_due(bench.worker, 200).await.is_ok());
    accounts::set_rate(pool, account(&acme), 100.0)
        .await
        .unwrap();
    ledger
        .throttle_account(&acme.pace_key, Duration::from_millis(1))
        .await
        .unwrap();
    ledger.open_circuit(&acme.pace_key).await.unwrap();
    ledger.close_circuit(&acme.pace_key).await.unwrap();
    let mut quiet = Vec::new();
    for n in 1..100 {
        quiet.push(bench.admit(&other, n * 100..n * 100 + 20).await);
    }
    bench
        .execute("update pacing set hold_until = '-infinity', queue_until = null")
        .await;
    bench.insert_waiting(&acme, BACKLOG).await;
    assert_eq!(bench.number(WRITERS).await, 1);

    let mut busy = Vec::new();
    let changes = ["pause", "resume", "rate", "hold", "open", "close"];
    for (n, change) in (100..).zip(changes) {
        let began = Instant::now();
        match change {
            "pause" => drop(
                accounts::set_paused(pool, account(&acme), true)
                    .await
                    .unwrap(),
            ),
            "resume" => drop(
                accounts::set_paused(pool, account(&acme), false)
                    .await
                    .unwrap(),
            ),
            "rate" => {
                let changed = accounts::set_rate(pool, account(&acme), 50.0).await;
                changed.unwrap();
            }
            "hold" => {
                let wait = Duration::from_millis(500);
                ledger.throttle_account(&acme.pace_key, wait).await.unwrap();
            }
            "open" => drop(ledger.open_circuit(&acme.pace_key).await.unwrap()),
            _ => ledger.close_circuit(&acme.pace_key).await.unwrap(),
        }
        let took = began.elapsed();
        eprintln!("{change} with {BACKLOG} waiting: {took:?}");
        assert!(took < AT_ONCE, "{change}: {took:?}");
        for k in 0..17 {
            let first = n * 10_000 + k * 100;
            busy.push(bench.admit(&other, first..first + 20).await);
        }
    }
    assert_eq!(bench.number(WRITERS).await, 1, "no delivery is rewritten");
    quiet.sort();
    busy.sort();
    eprintln!(
        "admitting 20 of another account, the slowest of a hundred: {:?} before, {:?} meanwhile",
        quiet[98],
        busy[busy.len() - 2]
    );
    let (quiet, busy) = (median(quiet), median(busy));
    eprintln!("and the median: {quiet:?} before, {busy:?} meanwhile");
    assert!(
        busy < quiet * 3 + Duration::from_millis(5),
        "{quiet:?}, {busy:?}"
    );

    // The slots are given in the order of admission, at the present rate.
    let epoch = format!(
        "select epoch from pacing where pace_key = '{}'",
        acme.pace_key
    );
    let epoch = bench.number(&epoch).await;
    bench
        .execute("update pacing set hold_until = '-infinity'")
        .await;
    let began = Instant::now();
    let mut given = ledger.claim_due(bench.worker, 200).await.unwrap();
    given.extend(ledger.claim_due(bench.worker, 200).await.unwrap());
    eprintln!(
        "the first two claims, one of which counts: {:?}",
        began.elapsed()
    );
    given.retain(|row| row.slot.is_some_and(|slot| slot.epoch == epoch));
    given.sort_by_key(|row| row.slot.map(|slot| slot.at));
    assert!(
        given.len() > 20,
        "a second and a half at 50 per second: {}",
        given.len()
    );
    for (n, pair) in (1..).zip(given.windows(2)) {
        let [one, next] = pair else { panic!("two") };
        assert_eq!(one.key.delivery_id.as_str(), format!("waiting-{n}"));
        let distance = next.slot.unwrap().at - one.slot.unwrap().at;
        assert!(distance.num_microseconds().unwrap() >= 20_000, "{distance}");
    }
    let mut claims = Vec::new();
    for _ in 0..20 {
        let began = Instant::now();
        ledger.claim_due(bench.worker, 200).await.unwrap();
        claims.push(began.elapsed());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let claim = median(claims);
    eprintln!("a claim with {BACKLOG} waiting: {claim:?}");
    assert!(claim < Duration::from_millis(300), "{claim:?}");
    bench.stop().await;
}

#[tokio::test]
async fn while_only_workers_of_the_previous_release_run_new_slots_are_given_at_once() {
    let bench = Bench::new().await;
    let acme = bench.tenant("acme", 1, 100.0).await;
    bench.admit(&acme, 0..1).await;
    bench.insert_waiting(&acme, 500).await;
    let with_new_slots = "select count(*) from deliveries d join pacing p using (pace_key) \
                           where d.state = 'waiting' and d.slot_epoch = p.epoch";
    let wait = Duration::from_secs(30);
    bench
        .execute("update workers set gives_slots = false")
        .await;
    bench
        .ledger
        .throttle_account(&acme.pace_key, wait)
        .await
        .unwrap();
    assert_eq!(bench.number(with_new_slots).await, 501);
    bench.execute("update workers set gives_slots = true").await;
    bench
        .ledger
        .throttle_account(&acme.pace_key, 2 * wait)
        .await
        .unwrap();
    assert_eq!(
        bench.number(with_new_slots).await,
        0,
        "the queue gives them"
    );
    bench.stop().await;
}
