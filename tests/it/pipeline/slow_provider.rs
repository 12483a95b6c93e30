//! A Twilio that is slow: it is given less, and no one is called twice.

use std::collections::BTreeMap;
use std::time::Duration;

use super::test_bench::{TestBench, requests, status_names};
use crate::memory::Answer;
use crate::memory::sample::{account, number};

const POST_TIMEOUT: Duration = Duration::from_secs(15);

#[tokio::test(start_paused = true)]
async fn a_post_that_is_lost_among_prompt_ones_is_repeated_while_its_code_lives() {
    let bench = TestBench::new();
    bench.tenant("acme", 1, 50.0);
    bench.telephony.set_silence(POST_TIMEOUT);
    bench
        .telephony
        .answers(&number(10), &[Answer::DropsSilently]);
    let worker = bench.worker("one").await;
    let start = bench.now();
    worker.accept(&requests(20)).await;
    let statuses = bench.until_final("r10").await;
    assert_eq!(status_names(&statuses).last(), Some(&"delivered"));
    assert_eq!(bench.telephony.calls_to(&number(10)), 1);
    let repeated = bench.telephony.posts().last().unwrap().at - start;
    assert!(
        (50..90).contains(&repeated.num_seconds()),
        "repeated after {repeated}"
    );
}

/// How many calls were made to the number that was called most often.
fn most_calls(bench: &TestBench) -> usize {
    let mut calls = BTreeMap::new();
    for (to, ..) in bench.telephony.intervals() {
        *calls.entry(to).or_insert(0) += 1;
    }
    calls.into_values().max().unwrap_or_default()
}

#[tokio::test(start_paused = true)]
async fn a_twilio_of_fixed_capacity_is_kept_busy_and_calls_no_one_twice() {
    const CAPACITY: f64 = 4.0;
    let bench = TestBench::new();
    bench.tenant("acme", 1, 100.0);
    bench.telephony.set_silence(POST_TIMEOUT);
    bench.telephony.set_capacity(Some(CAPACITY));
    let worker = bench.worker("one").await;
    let requests = requests(600);
    let began = tokio::time::Instant::now();
    // Some 2.5 times of what Twilio can do, for a minute.
    for group in requests.chunks(10) {
        worker.accept(group).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let (elapsed, now) = (began.elapsed().as_secs_f64(), bench.now());
    // Those that Twilio has accepted and not made yet are left out.
    let calls = bench.telephony.intervals().into_iter();
    let made = calls.filter(|(_, from, _)| *from <= now).count();
    assert!(
        made as f64 >= 0.9 * CAPACITY * elapsed,
        "{made} calls in {elapsed} s"
    );
    for request in &requests {
        let statuses = bench.until_final_of(&request.key()).await;
        let last = status_names(&statuses).last().copied();
        assert!(
            matches!(last, Some("delivered" | "expired")),
            "{statuses:?}"
        );
    }
    assert_eq!(most_calls(&bench), 1);
    let posts = bench.telephony.posts();
    for (to, made_at, _) in bench.telephony.intervals() {
        let post = posts.iter().find(|post| post.to.expose() == to).unwrap();
        let waited = (made_at - post.at).to_std().unwrap();
        assert!(waited < POST_TIMEOUT * 2 / 3, "a POST waited {waited:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn no_one_is_called_twice_however_late_twilio_carries_out_what_it_was_sent() {
    for late in [20, 40, 90, 200] {
        let bench = TestBench::new();
        bench.tenant("acme", 1, 20.0);
        bench.telephony.set_silence(POST_TIMEOUT);
        let until = bench.now() + Duration::from_secs(late);
        bench.telephony.stall_until(&[account(1)], until);
        let worker = bench.worker("one").await;
        let requests = requests(40);
        for group in requests.chunks(5) {
            worker.accept(group).await;
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
        for request in &requests {
            bench.until_final_of(&request.key()).await;
        }
        tokio::time::sleep(Duration::from_mins(5)).await;
        assert_eq!(most_calls(&bench), 1, "{late} s late");
    }
}
