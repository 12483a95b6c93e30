//! Publisher authorization.

use voice_otp::engine::{DeadLetterReason, Disposition};
use voice_otp::settings::Draft;

use super::test_bench::{TestBench, steps};
use crate::memory::sample::{Request, cancelled, draft, verified};

/// Restricts `acme` to the publisher `auth-login`.
fn restrict(bench: &TestBench) {
    let draft = Draft {
        publishers: vec!["auth-login".to_owned()],
        ..draft(1, 1.0)
    };
    let settings = bench.directory.save("acme", &draft);
    bench.directory.verify_credentials(&settings);
}

const NOT_ALLOWED: Disposition = Disposition::DeadLetter(DeadLetterReason::PublisherNotAllowed);

#[tokio::test(start_paused = true)]
async fn a_publisher_not_on_the_list_can_neither_claim_ids_nor_trigger_statuses() {
    let bench = TestBench::new();
    restrict(&bench);
    let worker = bench.worker("one").await;
    let request = Request::new("acme", "mine");
    for publisher in [None, Some("shop"), Some("AUTH-LOGIN")] {
        assert_eq!(
            worker
                .process_from(
                    publisher,
                    &[request.clone().code("666666").incoming(bench.now())]
                )
                .await,
            [NOT_ALLOWED]
        );
    }
    assert_eq!(
        worker
            .process_from(Some("auth-login"), &[request.incoming(bench.now())])
            .await,
        [Disposition::Acknowledge]
    );
    assert_eq!(
        steps(&bench.until_final("mine").await),
        ["accepted", "placed", "ringing", "answered", "delivered"]
    );
    assert_eq!(
        bench.sink.events().len(),
        5,
        "the refused requests have no statuses"
    );
}

#[tokio::test(start_paused = true)]
async fn a_publisher_not_on_the_list_can_cancel_nothing() {
    let bench = TestBench::new();
    restrict(&bench);
    let worker = bench.worker("one").await;
    let request = Request::new("acme", "mine");
    assert_eq!(
        worker
            .process_from(Some("auth-login"), &[request.incoming(bench.now())])
            .await,
        [Disposition::Acknowledge]
    );
    let now = bench.now();
    let events = [
        cancelled("acme", "mine", now),
        verified("acme", "mine", now),
    ];
    assert_eq!(
        worker.process_from(Some("shop"), &events).await,
        [NOT_ALLOWED; 2]
    );
    assert_eq!(
        steps(&bench.until_final("mine").await).last(),
        Some(&"delivered")
    );
}

#[tokio::test(start_paused = true)]
async fn a_tenant_without_a_list_accepts_every_publisher_even_in_a_mixed_batch() {
    let bench = TestBench::new();
    restrict(&bench);
    bench.tenant("bell", 2, 1.0);
    let worker = bench.worker("one").await;
    let group = [
        Request::new("acme", "a").incoming(bench.now()),
        Request::new("bell", "b").to(2).incoming(bench.now()),
    ];
    assert_eq!(
        worker.process_from(Some("shop"), &group).await,
        [NOT_ALLOWED, Disposition::Acknowledge]
    );
}
