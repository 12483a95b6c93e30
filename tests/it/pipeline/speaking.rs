//! Who may speak for a tenant.

use voice_otp::engine::{Dead, Disposition};
use voice_otp::settings::Draft;

use super::bench::{Bench, steps};
use crate::memory::sample::{Ask, cancelled, draft, verified};

/// A tenant for which `auth-login` alone may speak.
fn closed(bench: &Bench) {
    let draft = Draft {
        publishers: vec!["auth-login".to_owned()],
        ..draft(1, 1.0)
    };
    let settings = bench.directory.save("acme", &draft);
    bench.directory.prove(&settings);
}

const NOT_ALLOWED: Disposition = Disposition::Dead(Dead::PublisherNotAllowed);

#[tokio::test(start_paused = true)]
async fn a_stranger_neither_takes_a_tenants_ids_nor_speaks_in_its_statuses() {
    let bench = Bench::new();
    closed(&bench);
    let worker = bench.worker("one").await;
    let ask = Ask::new("acme", "mine");
    for stranger in [None, Some("shop"), Some("AUTH-LOGIN")] {
        assert_eq!(
            worker
                .take_in_from(
                    stranger,
                    &[ask.clone().reading("666666").incoming(bench.now())]
                )
                .await,
            [NOT_ALLOWED]
        );
    }
    assert_eq!(
        worker
            .take_in_from(Some("auth-login"), &[ask.incoming(bench.now())])
            .await,
        [Disposition::Done]
    );
    assert_eq!(
        steps(&bench.ended("mine").await),
        ["accepted", "placed", "ringing", "answered", "delivered"]
    );
    assert_eq!(
        bench.sink.events().len(),
        5,
        "nothing was said of the stranger's"
    );
}

#[tokio::test(start_paused = true)]
async fn a_stranger_takes_nothing_back() {
    let bench = Bench::new();
    closed(&bench);
    let worker = bench.worker("one").await;
    let ask = Ask::new("acme", "mine");
    assert_eq!(
        worker
            .take_in_from(Some("auth-login"), &[ask.incoming(bench.now())])
            .await,
        [Disposition::Done]
    );
    let now = bench.now();
    let strangers = [
        cancelled("acme", "mine", now),
        verified("acme", "mine", now),
    ];
    assert_eq!(
        worker.take_in_from(Some("shop"), &strangers).await,
        [NOT_ALLOWED; 2]
    );
    assert_eq!(steps(&bench.ended("mine").await).last(), Some(&"delivered"));
}

#[tokio::test(start_paused = true)]
async fn a_tenant_without_a_list_is_open_and_one_group_holds_both_kinds() {
    let bench = Bench::new();
    closed(&bench);
    bench.tenant("bell", 2, 1.0);
    let worker = bench.worker("one").await;
    let group = [
        Ask::new("acme", "a").incoming(bench.now()),
        Ask::new("bell", "b").calling(2).incoming(bench.now()),
    ];
    assert_eq!(
        worker.take_in_from(Some("shop"), &group).await,
        [NOT_ALLOWED, Disposition::Done]
    );
}
