//! What changes at the last moment: settings, and minds.

use std::time::Duration;

use voice_otp::settings::Draft;
use voice_otp_schemas::reason::ReasonCode;

use super::bench::{Bench, steps, words};
use crate::memory::sample::{Ask, account, cancelled, draft, number};
use crate::memory::{Answer, Life};

#[tokio::test(start_paused = true)]
async fn another_numbers_calls_settle_nothing() {
    let bench = Bench::new();
    bench
        .caller
        .answers(&number(1), &[Answer::TakesUnheard(Life::default())]);
    let worker = bench.worker_with_directory("one").await;
    worker
        .take(&[Ask::new("acme", "a").living(Duration::from_mins(1))])
        .await;
    while bench.caller.posts().is_empty() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // While the answer is still waited for, the tenant gets another number: its list doesn't show the old one's calls.
    bench.directory.save(
        "acme",
        &Draft {
            from: "+12025550199".to_owned(),
            ..draft(1, 1.0)
        },
    );
    let told = bench.ended("a").await;
    assert_eq!(steps(&told), ["accepted", "failed"]);
    assert_eq!(
        told.last().unwrap().reason.as_ref().unwrap().code,
        ReasonCode::OutcomeUnknown
    );
    assert_eq!(
        bench.caller.posts().len(),
        1,
        "what may have been called is not called again"
    );
}

#[tokio::test(start_paused = true)]
async fn a_tenant_that_moves_to_another_account_goes_on_there() {
    let bench = Bench::new();
    let worker = bench.worker_with_directory("one").await;
    worker
        .take(&[Ask::new("acme", "a"), Ask::new("acme", "b").calling(2)])
        .await;
    bench.until_told("a", "placed").await;
    bench.directory.save("acme", &draft(2, 1.0));
    let told = bench.ended("b").await;
    assert_eq!(
        steps(&told),
        ["accepted", "placed", "ringing", "answered", "delivered"]
    );
    let accounts: Vec<_> = bench
        .caller
        .posts()
        .into_iter()
        .map(|post| post.account)
        .collect();
    assert_eq!(accounts, [account(1), account(2)]);
}

#[tokio::test(start_paused = true)]
async fn what_is_taken_back_a_moment_before_its_post_is_never_sent() {
    let bench = Bench::new();
    // Slots forty milliseconds apart: the second placement begins with its admission, and waits that long.
    bench.tenant("acme", 1, 25.0);
    let worker = bench.worker("one").await;
    worker
        .take(&[Ask::new("acme", "a"), Ask::new("acme", "b").calling(2)])
        .await;
    worker.take_in(&[cancelled("acme", "b", bench.now())]).await;
    assert_eq!(words(&bench.ended("b").await), ["accepted", "cancelled"]);
    assert_eq!(steps(&bench.ended("a").await).last(), Some(&"delivered"));
    assert_eq!(bench.caller.calls_to(&number(2)), 0);
    assert_eq!(bench.caller.posts().len(), 1);
}
