//! Settings that change, and cancellations that arrive, right before or during a POST.

use std::time::Duration;

use voice_otp::settings::Draft;
use voice_otp_schemas::reason::ReasonCode;

use super::test_bench::{TestBench, status_names, steps};
use crate::memory::sample::{Request, account, cancelled, draft, number};
use crate::memory::{Answer, CallTimeline};

#[tokio::test(start_paused = true)]
async fn the_call_list_of_another_from_number_settles_nothing() {
    let bench = TestBench::new();
    bench.telephony.answers(
        &number(1),
        &[Answer::AcceptsSilently(CallTimeline::default())],
    );
    let worker = bench.worker_with_directory("one").await;
    worker
        .accept(&[Request::new("acme", "a").expires_in(Duration::from_mins(1))])
        .await;
    while bench.telephony.posts().is_empty() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // While the POST is unanswered, the tenant gets another From number, whose call list doesn't
    // show the calls of the old one.
    bench.directory.save(
        "acme",
        &Draft {
            from: "+12025550199".to_owned(),
            ..draft(1, 1.0)
        },
    );
    let statuses = bench.until_final("a").await;
    assert_eq!(steps(&statuses), ["accepted", "failed"]);
    assert_eq!(
        statuses.last().unwrap().reason.as_ref().unwrap().code,
        ReasonCode::OutcomeUnknown
    );
    assert_eq!(
        bench.telephony.posts().len(),
        1,
        "a number that may have been called is not called again"
    );
}

#[tokio::test(start_paused = true)]
async fn a_tenant_that_moves_to_another_account_continues_there() {
    let bench = TestBench::new();
    let worker = bench.worker_with_directory("one").await;
    worker
        .accept(&[Request::new("acme", "a"), Request::new("acme", "b").to(2)])
        .await;
    bench.until_status("a", "placed").await;
    bench.directory.save("acme", &draft(2, 1.0));
    let statuses = bench.until_final("b").await;
    assert_eq!(
        steps(&statuses),
        ["accepted", "placed", "ringing", "answered", "delivered"]
    );
    let accounts: Vec<_> = bench
        .telephony
        .posts()
        .into_iter()
        .map(|post| post.account)
        .collect();
    assert_eq!(accounts, [account(1), account(2)]);
}

#[tokio::test(start_paused = true)]
async fn a_delivery_cancelled_right_before_its_post_is_never_sent() {
    let bench = TestBench::new();
    // Slots are 40 ms apart: the second attempt starts with the admission, and waits that long.
    bench.tenant("acme", 1, 25.0);
    let worker = bench.worker("one").await;
    worker
        .accept(&[Request::new("acme", "a"), Request::new("acme", "b").to(2)])
        .await;
    worker.process(&[cancelled("acme", "b", bench.now())]).await;
    assert_eq!(
        status_names(&bench.until_final("b").await),
        ["accepted", "cancelled"]
    );
    assert_eq!(
        steps(&bench.until_final("a").await).last(),
        Some(&"delivered")
    );
    assert_eq!(bench.telephony.calls_to(&number(2)), 0);
    assert_eq!(bench.telephony.posts().len(), 1);
}
